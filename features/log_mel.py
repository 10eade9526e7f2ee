"""Waveform -> log-mel, the one front-end of training and prediction.

Equal to torchaudio's MelSpectrogram (power 2, HTK scale, no filter normalisation, centred frames, reflect padding)
followed by log(x + log_floor), to 1e-3 absolute in log-mel; with mel_scale=slaney likewise to librosa's
(tests/test_log_mel.py). Faster, because the power needs no complex modulus, and a group of neighbouring bins is
multiplied only with the filters that hear it.
"""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from configs.schema import FeatureConfig

BLOCK = 256  # frames transformed at a time: the buffers stay in the cache and memory does not grow with the clip
GROUPS = 8  # of bins: more save multiplications with zeros, fewer save calls


class LogMel:
    """Call it with (samples,) float32 at sample_rate; returns (n_frames, n_mels) float32, natural logarithm.

    n_frames is 1 + samples // hop_length; a wave shorter than half a frame is first filled with zeros. Frequencies in
    Hz, n_fft and hop_length in samples. trim_db cuts leading and trailing frames that are so many dB below the loudest.
    """

    def __init__(
        self,
        sample_rate: int = 44_100,
        n_fft: int = 1024,
        hop_length: int = 441,
        n_mels: int = 64,
        f_min: float = 0.0,
        f_max: float = 22_050.0,
        mel_scale: str = "htk",
        log_floor: float = 1e-6,
        trim_db: float | None = None,
    ) -> None:
        self.n_fft, self.hop_length, self.n_mels = n_fft, hop_length, n_mels
        self.log_floor, self.trim_db = log_floor, trim_db
        self.window = torch.hann_window(n_fft)
        self.groups = _grouped(mel_filters(sample_rate, n_fft, n_mels, f_min, f_max, mel_scale))

    @classmethod
    def from_config(cls, cfg: FeatureConfig) -> "LogMel":
        return cls(**{key: value for key, value in vars(cfg).items() if key != "speed"})

    @property
    def silence(self) -> float:
        """The log-mel of digital silence: what padding is made of."""
        return math.log(self.log_floor)

    @torch.inference_mode()
    def __call__(self, wave: np.ndarray) -> np.ndarray:
        frames = self._frames(wave)
        mel = torch.zeros(self.n_mels, len(frames))  # mel first: the bands of a group are neighbours in memory
        for i in range(0, len(frames), BLOCK):
            squares = torch.view_as_real(torch.fft.rfft(frames[i : i + BLOCK] * self.window)).square_()
            power = (squares[..., 0] + squares[..., 1]).T  # (bins, block)
            for bins, bands, filters in self.groups:
                mel[bands, i : i + BLOCK].addmm_(filters, power[bins])
        mel = mel.T.contiguous()
        if self.trim_db is not None:
            mel = _trim(mel, self.trim_db)
        out: np.ndarray = mel.add_(self.log_floor).log_().numpy()
        return out

    def _frames(self, wave: np.ndarray) -> Tensor:
        """(n_frames, n_fft) view of overlapping frames, centred on multiples of hop_length."""
        half = self.n_fft // 2
        if len(wave) <= half:  # reflection needs more samples than it adds
            wave = np.pad(wave, (0, half + 1 - len(wave)))
        left, right = wave[half:0:-1], wave[-2 : -half - 2 : -1]
        padded = np.concatenate([left, wave, right])  # a fifth of the time of np.pad
        return torch.from_numpy(padded).unfold(0, self.n_fft, self.hop_length)


def mel_filters(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float, scale: str = "htk"
) -> np.ndarray:
    """(n_fft // 2 + 1, n_mels) float32 triangles.

    'htk': corners evenly spaced on 2595 log10(1 + f / 700), each peak 1, as torchaudio's. 'slaney': the scale of
    M. Slaney's "Auditory Toolbox", 1998, and filters of equal area, as librosa's.
    """
    to_mel, to_hz = (_htk_mel, _htk_hz) if scale == "htk" else (_slaney_mel, _slaney_hz)
    corners = to_hz(np.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2))  # Hz
    top = sample_rate // 2 if scale == "htk" else sample_rate / 2  # torchaudio rounds an odd rate, librosa does not
    bins = np.linspace(0.0, top, n_fft // 2 + 1)[:, None]
    rise = (bins - corners[:-2]) / np.diff(corners)[:-1]
    fall = (corners[2:] - bins) / np.diff(corners)[1:]
    filters = np.maximum(0.0, np.minimum(rise, fall))
    if scale == "slaney":
        filters *= 2.0 / (corners[2:] - corners[:-2])
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


def _grouped(filters: np.ndarray) -> list[tuple[slice, slice, Tensor]]:
    """Of each group of neighbouring bins: the bins, the mel bands that hear them, and the filters (bands, bins)."""
    groups = []
    for first, end in pairwise(np.linspace(0, len(filters), GROUPS + 1).astype(int)):
        heard = np.flatnonzero(filters[first:end].any(axis=0))
        if len(heard):  # none above f_max
            bins, bands = slice(first, end), slice(heard[0], heard[-1] + 1)
            groups.append((bins, bands, torch.from_numpy(filters[bins, bands].T.copy())))
    return groups


def _trim(mel: Tensor, trim_db: float) -> Tensor:
    power = mel.sum(dim=1)
    loud = torch.nonzero(power >= power.max() * 10 ** (-trim_db / 10))
    return mel[int(loud[0]) : int(loud[-1]) + 1].clone()
