"""Batch augmentation on the device. Every draw comes from the caller's generator, so that a seed fixes an epoch."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from configs.schema import AugmentConfig
from configs.user_code import faults_in_one_line, load_callable
from console.errors import UserError

Batch = tuple[Tensor, Tensor, Tensor]
BlendLabels = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # y, w, lambda, other -> y, w


class Augment:
    """Call it with log-mel x (batch, 1, n_mels, n_frames), soft labels y (batch, classes), loss weights w (batch,).

    Returns the three, changed; the inputs stay unchanged. Changes of single clips come first, so that the two clips of
    a mixture differ; then mixing; masks come last, since mixing would make them transparent. `fill` (n_mels,) is the
    value inside masks and of shifted-in bands: the training mean, because zero is loud in the log domain. The stretch
    comes before the shift, because it would move fill to other bands. gain: a random offset in log-mel, i.e. a random
    loudness. mixup_labels 'max': a mixture has every label of both clips, in full, instead of a share of each. extra:
    names of user functions, applied last.
    """

    def __init__(
        self,
        fill: Tensor,
        mixup_alpha: float = 0.0,
        mixup_labels: Literal["mean", "max"] = "mean",
        concat_mix: float = 0.0,
        resized_crop: float = 0.0,
        roll: bool = False,
        freq_shift: int = 0,
        erasing: float = 0.0,
        time_masks: int = 0,
        time_mask_frames: int = 25,
        freq_masks: int = 0,
        freq_mask_mels: int = 8,
        gain: float = 0.0,
        extra: Sequence[str] = (),
    ) -> None:
        self.fill = fill.view(1, 1, -1, 1)
        self.gain, self.roll, self.resized_crop, self.freq_shift = gain, roll, resized_crop, freq_shift
        self.concat_mix, self.mixup_alpha = concat_mix, mixup_alpha
        self.mixup_labels = mixup_labels
        self.blend_labels = _blend_labels if mixup_labels == "mean" else _join_labels
        self.time_masks, self.time_mask_frames = time_masks, time_mask_frames
        self.freq_masks, self.freq_mask_mels = freq_masks, freq_mask_mels
        self.erasing = erasing
        self.extra = [UserAugmentation(name) for name in extra]

    @classmethod
    def from_config(cls, cfg: AugmentConfig, fill: Tensor) -> "Augment":
        return cls(fill, **{key: value for key, value in vars(cfg).items() if key != "wave"})

    def __call__(self, x: Tensor, y: Tensor, w: Tensor, rng: np.random.Generator) -> Batch:
        fill = self.fill = self.fill.to(x)  # a copy in the first call only
        x = self._sound(x, fill, rng)
        if self.concat_mix:
            x, y, w = concat_mix(x, y, w, self.concat_mix, rng, self.blend_labels)
        if self.mixup_alpha:
            x, y, w = mixup(x, y, w, self.mixup_alpha, rng, self.blend_labels)
        for _ in range(self.time_masks):
            x = mask(x, 3, self.time_mask_frames, fill, rng)
        for _ in range(self.freq_masks):
            x = mask(x, 2, self.freq_mask_mels, fill, rng)
        if self.erasing:
            x = erase(x, self.erasing, fill, rng)
        for own in self.extra:
            x, y, w = own(x, y, w, rng)
        return x, y, w

    def _sound(self, x: Tensor, fill: Tensor, rng: np.random.Generator) -> Tensor:
        if self.gain:
            x = x + _on(x, rng.normal(0, self.gain, (len(x), 1, 1, 1)))
        if self.roll:
            x = roll(x, rng)
        if self.resized_crop:
            x = resized_crop(x, self.resized_crop, rng)
        if self.freq_shift:
            x = freq_shift(x, self.freq_shift, fill, rng)
        return x


class UserAugmentation:
    """A user function (x, y, w, rng) -> (x, y, w), by name, called at the end of `Augment`.

    The three keep shape and device; y may have further columns of the loss. Raises UserError if there is no such
    function, if it raises, and if it returns something else.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.function = load_callable(name, "augment.extra", ("x", "y", "w", "rng"))

    def __call__(self, x: Tensor, y: Tensor, w: Tensor, rng: np.random.Generator) -> Batch:
        with faults_in_one_line(self.name, "augment.extra"):
            result = self.function(x, y, w, rng)
        expected = [(tuple(t.shape), t.device) for t in (x, y, w)]
        parts = result if isinstance(result, tuple | list) else (result,)
        returned = [(tuple(t.shape), t.device) if isinstance(t, Tensor) else type(t).__name__ for t in parts]
        if returned != expected:
            shapes = f"x, y, w of {_describe(expected)}, but returns {_describe(returned)}"
            raise UserError(f"augment.extra: {self.name} must return {shapes}")
        x, y, w = parts
        return x, y, w


