"""Triangular filters from the bins of a spectrum to mel bands."""

import math

import numpy as np

from configs.schema import FeatureConfig


def mel_filters(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float, scale: str = "htk"
) -> np.ndarray:
    """(n_fft // 2 + 1, n_mels) float32 triangles.

    'htk': corners evenly spaced on 2595 log10(1 + f / 700), each peak 1, as torchaudio's. 'slaney': the scale of
    M. Slaney's "Auditory Toolbox", 1998, and filters of equal area, as librosa's. 'kaldi': the corners of 'htk', but
    sides that are straight on the mel scale instead of over Hz, as Kaldi's.
    """
    if scale == "kaldi":
        return _kaldi_filters(sample_rate, n_fft, n_mels, f_min, f_max)
    to_mel, to_hz = (_htk_mel, _htk_hz) if scale == "htk" else (_slaney_mel, _slaney_hz)
    corners = to_hz(np.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2))  # Hz
    top = sample_rate // 2 if scale == "htk" else sample_rate / 2  # torchaudio rounds an odd rate, librosa does not
    filters = _triangles(np.linspace(0.0, top, n_fft // 2 + 1), corners)
    if scale == "slaney":
        filters *= 2.0 / (corners[2:] - corners[:-2])
    return filters.astype(np.float32)


def empty_mel_bands(cfg: FeatureConfig) -> list[int]:
    """Mel bands between two FFT bins, which are always empty."""
    filters = mel_filters(cfg.sample_rate, cfg.n_fft, cfg.n_mels, cfg.f_min, cfg.f_max, cfg.mel_scale)
    return [int(band) for band in np.flatnonzero(~filters.any(axis=0))]


def _triangles(bins: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(bins, bands): 0 at a band's left and right corner, 1 at the one between."""
    rise = (bins[:, None] - corners[:-2]) / np.diff(corners)[:-1]
    fall = (corners[2:] - bins[:, None]) / np.diff(corners)[1:]
    return np.maximum(0.0, np.minimum(rise, fall))


def _kaldi_filters(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> np.ndarray:
    mels = 2595.0 * np.log10(1.0 + np.arange(n_fft // 2 + 1) * sample_rate / n_fft / 700.0)
    filters = _triangles(mels, np.linspace(_htk_mel(f_min), _htk_mel(f_max), n_mels + 2))
    return filters.astype(np.float32)


def _htk_mel(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def _htk_hz(mel: np.ndarray) -> np.ndarray:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def _slaney_mel(hz: float) -> float:
    """Three mels to 200 Hz up to 1 kHz; 27 mels to a factor of 6.4 above."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def _slaney_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
