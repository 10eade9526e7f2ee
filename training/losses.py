"""The losses by name; the one of a single label a clip, and what it makes of labels that nobody verified."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from configs.competition import Task
from configs.schema import TrainConfig
from configs.user_code import faults_in_one_line, is_user_code, load_callable
from console.errors import UserError
from training.fold_data import FoldData
from training.multi_label_loss import MultiLabelLoss

LossFunction = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits, soft labels, weights -> scalar

# By short name; None: the task's own cross-entropy. A function of yours has one line here for each task that it serves.
LOSSES: dict[Task, dict[str, LossFunction | None]] = {
    "single_label": {"cross_entropy": None, "focal": None},
    "multi_label": {"cross_entropy": None, "binary_cross_entropy": None, "focal": None},
}


class Loss:
    """Call it with logits (batch, classes), soft labels y and weights w (batch,); a weighted mean of cross-entropies,
    or what another `function` makes of these, once y is smoothed and its unverified part dealt with.

    unverified other than 'plain' needs the unverified part of the labels as further columns: y (batch, 2 * classes)
    from `with_unverified`. Mixing is linear, so that of a mixed row this half is the share of unverified clips. gamma:
    of the focal loss, as in `MultiLabelLoss`, 0 for plain cross-entropy.

    bootstrap: that part gives a share of itself to the prediction, taken as a constant: the soft form of S. Reed et
    al., "Training Deep Neural Networks on Noisy Labels with Bootstrapping", 2015. truncate: in rows whose loss is above
    that share of the batch's largest that part is dropped, a wholly unverified row out of the mean: I.-Y. Jeong and H.
    Lim, "Audio Tagging System for DCASE 2018: Focusing on Label Noise, Data Augmentation and its Efficient Learning".
    """

    def __init__(
        self,
        smoothing: float = 0.0,
        unverified: Literal["plain", "bootstrap", "truncate"] = "plain",
        bootstrap: float = 0.3,
        truncate: float = 0.8,
        function: LossFunction | None = None,
        gamma: float = 0.0,
    ) -> None:
        self.function, self.gamma = function, gamma
        self.smoothing, self.unverified = smoothing, unverified
        self.bootstrap, self.truncate = bootstrap, truncate

    @property
    def needs_unverified(self) -> bool:
        """Whether it needs the part of the labels that is unverified."""
        return self.unverified != "plain"

    def with_unverified(self, y: Tensor, unverified: Tensor) -> Tensor:
        """y (batch, classes) as the call takes it. unverified (batch,): 1 where nobody verified the label, else 0."""
        return torch.cat([y, y * unverified[:, None]], dim=1) if self.needs_unverified else y

    def __call__(self, logits: Tensor, y: Tensor, w: Tensor) -> Tensor:
        if self.needs_unverified:
            y, doubtful = y.chunk(2, dim=1)
        if self.unverified == "bootstrap":
            y = bootstrapped(logits, y, doubtful, self.bootstrap)
        elif self.unverified == "truncate":
            y, w = truncated(logits, y, doubtful, w, self.truncate, self.smoothing, self.gamma)
        if self.function:
            return self.function(logits, smooth(y, self.smoothing), w)
        return soft_cross_entropy(logits, y, w, self.smoothing, self.gamma)


def build_loss(cfg: TrainConfig, task: Task = "single_label", parts: FoldData | None = None) -> Loss | MultiLabelLoss:
    """The loss that a config names, for that task. parts: where the weights of classes and labels come from, if any.

    Raises UserError where there is none of that name.
    """
    known = LOSSES[task]
    if not is_user_code(cfg.loss) and cfg.loss not in known:
        others = f"{', '.join(known)}, or yours: my_file:my_loss"
        raise UserError(f"train.loss: no loss {cfg.loss!r} for a {task} competition: use {others}")
    function = UserLoss(cfg.loss) if is_user_code(cfg.loss) else known[cfg.loss]
    gamma = cfg.focal_gamma if cfg.loss == "focal" else 0.0
    common = (cfg.label_smoothing, cfg.unverified_loss, cfg.bootstrap, cfg.truncate, function, gamma)
    if task == "single_label":
        return Loss(*common)
    return MultiLabelLoss(*common, *((parts.positive_weight, parts.class_weight) if parts else ()))


class UserLoss:
    """The user's function (logits, targets, weights) -> scalar, by name.

    Raises UserError where there is no such function, where it raises, and where it returns something else.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.function = load_callable(name, "train.loss", ("logits", "targets", "weights"))

    def __call__(self, logits: Tensor, y: Tensor, w: Tensor) -> Tensor:
        with faults_in_one_line(self.name, "train.loss"):
            found = self.function(logits, y, w)
        if not isinstance(found, Tensor) or found.dim():
            about = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"train.loss: {self.name} must return a tensor without dimensions, but returns {about}")
        if logits.requires_grad and not found.requires_grad:
            raise UserError(f"train.loss: {self.name} returns a constant: nothing can be learned from it")
        return found


def soft_cross_entropy(logits: Tensor, y: Tensor, w: Tensor, smoothing: float = 0.0, gamma: float = 0.0) -> Tensor:
    """Weighted mean of the cross-entropy with soft labels, or of the focal loss.

    logits, y (batch, classes), w (batch,). smoothing moves that share of each label to all classes alike (C. Szegedy
    et al., "Rethinking the Inception Architecture", 2016).
    """
    loss = cross_entropies(logits, y, smoothing, gamma)
    return (loss * w).sum() / w.sum().clamp_min(1e-12)  # a batch of weight 0 has loss 0


def cross_entropies(logits: Tensor, y: Tensor, smoothing: float = 0.0, gamma: float = 0.0) -> Tensor:
    """The loss of every row, (batch,)."""
    log_p = logits.log_softmax(dim=1)
    y = smooth(y, smoothing)
    return -((y * (1 - log_p.exp()) ** gamma if gamma else y) * log_p).sum(dim=1)


def smooth(y: Tensor, smoothing: float) -> Tensor:
    return y * (1 - smoothing) + smoothing / y.shape[1]


def bootstrapped(logits: Tensor, y: Tensor, doubtful: Tensor, share: float) -> Tensor:
    """y with `share` of its unverified part `doubtful` (batch, classes) replaced by as much of the prediction."""
    predicted = logits.detach().softmax(dim=1)
    return y + share * (doubtful.sum(dim=1, keepdim=True) * predicted - doubtful)


def truncated(
    logits: Tensor, y: Tensor, doubtful: Tensor, w: Tensor, limit: float, smoothing: float, gamma: float = 0.0
) -> tuple[Tensor, Tensor]:
    """y and w without the unverified part of the rows whose loss is above `limit` times the largest of the batch.

    What is left of a mixed row sums to 1 again and weighs as much less; a row of which nothing is left weighs 0.
    """
    loss = cross_entropies(logits.detach(), y, smoothing, gamma)
    dropped = doubtful * (loss > limit * loss.max())[:, None]
    left = (1 - dropped.sum(dim=1)).clamp_min(0)
    return (y - dropped) / left.clamp_min(1e-6)[:, None], w * left
