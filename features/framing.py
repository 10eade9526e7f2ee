"""A wave as overlapping frames, centred or as Kaldi cuts them, and the windows that they are multiplied by."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def window_of(kind: str, length: int, n_fft: int | None = None) -> Tensor:
    """(length,) float32, or (n_fft,) with zeros on both sides.

    'hann': periodic. 'hann_symmetric': both ends are zero. 'povey': its power of 0.85, Kaldi's default.
    """
    window = torch.hann_window(length, periodic=kind == "hann")
    if kind == "povey":
        window = window**0.85
    if n_fft is None:
        return window
    left = (n_fft - length) // 2
    return F.pad(window, (left, n_fft - length - left))


def centred_samples(wave: np.ndarray, half: int, pre_emphasis: float) -> np.ndarray:
    """(samples + 2 * half,) float32 in the scale of the wave, half a frame reflected at both ends.

    With pre_emphasis the first sample has no previous one and is dropped.
    """
    if pre_emphasis:
        wave = np.asarray(wave, np.float32)
        wave = wave[1:] - np.float32(pre_emphasis) * wave[:-1]
    n = max(len(wave), half + 1)  # reflection needs more samples than it adds
    out = np.empty(n + 2 * half, np.float32)  # np.pad takes twice the time
    out[half : half + len(wave)] = wave
    out[half + len(wave) : half + n] = 0
    out[:half] = out[2 * half : half : -1]
    out[half + n :] = out[half + n - 2 : n - 2 : -1]
    return out


def kaldi_samples(wave: np.ndarray, length: int) -> np.ndarray:
    """(samples,) float32 in the scale of the wave, filled with zeros to a frame."""
    out = np.zeros(max(len(wave), length), np.float32)
    out[: len(wave)] = wave
    return out


def kaldi_frames(frames: Tensor, pre_emphasis: float) -> Tensor:
    """(n_frames, length): each frame less its mean, then less this share of the previous sample in the frame; the
    first sample is its own previous one."""
    frames = frames - frames.mean(dim=1, keepdim=True)
    if pre_emphasis:
        frames = frames - pre_emphasis * torch.cat((frames[:, :1], frames[:, :-1]), dim=1)
    return frames
