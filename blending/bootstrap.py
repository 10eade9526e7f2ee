"""What a blend is worth on clips that its weights have not seen: nested cross-validation, bootstrap, and the choice.

The models' rows are out-of-fold already; here the blend is too: weights, temperatures and stackers, with the choices
that a method makes itself, are fitted on the other folds and judged on the held-out one. What was chosen before, such
as the epoch of a run, is not chosen anew.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

RESAMPLES = 2000  # of the bootstrap
INTERVAL = (2.5, 97.5)  # percentiles


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


def summary(gains: Mapping[str, np.ndarray], group: np.ndarray, single: str, mean: str) -> dict[str, dict[str, Any]]:
    """Per method: score, standard error, interval, and the paired differences to `single` and `mean` with theirs.

    gains: average precision (clips,) of the clips that decide.
    """
    drawn = dict(zip(gains, bootstrap_means(np.stack(list(gains.values())), group), strict=True))
    found = {}
    for name, one in gains.items():
        found[name] = {"score": float(one.mean()), "se": float(drawn[name].std()), "interval": _interval(drawn[name])}
        for other, key in ((single, "to_single"), (mean, "to_mean")):
            difference = float(one.mean() - gains[other].mean())
            found[name][key] = {"difference": difference, "interval": _interval(drawn[name] - drawn[other])}
    return found


def expected_on(n_clips: int, gains: np.ndarray, se: float) -> list[float]:
    """The interval that holds, with 95 %, the score on as many new clips of the same kind: the error of our estimate
    and the luck of their draw. gains (clips,): the average precision of ours; se: of their mean."""
    half = 1.96 * float(np.sqrt(se**2 + gains.var(ddof=1) / n_clips))
    return [max(0.0, float(gains.mean()) - half), min(1.0, float(gains.mean()) + half)]


def _interval(drawn: np.ndarray) -> list[float]:
    return [float(bound) for bound in np.percentile(drawn, INTERVAL)]
