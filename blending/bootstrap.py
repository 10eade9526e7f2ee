"""What a blend is worth on clips that its weights have not seen: nested cross-validation, bootstrap, and the choice.

The models' rows are out-of-fold already; here the blend is too: weights, temperatures and stackers, with the choices
that a method makes itself, are fitted on the other folds and judged on the held-out one. What was chosen before, such
as the epoch of a run, is not chosen again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000  # of the bootstrap
INTERVAL = (2.5, 97.5)  # percentiles
SINGLE, MEAN = "single", "arithmetic"  # the methods that the others are compared to


def bootstrap_means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(k, RESAMPLES) means of values (k, clips), whole groups drawn with replacement, the same draws for every row.

    group (clips,) numbers. Always the same draws for as many groups. Source: B. Efron, "Bootstrap methods", 1979.
    """
    member = np.unique(group, return_inverse=True)[1]
    size = np.bincount(member)
    sums = np.stack([np.bincount(member, weights=one) for one in values], axis=1)
    rng = np.random.default_rng(0)
    means = []
    for _ in range(0, RESAMPLES, 200):  # 200 draws of 10,000 groups are 16 MB
        times = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), size=200).astype(np.float64)
        means.append((times @ sums) / (times @ size)[:, None])
    return np.concatenate(means).T


@dataclass(frozen=True)
class Difference:
    """A score less that of another method, over the same clips."""

    difference: float
    interval: tuple[float, float]  # 95 %


@dataclass(frozen=True)
class MethodScore:
    """MAP@3 of a method on the rows that decide."""

    score: float  # nested: each fold by a fit to the others
    se: float  # standard error of `score`
    interval: tuple[float, float]  # 95 % of `score`
    to_single: Difference  # to the best single model
    to_mean: Difference  # to the plain mean
    fitted: float  # on the rows that it was fitted to
    nested_all: float  # nested, on all rows
    nested_verified: float | None = None  # nested, on the verified rows; None where there are none


def method_scores(
    nested: Mapping[str, np.ndarray],
    fitted: Mapping[str, np.ndarray],
    judged: np.ndarray,
    verified: np.ndarray,
    group: np.ndarray,
) -> dict[str, MethodScore]:
    """The scores of each method, SINGLE and MEAN among them.

    nested, fitted: average precision (clips,) per method; judged, verified (clips,) bool; group (clips,) numbers.
    """
    gains = {name: one[judged] for name, one in nested.items()}
    drawn = dict(zip(gains, bootstrap_means(np.stack(list(gains.values())), group[judged]), strict=True))

    def difference(name: str, other: str) -> Difference:
        return Difference(float(gains[name].mean() - gains[other].mean()), _interval(drawn[name] - drawn[other]))

    return {
        name: MethodScore(
            score=float(one.mean()),
            se=float(drawn[name].std()),
            interval=_interval(drawn[name]),
            to_single=difference(name, SINGLE),
            to_mean=difference(name, MEAN),
            fitted=float(fitted[name][judged].mean()),
            nested_all=float(nested[name].mean()),
            nested_verified=float(nested[name][verified].mean()) if verified.any() else None,
        )
        for name, one in gains.items()
    }


@dataclass(frozen=True)
class Expected:
    """What to expect of new clips of the same kind."""

    clips: int
    score: float
    interval: tuple[float, float]  # 95 %


def expected_on(n_clips: int, gains: np.ndarray, se: float) -> Expected:
    """The score on as many new clips, and the interval that holds it with 95 %: the error of our estimate and the luck
    of their draw. gains (clips,): the average precision of ours; se: of their mean."""
    score, half = float(gains.mean()), 1.96 * float(np.sqrt(se**2 + gains.var(ddof=1) / n_clips))
    return Expected(n_clips, score, (max(0.0, score - half), min(1.0, score + half)))


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(drawn, INTERVAL)
    return float(low), float(high)
