"""Input channels beside the log-mel, made from it: the same in training and in prediction."""

import torch
from torch import Tensor

REACH = 4  # frames on each side of the one whose slope is asked


def input_channels(x: Tensor, deltas: int = 0, frequency_channel: bool = False) -> Tensor:
    """(batch, 1, n_mels, n_frames) log-mel -> (batch, 1 + deltas + frequency_channel, n_mels, n_frames).

    The log-mel comes first, then its slope over time and the slope's slope, then a ramp over the mel bands from -1, the
    lowest, to 1: a convolution cannot tell bands apart otherwise.
    """
    channels = [x]
    for _ in range(deltas):
        channels.append(slope(channels[-1]))
    if frequency_channel:
        ramp = torch.linspace(-1, 1, x.shape[2], device=x.device, dtype=x.dtype)
        channels.append(ramp.view(1, 1, -1, 1).expand_as(x))
    return torch.cat(channels, dim=1) if len(channels) > 1 else x


def slope(x: Tensor) -> Tensor:
    """How much the straight line through nine frames (least squares) rises from its first to its last; ends replicate.

    Eight times librosa.feature.delta(width=9, mode="nearest"), whose rise per frame would be small beside a log-mel of
    standard deviation 1. x (..., n_mels, n_frames), at least one frame; the same shape is returned.
    """
    n_frames = x.shape[-1]
    last = torch.arange(-REACH, n_frames + REACH, device=x.device).clamp_(0, n_frames - 1)
    padded = x.index_select(-1, last)
    out = torch.zeros_like(x)
    for k in range(1, REACH + 1):
        ahead, behind = padded.narrow(-1, REACH + k, n_frames), padded.narrow(-1, REACH - k, n_frames)
        out = out.add(ahead - behind, alpha=k)
    return out * (REACH / sum(k * k for k in range(1, REACH + 1)))
