"""MAP@k and top-k accuracy, for any k."""

import numpy as np

from metrics.checks import check_scores, label_index
from metrics.label_ranks import label_ranks
from metrics.map_at_3 import ranks


def average_precision_at_k(probs: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """(clips,) average precision of the k most probable classes: the sum of the precision at each label among them,
    divided by the number of labels or by k if that is less. 0 for a clip without labels.

    probs (clips, classes), truth (clips, classes) bool. Ties rank the lower class index first. Raises ValueError as
    `check_scores`. Source: B. Hamner's ml_metrics, `mapk`, which Kaggle refers to.
    """
    check_scores(probs, truth)
    n_labels = np.count_nonzero(truth, axis=1)
    if (n_labels == 1).all():
        gain = np.append(1 / np.arange(1, k + 1), 0.0)
        return np.asarray(gain[np.minimum(ranks(probs, truth.argmax(axis=1)), k)])
    clip, above, true_above = label_ranks(probs, truth, "lower_class_first")
    precision = np.where(above < k, (true_above + 1) / (above + 1), 0.0)
    sums = np.bincount(clip, weights=precision, minlength=len(probs))
    return np.asarray(sums / np.maximum(np.minimum(n_labels, k), 1))


def hit_at_k(probs: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """(clips,) 1 where the one label of a clip is among its k most probable classes, else 0; k=1: accuracy.

    probs (clips, classes), truth (clips, classes) bool. Ties rank the lower class index first. Raises ValueError as
    `check_scores` and `label_index`.
    """
    check_scores(probs, truth)
    return (ranks(probs, label_index(truth)) < k).astype(np.float64)
