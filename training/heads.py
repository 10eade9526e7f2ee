"""The head on the embeddings of a frozen network: one fold in seconds, the strength of its L2 chosen within the fold.

All classes at once by L-BFGS, over all clips of the fold. The embeddings are standardised, then turned to their
principal axes, each scaled by the curvature of the loss along it (an upper bound: D. Böhning, "Multinomial Logistic
Regression Algorithm", 1992): the solution is the same, and a tenth of the steps lead to it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from configs.schema import Config, to_dict
from console.errors import UserError
from console.output import say
from features.batches import Batches
from features.store import Store
from metrics.metric import find_metric
from models.embedding_head import EmbeddingHead
from models.tagger import Tagger, build_tagger
from training.fold_data import FoldData
from training.loggers import PACKAGES
from training.losses import Loss, build_loss
from training.multi_label_loss import MultiLabelLoss

STRENGTHS = tuple(10.0 ** (k / 2) for k in range(-8, 5))  # values of C, from strong L2 to weak
MLP_STRENGTHS = (0.01, 0.1, 1.0, 10.0)
PATIENCE = 2  # values of C in a row without a better score, after which no weaker L2 is tried
INNER = 3  # parts of the training clips, each scored once by heads that learned from the others
STEPS = 100  # of L-BFGS, at most
ROUGH, LARGE = 12, 4_000_000  # steps from one C to the next where there are more numbers than this: the score suffices
UNUSED = (
    "speeds",
    "balanced",
    "finetune_epochs",
    "ema",
    "average_epochs",
    "keep",
    "unverified_loss",
    "compile",
    "teacher",
    "head_lr",
    "layer_decay",
    "freeze_epochs",
    "freeze_batch_norm",
    "accumulate",
    "clip_norm",
    "checkpointing",
)
OF_LOG_MEL = (("features", "trim_db"), ("features", "speed"), ("model", "deltas"), ("model", "frequency_channel"))


def check_settings(cfg: Config) -> None:
    """Raises UserError on techniques that a head on embeddings, or the file behind it, would ignore; the sizes of masks
    that are off are none."""
    ours, plain = to_dict(cfg), to_dict(Config())
    sizes = {"time_mask_frames": "time_masks", "freq_mask_mels": "freq_masks"}
    keys = [("augment", key) for key in ours["augment"] if key not in sizes or ours["augment"][sizes[key]]]
    keys += [*(("train", key) for key in UNUSED), ("predict", "more_window_seconds"), ("model", "dropout")]
    keys += OF_LOG_MEL if cfg.model.frozen_is_file else ()
    keys += [("train", "logger")] if set(cfg.train.loggers) & set(PACKAGES) else []  # there are no epochs to tell of
    if wrong := [key for key in keys if ours[key[0]][key[1]] != plain[key[0]][key[1]]]:
        facts, usual = (" ".join(f"{s}.{k}={json.dumps(values[s][k])}" for s, k in wrong) for values in (ours, plain))
        raise UserError(f"{facts}: not with {cfg.model.name}, whose network is frozen: use {usual}")


@dataclass(frozen=True)
class Problem:
    """What a head learns from, the rows of a fold's training clips."""

    x: Tensor  # (clips, axes) standardised embeddings along their principal axes
    variance: Tensor  # (axes,) of x
    y: Tensor  # targets, as the loss takes them
    w: Tensor  # (clips,) weights
    curvature: float  # of the loss of a logit, on average
    known: Tensor  # (clips,) labels that the loss is a mean over, 1 where a clip has one label


