"""A sound file -> mono float32 samples at the wanted rate."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

Wave = np.ndarray  # (samples,) float32


class AudioFault(ValueError):
    """Something is wrong with a clip: the text is the reason, `wave` what could be read all the same, if anything."""

    def __init__(self, reason: str, wave: Wave | None = None) -> None:
        super().__init__(reason)
        self.wave = wave


def read_wave(path: Path | str, sample_rate: int) -> Wave:
    """(samples,) float32 mono at sample_rate; channels are averaged, other rates are resampled (windowed sinc).

    Whatever libsndfile reads goes: WAV of every subtype, FLAC, Ogg, Opus, MP3. Full scale is 1; float files may exceed
    it. Raises AudioFault: 'empty', 'silent' and 'truncated' (both with what was read), 'non-finite samples' or
    'unreadable'.
    """
    wave, rate, whole = _decode(path)
    if wave.ndim == 2:
        wave = wave.mean(axis=1)
    if wave.size == 0:
        raise AudioFault("empty")
    if rate != sample_rate:
        wave = _resample(wave, rate, sample_rate)
    if not 0 < np.dot(wave, wave) < np.inf:  # one fast pass clears a sound clip; its square may still have overflowed
        if not np.isfinite(wave).all():
            raise AudioFault("non-finite samples")
        if not wave.any():
            raise AudioFault("silent", wave)
    if not whole:
        raise AudioFault("truncated", wave)
    return wave


def _decode(path: Path | str) -> tuple[np.ndarray, int, bool]:
    """Samples (n,) or (n, channels), their rate, and whether the file is whole."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            if file.subtype == "PCM_16":  # six times faster than letting libsndfile convert, and the same numbers
                wave = np.multiply(file.read(dtype="int16"), np.float32(1 / 32768), dtype=np.float32)
            else:
                wave = file.read(dtype="float32")
            rate, kind = file.samplerate, file.format
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise AudioFault(f"unreadable: {' '.join(str(error).split())}") from None
    return wave, rate, not (kind in ("WAV", "WAVEX") and _is_cut_short(path))


def _is_cut_short(path: Path | str) -> bool:
    """libsndfile reads a truncated WAV as a shorter one; the RIFF header still knows the size."""
    with Path(path).open("rb") as file:
        head = file.read(8)
        size = int.from_bytes(head[4:8], "little")
        end = file.seek(0, 2)
    streamed = size in (0, 0xFFFFFFFF)  # a writer that could not seek back leaves the field unset
    return head[:4] == b"RIFF" and not streamed and size + 8 > end + 1  # an odd last chunk may lack its padding byte


def _resample(wave: Wave, rate: int, sample_rate: int) -> Wave:
    import torch

    with torch.inference_mode():
        out: Wave = _resampler(rate, sample_rate)(torch.from_numpy(np.ascontiguousarray(wave))).numpy()
    return out


@lru_cache(maxsize=16)
def _resampler(rate: int, sample_rate: int) -> Any:
    from torchaudio.transforms import Resample

    return Resample(rate, sample_rate)
