"""One fold as the network sees it: which rows train, which validate, with what label and weight."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from configs.schema import TrainConfig
from console.errors import UserError, list_some
from console.output import warn
from features.store import Store


@dataclass(frozen=True)
class FoldData:
    """train, val: row numbers of the store. labels, weights, verified: (clips of the store,), -1, 0 and False where a
    clip has no part.

    val_fnames, val_verified go with val. prior (classes,): share of each class among the training clips. soft (test
    clips, classes): pseudo-labels, if there are any; those clips are the last of the rows, labels is their likeliest.
    class_weight (classes,): what a class counts in the loss, if not all alike; the weights hold it already.
    """

    train: np.ndarray
    val: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    verified: np.ndarray
    val_fnames: tuple[str, ...]
    val_verified: np.ndarray
    prior: np.ndarray
    soft: np.ndarray | None = None
    class_weight: np.ndarray | None = None

    @property
    def targets(self) -> np.ndarray:
        """(rows, classes) float32: the label of each row as a distribution, 0 where a clip has no part."""
        hard = (self.labels[:, None] == np.arange(len(self.prior))).astype(np.float32)
        return hard if self.soft is None else np.concatenate([hard[: -len(self.soft)], self.soft])


def split(cfg: TrainConfig, folds: pd.DataFrame, store: Store, classes: tuple[str, ...], fold: int) -> FoldData:
    """The rows of one fold. folds: fname, label, verified, fold, without clips that are left out.

    Raises UserError where no clip is left to train on, or none to validate on, or none is verified for finetuning.
    """
    check_finetuning_rows(cfg, folds, fold)
    row = store.rows(folds["fname"].tolist())
    label = np.array([classes.index(name) for name in folds["label"]])
    verified = folds["verified"].to_numpy(dtype=bool)
    held_out = folds["fold"].to_numpy() == fold
    if held_out.all() or not held_out.any():
        side = "train" if held_out.all() else "validate"
        raise UserError(f"fold {fold} has no clips to {side} on: {len(folds)} clips want fewer folds.n_folds")
    count = np.bincount(label[~held_out], minlength=len(classes))
    if unknown := [name for name, n in zip(classes, count, strict=True) if n == 0]:
        warn(f"fold {fold}: no training clip has the label, which its model cannot know: {list_some(unknown)}")
    weight = np.where(verified, 1.0, cfg.unverified_weight)
    class_weight = count.sum() / (len(classes) * np.maximum(count, 1)) if cfg.class_weights else None
    if class_weight is not None:
        weight = weight * class_weight[label]
    n = len(store.fnames)
    labels, weights, all_verified = np.full(n, -1), np.zeros(n), np.zeros(n, dtype=bool)
    labels[row], weights[row], all_verified[row] = label, weight, verified
    return FoldData(
        train=row[~held_out],
        val=row[held_out],
        labels=labels,
        weights=weights,
        verified=all_verified,
        val_fnames=tuple(folds["fname"][held_out]),
        val_verified=verified[held_out],
        prior=count / count.sum(),
        class_weight=class_weight,
    )


def check_finetuning_rows(cfg: TrainConfig, folds: pd.DataFrame, fold: int) -> None:
    """Raises UserError where the second stage is wanted and no training clip of the fold is verified."""
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


def balanced(rows: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many draws as rows, in random order: every class among `labels` (rows,) equally often, to one draw.

    Within a class every row is drawn equally often, again to one draw; chance decides who gets the odd draws.
    """
    classes = rng.permutation(np.unique(labels))
    draws = len(rows) // len(classes) + (np.arange(len(classes)) < len(rows) % len(classes))
    drawn = [
        np.resize(rng.permutation(rows[labels == c]), n) for c, n in zip(classes, draws, strict=True)
    ]  # goes round
    return rng.permutation(np.concatenate(drawn))