class HeadTrainer:
    """Fits the head of a fold; has what `training.train.train_fold` reads of a trained network.

    inner (training clips,): the part of each, -1 of one that is never scored, such as a pseudo-label's. stores: of the
    training clips, and of the test clips where they have pseudo-labels. device: of `batches`, for prediction; the fit
    itself is done on the CPU.
    """

    kept_epoch = 1

    def __init__(
        self,
        cfg: Config,
        fold: int,
        parts: FoldData,
        inner: np.ndarray,
        stores: Sequence[Store],
        device: torch.device | str = "cpu",
    ) -> None:
        self.parts, self.metric = parts, find_metric(parts.metric, parts.task)
        self.loss, self.batches = build_loss(cfg.train, parts.task, parts), Batches(stores[0], device)
        heard = np.concatenate([store.length > 0 for store in stores])[parts.train]
        self.rows, self.inner = parts.train[heard], inner[heard]
        x = np.concatenate([dense(store) for store in stores])[self.rows]
        mean, std = standardisation(x)
        self.axes, self.problem = self._problem(torch.from_numpy((x - mean) / std))
        torch.manual_seed(1000 * cfg.train.seed + fold)  # of a hidden layer
        self.tagger: Tagger = build_tagger(cfg, parts.prior, mean, std, task=parts.task)
        assert isinstance(self.tagger.backbone, EmbeddingHead)
        self.head = self.tagger.backbone
        self.history: list[dict[str, float]] = []

    @property
    def kept(self) -> dict[str, Tensor]:
        return self.tagger.state_dict()

    def _problem(self, x: Tensor) -> tuple[Tensor, Problem]:
        """The principal axes (n, axes), and the clips along them."""
        span = torch.linalg.qr(x.T)[0] if len(x) < x.shape[1] else torch.eye(x.shape[1])  # what few clips span
        x = x @ span if len(x) < x.shape[1] else x
        variance, turn = torch.linalg.eigh(x.T @ x / len(x))
        p = self.parts
        unverified = 1 - torch.from_numpy(p.verified[self.rows]).float()
        y = self.loss.with_unverified(torch.from_numpy(p.targets[self.rows]), unverified)
        w = torch.from_numpy(p.weights[self.rows]).float()
        known = (~np.isnan(p.targets[self.rows])).sum(axis=1) if p.task == "multi_label" else np.ones(len(self.rows))
        curvature = float(np.mean(p.prior * (1 - p.prior))) + 1e-3
        return span @ turn, Problem(x @ turn, variance.clamp_min(0), y, w, curvature, torch.from_numpy(known).float())

    def fit(self, partial: Path, label: str) -> None:
        """Choose C, fit the head to all training clips, write metrics.csv: the score of each C."""
        c, start = self._choose(label)
        every = torch.ones(len(self.rows), dtype=torch.bool)
        self._load(solve(self.problem, self.loss, c, every, start))
        lines = [",".join(self.history[0]), *(",".join(f"{v:.6g}" for v in row.values()) for row in self.history)]
        (partial / "metrics.csv").write_text("\n".join(lines) + "\n")

    def _choose(self, label: str) -> tuple[float, list[Tensor]]:
        """The C with the best score of the training clips, by heads that did not learn from them; where to start."""
        scored, sign = self.inner >= 0, 1 if self.metric.higher_is_better else -1
        truth = self.parts.targets[self.rows][scored] == 1
        learned = {part: torch.from_numpy(self.inner != part) for part in np.unique(self.inner[scored])}
        weights, gains, near = {part: self._start() for part in learned}, list[float](), self._start()
        steps = ROUGH if self.problem.x.numel() > LARGE and self.head.hidden is None else STEPS
        for c in STRENGTHS if self.head.hidden is None else MLP_STRENGTHS:
            probs = np.zeros((len(self.rows), len(self.parts.prior)), np.float32)
            for part, mask in learned.items():
                # a hidden layer starts anew: strong L2 leaves it at zero, where it would stay
                start = weights[part] if len(weights[part]) == 2 else self._start()
                weights[part] = solve(self.problem, self.loss, c, mask, start, steps)
                logits = forward(self.problem.x[~mask], weights[part])
                probs[~mask.numpy()] = self.tagger.probabilities(logits).numpy()
            score = self.metric.score(probs[scored], truth)  # over all parts at once, as of an experiment
            self.history.append({"C": c, self.metric.key: score})
            gains.append(sign * score)
            if gains[-1] == max(gains) and self.head.hidden is None:
                near = next(iter(weights.values()))
            if len(gains) > PATIENCE and max(gains[-PATIENCE:]) < max(gains):  # a plateau goes on
                break
        best = self.history[int(np.argmax(gains))]
        within = f"{self.metric.title} {best[self.metric.key]:.4f} within the training clips"
        say(f"{label}: C={best['C']:.2g} of {len(gains)} values, {within}")
        return best["C"], near

    def _start(self) -> list[Tensor]:
        """Weights and biases, layer by layer, along the principal axes: the prior's, and of a hidden layer random."""
        head = self.head
        prior = torch.from_numpy(self.parts.prior).float().clamp(1e-4, 1 - 1e-4)
        bias = prior.log() if self.parts.task == "single_label" else prior.logit()
        if head.hidden is None:
            return [torch.zeros(self.axes.shape[1], len(bias)), bias]
        first = [self.axes.T @ head.hidden.weight.detach().T, head.hidden.bias.detach()]
        return [*first, head.head.weight.detach().T.clone(), bias]

    def _load(self, weights: list[Tensor]) -> None:
        """Put the solution into the head, along the embedding's own numbers."""
        head = self.head
        layers = [head.head] if head.hidden is None else [head.hidden, head.head]
        weights = [self.axes @ weights[0], *weights[1:]]
        for layer, weight, bias in zip(layers, weights[::2], weights[1::2], strict=True):
            layer.load_state_dict({"weight": weight.T, "bias": bias})


