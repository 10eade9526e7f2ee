"""Random bytes and changed real files into decoding: samples or a named fault, in bounded time and memory."""

import io
import struct
import time
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

from input.audio import AudioFault, read_wave

RATE = 16_000
KINDS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "FLOAT"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "ULAW"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
MAGIC = [b"", b"RIFF\xff\xff\xff\xffWAVE", b"RIFX", b"RF64", b"riff", b"FORM\0\0\0\0AIFF", b".snd", b"dns.", b"caff"]
MAGIC += [b"fLaC", b"OggS", b"\xff\xfb\x90\x64", b"ID3\x03\0\0\0\0\0\x0a"]
NUMBERS = [0, 1, 8, 0x7FFF, 0xFFFF, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]


@cache
def real(kind: str, subtype: str) -> bytes:
    """A tenth of a second in two channels."""
    out = io.BytesIO()
    sound = 0.1 * np.random.default_rng(0).normal(size=(RATE // 10, 2))
    soundfile.write(out, sound, RATE, format=kind, subtype=subtype)
    return out.getvalue()


def check_reads(file: Path, data: bytes) -> None:
    """Finite samples, or an AudioFault with a reason; at most 2 s, and 64 samples for each byte."""
    file.write_bytes(data)
    tracemalloc.start()
    began = time.monotonic()
    try:
        wave, reason = read_wave(file, RATE), "sound"
    except AudioFault as fault:
        wave, reason = fault.wave, str(fault)  # type: ignore[assignment]
    finally:
        seconds, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert reason and "\n" not in reason and str(file) not in reason
    assert reason != "sound" or (wave is not None and wave.size)
    if wave is not None:
        assert wave.dtype == np.float32 and wave.ndim == 1 and np.isfinite(wave).all()
    assert peak < 100e6, f"{peak} bytes for {len(data)}"
    assert seconds < 20, f"{seconds} s for {len(data)} bytes"


@fuzz
@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=2000))
def test_random_bytes(tmp_path: Path, magic: bytes, rest: bytes) -> None:
    check_reads(tmp_path / "a.wav", magic + rest)


@fuzz
@given(kind=st.sampled_from(KINDS), data=st.data())
def test_a_real_file_with_changes(tmp_path: Path, kind: tuple[str, str], data: st.DataObject) -> None:
    """Most of them in its header; perhaps a number that somebody writes into a size, and a cut, and a second file."""
    sound = bytearray(real(*kind))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, min(len(sound), data.draw(st.sampled_from([64, 200, len(sound)]))) - 1))
        how = data.draw(st.sampled_from(["B", "<H", "<I", ">I", "<Q"]))
        number = data.draw(st.sampled_from(NUMBERS) | st.integers(0, 255)) % (1 << 8 * struct.calcsize(how))
        if at + struct.calcsize(how) <= len(sound):
            struct.pack_into(how, sound, at, number)
    more = data.draw(st.sampled_from([b"", b"", b"", real(*data.draw(st.sampled_from(KINDS))), bytes(100)]))
    cut = data.draw(st.just(len(sound)) | st.integers(0, len(sound)))
    check_reads(tmp_path / "a.wav", bytes(sound[:cut]) + more)
