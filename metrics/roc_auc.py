"""Macro ROC-AUC, from the ranks of the positives: one sort of each column."""

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
    n, positives = len(probs), np.count_nonzero(truth, axis=0)
    scored = np.flatnonzero((positives > 0) & (positives < n))
    if len(scored) == 0:
        raise ValueError("ROC-AUC needs a class with both positive and negative clips")
    columns, positive = np.array(probs.T, order="C"), np.ascontiguousarray(truth.T)
    own = [np.sort(columns[c][positive[c]]) for c in scored]
    columns.sort(axis=1)
    areas = np.empty(len(scored))
    for i, c in enumerate(scored):
        m, rising = positives[c], columns[c]
        below = rising.searchsorted(own[i], "left").sum() + rising.searchsorted(own[i], "right").sum()
        areas[i] = (below / 2 - m * m / 2) / (m * (n - m))  # less the pairs of two positives, of which half are below
    return float(areas.mean())


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
