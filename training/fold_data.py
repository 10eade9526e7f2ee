"""One fold as the network sees it: which rows train, which validate, with what label and weight."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from configs.competition import Task
from configs.schema import TrainConfig
from console.errors import UserError, list_some
from console.output import warn
from features.store import Store
from input.competition import one_hot
from metrics.scores import scores

LABELLED = 0.5  # a target from here on makes a clip one of the class for balanced sampling, as some pseudo-labels do


@dataclass(frozen=True)
class FoldData:
    """Rows are those of the training store, then those of the test store where there are pseudo-labels."""

    train: np.ndarray  # row numbers
    val: np.ndarray  # row numbers
    targets: np.ndarray  # (rows, classes) float32 as `Competition.targets`, or pseudo-labels; 0 of a clip with no part
    weights: np.ndarray  # (rows,) in the loss; 0 of a clip with no part
    verified: np.ndarray  # (rows,) bool
    val_fnames: tuple[str, ...]
    val_verified: np.ndarray  # (val,) bool
    prior: np.ndarray  # (classes,) mean target of the labelled training clips
    class_weight: np.ndarray | None = None  # (classes,) in the loss, where not all alike; one label: in `weights` too
    positive_weight: np.ndarray | None = None  # (classes,) of a present label beside an absent one, where not all 1
    task: Task = "single_label"
    metric: str = "map@3"

    @property
    def labels(self) -> np.ndarray:
        """(rows,) the class index of each row, of the largest target where there are several, -1 without any."""
        known = np.nan_to_num(self.targets)
        return np.where(known.any(axis=1), known.argmax(axis=1), -1)

    def memberships(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each of `rows` once for each of its labels, and the class of that label; -1 for a row without any."""
        if self.task == "single_label":
            return rows, self.labels[rows]
        has = np.nan_to_num(self.targets[rows]) >= LABELLED
        clip, label = np.nonzero(np.column_stack([has, ~has.any(axis=1)]))
        return rows[clip], np.where(label < has.shape[1], label, -1)

    def scores(self, probs: np.ndarray) -> dict[str, float]:
        """The scores of predictions (val, classes) of the validation clips, by the competition's metric."""
        truth = self.truth if self.task == "multi_label" else self.labels[self.val]
        return scores(probs, truth, self.val_verified, self.metric)

    @property
    def truth(self) -> np.ndarray:
        """(val, classes) bool, the labels that the validation clips are scored by."""
        return np.asarray(self.targets[self.val] == 1)


def split(
    cfg: TrainConfig,
    folds: pd.DataFrame,
    store: Store,
    classes: tuple[str, ...],
    fold: int,
    targets: np.ndarray | None = None,
    task: Task = "single_label",
    metric: str = "map@3",
) -> FoldData:
    """The rows of one fold. folds: fname, label, verified, fold, maybe weight, without clips that are left out.

    targets (clips, classes) of these clips, None: 1 for the one label of each. Raises UserError where no clip is left
    to train on, or none to validate on, or none is verified for finetuning.
    """
    check_finetuning_rows(cfg, folds, fold)
    row = store.rows(folds["fname"].tolist())
    targets = one_hot(folds["label"], classes) if targets is None else targets
    verified = folds["verified"].to_numpy(dtype=bool)
    held_out = folds["fold"].to_numpy() == fold
    if held_out.all() or not held_out.any():
        side = "train" if held_out.all() else "validate"
        raise UserError(f"fold {fold} has no clips to {side} on: {len(folds)} clips need fewer folds.n_folds")
    weight = np.where(verified, 1.0, cfg.unverified_weight) * folds.get("weight", pd.Series(1.0, folds.index))
    shares = class_shares(cfg, targets[~held_out], task)
    if unknown := [name for name, n in zip(classes, shares.count, strict=True) if n == 0]:
        warn(f"fold {fold}: no training clip has the label, which its model cannot know: {list_some(unknown)}")
    if shares.class_weight is not None and task == "single_label":
        weight = weight * shares.class_weight[targets.argmax(axis=1)]
    n = len(store.fnames)
    rows, weights, all_verified = np.zeros((n, len(classes)), np.float32), np.zeros(n), np.zeros(n, dtype=bool)
    rows[row], weights[row], all_verified[row] = targets, weight, verified
    return FoldData(
        train=row[~held_out],
        val=row[held_out],
        targets=rows,
        weights=weights,
        verified=all_verified,
        val_fnames=tuple(folds["fname"][held_out]),
        val_verified=verified[held_out],
        prior=shares.prior,
        class_weight=shares.class_weight,
        positive_weight=shares.positive_weight,
        task=task,
        metric=metric,
    )


@dataclass(frozen=True)
class ClassShares:
    """What the training clips of a fold say of each class, (classes,) each."""

    count: np.ndarray  # clips with the label, by their share of it
    prior: np.ndarray  # mean target of the clips where it is known
    class_weight: np.ndarray | None
    positive_weight: np.ndarray | None


def class_shares(cfg: TrainConfig, targets: np.ndarray, task: Task) -> ClassShares:
    """targets (training clips, classes)."""
    if task == "single_label":
        count = np.bincount(targets.argmax(axis=1), minlength=targets.shape[1])
        known = count.sum()
    else:
        count, known = np.nansum(targets, axis=0, dtype=np.float64), (~np.isnan(targets)).sum(axis=0)
    inverse = count.sum() / (targets.shape[1] * np.maximum(count, 1)) if cfg.class_weights else None
    odds = (np.maximum(known - count, 1) / np.maximum(count, 1)) ** cfg.positive_weight if cfg.positive_weight else None
    return ClassShares(count, count / np.maximum(known, 1), inverse, odds)


def check_finetuning_rows(cfg: TrainConfig, folds: pd.DataFrame, fold: int) -> None:
    """Raises UserError where there is a second stage and no training clip of the fold is verified."""
    if cfg.finetune_epochs and not folds["verified"][folds["fold"] != fold].any():
        raise UserError(
            f"train.finetune_epochs={cfg.finetune_epochs}: none of the training clips of fold {fold} is verified: "
            "use train.finetune_epochs=0"
        )


class RowBatches:
    """Row numbers in n batches of nearly equal size: a last batch of one would upset batch normalisation.

    A class of its own, because Lightning takes a list for several loaders side by side.
    """

    def __init__(self, rows: np.ndarray, n: int) -> None:
        self.batches = np.array_split(rows, n)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def balanced(rows: np.ndarray, labels: np.ndarray, rng: np.random.Generator, draws: int | None = None) -> np.ndarray:
    """As many draws as rows, or `draws`, in random order: every class among `labels` (rows,) equally often, to one.

    Within a class every row is drawn equally often, again to one draw; chance decides who gets the odd draws. A row may
    be there several times, with a label each.
    """
    classes = rng.permutation(np.unique(labels))
    n = len(rows) if draws is None else draws
    share = n // len(classes) + (np.arange(len(classes)) < n % len(classes))
    drawn = [
        np.resize(rng.permutation(rows[labels == c]), k) for c, k in zip(classes, share, strict=True)
    ]  # goes round
    return rng.permutation(np.concatenate(drawn))
