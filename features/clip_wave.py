"""The waveform of a clip as features and frozen networks hear it."""

import numpy as np

from configs.schema import FeatureConfig
from console.errors import UserError


def read_clip(file: str | None, cfg: FeatureConfig, keep_int16: bool = False) -> tuple[np.ndarray | None, str]:
    """(samples,) at cfg.sample_rate as far as the file can be read, without the steady noise where the settings ask for
    that, or None without sound; and the fault, '' without one. file: None of a clip that is missing. keep_int16: see
    `read_wave`; not with noise reduction.

    Raises UserError if the system cannot read the file, which is no fault of the clip, so it must not be stored.
    """
    from features.noise_reduction import reduce_noise
    from input.audio import AudioFault, read_wave

    if file is None:
        return None, "missing"
    wave: np.ndarray | None
    try:
        wave, fault = read_wave(file, cfg.sample_rate, keep_int16 and not cfg.noise_reduction), ""
    except AudioFault as error:
        wave, fault = error.wave, str(error)
    except OSError as error:
        remedy = "make it readable, or remove it and use input.skip_unreadable=true"
        raise UserError(f"{file}: {error.strerror}: {remedy}") from None
    if wave is not None and cfg.noise_reduction:
        wave = reduce_noise(wave, cfg.sample_rate, cfg.noise_reduction)
    return wave, fault
