"""A user function on the wave of a clip, before feature extraction: it makes copies of training clips."""

import zlib

import numpy as np

from configs.user_code import faults_in_one_line, load_callable
from console.errors import UserError


class WaveAugmentation:
    """Call it with a clip's name and wave (samples,) float32: the user's function (wave, sample_rate, rng) -> wave.

    The result may be longer or shorter. rng is seeded by the clip's name, so that a copy is the same in every process.
    Raises UserError if there is no such function, if it raises, and if it returns no wave.
    """

    def __init__(self, name: str, sample_rate: int) -> None:
        self.name, self.sample_rate = name, sample_rate
        self.function = load_callable(name, "augment.wave", ("wave", "sample_rate", "rng"))

    def __call__(self, fname: str, wave: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(zlib.crc32(fname.encode()))
        with faults_in_one_line(self.name, f"augment.wave, clip {fname}"):
            found = self.function(wave, self.sample_rate, rng)
        if not isinstance(found, np.ndarray) or found.ndim != 1 or found.dtype.kind != "f" or not len(found):
            about = f"{found.shape} {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
            raise UserError(f"augment.wave: {self.name} must return (samples,) floats, but returns {about} for {fname}")
        if not np.isfinite(found).all():
            raise UserError(f"augment.wave: {self.name} returns NaN or infinity for {fname}")
        return np.ascontiguousarray(found, dtype=np.float32)
