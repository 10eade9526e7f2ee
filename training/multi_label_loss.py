"""The loss where a clip may have several labels, or none: a binary one for each class, unknown labels left out."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class MultiLabelLoss:
    """Call it with logits (batch, classes), labels y as `with_unverified` makes them and weights w (batch,): the mean
    over the known labels of all clips, weighted by clip and class; or what another `function` (logits, y, w) makes of
    them, whose y is NaN where a label is not known.

    smoothing moves y towards 1/2 by that share. gamma: of the focal loss (T.-Y. Lin et al., "Focal Loss for Dense
    Object Detection", 2017), 0 for plain cross-entropy. positive_weight (classes,): what a present label counts beside
    an absent one. class_weight (classes,): what a class counts. unverified, bootstrap, truncate: as of
    `training.losses.Loss`; truncate drops the unverified part of a row whose mean loss is too large.

    y has further columns that mix as labels do: the share of each label that is not known, and where it is needed the
    part of y that nobody verified and the share of unverified clips, each (batch, classes).
    """

    def __init__(
        self,
        smoothing: float = 0.0,
        unverified: Literal["plain", "bootstrap", "truncate"] = "plain",
        bootstrap: float = 0.3,
        truncate: float = 0.8,
        function: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        gamma: float = 0.0,
        positive_weight: np.ndarray | None = None,
        class_weight: np.ndarray | None = None,
    ) -> None:
        self.smoothing, self.function, self.gamma = smoothing, function, gamma
        self.unverified, self.bootstrap, self.truncate = unverified, bootstrap, truncate
        self.positive_weight = torch.ones(1) if positive_weight is None else torch.from_numpy(positive_weight).float()
        self.class_weight = torch.ones(1) if class_weight is None else torch.from_numpy(class_weight).float()

    @property
    def needs_unverified(self) -> bool:
        return self.unverified != "plain"

    def with_unverified(self, y: Tensor, unverified: Tensor) -> Tensor:
        """y (batch, classes), NaN where not known, as the call takes it. unverified (batch,): 1 or 0."""
        unknown, y = y.isnan().to(y.dtype), y.nan_to_num(0.0)
        if not self.needs_unverified:
            return torch.cat([y, unknown], dim=1)
        row = unverified[:, None]
        return torch.cat([y, unknown, y * row, row.expand_as(y)], dim=1)

    def __call__(self, logits: Tensor, y: Tensor, w: Tensor) -> Tensor:
        y, unknown, *further = y.split(logits.shape[1], dim=1)
        known = torch.maximum(1 - unknown, y)  # a label that one clip of a mixture has is known
        if self.unverified == "bootstrap":
            doubtful, unverified = further
            y = bootstrapped(logits, y, known, doubtful, unverified, self.bootstrap)
        elif self.unverified == "truncate":
            doubtful, unverified = further
            y, w = self._truncated(logits, y, known, doubtful, unverified[:, 0], w)
        y = smooth(y, known, self.smoothing)
        if self.function:
            return self.function(logits, torch.where(known > 0, y / known.clamp_min(1e-6), torch.nan), w)
        loss, weight = self._losses(logits, y, known)
        return (loss * w[:, None]).sum() / (weight * w[:, None]).sum().clamp_min(1e-12)  # a batch of weight 0: loss 0

    def _losses(self, logits: Tensor, y: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of every label and what it weighs, (batch, classes) both."""
        self.positive_weight, self.class_weight = self.positive_weight.to(logits), self.class_weight.to(logits)
        loss = binary_cross_entropies(logits, y * self.positive_weight, known - y, self.gamma)
        return loss * self.class_weight, known * self.class_weight

    def _truncated(
        self, logits: Tensor, y: Tensor, known: Tensor, doubtful: Tensor, share: Tensor, w: Tensor
    ) -> tuple[Tensor, Tensor]:
        """y and w without the unverified clips of the rows whose loss is above `truncate` times the batch's largest."""
        loss, weight = self._losses(logits.detach(), smooth(y, known, self.smoothing), known)
        row = loss.sum(dim=1) / weight.sum(dim=1).clamp_min(1e-12)
        dropped = (row > self.truncate * row.max()).to(y.dtype)
        left = 1 - dropped * share
        y = (y - dropped[:, None] * doubtful).clamp_min(0) / left.clamp_min(1e-6)[:, None]
        return torch.minimum(y, known), w * left


def binary_cross_entropies(logits: Tensor, present: Tensor, absent: Tensor, gamma: float = 0.0) -> Tensor:
    """The loss of every label. logits (batch, classes); present, absent: what each side counts, of the same shape."""
    present, absent = present * -logsigmoid(logits), absent * -logsigmoid(-logits)
    if gamma:
        p = logits.sigmoid()
        present, absent = present * (1 - p) ** gamma, absent * p**gamma
    return present + absent


def smooth(y: Tensor, known: Tensor, smoothing: float) -> Tensor:
    """y moved towards half of what is known."""
    return y * (1 - smoothing) + 0.5 * smoothing * known


def bootstrapped(
    logits: Tensor, y: Tensor, known: Tensor, doubtful: Tensor, unverified: Tensor, share: float
) -> Tensor:
    """y with `share` of what unverified clips say replaced by as much of the prediction, taken as a constant."""
    return (y + share * (unverified * known * logits.detach().sigmoid() - doubtful)).clamp_min(0)
