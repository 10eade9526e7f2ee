"""Chains, missing ends and damaged pages."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from input.audio import AudioFault, read_wave
from input.ogg import _checksum

RATE = 48_000


def ogg(folder: Path, subtype: str, seconds: float, rate: int = RATE, channels: int = 1) -> tuple[bytes, np.ndarray]:
    """A file's bytes, and its samples when it stands alone, mixed to mono at RATE."""
    file = folder / "alone.ogg"
    sound = 0.1 * np.random.default_rng(0).normal(size=(round(seconds * rate), channels))
    soundfile.write(file, sound, rate, format="OGG", subtype=subtype)
    return file.read_bytes(), read_wave(file, RATE)


def pages(data: bytes) -> list[int]:
    found = [0]
    while (at := data.find(b"OggS", found[-1] + 4)) >= 0:
        found.append(at)
    return found


def fault(file: Path) -> AudioFault:
    with pytest.raises(AudioFault) as caught:
        read_wave(file, RATE)
    return caught.value


def test_the_checksum_is_that_of_the_encoder(tmp_path: Path) -> None:
    data, _ = ogg(tmp_path, "VORBIS", 1.0)
    ends = [*pages(data)[1:], len(data)]
    assert all(data[a + 22 : a + 26] == _checksum(data[a:b]) for a, b in zip(pages(data), ends, strict=True))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_all_links_of_a_chain_are_read(tmp_path: Path, subtype: str) -> None:
    """Also one of another codec, rate and number of channels."""
    links = [ogg(tmp_path, subtype, 1.0), ogg(tmp_path, "OPUS", 0.5), ogg(tmp_path, "VORBIS", 0.5, 24_000, 2)]
    (tmp_path / "a.ogg").write_bytes(b"".join(data for data, _ in links))
    assert np.array_equal(read_wave(tmp_path / "a.ogg", RATE), np.concatenate([wave for _, wave in links]))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_chain_with_a_truncated_link_is_a_fault_and_keeps_the_other(tmp_path: Path, subtype: str, place: int) -> None:
    data, wave = ogg(tmp_path, subtype, 1.0)
    links = [data, data]
    links[place] = data[:-1]
    (tmp_path / "a.ogg").write_bytes(b"".join(links))
    found = fault(tmp_path / "a.ogg")
    assert str(found) == "truncated"
    assert found.wave is not None and 1.4 * len(wave) < len(found.wave) < 2 * len(wave)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_stream_without_its_last_page_is_truncated(tmp_path: Path, subtype: str) -> None:
    data, wave = ogg(tmp_path, subtype, 3.0)
    (tmp_path / "a.ogg").write_bytes(data[: pages(data)[-1]])
    found = fault(tmp_path / "a.ogg")
    assert str(found) == "truncated" and found.wave is not None and np.array_equal(found.wave, wave[: len(found.wave)])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_last_page_without_its_flag_keeps_all_of_its_sound(tmp_path: Path, subtype: str) -> None:
    data, wave = ogg(tmp_path, subtype, 1.0)
    at = pages(data)[-1]
    page = bytearray(data[at:])
    page[5] &= ~4
    page[22:26] = _checksum(bytes(page))
    (tmp_path / "a.ogg").write_bytes(data[:at] + page)
    found = fault(tmp_path / "a.ogg")
    assert str(found) == "truncated" and found.wave is not None and np.array_equal(found.wave, wave)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_the_whole_packets_of_a_truncated_last_page_are_read(tmp_path: Path, subtype: str) -> None:
    """libsndfile alone skips that page, which has all sound of a short clip."""
    data, wave = ogg(tmp_path, subtype, 0.4)
    at = pages(data)[2]
    for size in (at + (len(data) - at) // 3, at + (len(data) - at) * 2 // 3, len(data) - 1):
        (tmp_path / "a.ogg").write_bytes(data[:size])
        found = fault(tmp_path / "a.ogg")
        assert str(found) == "truncated" and found.wave is not None
        part = (size - at) / (len(data) - at)
        assert part * len(wave) - 2500 < len(found.wave) <= len(wave)
        assert np.array_equal(found.wave, wave[: len(found.wave)])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_changed_byte_in_any_page_with_sound_is_named(tmp_path: Path, subtype: str) -> None:
    data, _ = ogg(tmp_path, subtype, 3.0)
    for at in [page for page in pages(data) if any(data[page + 6 : page + 14])]:
        changed = bytearray(data)
        changed[at + 400] ^= 1
        (tmp_path / "a.ogg").write_bytes(changed)
        assert str(fault(tmp_path / "a.ogg")).startswith(("damaged: ", "truncated")), at


def test_bytes_after_the_end_are_no_fault(tmp_path: Path) -> None:
    data, wave = ogg(tmp_path, "VORBIS", 1.0)
    for tail in (b"TAG" + bytes(125), bytes(1000)):
        (tmp_path / "a.ogg").write_bytes(data + tail)
        assert np.array_equal(read_wave(tmp_path / "a.ogg", RATE), wave)