def forward(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """(clips, axes) -> logits; weights: weight (in, out) and bias of the only layer, or of two."""
    for i in range(0, len(weights), 2):
        x = (x.relu() if i else x) @ weights[i] + weights[i + 1]
    return x


def solve(
    problem: Problem,
    loss: Loss | MultiLabelLoss,
    c: float,
    learned: Tensor,
    start: Sequence[Tensor],
    steps: int = STEPS,
) -> list[Tensor]:
    """The weights with the least loss and L2 over the clips of the mask `learned` (clips,): C times the sum of the
    losses of the clips (of all their labels), plus half the squared weights, as in scikit-learn."""
    x, y, w = problem.x[learned], problem.y[learned], problem.w[learned]
    known = problem.known[learned]
    penalty = 1 / (2 * c * float((w * known).sum().clamp_min(1e-9)))
    scale = (problem.curvature * problem.variance / known.mean() + 2 * penalty).rsqrt()[:, None]
    x = x * scale.T
    weights = [
        (start[0] / scale).contiguous().requires_grad_(),
        *(one.contiguous().clone().requires_grad_() for one in start[1:]),
    ]
    optimizer = torch.optim.LBFGS(
        weights,
        max_iter=steps,
        history_size=10,
        tolerance_grad=1e-6,
        tolerance_change=1e-6,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        squares = (weights[0] * scale).square().sum() + sum(one.square().sum() for one in weights[2::2])
        value = loss(forward(x, weights), y, w) + penalty * squares
        value.backward()
        return value

    optimizer.step(closure)
    first, *others = (one.detach() for one in weights)
    return [first * scale, *others]


def dense(store: Store) -> np.ndarray:
    """(clips, n) float32, zeros for a clip without sound."""
    out = np.zeros((len(store.fnames), store.frames.shape[1]), np.float32)
    out[store.length > 0] = store.frames
    return out


def standardisation(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n,) float32 of embeddings (clips, n). A number that is nearly constant among these
    clips keeps a tenth of the usual deviation, so that another clip cannot become an outlier of a thousand."""
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    usual = float(np.median(std[std > 0])) if (std > 0).any() else 1.0
    return mean.astype(np.float32), np.maximum(std, 0.1 * usual).astype(np.float32)


def inner_parts(fold: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The part of each training clip, from its fold and group (clips,): the other folds, which keep groups together, at
    most INNER parts of them; where there is only one, its groups."""
    folds, number = np.unique(fold, return_inverse=True)
    if len(folds) == 1:
        _, number = np.unique(group, return_inverse=True)
    return number % INNER
