"""Test clips as further training clips, labelled fold by fold by models that never saw what the fold is scored on.

The model of fold k in another experiment was trained without the clips of fold k. So are its answers to test clips, and
fold k may learn from them: its out-of-fold score stays honest. A blend over all folds, or weights fitted to all
out-of-fold rows, would carry fold k's labels into fold k. (With train.keep=best its epoch was chosen by fold k, as its
own score is.) Source: D.-H. Lee, "Pseudo-Label", 2013; soft labels as in Q. Xie et al., "Self-training with Noisy
Student", 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from configs.competition import Task
from configs.files import recover
from configs.schema import PseudoConfig
from console.errors import UserError, list_some
from features.store import Store
from folds.assign import fold_hash
from runs.predictions import geometric
from runs.run_folder import Run, partial_of, read_run
from training.fold_data import FoldData


@dataclass(frozen=True)
class PseudoLabels:
    """Of the test clips that the models are sure of."""

    fnames: tuple[str, ...]
    probs: np.ndarray  # (clips, classes) float32, the soft labels
    ids: dict[str, str]  # experiment -> id of the run that predicted


def read_pseudo_labels(
    cfg: PseudoConfig,
    name: str,
    fold: int,
    runs: Path,
    folds: pd.DataFrame,
    classes: tuple[str, ...],
    test_sound: str | None,
    task: Task = "single_label",
) -> PseudoLabels:
    """What the models of this one fold in the experiments cfg.runs say of the test clips.

    name: the experiment that is to be trained. folds: fname, label, verified, fold of all training clips. test_sound:
    hash of the test clips. Raises UserError where an experiment is this one or appears twice, or its fold is not
    finished or was made from other folds, classes or test sound, and where no test clip is there, or confident.
    """
    if len(set(cfg.runs)) < len(cfg.runs):
        raise UserError(f"pseudo.runs: an experiment appears twice in {', '.join(cfg.runs)}: name each once")
    if name in cfg.runs:
        raise UserError(f"pseudo.runs: {name} cannot learn from itself: give this experiment another name=NEW")
    voters = [read_voter(runs / voter / f"fold{fold}", "pseudo.runs") for voter in cfg.runs]
    for run in voters:
        check_voter(run, fold, folds, classes, task, "pseudo.runs")
        if run.manifest.sound_hash.test != test_sound:
            raise _made_from(run, "test sound", "pseudo.runs")
        if not np.isfinite(run.test.probs).all():
            fact = "its predictions hold NaN or infinity: train it again with --force"
            raise UserError(f"pseudo.runs: {run.folder}: {fact}")
    fnames = voters[0].test.fnames
    if not fnames:
        raise UserError("pseudo.runs: the competition has no test clips to learn from: remove pseudo.runs")
    stack = np.stack([run.test.of(fnames, str(run.folder)) for run in voters])
    probs = _mean(stack, task)
    sure = probs.max(axis=1) >= cfg.min_confidence
    if not sure.any():
        raise UserError(
            f"pseudo.min_confidence: {', '.join(cfg.runs)} are as sure as {cfg.min_confidence:g} of none of the "
            f"{len(fnames)} test clips in fold {fold} (at most {probs.max():.3f}): lower it"
        )
    ids = {voter: run.id for voter, run in zip(cfg.runs, voters, strict=True)}
    return PseudoLabels(tuple(np.array(fnames)[sure].tolist()), _sharpened(probs[sure], cfg.power, task), ids)


def _mean(stack: np.ndarray, task: Task) -> np.ndarray:
    """(clips, classes) float32 from (experiments, clips, classes): the geometric mean where a clip has one label, the
    arithmetic one, class by class, where it may have several."""
    n = len(stack)
    return (geometric(stack, np.full(n, 1 / n)) if task == "single_label" else stack.mean(axis=0)).astype(np.float32)


def _sharpened(probs: np.ndarray, power: float, task: Task) -> np.ndarray:
    """probs (clips, classes) to that power; of a single label scaled to sum 1 again, as with temperature 1 / power."""
    if power == 1:
        return probs
    return (geometric(probs[None], np.array([power])) if task == "single_label" else probs**power).astype(np.float32)


def add_pseudo_labels(parts: FoldData, pseudo: PseudoLabels, weight: float, test: Store) -> FoldData:
    """The fold with these test clips among its training clips, not verified, each of that weight in the loss, times
    that of its classes where they have one.

    The rows of the test store follow those of the training store. A clip with a fault is not used. The prior stays that
    of the labelled clips.
    """
    heard = np.array([fname not in test.faults for fname in pseudo.fnames], dtype=bool)
    row, probs = test.rows(np.array(pseudo.fnames)[heard].tolist()), pseudo.probs[heard]
    soft, weights = np.zeros((len(test.fnames), probs.shape[1]), dtype=np.float32), np.zeros(len(test.fnames))
    by_class = parts.task == "single_label" and parts.class_weight is not None
    soft[row], weights[row] = probs, weight * (probs @ parts.class_weight) if by_class else weight
    return replace(
        parts,
        train=np.concatenate([parts.train, len(parts.targets) + row]),
        targets=np.concatenate([parts.targets, soft]),
        weights=np.concatenate([parts.weights, weights]),
        verified=np.concatenate([parts.verified, np.zeros(len(soft), dtype=bool)]),
    )


def read_voter(folder: Path, key: str) -> Run:
    """A finished fold that a setting names. Raises UserError, which names the setting, where it is not finished."""
    recover(folder)
    if not folder.exists():
        there = sorted(run.parent.name for run in folder.parent.parent.glob(f"*/{folder.name}"))
        begun = " (begun)" if partial_of(folder).exists() else ""
        raise UserError(
            f"{key}: {folder} is not finished{begun}: train it first, or name other experiments; "
            f"{folder.name} is finished in {list_some(there)}"
        )
    return read_run(folder)


def check_voter(run: Run, fold: int, folds: pd.DataFrame, classes: Sequence[str], task: Task, key: str) -> None:
    """Raises UserError where a run may have learned from what this fold is scored on, or has other classes."""
    used = folds[~folds["fname"].isin(run.manifest.skipped)]
    if run.classes != tuple(classes):
        raise _made_from(run, "classes", key)
    if run.manifest.task != task:
        raise _made_from(run, "labels (one, or several a clip)", key)
    if run.fold != fold or run.manifest.fold_hash != fold_hash(used):  # else it may know this fold
        raise _made_from(run, "folds", key)


def _made_from(run: Run, other: str, key: str) -> UserError:
    return UserError(
        f"{key}: {run.folder} was made from other {other} than this experiment: train it again with --force, "
        f"or name other experiments"
    )
