"""Macro ROC-AUC, from the ranks of the positives: one sort of each column."""

from collections.abc import Callable

import numpy as np

from metrics.checks import check_scores
from metrics.weighted_ranking import Counts, resampled_macro


def macro_roc_auc(probs: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the classes of the area under the ROC curve: the share of pairs of a positive and a negative clip in
    which the positive one scores higher, a tie counting half. Classes without a positive or a negative are left out.

    probs (clips, classes), truth (clips, classes) bool. Raises ValueError as `check_scores`, and where no class is
    left. Source: J. Hanley and B. McNeil, "The meaning and use of the area under a ROC curve", 1982; the classes left
    out: Kaggle birdclef-2024, "Evaluation".
    """
    check_scores(probs, truth)
    return macro_roc_auc_against(truth)(probs)


def macro_roc_auc_against(truth: np.ndarray) -> Callable[[np.ndarray], float]:
    """`macro_roc_auc` of many predictions of the same clips, as a function of probs alone, which it does not check.

    What the labels alone decide is computed once. Columns that lie one after the other in memory are read fastest.
    Raises ValueError where no class has both positive and negative clips.
    """
    n, count = len(truth), np.count_nonzero(truth, axis=0)
    scored = np.flatnonzero((count > 0) & (count < n))
    if len(scored) == 0:
        raise ValueError("ROC-AUC needs a class with both positive and negative clips")
    m = count[scored]
    label, clip = np.nonzero(truth[:, scored].T)
    cells = scored[label] * n + clip  # of the positives, class by class, in the transposed matrix
    ends = np.cumsum(m)
    parts = list(zip(scored.tolist(), (ends - m).tolist(), ends.tolist(), strict=True))

    def score(probs: np.ndarray) -> float:
        columns = np.array(probs.T, order="C")
        own = columns.take(cells)
        columns.sort(axis=1)
        below = np.empty(len(own), np.int64)  # clips below each positive, twice: a tie counts half
        for c, start, end in parts:
            rising, ours = columns[c], own[start:end]
            ours.sort()
            below[start:end] = rising.searchsorted(ours, "left")
            below[start:end] += rising.searchsorted(ours, "right")
        pairs = np.add.reduceat(below, ends - m) / 2 - m * m / 2  # less those of two positives, half of them below
        return float((pairs / (m * (n - m))).mean())

    return score


def resampled_macro_roc_auc(probs: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(k,) `macro_roc_auc` with each clip counted times (k, clips); NaN where no class has both kinds."""
    check_scores(probs, truth)
    return resampled_macro(_area, probs, truth, times)


def _area(counts: Counts) -> np.ndarray:
    positive = counts.positive.astype(np.float64)
    positives = positive.sum(axis=0)
    negatives = counts.total - positives
    tied = counts.within - positive
    below = negatives - (counts.until - positive.cumsum(axis=0))
    with np.errstate(invalid="ignore"):  # no positive or no negative drawn: NaN
        return np.asarray((positive * (below + tied / 2)).sum(axis=0) / (positives * negatives))
