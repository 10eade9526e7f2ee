"""The out-of-fold probabilities of an experiment, of all its folds together."""

from collections.abc import Sequence
from itertools import repeat

import numpy as np

from console.errors import UserError, list_some
from metrics.metric import Metric
from runs.predictions import Predictions, softmax
from runs.run_folder import Run

LEAST = 20  # test clips that show the level of a fold model
TINY = 1e-6  # under the logarithm: no probability nearer to 0 or 1 draws a level further
TINIEST = 1e-30  # likewise of the rows, whose order it keeps: a float32 probability can be 0 or 1


def join_folds(runs: Sequence[Run], metric: Metric) -> Predictions:
    """The out-of-fold rows of all folds, at one level where `metric` compares the clips of a class.

    A fold model that had few training clips of a class gives every clip a low value there, and those that it lacked are
    in its validation fold: compared with the rows of other fold models they look worse than they are (A. Airola et al.,
    "An experimental comparison of cross-validation techniques for estimating the AUC", 2011). The test clips that all
    fold models heard show the level of each: the difference of its mean logit in a class from that of all fold models
    is subtracted. With fewer than LEAST of them rows stay as they are.
    Raises UserError where a clip is in two folds.
    """
    fnames = [fname for run in runs for fname in run.oof.fnames]
    if len(set(fnames)) < len(fnames):
        twice = sorted({f for f in fnames if fnames.count(f) > 1})
        raise UserError(f"{runs[0].folder.parent}: clips appear twice out-of-fold: {list_some(twice)}")
    rows = [run.oof.probs for run in runs]
    if metric.within == "class" and len(heard := _heard_by_all(runs)) >= LEAST:
        several = runs[0].manifest.task == "multi_label"
        level = np.stack([_logits(run.test.of(heard, ""), several, TINY).mean(axis=0) for run in runs])
        rows = [_moved(one, shift, several) for one, shift in zip(rows, level - level.mean(axis=0), strict=True)]
    return Predictions(tuple(fnames), np.concatenate(rows))


def _heard_by_all(runs: Sequence[Run]) -> list[str]:
    """The test clips that all runs answered from the same file, as far as its size is known, and without a fault."""
    sizes = [run.test.size for run in runs]
    plain = [repeat(0) if size is None or any(one is None for one in sizes) else size.tolist() for size in sizes]
    answered = [set(zip(run.test.fnames, size, strict=False)) for run, size in zip(runs, plain, strict=True)]
    common = {fname for fname, _ in set.intersection(*answered)} - {f for run in runs for f in run.manifest.test_faults}
    return [fname for fname in runs[0].test.fnames if fname in common]


def _logits(probs: np.ndarray, several: bool, least: float) -> np.ndarray:
    """Logits, or logarithms for one label per clip. probs (clips, classes) -> the same in float64."""
    exact = np.maximum(probs.astype(np.float64), least)
    return np.asarray(np.log(exact) - np.log(np.maximum(1 - exact, least)) if several else np.log(exact))


def _moved(probs: np.ndarray, shift: np.ndarray, several: bool) -> np.ndarray:
    """probs (clips, classes) with `shift` (classes,) subtracted from their logits."""
    logits = _logits(probs, several, TINIEST) - shift
    return np.asarray(1 / (1 + np.exp(-logits)) if several else softmax(logits)).astype(np.float32)
