"""Pooling between the last convolution and the last layer, or after it, for any number of mels and frames."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from console.errors import UserError

FRAMEWISE = ("attention", "max", "linear_softmax")  # each frame has its own logits


class AvgMaxPool(nn.Module):
    """(batch, channels, mels, frames) -> (batch, channels): mean over mels, then the maximum over time plus the mean.

    Source: Q. Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(dim=2)
        return x.amax(dim=2) + x.mean(dim=2)


class GridPool(nn.Module):
    """nn.AdaptiveMaxPool2d or, with mean, nn.AdaptiveAvgPool2d in operations that ONNX has, for maps of any size: the
    same maxima and, but for rounding, means, more slowly."""

    def __init__(self, size: tuple[int, int], mean: bool = False) -> None:
        super().__init__()
        self.size, self.mean = size, mean

    def forward(self, x: Tensor) -> Tensor:
        pool = mean_of_bins if self.mean else max_of_bins
        return pool(pool(x, self.size[1]).transpose(2, 3), self.size[0]).transpose(2, 3)


def bins(length: int, n: int, device: torch.device) -> Tensor:
    """(n, length) bool: the places of each bin, from floor(i length / n) to before ceil((i + 1) length / n)."""
    place, i = torch.arange(length, device=device), torch.arange(n, device=device).unsqueeze(1)
    return ((place + 1) * n > i * length) & (place * n < (i + 1) * length)


def max_of_bins(x: Tensor, n: int) -> Tensor:
    """(..., length) -> (..., n)."""
    return x.unsqueeze(-2).masked_fill(~bins(x.shape[-1], n, x.device), -torch.inf).amax(dim=-1)


def mean_of_bins(x: Tensor, n: int) -> Tensor:
    """(..., length) -> (..., n)."""
    inside = bins(x.shape[-1], n, x.device).to(x.dtype)
    return x @ (inside / inside.sum(dim=1, keepdim=True)).T


class MelMean(nn.Module):
    """(batch, channels, mels, frames) -> (batch, frames, channels): the mean over mels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=2).transpose(1, 2)


class AttentionHead(nn.Module):
    """(batch, frames, channels) -> (batch, n_classes) logits: a separate weighted mean over time for each class.

    Every frame has a logit and a weight for every class; the weights of a class sum to 1 over time. The logits are
    averaged, because a softmax over classes follows. Sources: M. Ilse et al., "Attention-based Deep Multiple
    Instance Learning", 2018; Q. Kong et al., "Weakly Labelled AudioSet Tagging with Attention Neural Networks", 2019,
    who average the probabilities of several labels per clip.
    """

    def __init__(self, channels: int, n_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.attention = nn.Linear(channels, n_classes)
        self.classify = nn.Linear(channels, n_classes)
        nn.init.zeros_(self.attention.weight)  # starts as the plain mean over time
        nn.init.zeros_(self.attention.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x)
        return (self.attention(x).softmax(dim=1) * self.classify(x)).sum(dim=1)


class FrameHead(nn.Module):
    """(batch, frames, channels) -> (batch, n_classes) logits: each frame has its logits, which are pooled over time.

    linear_softmax: else the maximum. Source: Y. Wang et al., "A Comparison of Five Multiple Instance Learning Pooling
    Functions for Sound Event Detection with Weak Labeling", 2019.
    """

    def __init__(self, channels: int, n_classes: int, linear_softmax: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout, self.classify = nn.Dropout(dropout), nn.Linear(channels, n_classes)
        self.linear_softmax = linear_softmax

    def forward(self, x: Tensor) -> Tensor:
        x = self.classify(self.dropout(x))
        return linear_softmax(x) if self.linear_softmax else x.amax(dim=1)


def linear_softmax(x: Tensor) -> Tensor:
    """(batch, frames, n_classes) logits -> (batch, n_classes): the logit of the mean probability of the frames, each
    weighted by its probability, p = sum(p_i ** 2) / sum(p_i). Without p itself, which would round to 0 or 1."""
    x = x.float()
    p, not_p = logsigmoid(x), logsigmoid(-x)
    return (2 * p).logsumexp(dim=1) - (p + not_p).logsumexp(dim=1)


def frame_head(pooling: str, channels: int, n_classes: int, dropout: float = 0.0) -> nn.Module:
    """The last layer for frames. Raises UserError on a pooling before the last layer."""
    if pooling == "attention":
        return AttentionHead(channels, n_classes, dropout)
    if pooling not in FRAMEWISE:
        raise UserError(f"model.pooling={pooling}: of ResNetish and VGGish only: use grid or {', '.join(FRAMEWISE)}")
    return FrameHead(channels, n_classes, pooling == "linear_softmax", dropout)
