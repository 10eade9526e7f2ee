"""Another sample rate or another speed, by torchaudio."""

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch

PHASES = 2_000  # a filter each


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """(samples,) float32 at `rate` -> (ceil(samples * new_rate / rate),) float32.

    A filter for every phase would be gigabytes from 44,099 to 44,100 Hz: the ratio taken is the nearest one with at
    most PHASES phases. It is exact for the usual rates, and off by 1/4,000 at most, under half a cent, for the others.
    """
    return _resample(wave, Fraction(rate, new_rate))


def at_speed(wave: np.ndarray, speed: float) -> np.ndarray:
    """(ceil(samples / speed),) float32: the wave as a tape of that speed plays it, its pitch higher by the same factor.

    A speed of 1 is the wave itself, unchanged and at no cost; one of up to three decimals is kept exactly.
    """
    return wave if speed == 1 else _resample(wave, Fraction(speed))


@torch.inference_mode()
def _resample(wave: np.ndarray, ratio: Fraction) -> np.ndarray:
    """A new sample for every `ratio` of the old ones."""
    ratio = ratio.limit_denominator(PHASES)
    resampler, old = _resampler(ratio), torch.from_numpy(np.ascontiguousarray(wave))
    new, n = resampler(old), -int(-len(wave) // ratio)
    if len(new) < n:  # torchaudio rounds the length to float32, which can lose the last samples
        longer = torch.nn.functional.pad(old, (0, ratio.numerator + len(wave) // 2**20))
        new = torch.cat([new, resampler(longer)[len(new) :]])
    out: np.ndarray = new[:n].numpy()
    return out


@lru_cache(maxsize=16)
def _resampler(ratio: Fraction) -> Any:
    from torchaudio.transforms import Resample  # keeps its filters; a worker that resamples nothing does without

    return Resample(ratio.numerator, ratio.denominator)
