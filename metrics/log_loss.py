"""Log loss: of one label per clip, and of several."""

import numpy as np

from metrics.checks import check_scores, label_index

LEAST = 1e-7  # a probability is at least this far from 0 and 1: about the precision of float32 near 1


def log_loss(probs: np.ndarray, truth: np.ndarray) -> float:
    """Mean of -log of the probability of the true class, in nats. probs (clips, classes), truth (clips,) class indices.
    The minimum probability is LEAST."""
    return float(_of_index(probs, truth).mean())


def cross_entropy(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(clips,) `log_loss` of each clip, truth (clips, classes) bool. Raises ValueError as `check_scores` and
    `label_index`."""
    check_scores(probs, truth)
    return _of_index(probs, label_index(truth))


def binary_cross_entropy(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(clips,) mean over the classes of -log of the probability of what is true, in nats.

    probs (clips, classes), limited to LEAST and 1 - LEAST; truth (clips, classes) bool. Raises ValueError as
    `check_scores`.
    """
    check_scores(probs, truth)
    limited = np.clip(probs.astype(np.float64), LEAST, 1 - LEAST)
    return np.asarray(-np.log(np.where(truth, limited, 1 - limited)).mean(axis=1))


def _of_index(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.asarray(-np.log(np.maximum(probs[np.arange(len(truth)), truth].astype(np.float64), LEAST)))
