"""One fold as the network sees it: which rows train, which validate, with what label and weight."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from configs.console import warn
from configs.errors import UserError, list_some
from configs.schema import TrainConfig
from features.store import Store


@dataclass(frozen=True)
class FoldData:
    """train, val: row numbers of the store. labels, weights: (clips of the store,), -1 and 0 where a clip has no part.

    val_fnames, val_verified go with val. prior (classes,): share of each class among the training clips.
    """

    train: np.ndarray
    val: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    val_fnames: tuple[str, ...]
    val_verified: np.ndarray
    prior: np.ndarray


def split(cfg: TrainConfig, folds: pd.DataFrame, store: Store, classes: tuple[str, ...], fold: int) -> FoldData:
    """The rows of one fold. folds: fname, label, verified, fold, without clips that are left out.

    Raises UserError where no clip is left to train on, or none to validate on.
    """
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
    if cfg.class_weights:
        weight = weight * (count.sum() / (len(classes) * np.maximum(count, 1)))[label]
    labels, weights = np.full(len(store.fnames), -1), np.zeros(len(store.fnames))
    labels[row], weights[row] = label, weight
    return FoldData(
        train=row[~held_out],
        val=row[held_out],
        labels=labels,
        weights=weights,
        val_fnames=tuple(folds["fname"][held_out]),
        val_verified=verified[held_out],
        prior=count / count.sum(),
    )
