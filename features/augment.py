"""Batch augmentation on the device. Every draw comes from the caller's generator, so that a seed fixes an epoch."""

import numpy as np
import torch
from torch import Tensor

from configs.schema import AugmentConfig


class Augment:
    """Call it with log-mel x (batch, 1, n_mels, n_frames), soft labels y (batch, classes), loss weights w (batch,).

    Returns the three, changed. mixup: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, one
    lambda per clip. Masks: D. Park et al., "SpecAugment", 2019; `fill` (n_mels,) is what a mask shows: the training
    mean, since a zero in the log domain would be loud. gain: a random offset in log-mel, which is a random loudness.
    """

    def __init__(
        self,
        fill: Tensor,
        mixup_alpha: float = 0.0,
        time_masks: int = 0,
        time_mask_frames: int = 25,
        freq_masks: int = 0,
        freq_mask_mels: int = 8,
        gain: float = 0.0,
    ) -> None:
        self.fill = fill.view(1, 1, -1, 1)
        self.mixup_alpha, self.gain = mixup_alpha, gain
        self.time_masks, self.time_mask_frames = time_masks, time_mask_frames
        self.freq_masks, self.freq_mask_mels = freq_masks, freq_mask_mels

    @classmethod
    def from_config(cls, cfg: AugmentConfig, fill: Tensor) -> "Augment":
        known = ("mixup_alpha", "time_masks", "time_mask_frames", "freq_masks", "freq_mask_mels", "gain")
        return cls(fill, **{key: getattr(cfg, key) for key in known})

    def __call__(self, x: Tensor, y: Tensor, w: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        if self.gain:
            x = x + _on(x, rng.normal(0, self.gain, (len(x), 1, 1, 1)))
        if self.mixup_alpha:
            x, y, w = mixup(x, y, w, self.mixup_alpha, rng)
        for _ in range(self.time_masks):
            x = self._mask(x, 3, self.time_mask_frames, rng)
        for _ in range(self.freq_masks):
            x = self._mask(x, 2, self.freq_mask_mels, rng)
        return x, y, w

    def _mask(self, x: Tensor, dim: int, widest: int, rng: np.random.Generator) -> Tensor:
        """One mask per clip, 0 to `widest` wide, anywhere along the dimension."""
        size = x.shape[dim]
        width = rng.integers(0, min(widest, size) + 1, len(x))
        first = _on(x, rng.integers(0, size - width + 1)).view(-1, 1)
        place = torch.arange(size, device=x.device)[None]
        masked = (place >= first) & (place < first + _on(x, width).view(-1, 1))
        shape = (-1, 1, 1, size) if dim == 3 else (-1, 1, size, 1)
        return torch.where(masked.view(shape), self.fill.to(x), x)


def mixup(x: Tensor, y: Tensor, w: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Each clip mixed with another of the batch by lambda ~ Beta(alpha, alpha); labels and weights likewise."""
    lam = _on(x, rng.beta(alpha, alpha, len(x)))
    other = torch.from_numpy(rng.permutation(len(x))).to(x.device)

    def mix(v: Tensor) -> Tensor:
        share = lam.view(-1, *[1] * (v.dim() - 1))
        return share * v + (1 - share) * v[other]

    return mix(x), mix(y), mix(w)


def _on(x: Tensor, values: np.ndarray) -> Tensor:
    """Host draws to the device of x; floats become float32."""
    t = torch.from_numpy(values)
    return t.to(x.device, torch.float32 if t.is_floating_point() else t.dtype)
