"""What every metric refuses: shapes that do not match, no clips, NaN, no label at all."""

import numpy as np

from console.errors import count


def check_scores(probs: np.ndarray, truth: np.ndarray) -> None:
    """probs (clips, classes) float, truth (clips, classes) bool. Raises ValueError on shapes that do not match, no
    clips, NaN, and where no clip has a label."""
    if probs.ndim != 2 or truth.shape != probs.shape or truth.dtype != np.bool_:
        raise ValueError(f"probs {probs.shape} and truth {truth.shape} {truth.dtype} do not match: truth must be bool")
    if len(probs) == 0:
        raise ValueError("a score of no clips")
    check_no_nan(probs)
    if not truth.any():
        raise ValueError(f"a score of {count(len(truth), 'clip')} without any label")


def check_no_nan(probs: np.ndarray) -> None:
    """probs (clips, classes). Raises ValueError with the number of clips that have a NaN."""
    flat = probs.ravel()
    if not np.isfinite(flat @ flat) and np.isnan(probs).any():  # a product takes a third of the time of a sum
        n = int(np.isnan(probs).any(axis=1).sum())
        raise ValueError(f"a NaN among the probabilities of {count(n, 'clip')}")


def label_index(truth: np.ndarray) -> np.ndarray:
    """(clips,) class index of the one label of each clip; truth (clips, classes) bool.

    Raises ValueError where a clip has no label or several.
    """
    if others := int(np.count_nonzero(np.count_nonzero(truth, axis=1) != 1)):
        raise ValueError(f"no label or several for {count(others, 'clip')}, but this metric needs one label per clip")
    return np.asarray(truth.argmax(axis=1))
