"""How far a score is from that of other clips of the same kind: the bootstrap, whole groups drawn."""

from contextlib import suppress

import numpy as np

from metrics.metric import Metric

RESAMPLES = 500


def resampled(metric: Metric, probs: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(k,) the metric of k resamples of the clips: row i counts clip j times[i, j] times.

    probs (clips, classes), truth (clips, classes) bool, times (k, clips) whole numbers from 0, as `draw_groups` gives
    them. The same as `metric.score` of repeated rows, but sorted once: 1,000 resamples of 2,571 x 56 take about a
    second. One's own metric is computed from repeated rows. NaN where a resample has nothing to score, such as no
    positive. Raises ValueError as `metric.score`.
    """
    if times.ndim != 2 or times.shape[1] != len(probs):
        raise ValueError(f"times {times.shape} and {len(probs)} clips do not match")
    if metric.per_clip is not None:
        with np.errstate(invalid="ignore"):
            return np.asarray((times @ metric.per_clip(probs, truth)) / times.sum(axis=1))
    if metric.resample is not None:
        return metric.resample(probs, truth, times)
    metric.score(probs, truth)  # raises where the clips themselves are at fault
    found = np.full(len(times), np.nan)
    for i, row in enumerate(times):
        drawn = np.repeat(np.arange(len(probs)), row)
        with suppress(ValueError):  # nothing to score, also by one's own metric
            found[i] = metric.score(probs[drawn], truth[drawn])
    return found


def draw_groups(group: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """(k, clips) how often each clip is drawn when whole groups are, with replacement, as many as there are.

    group (clips,) of anything that can be sorted. Source: B. Efron, "Bootstrap methods", 1979.
    """
    member = np.unique(group, return_inverse=True)[1]
    n = int(member.max()) + 1
    return np.asarray(rng.multinomial(n, np.full(n, 1 / n), size=k)[:, member])


def standard_error_of(metric: Metric, probs: np.ndarray, truth: np.ndarray, group: np.ndarray) -> float:
    """Standard error of `metric.score` when whole groups (clips,) are sampled; other arguments as in `resampled`.

    By a formula for a mean over clips, else by RESAMPLES resamples, always the same. Raises ValueError as
    `metric.score`.
    """
    if metric.per_clip is not None:
        return standard_error(metric.per_clip(probs, truth), group)
    return float(np.nanstd(resampled(metric, probs, truth, draw_groups(group, RESAMPLES, np.random.default_rng(0)))))


def standard_error(gains: np.ndarray, group: np.ndarray) -> float:
    """Standard error of the mean of gains (clips,) when whole groups (clips,) are sampled.

    With one clip per group it is the usual one. Source: K.-Y. Liang and S. Zeger, "Longitudinal data analysis
    using generalized linear models", 1986 (the sandwich of clustered observations).
    """
    member = np.unique(group, return_inverse=True)[1]
    sums = np.bincount(member, weights=gains - gains.mean())
    return float(np.sqrt(sums @ sums * len(sums) / max(len(sums) - 1, 1)) / len(gains))
