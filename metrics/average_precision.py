"""Average precision over clips: macro, micro and padded (cmAP)."""

import numpy as np

from metrics.checks import check_scores
from metrics.weighted_ranking import Counts, resampled_macro, resampled_micro

PADDING = 5  # rows of padded cmAP


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean over the positives of the precision among all clips that score at least as high.

    scores, positive (clips,), with at least one positive. Source: scikit-learn, average_precision_score: the area under
    the precision-recall curve without interpolation.
    """
    own = np.sort(scores[positive])
    at_least = len(scores) - np.sort(scores).searchsorted(own)
    hits = len(own) - own.searchsorted(own)
    return float((hits / at_least).mean())


def macro_average_precision(probs: np.ndarray, truth: np.ndarray) -> float:
    """Mean of `average_precision` over the classes that have a positive.

    probs (clips, classes), truth (clips, classes) bool. Raises ValueError as `check_scores`.
    """
    check_scores(probs, truth)
    columns = np.ascontiguousarray(probs.T)
    return float(np.mean([average_precision(columns[c], truth[:, c]) for c in np.flatnonzero(truth.any(axis=0))]))


def micro_average_precision(probs: np.ndarray, truth: np.ndarray) -> float:
    """`average_precision` of all clips and classes in one ranking; arguments and errors as in the macro one."""
    check_scores(probs, truth)
    return average_precision(probs.ravel(), truth.ravel())


def padded_cmap(probs: np.ndarray, truth: np.ndarray) -> float:
    """Macro average precision after adding PADDING clips that have every label and are predicted with 1, so that a
    class without a positive counts too and a rare one moves the score less.

    probs (clips, classes), truth (clips, classes) bool. Where a class has a score above 1, the added clips
    score above it. Raises ValueError as `check_scores`. Source: Kaggle birdclef-2023, "Evaluation".
    """
    check_scores(probs, truth)
    return macro_average_precision(*_padded(probs, truth))


def resampled_macro_average_precision(probs: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(k,) `macro_average_precision` with each clip counted times (k, clips); NaN where no positive is drawn."""
    check_scores(probs, truth)
    return resampled_macro(_precision, probs, truth, times)


def resampled_micro_average_precision(probs: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(k,) `micro_average_precision` with each clip counted times (k, clips); NaN where no positive is drawn."""
    check_scores(probs, truth)
    return resampled_micro(_precision, probs, truth, times)


def resampled_padded_cmap(probs: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(k,) `padded_cmap` with each clip counted times (k, clips)."""
    check_scores(probs, truth)
    counted = np.concatenate([times, np.ones((len(times), PADDING), times.dtype)], axis=1)
    return resampled_macro(_precision, *_padded(probs, truth), counted)


def _padded(probs: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    highest = probs.max(axis=0)
    top = np.where(highest > 1, np.nextafter(highest, np.inf), 1)
    rows = np.broadcast_to(top, (PADDING, len(top)))
    return np.concatenate([probs, rows]), np.concatenate([truth, np.ones(rows.shape, bool)])


def _precision(counts: Counts) -> np.ndarray:
    positive = counts.positive.astype(np.float64)
    hits = positive.cumsum(axis=0)
    with np.errstate(invalid="ignore"):  # no positive drawn: NaN
        return np.asarray((positive * hits / np.maximum(counts.until, 1)).sum(axis=0) / hits[-1])
