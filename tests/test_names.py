"""Names in other spellings, by hand; tests/test_competition.py has whole competitions."""

import os

import pytest

from input.names import file_key, likely_files, match_files, respell

NFC, NFD = "caf\u00e9.wav", "cafe\u0301.wav"


def test_names_get_the_known_spelling() -> None:
    assert respell([NFD, "a", "b"], [NFC, "a", "A"]) == [NFC, "a", "b"]
    assert respell([NFC, NFD], [NFC, NFD]) == [NFC, NFD], "the exact one wins"
    assert respell([NFD], []) == [NFD]


@pytest.mark.parametrize(
    ("names", "there", "found"),
    [
        (["a.wav"], ["a.wav", "a.WAV"], {"a.wav": "a.wav"}),
        (["a.wav"], ["a.WAV"], {"a.wav": "a.WAV"}),
        (["a.WAV"], ["a.wav"], {"a.WAV": "a.wav"}),
        ([NFC], [NFD], {NFC: NFD}),
        ([NFD], [NFC.replace("wav", "Wav")], {NFD: NFC.replace("wav", "Wav")}),
        (["A.wav"], ["a.wav"], {}),  # two clips may differ so
        (["a"], ["A"], {}),
        (["a"], ["a.wav"], {}),
        (["a.wav"], ["a.WAV", "a.Wav"], {}),  # which one?
        (["a.WAV", "a.Wav"], ["a.wav"], {}),
        (["a.wav", "a.WAV"], ["a.WAV"], {"a.WAV": "a.WAV"}),
        (["a.wav", "a.WAV"], ["a.WAV", "a.Wav"], {"a.WAV": "a.WAV", "a.wav": "a.Wav"}),
        ([], ["a.wav"], {}),
    ],
)
def test_files_by_names(names: list[str], there: list[str], found: dict[str, str]) -> None:
    assert match_files(names, there) == found


def test_similar_files_of_a_missing_name() -> None:
    there = ["1.ogg", "A.wav", "b.WAV", "b.Wav", "c.flac", "d.1.wav"]
    assert likely_files(["1", "a.wav", "b.wav", "c.wav", "d.1", "e.wav", " 1.ogg "], there) == {
        "1": ["1.ogg"],
        "a.wav": ["A.wav"],
        "b.wav": ["b.WAV", "b.Wav"],
        "c.wav": ["c.flac"],
        "d.1": ["d.1.wav"],
        " 1.ogg ": ["1.ogg"],
    }


def test_only_the_extension_may_differ_in_case() -> None:
    assert file_key("Ab.C.WAV") == "Ab.C.wav" and file_key("README") == "README" and file_key(".WAV") == ".wav"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_file_that_is_named_in_utf8_is_found_in_a_locale_that_is_not(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(os, "fsencode", lambda name: name.encode(encoding, "surrogateescape"))
    file = "tür.wav".encode().decode(encoding, "surrogateescape")
    assert match_files(["tür.wav", "a.wav"], [file, "a.wav"]) == {"tür.wav": file, "a.wav": "a.wav"}
