"""Another sample rate by windowed sinc interpolation: torchaudio's Resample, for machines that lack torchaudio."""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch

LOBES = 6  # of the sinc on either side
ROLLOFF = 0.99  # of the lower Nyquist frequency: where the low-pass cuts
PHASES = 2_000  # of a speed's filter at most: a speed of up to three decimals is kept exactly


class Resample:
    """Call it with (samples,) float32 at `rate`; returns (ceil(samples * new_rate / rate),) float32.

    Equal to torchaudio.transforms.Resample(rate, new_rate) to the last bit (tests/test_resample.py). Memory grows with
    rate * new_rate / gcd^2. Source: J. O. Smith, "Digital Audio Resampling", 2002, with a squared-cosine window.
    """

    def __init__(self, rate: int, new_rate: int) -> None:
        common = math.gcd(rate, new_rate)
        self.step, self.phases = rate // common, new_rate // common  # so many samples in, so many out
        cutoff = min(self.step, self.phases) * ROLLOFF
        self.width = math.ceil(LOBES * self.step / cutoff)
        tap = torch.arange(-self.width, self.width + self.step, dtype=torch.float64) / self.step
        phase = torch.arange(0, -self.phases, -1) / self.phases
        t = ((phase[:, None] + tap) * cutoff).clamp(-LOBES, LOBES)  # (phases, taps), in lobes
        window = t.mul(math.pi).div_(LOBES).div_(2).cos_().square_()
        t.mul_(math.pi)
        sinc = t.sin().div_(t).masked_fill_(t == 0, 1.0)
        self.kernels = sinc.mul_(window.mul_(cutoff / self.step)).float()[:, None]

    @torch.inference_mode()
    def __call__(self, wave: np.ndarray) -> np.ndarray:
        padded = torch.nn.functional.pad(
            torch.from_numpy(np.ascontiguousarray(wave)), (self.width, self.width + self.step)
        )
        found = torch.nn.functional.conv1d(padded[None, None], self.kernels, stride=self.step)  # (1, phases, blocks)
        out: np.ndarray = found[0].T.flatten()[: -(-self.phases * len(wave) // self.step)].numpy()
        return out


def at_speed(wave: np.ndarray, speed: float) -> np.ndarray:
    """(ceil(samples / speed),) float32: the wave as a tape of that speed plays it, its pitch higher by the same factor.

    A speed of 1 is the wave itself, unchanged and at no cost.
    """
    return wave if speed == 1 else _player(speed)(wave)


@lru_cache(maxsize=4)
def _player(speed: float) -> Resample:
    ratio = Fraction(speed).limit_denominator(PHASES)
    return Resample(ratio.numerator, ratio.denominator)
