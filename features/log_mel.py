"""Waveform -> log-mel, the one front-end of training and prediction.

Equal to torchaudio's MelSpectrogram (power 2, HTK scale, no filter normalisation, centred frames, reflect padding)
followed by log(x + log_floor), to 1e-3 absolute in log-mel; with mel_scale=slaney likewise to librosa's
(tests/test_log_mel.py). With framing=kaldi equal to torchaudio.compliance.kaldi.fbank; the front ends of published
networks are compared in tests/test_front_ends.py. Faster, because a block of frames stays in the cache from window to
filters, and because one product per group of mel bands sums the squares of real and imaginary parts and weighs them.
NumPy multiplies: its BLAS takes half of PyTorch's time for such narrow matrices.
"""

import numpy as np
import torch

from configs.schema import FeatureConfig
from features.framing import centred_samples, kaldi_frames, kaldi_samples, window_of
from features.mel_filters import mel_filters

BLOCK = 168  # frames per step: the buffers fit the cache and do not grow with the clip
GROUP = 8  # mel bands per product: fewer skip more zeros, more need fewer calls
OF_THE_WAVE = ("speed", "noise_reduction")  # settings of what happens before


class LogMel:
    """Call it with (samples,) at sample_rate; returns (n_frames, n_mels) float32, natural logarithm.

    Samples are float32 of full scale 1, or int16 of full scale 32,768, as a WAV holds them: the same result to the bit.
    n_frames is 1 + samples // hop_length, of samples - 1 with pre_emphasis; a wave shorter than half a frame is first
    filled with zeros. With framing=kaldi it is 1 + (samples - win_length) // hop_length, and a wave shorter than a
    window is filled. Frequencies in Hz, lengths in samples. trim_db cuts leading and trailing frames this many dB below
    the loudest. The other settings are described in configs/schema.py.
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
        win_length: int | None = None,
        window: str = "hann",
        framing: str = "centred",
        pre_emphasis: float = 0.0,
        clamp_floor: bool = False,
        top_db: float | None = None,
        int16_scale: bool = False,
    ) -> None:
        self.n_fft, self.hop_length, self.n_mels = n_fft, hop_length, n_mels
        self.log_floor, self.clamp_floor, self.top_db, self.trim_db = log_floor, clamp_floor, top_db, trim_db
        self.kaldi, self.pre_emphasis = framing == "kaldi", pre_emphasis
        full_scale = 32_768 if int16_scale else 1  # exactly: a power of two
        self.window = window_of(window, win_length or n_fft, None if self.kaldi else n_fft) * full_scale
        self.int16_window = self.window / 32_768
        self.groups = _grouped(mel_filters(sample_rate, n_fft, n_mels, f_min, f_max, mel_scale))

    @classmethod
    def from_config(cls, cfg: FeatureConfig) -> "LogMel":
        return cls(**{key: value for key, value in vars(cfg).items() if key not in OF_THE_WAVE})

    @torch.inference_mode()
    def __call__(self, wave: np.ndarray) -> np.ndarray:
        window = self.int16_window if wave.dtype == np.int16 else self.window
        length = len(window)  # of a frame; the FFT fills it with zeros
        samples = kaldi_samples(wave, length) if self.kaldi else centred_samples(wave, length // 2, self.pre_emphasis)
        frames = torch.from_numpy(samples).unfold(0, length, self.hop_length)  # (n_frames, length)
        mel = np.zeros((len(frames), self.n_mels), np.float32)
        buffer = torch.zeros(min(BLOCK, len(frames)), self.n_fft)
        for i in range(0, len(frames), BLOCK):
            block = frames[i : i + BLOCK]
            if self.kaldi:
                block = kaldi_frames(block, self.pre_emphasis)
            torch.mul(block, window, out=buffer[: len(block), :length])
            spectrum = torch.fft.rfft(buffer[: len(block)])
            squares = torch.view_as_real(spectrum).square_().flatten(1).numpy()  # (block, 2 * bins)
            for parts, bands, filters in self.groups:
                np.matmul(squares[:, parts], filters, out=mel[i : i + BLOCK, bands])
        if self.trim_db is not None:
            mel = _trim(mel, self.trim_db)
        return self._log(mel)

    def _log(self, mel: np.ndarray) -> np.ndarray:
        """Of the mel power, in place."""
        power = torch.from_numpy(mel)
        if self.top_db is not None:
            power.clamp_(min=float(power.max()) * 10 ** (-self.top_db / 10))
        if self.clamp_floor:
            power.clamp_(min=self.log_floor)
        else:
            power.add_(self.log_floor)
        power.log_()
        return mel


def _grouped(filters: np.ndarray) -> list[tuple[slice, slice, np.ndarray]]:
    """For each group of neighbouring mel bands: a slice of the spectrum's parts, the bands, and filters (parts, bands).
    A bin has two parts, real and imaginary; the product also sums their squares."""
    groups = []
    for first in range(0, filters.shape[1], GROUP):
        used = np.flatnonzero(filters[:, first : first + GROUP].any(axis=1))
        if len(used):  # bands between two bins are empty
            bins, bands = slice(int(used[0]), int(used[-1]) + 1), slice(first, first + GROUP)
            both = np.repeat(filters[bins, bands], 2, axis=0)
            groups.append((slice(2 * bins.start, 2 * bins.stop), bands, both))
    return groups


def _trim(mel: np.ndarray, trim_db: float) -> np.ndarray:
    power = mel.sum(axis=1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-trim_db / 10))
    return mel[loud[0] : loud[-1] + 1].copy()
