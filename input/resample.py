"""Change the sample rate or the speed of a wave, by torchaudio."""

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch

PHASES = 2_000  # filters


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """(samples,) float32 at `rate` -> (ceil(samples * new_rate / rate),) float32.

    The ratio is the nearest one with at most PHASES phases: 44,099 to 44,100 Hz would need gigabytes of filters. It is
    exact for usual rates and off by at most 1/4,000, less than half a cent, for others.
    """
    return _resample(wave, Fraction(rate, new_rate))


def at_speed(wave: np.ndarray, speed: float) -> np.ndarray:
    """(ceil(samples / speed),) float32: the wave played like a tape at that speed, its pitch multiplied by it.

    Speed 1 returns the wave itself; a speed with up to three decimals is exact.
    """
    return wave if speed == 1 else _resample(wave, Fraction(speed))


@torch.inference_mode()
def _resample(wave: np.ndarray, ratio: Fraction) -> np.ndarray:
    """One new sample for every `ratio` old ones."""
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
    from torchaudio.transforms import Resample  # keeps its filters; imported only if needed

    return Resample(ratio.numerator, ratio.denominator)
