"""Sizes that are unknown, and streams behind each other: all of the sound is read."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from input.audio import AudioFault, read_wave

RATE, N = 16_000, 8_000
ID3 = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)  # a tag of 10 bytes
CONTAINERS = {  # format, big-endian or not -> where the size of its samples stands, how, and what it counts beside them
    ("WAV", False): (b"data", 4, "<I", 0),
    ("WAV", True): (b"data", 4, ">I", 0),
    ("RF64", False): (b"ds64", 16, "<Q", 0),
    ("W64", False): (b"data", 16, "<Q", 24),
    ("AIFF", False): (b"SSND", 4, ">I", 8),
    ("AU", False): (b".snd", 8, ">I", 0),
    ("CAF", False): (b"data", 4, ">q", 4),
}


def noise(n: int = N, seed: int = 0) -> np.ndarray:
    return (3000 * np.random.default_rng(seed).normal(size=n)).astype(np.int16)


def fault(file: Path, rate: int = RATE) -> AudioFault:
    with pytest.raises(AudioFault) as caught:
        read_wave(file, rate)
    return caught.value


def samples(file: Path) -> list[int]:
    return (read_wave(file, RATE) * 32768).astype(int).tolist()


@pytest.fixture(params=CONTAINERS, ids=lambda kind: f"{kind[0]}{'-big' * kind[1]}")
def contained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bytearray, int, str, int]:
    """A file, its bytes, and where the size of the samples stands."""
    kind, big = request.param
    name, offset, how, more = CONTAINERS[request.param]
    file = tmp_path / f"a.{kind.lower()}"
    soundfile.write(file, noise(), RATE, format=kind, subtype="PCM_16", endian="BIG" if big else None)
    data = bytearray(file.read_bytes())
    return file, data, data.index(name) + offset, how, more


def test_an_unknown_size_means_to_the_end_of_the_file(contained: tuple[Path, bytearray, int, str, int]) -> None:
    file, data, at, how, more = contained
    unknown = {0, more, 0xFFFF_FFFF}
    unknown |= {2**63 - 1, {"<Q": 2**64 - 1, ">q": -1}[how]} if how in ("<Q", ">q") else {0x7FFF_F000, 0x7FFF_FFFF}
    for size in unknown:
        struct.pack_into(how, data, at, size)
        file.write_bytes(data)
        assert samples(file) == noise().tolist(), hex(size)


def test_a_size_beyond_the_end_is_a_truncation(contained: tuple[Path, bytearray, int, str, int]) -> None:
    file, data, at, how, more = contained
    struct.pack_into(how, data, at, 2 * N + more + 2)
    file.write_bytes(data)
    found = fault(file)
    assert str(found) == "truncated" and found.wave is not None and (found.wave * 32768).tolist() == noise().tolist()


def test_a_tag_hides_neither_sound_nor_truncation(
    contained: tuple[Path, bytearray, int, str, int],
) -> None:
    file, data, at, how, more = contained
    file.write_bytes(ID3 + data)
    assert samples(file) == noise().tolist()
    end = data.index(noise().astype("<i2" if how[0] == "<" else ">i2").tobytes()[:64]) + 2 * N if how != ">q" else 0
    file.write_bytes(ID3 + (data[: end - 1] if end else data[:-1]))
    found = fault(file)
    assert str(found) == "truncated" and found.wave is not None and len(found.wave) == N - 1
    struct.pack_into(how, data, at, more)  # unknown
    file.write_bytes(ID3 + data)
    assert samples(file) == noise().tolist()


@pytest.mark.parametrize("more", [b"", b"LIST\x04\0\0\0INFO"])
def test_a_wav_of_no_samples_is_empty(tmp_path: Path, more: bytes) -> None:
    """What follows its data chunk is a chunk, or nothing."""
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes() + more)
    assert str(fault(tmp_path / "a.wav")) == "empty"


def test_a_wav_that_was_cut_before_its_first_sample(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(), RATE)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:44])
    found = fault(tmp_path / "a.wav")
    assert str(found) == "unreadable: truncated" and found.wave is None


@pytest.mark.parametrize("size", [2**62, 2**63, 2**64 - 1])
def test_a_chunk_that_ends_far_after_the_file_is_no_error_of_the_system(tmp_path: Path, size: int) -> None:
    soundfile.write(tmp_path / "a.w64", noise(), RATE, format="W64")
    data = bytearray((tmp_path / "a.w64").read_bytes())
    struct.pack_into("<Q", data, data.index(b"fmt ") + 16, size)
    (tmp_path / "a.w64").write_bytes(data)
    assert str(fault(tmp_path / "a.w64")).startswith("unreadable: ")


# FLAC


def flac(file: Path, total: int | None = None, seed: int = 0, n: int = N) -> bytes:
    """Its bytes, with another number of samples in its header."""
    soundfile.write(file, noise(n, seed), RATE, subtype="PCM_16")
    data = bytearray(file.read_bytes())
    if total is not None:
        data[21] &= 0xF0
        data[22:26] = total.to_bytes(4, "big")
    file.write_bytes(data)
    return bytes(data)


@pytest.mark.parametrize("tail", [b"", b"TAG" + bytes(125)])
@pytest.mark.parametrize("total", [0, 1_000, 40_000])
def test_a_flac_is_read_to_its_end_whatever_it_declares(tmp_path: Path, total: int, tail: bytes) -> None:
    file = tmp_path / "a.flac"
    file.write_bytes(flac(file, total, n=50_000) + tail)
    assert samples(file) == noise(50_000).tolist()


def test_a_flac_of_unknown_length_that_is_cut_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.flac"
    file.write_bytes(flac(file, 0)[:-1])
    found = fault(file)
    assert str(found) == "truncated" and found.wave is not None and len(found.wave) == 4096


def test_a_flac_that_declares_more_than_it_has_is_truncated(tmp_path: Path) -> None:
    flac(tmp_path / "a.flac", 2 * N)
    found = fault(tmp_path / "a.flac")
    assert str(found) == "truncated" and found.wave is not None and len(found.wave) == N


def test_joined_flacs_are_all_read(tmp_path: Path) -> None:
    file = tmp_path / "a.flac"
    file.write_bytes(flac(file) + flac(file, seed=1) + flac(file, 0, seed=2))
    assert samples(file) == [*noise(seed=0), *noise(seed=1), *noise(seed=2)]
