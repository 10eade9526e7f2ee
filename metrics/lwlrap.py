"""Label-weighted label-ranking average precision."""

import numpy as np

from metrics.checks import check_scores
from metrics.label_ranks import label_ranks


def lwlrap(probs: np.ndarray, truth: np.ndarray) -> float:
    """Mean over all labels of all clips of the precision at the place of the label in the ranking of its clip.

    probs (clips, classes), truth (clips, classes) bool. Clips without labels do not count. Ties count against the
    label, as in scikit-learn's label_ranking_average_precision_score weighted by the number of labels. Raises
    ValueError as `check_scores`. Source: D. Ellis, Kaggle freesound-audio-tagging-2019, "Evaluation".
    """
    sums, n_labels = _per_clip(probs, truth)
    return float(sums.sum() / n_labels.sum())


def resampled_lwlrap(probs: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(k,) `lwlrap` with each clip counted times (k, clips)."""
    sums, n_labels = _per_clip(probs, truth)
    with np.errstate(invalid="ignore"):  # no label drawn: NaN
        return np.asarray((times @ sums) / (times @ n_labels))


def _per_clip(probs: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(clips,) each: the sum of the precisions at the labels, and their number."""
    check_scores(probs, truth)
    clip, above, true_above = label_ranks(probs, truth, "all_above")
    sums = np.bincount(clip, weights=(true_above + 1) / (above + 1), minlength=len(probs))
    return sums, np.count_nonzero(truth, axis=1).astype(np.float64)
