"""The scores of a set of predictions, by name."""

from collections.abc import Iterable, Mapping
from contextlib import suppress

import numpy as np

from configs.competition import Task
from metrics.map_at_3 import ranks
from metrics.metric import find_metric


def accuracy(probs: np.ndarray, truth: np.ndarray) -> float:
    """Share of clips whose most probable class is the true one; arguments and errors as in `map_at_3`."""
    if len(truth) == 0:
        raise ValueError("accuracy of no clips")
    return float((ranks(probs, truth) == 0).mean())


def scores(probs: np.ndarray, truth: np.ndarray, verified: np.ndarray, metric: str = "map@3") -> dict[str, float]:
    """The metric by its key, for one label per clip accuracy, and, where some clips are verified and others are not,
    the metric of those, '<key>_verified', unless they cannot be scored, as where none of them has a label.

    probs (clips, classes); truth (clips,) class indices for one label per clip, (clips, classes) bool for several;
    verified (clips,) bool. metric: a name for `find_metric`. Raises ValueError as `Metric.score`.
    """
    task: Task = "single_label" if truth.ndim == 1 else "multi_label"
    chosen, matrix = find_metric(metric, task), truth
    if task == "single_label":
        if truth.shape != probs.shape[:1]:
            raise ValueError(f"probs {probs.shape} and truth {truth.shape} do not match")
        matrix = truth[:, None] == np.arange(probs.shape[1])
    found = {chosen.key: chosen.score(probs, matrix)}
    if task == "single_label":
        found["accuracy"] = accuracy(probs, truth)
    if verified.any() and not verified.all():
        with suppress(ValueError):  # the score of all clips has raised on a bad shape or a NaN
            found[f"{chosen.key}_verified"] = chosen.score(probs[verified], matrix[verified])
    return found


def oof_columns(found: Iterable[Mapping[str, float]], metric: str = "map@3") -> dict[str, str]:
    """Titles of a table of out-of-fold scores, and the key of the score in each: those that any of `found` has."""
    key = find_metric(metric).key
    titles = {"OOF": key, "OOF verified": f"{key}_verified"}
    keys: set[str] = set().union(*found)
    return {title: name for title, name in titles.items() if name in keys}