def _describe(parts: Sequence[object]) -> str:
    return ", ".join(f"{part[0]} on {part[1]}" if isinstance(part, tuple) else str(part) for part in parts)


def roll(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Each clip rotated in time by 0 to n_frames - 1 frames: the end wraps around to the start."""
    n_frames = x.shape[3]
    shift = _on(x, rng.integers(0, n_frames, (len(x), 1, 1, 1)))
    source = (torch.arange(n_frames, device=x.device) - shift) % n_frames
    return x.gather(3, source.expand(x.shape))


def resized_crop(x: Tensor, most: float, rng: np.random.Generator) -> Tensor:
    """A random part of each clip, stretched to the whole by bilinear interpolation: 1 - `most` to 1 of its mels, and
    independently of its frames. Nothing from outside the clip enters."""
    mel, frame = (_on(x, _stretch(len(x), size, most, rng)) for size in x.shape[2:])
    shape = (len(x), *x.shape[2:])
    grid = torch.stack([frame[:, None, :].expand(shape), mel[:, :, None].expand(shape)], dim=3)
    # border: rounding may give places outside. Autocast keeps grid_sample and the lines above in full precision, but
    # not affine_grid, a matrix product.
    return torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=True)


def _stretch(n: int, size: int, most: float, rng: np.random.Generator) -> np.ndarray:
    """(n, size): evenly spaced positions of a part; -1 is the first row or column, 1 the last."""
    part = rng.uniform(1 - most, 1, (n, 1))
    first = rng.uniform(-1, 1, (n, 1)) * (1 - part) - part
    return first + part * np.linspace(0, 2, size)


def freq_shift(x: Tensor, most: int, fill: Tensor, rng: np.random.Generator) -> Tensor:
    """Each clip moved by -most to most mel bands (up is above 0); new bands get the fill (1, 1, n_mels, 1)."""
    n, _, n_mels, n_frames = x.shape
    most = min(most, n_mels - 1)  # at least one band stays
    shift = _on(x, rng.integers(-most, most + 1, (n, 1)))
    source = torch.arange(n_mels, device=x.device) - shift  # (batch, n_mels)
    inside = (source >= 0) & (source < n_mels)
    row = source.clamp(0, n_mels - 1) + n_mels * torch.arange(n, device=x.device)[:, None]
    moved = x.reshape(-1, n_frames).index_select(0, row.flatten()).view(x.shape)
    return torch.where(inside[:, None, :, None], moved, fill)


def _blend_labels(y: Tensor, w: Tensor, lam: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and weights: a clip of weight 0 adds its sound but not its label."""
    mixed = _blend(w, lam, other)
    share = torch.where(mixed > 0, lam * w / mixed.clamp_min(1e-12), lam)
    return _blend(y, share, other), mixed


def _join_labels(y: Tensor, w: Tensor, lam: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """As `_blend_labels`, but a mixture has the larger of both clips' labels, however little of a clip is in it."""
    mixed = _blend(w, lam, other)
    own, added = ((lam > 0) & (w > 0))[:, None], ((lam < 1) & (w[other] > 0))[:, None]
    return torch.where(own & added, torch.maximum(y, y[other]), torch.where(added, y[other], y)), mixed


def mixup(
    x: Tensor,
    y: Tensor,
    w: Tensor,
    alpha: float,
    rng: np.random.Generator,
    blend_labels: BlendLabels = _blend_labels,
) -> Batch:
    """Each clip mixed with another of the batch by lambda ~ Beta(alpha, alpha); labels are mixed in proportion to
    lambda and weight, so that the loss is the mixture of both weighted losses.

    Source: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, here with one lambda per clip.
    """
    lam = _on(x, rng.beta(alpha, alpha, len(x)))
    other = _on(x, rng.permutation(len(x)))
    return _blend(x, lam, other), *blend_labels(y, w, lam, other)


def concat_mix(
    x: Tensor,
    y: Tensor,
    w: Tensor,
    chance: float,
    rng: np.random.Generator,
    blend_labels: BlendLabels = _blend_labels,
) -> Batch:
    """With this chance, a clip is replaced by another from a random frame on; labels are mixed by share of frames as in
    `mixup`. Clips follow each other in a random circle, so that no clip meets itself in batches above one."""
    n, n_frames = len(x), x.shape[3]
    chosen = rng.random(n) < chance
    own = np.where(chosen, rng.integers(1, max(n_frames, 2), n), n_frames)  # frames that stay, at least 1
    circle = rng.permutation(n)
    other = np.empty_like(circle)
    other[circle] = np.roll(circle, 1)
    lam, follows = _on(x, own / n_frames), _on(x, other)
    stays = torch.arange(n_frames, device=x.device) < _on(x, own)[:, None]
    mixed = torch.where(stays[:, None, None, :], x, x[follows])
    return mixed, *blend_labels(y, w, lam, follows)


def _blend(v: Tensor, lam: Tensor, other: Tensor) -> Tensor:
    share = lam.view(-1, *[1] * (v.dim() - 1))
    return share * v + (1 - share) * v[other]


def mask(x: Tensor, dim: int, widest: int, fill: Tensor, rng: np.random.Generator) -> Tensor:
    """One mask per clip, 0 to `widest` wide, anywhere along the dimension.

    Source: D. Park et al., "SpecAugment", 2019.
    """
    width = rng.integers(0, min(widest, x.shape[dim]) + 1, len(x))
    return torch.where(_span(x, dim, width, rng), fill, x)


def erase(x: Tensor, chance: float, fill: Tensor, rng: np.random.Generator) -> Tensor:
    """With this chance, fill a rectangle of a clip: 2 to 40 % of the area, relative sides differ by up to 3.3 times; a
    side longer than the clip is cut to the clip.

    Source: Z. Zhong et al., "Random Erasing Data Augmentation", 2020, which draws again until it fits.
    """
    n = len(x)
    chosen = rng.random(n) < chance
    area = rng.uniform(0.02, 0.4, n)
    aspect = np.exp(rng.uniform(np.log(0.3), -np.log(0.3), n))  # log: as often wide as high
    sides = [np.sqrt(area * aspect), np.sqrt(area / aspect)]
    size = [np.clip(np.round(side * full), 1, full) for side, full in zip(sides, x.shape[2:], strict=True)]
    height, width = (np.where(chosen, s, 0).astype(np.int64) for s in size)
    return torch.where(_span(x, 2, height, rng) & _span(x, 3, width, rng), fill, x)


def _span(x: Tensor, dim: int, width: np.ndarray, rng: np.random.Generator) -> Tensor:
    """A mask, true on a span of `width` (batch,) at a random position of the dimension; size 1 in the other dimensions
    except the batch."""
    size = x.shape[dim]
    first = _on(x, rng.integers(0, size - width + 1)).view(-1, 1)
    place = torch.arange(size, device=x.device)[None]
    within = (place >= first) & (place < first + _on(x, width).view(-1, 1))
    return within.view((-1, 1, 1, size) if dim == 3 else (-1, 1, size, 1))


def _on(x: Tensor, values: np.ndarray) -> Tensor:
    """Move random draws to the device of x; floats become float32."""
    t = torch.from_numpy(values)
    return t.to(x.device, torch.float32 if t.is_floating_point() else t.dtype, non_blocking=True)
