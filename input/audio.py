"""A sound file -> mono float32 samples at the wanted rate."""

import struct
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

Wave = np.ndarray  # (samples,) float32, or int16 where they are wanted
STREAMED = 0x7FFF_0000  # bytes; a writer that cannot seek back leaves the largest number it knows, or about it, as size
HEAD = 4096  # bytes: in all but odd files the samples begin within them
LOUDEST = 1e30  # sum of squares: far above any scale that sound is kept in, far below where a spectrum overflows


class AudioFault(ValueError):
    """Something is wrong with a clip: the text is the reason, `wave` what could be read all the same, if anything."""

    def __init__(self, reason: str, wave: Wave | None = None) -> None:
        super().__init__(reason)
        self.wave = wave


def read_wave(path: Path | str, sample_rate: int, keep_int16: bool = False) -> Wave:
    """(samples,) float32 mono at sample_rate; channels are averaged, other rates are resampled (windowed sinc).

    keep_int16: what a mono file of 16 bits holds at that rate comes as it is, int16, for `LogMel`, which scales it in
    passing.

    Whatever libsndfile reads goes: WAV of every subtype, FLAC, Ogg, Opus, MP3. Full scale is 1; float files may exceed
    it. Raises AudioFault: 'empty', 'silent' and 'truncated' (both with what was read), 'non-finite samples', 'samples
    beyond any scale' or 'unreadable: ...'. Only a WAV tells that it was truncated. Raises OSError where the system does
    not let the file be read: that is no fault of the clip, and may pass.
    """
    wave, rate, whole = _decode(path)
    if wave.size == 0:
        raise AudioFault("empty")
    if wave.dtype == np.int16 and not (keep_int16 and wave.ndim == 1 and rate == sample_rate):
        wave = _as_float(wave)
    if wave.ndim == 2:
        wave = wave.mean(axis=1)
    if rate != sample_rate:
        wave = _resample(wave, rate, sample_rate)
    with np.errstate(over="ignore", invalid="ignore"):
        sound = wave.any() if wave.dtype == np.int16 else np.dot(wave, wave)
    if not 0 < sound < LOUDEST:  # one fast pass clears a sound clip; the faintest squares are 0 all the same
        if not np.isfinite(wave).all():
            raise AudioFault("non-finite samples")
        if not wave.any():
            raise AudioFault("silent", wave)
        if sound:
            raise AudioFault("samples beyond any scale")
    if not whole:
        raise AudioFault("truncated", wave)
    return wave


def _decode(path: Path | str) -> tuple[np.ndarray, int, bool]:
    """Samples (n,) or (n, channels), float32 or int16, their rate, and whether the file is whole."""
    try:
        if plain := _read_plain_wav(path):
            return *plain, True
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with soundfile.SoundFile(str(path)) as file:
            # int16: six times faster than letting libsndfile convert, and the same numbers
            dtype = "int16" if file.subtype == "PCM_16" else "float32"
            wave = file.read(file.frames, dtype=dtype)  # GSM and its like cannot seek: say how many
            rate, kind = file.samplerate, file.format
    except soundfile.LibsndfileError as error:
        _refuse_unread(path)
        raise AudioFault(f"unreadable: {error.error_string}") from None
    # TypeError: headerless, by its name; MemoryError: the header claims hours
    except (MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        _refuse_unread(path)
        raise AudioFault(f"unreadable: {' '.join(str(error).split())}") from None
    return wave, rate, not (kind in ("WAV", "WAVEX") and _is_cut_short(path))


def _refuse_unread(path: Path | str) -> None:
    """Raises OSError where the system does not give all bytes of a file: libsndfile has other words for that."""
    try:
        with Path(path).open("rb") as file:
            while file.read(1 << 20):
                pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _as_float(samples: np.ndarray) -> np.ndarray:
    """int16 -> float32, full scale 1."""
    out: np.ndarray = np.multiply(samples, np.float32(1 / 32768), dtype=np.float32)
    return out


def _read_plain_wav(path: Path | str) -> tuple[np.ndarray, int] | None:
    """int16 samples and rate of a whole WAV of 16-bit PCM, the usual file, in half of libsndfile's time.

    None for every other file, sound or not: libsndfile knows them all, and what is wrong with them. Raises OSError.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  called 20,000 times
            head = file.read(HEAD)
            channels, rate, start, size = _pcm16_header(head)
            samples = np.empty((size // 2 // channels, channels), "<i2")
            file.seek(start)
            whole = file.readinto(samples.data) == size if size else False
    except (struct.error, ValueError):
        return None
    return (samples[:, 0] if channels == 1 else samples, rate) if whole else None


def _pcm16_header(head: bytes) -> tuple[int, int, int, int]:
    """Channels, rate, first byte and size of the samples. Raises ValueError or struct.error on any other file."""
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        raise ValueError("no WAV")
    at, kind, channels, rate, align, bits = 12, 0, 0, 0, 0, 0
    while True:
        name, size = struct.unpack_from("<4sI", head, at)
        at += 8
        if name == b"data":
            break
        if name == b"fmt ":
            kind, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", head, at)
        at += size + size % 2
    if kind != 1 or bits != 16 or channels == 0 or align != 2 * channels or size % align or size >= STREAMED:
        raise ValueError("not plain")
    return channels, rate, at, size


def _is_cut_short(path: Path | str) -> bool:
    """libsndfile reads a truncated WAV as a shorter one; the header of its data chunk still knows the size."""
    with Path(path).open("rb") as file:
        end = file.seek(0, 2)
        at = 12  # behind RIFF, size and WAVE
        while at + 8 <= end:
            file.seek(at)
            name, size = struct.unpack("<4sI", file.read(8))
            if name == b"data":
                return size < STREAMED and at + 8 + size > end
            at += 8 + size + size % 2
    return False


def _resample(wave: Wave, rate: int, sample_rate: int) -> Wave:
    if not sample_rate / 100 <= rate <= sample_rate * 50:
        raise AudioFault(f"unreadable: a sample rate of {rate} Hz")
    out: Wave = _resampler(rate, sample_rate)(wave)
    return out


@lru_cache(maxsize=16)
def _resampler(rate: int, sample_rate: int) -> Any:
    """A resampler keeps a filter for every phase: gigabytes from 44,099 to 44,100 Hz. The nearest ratio with at most
    2,000 phases is exact for the usual rates, and off by 1/4,000 at most, under half a cent, for the others."""
    from input.resample import Resample

    ratio = Fraction(rate, sample_rate).limit_denominator(2_000)
    return Resample(ratio.numerator, ratio.denominator)
