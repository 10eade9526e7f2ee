"""Steady noise of a recorder taken out of a waveform, so that clips of different recorders sound more alike."""

import math

import numpy as np
import torch

WINDOW = 0.045  # seconds
PIECE = 60  # seconds with a noise floor of their own: bounds the memory of long recordings
LEAST = 0.05  # what is left of a frequency that is all noise: -26 dB


@torch.inference_mode()
def reduce_noise(wave: np.ndarray, sample_rate: int, strength: float) -> np.ndarray:
    """(samples,) float32 -> the same length and power, less `strength` times the noise floor of each frequency.

    The floor is the median magnitude over time, per minute of sound. Spectral subtraction: S. F. Boll, "Suppression of
    Acoustic Noise in Speech Using Spectral Subtraction", IEEE Trans. ASSP 27(2), 1979; the median instead of a pause in
    the speech, since clips of a competition do not say where there is one.
    """
    size = PIECE * sample_rate
    # the last piece takes the rest with it, so that none is too short for a median
    ends = [*range(size, len(wave) - size // 2, size), len(wave)]
    starts = [0, *ends[:-1]]
    return np.concatenate([_of_piece(wave[a:b], sample_rate, strength) for a, b in zip(starts, ends, strict=True)])


def _of_piece(wave: np.ndarray, sample_rate: int, strength: float) -> np.ndarray:
    n_fft = max(4, 2 ** round(math.log2(WINDOW * sample_rate)))  # a quarter of it is at least a sample
    power = float(np.dot(wave, wave))
    if len(wave) <= n_fft // 2 or not 0 < power < math.inf:  # too short for a spectrum, or nothing to take
        return wave
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(torch.from_numpy(wave), n_fft, n_fft // 4, window=window, return_complex=True)
    magnitude = spectrum.abs()  # (bins, frames)
    floor = magnitude.median(dim=1, keepdim=True).values
    kept = (1 - strength * floor / magnitude.clamp_min(1e-12)).clamp_(min=LEAST)
    out = torch.istft(spectrum * kept, n_fft, n_fft // 4, window=window, length=len(wave)).numpy()
    left = float(np.dot(out, out))
    return out * np.float32(math.sqrt(power / left)) if left > 0 else wave
