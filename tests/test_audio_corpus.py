"""Every format that soundfile can write of those we claim, whole, cut anywhere, and with one byte changed."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from input.audio import AudioFault, Wave, read_wave

FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3")
UNWRITABLE = {"DWVW_12", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}  # by libsndfile, but for MP3 in MP3
ENDS_WITH_A_TABLE = {"ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32"}  # behind the sound: a byte less of it may lose nothing
KINDS = [
    (kind, subtype)
    for kind in FORMATS
    for subtype in soundfile.available_subtypes(kind)
    if subtype not in UNWRITABLE or (kind, subtype) == ("MP3", "MPEG_LAYER_III")
]


class _Plain(soundfile.SoundFile):
    def seekable(self) -> bool:
        return False


def plain(file: Path) -> tuple[np.ndarray, int]:
    """(samples,) float32, and their rate: what soundfile gives in blocks of 1,024, until no more comes or it fails."""
    blocks, rate = [], 0
    try:
        with _Plain(file) as opened:
            rate = opened.samplerate
            while len(block := opened.read(1024, dtype="float32")):
                blocks.append(block)
    except soundfile.LibsndfileError:
        pass
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32), rate


def read(file: Path, rate: int) -> tuple[Wave | None, str]:
    try:
        return read_wave(file, rate), ""
    except AudioFault as fault:
        return fault.wave, str(fault)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(kind))
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, int]:
    """A second and a half of noise, which no codec makes small: the subtype, the file and its rate."""
    kind, subtype = request.param
    rate = 48_000 if subtype == "OPUS" else 8_000 if subtype.startswith(("G72", "GSM", "NMS")) else 32_000
    file = tmp_path_factory.mktemp("corpus") / f"whole.{kind.lower()}"
    soundfile.write(file, 0.1 * np.random.default_rng(0).normal(size=rate * 3 // 2), rate, format=kind, subtype=subtype)
    return subtype, file, rate


def test_a_whole_file_is_what_a_plain_decoder_gives(written: tuple[str, Path, int]) -> None:
    _, file, rate = written
    wave, fault = read(file, rate)
    assert fault == "" and wave is not None and np.array_equal(wave, plain(file)[0])


def test_a_cut_file_is_named_and_keeps_at_least_what_a_plain_decoder_gives(written: tuple[str, Path, int]) -> None:
    subtype, file, rate = written
    data, whole = file.read_bytes(), read_wave(file, rate)
    cut = file.with_name(f"cut{file.suffix}")
    for size in (*(len(data) * i // 8 for i in range(1, 8)), len(data) - 1):
        cut.write_bytes(data[:size])
        wave, fault = read(cut, rate)
        if subtype in ENDS_WITH_A_TABLE and fault == "":
            assert size == len(data) - 1 and np.array_equal(wave, whole)
            continue
        assert fault in ("truncated", "unreadable: truncated"), f"{size} of {len(data)} bytes"
        expected, _ = plain(cut)
        found = wave if wave is not None else np.zeros(0, np.float32)
        assert len(found) >= len(expected) and np.array_equal(found[: len(expected)], expected)
        if size > len(data) // 2:
            assert len(found) > 0.25 * len(whole)


def test_a_changed_byte_gives_what_a_plain_decoder_gives_or_a_named_fault(written: tuple[str, Path, int]) -> None:
    _, file, _ = written
    data = file.read_bytes()
    changed = file.with_name(f"changed{file.suffix}")
    for at in (4, 9, 22, 40, 60, *(len(data) * i // 8 for i in range(1, 8)), len(data) - 1):
        changed.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        expected, rate = plain(changed)
        wave, fault = read(changed, rate or 16_000)
        if fault:
            assert fault.startswith(("truncated", "damaged: ", "unreadable: ", "samples beyond", "non-finite"))
        else:
            expected = expected if expected.ndim == 1 else expected.mean(axis=1)
            assert wave is not None and len(wave) >= len(expected)
            assert len(wave) != len(expected) or np.array_equal(wave, expected)
