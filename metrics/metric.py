"""The metrics by name: how a competition's score is computed from probabilities and true labels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from console.errors import UserError, list_some
from metrics.map_at_3 import average_precision_at_3, ranks

Score = Callable[[np.ndarray, np.ndarray], float]
PerClip = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """probs (clips, classes) float, truth (clips, classes) bool; a row has one true class in a single-label task."""

    name: str  # as competition.yaml and --metric give it
    title: str  # as tables and reports show it
    key: str  # as scores.json names it
    score: Score  # as published
    per_clip: PerClip | None = None  # (clips,) values whose mean is `score`; None: not a mean over clips
    higher_is_better: bool = True

    def gain(self, probs: np.ndarray, truth: np.ndarray) -> float:
        """`score`, negated where lower is better: what is maximised."""
        found = self.score(probs, truth)
        return found if self.higher_is_better else -found


def find_metric(name: str) -> Metric:
    """The metric of that name. Raises UserError where there is none."""
    if name not in METRICS:
        raise UserError(f"metric {name!r}: known are {list_some(METRICS)}")
    return METRICS[name]


def _mean(per_clip: PerClip) -> Score:
    return lambda probs, truth: float(per_clip(probs, truth).mean())


def _map_at_3(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return average_precision_at_3(probs, truth.argmax(axis=1))


def _accuracy(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return (ranks(probs, truth.argmax(axis=1)) == 0).astype(np.float64)


METRICS = {
    one.name: one
    for one in (
        Metric("map@3", "MAP@3", "map3", _mean(_map_at_3), _map_at_3),
        Metric("accuracy", "accuracy", "accuracy", _mean(_accuracy), _accuracy),
    )
}
