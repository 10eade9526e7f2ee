"""Pooling between the last convolution and the last layer, for any number of mels and frames."""

from torch import Tensor, nn


class AvgMaxPool(nn.Module):
    """(batch, channels, mels, frames) -> (batch, channels): mean over mels, then the maximum over time plus the mean.

    Source: Q. Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(dim=2)
        return x.amax(dim=2) + x.mean(dim=2)


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
