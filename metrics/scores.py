"""The scores of a set of predictions, by name."""

from collections.abc import Iterable, Mapping

import numpy as np

from metrics.map_at_3 import map_at_3, ranks


def accuracy(probs: np.ndarray, truth: np.ndarray) -> float:
    """Share of clips whose most probable class is the true one; arguments and errors as in `map_at_3`."""
    if len(truth) == 0:
        raise ValueError("accuracy of no clips")
    return float((ranks(probs, truth) == 0).mean())


def scores(probs: np.ndarray, truth: np.ndarray, verified: np.ndarray) -> dict[str, float]:
    """map3, accuracy and, where some clips are verified and others are not, map3_verified; verified (clips,) bool."""
    found = {"map3": map_at_3(probs, truth), "accuracy": accuracy(probs, truth)}
    if verified.any() and not verified.all():
        found["map3_verified"] = map_at_3(probs[verified], truth[verified])
    return found


def oof_columns(found: Iterable[Mapping[str, float]]) -> dict[str, str]:
    """Titles of a table of out-of-fold scores, and the name of the score in each: those that any of `found` has."""
    titles = {"OOF": "map3", "OOF verified": "map3_verified"}
    names: set[str] = set().union(*found)
    return {title: name for title, name in titles.items() if name in names}
