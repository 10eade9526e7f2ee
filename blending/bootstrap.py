"""What a blend is worth on clips that its weights have not seen: nested cross-validation, bootstrap, and the choice.

The models' rows are out-of-fold already; here the blend is too: weights, temperatures and stackers, with the choices
that a method makes itself, are fitted on the other folds and judged on the held-out one. What was chosen before, such
as the epoch of a run, is not chosen again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metrics.metric import Metric
from metrics.resampling import draw_groups, resampled

RESAMPLES = 2000  # of the bootstrap
METRIC_RESAMPLES = 500  # where each computes a metric that is no mean over clips
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
class Judge:
    """Scores blends (clips, classes) on rows that decide, higher for a better one: a loss counts with a minus."""

    metric: Metric
    truth: np.ndarray  # (clips, classes) bool
    group: np.ndarray  # (clips,) numbers

    def at(self, rows: np.ndarray) -> "Judge":
        return Judge(self.metric, self.truth[rows], self.group[rows])

    @property
    def sign(self) -> int:
        return 1 if self.metric.higher_is_better else -1

    def gain(self, probs: np.ndarray) -> float:
        return self.metric.gain(probs, self.truth)

    def gains(self, probs: np.ndarray) -> np.ndarray:
        """(clips,) values whose mean is `gain`, of a metric that has them."""
        assert self.metric.per_clip is not None
        return self.sign * self.metric.per_clip(probs, self.truth)

    def drawn(self, blends: Sequence[np.ndarray]) -> np.ndarray:
        """(blends, draws) gains of bootstrap samples of whole groups, the same samples for every blend."""
        if self.metric.per_clip is not None:
            return bootstrap_means(np.stack([self.gains(one) for one in blends]), self.group)
        times = draw_groups(self.group, METRIC_RESAMPLES, np.random.default_rng(0))
        times = times[(times @ self.truth.any(axis=1)) > 0]
        return self.sign * np.stack([resampled(self.metric, one, self.truth, times) for one in blends])

    def luck(self, probs: np.ndarray, n_clips: int) -> float:
        """Standard deviation of the score on n_clips other clips of the same kind."""
        if self.metric.per_clip is not None:
            return float(np.sqrt(self.gains(probs).var(ddof=1) / n_clips))
        member = np.unique(self.group, return_inverse=True)[1]
        n = int(member.max()) + 1
        rng, share = np.random.default_rng(1), np.full(n, 1 / n)
        drawn = rng.multinomial(max(2, round(n * n_clips / len(member))), share, size=METRIC_RESAMPLES)[:, member]
        return float(np.nanstd(resampled(self.metric, probs, self.truth, drawn)))


@dataclass(frozen=True)
class Difference:
    """A score less that of another method, over the same clips."""

    difference: float
    interval: tuple[float, float]  # 95 %


@dataclass(frozen=True)
class MethodScore:
    """The metric of a method on the rows that decide."""

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
    judge: Judge,
    judged: np.ndarray,
    verified: np.ndarray,
) -> dict[str, MethodScore]:
    """The scores of each method, SINGLE and MEAN among them.

    nested, fitted: blends (clips, classes) per method; judge: of all clips; judged, verified (clips,) bool.
    """
    decides, sign = judge.at(judged), judge.sign
    gains = {name: decides.gain(one[judged]) for name, one in nested.items()}
    drawn = dict(zip(gains, sign * decides.drawn([one[judged] for one in nested.values()]), strict=True))
    scored = verified.any() and judge.truth[verified].any()

    mean = MEAN if MEAN in gains else "rank"  # where no value is a probability

    def difference(name: str, other: str) -> Difference:
        return Difference(sign * (gains[name] - gains[other]), _interval(drawn[name] - drawn[other]))

    return {
        name: MethodScore(
            score=sign * gains[name],
            se=float(np.nanstd(drawn[name])),
            interval=_interval(drawn[name]),
            to_single=difference(name, SINGLE),
            to_mean=difference(name, mean),
            fitted=sign * decides.gain(fitted[name][judged]),
            nested_all=sign * judge.gain(one),
            nested_verified=sign * judge.at(verified).gain(one[verified]) if scored else None,
        )
        for name, one in nested.items()
    }


@dataclass(frozen=True)
class Expected:
    """What to expect of new clips of the same kind."""

    clips: int
    score: float
    interval: tuple[float, float]  # 95 %


def expected_on(n_clips: int, probs: np.ndarray, judge: Judge, se: float) -> Expected:
    """The score on as many new clips, and the interval that holds it with 95 %: the error of our estimate and the luck
    of their draw. Without new clips: the error of the estimate alone.

    probs (clips, classes): the blend of the clips that decide; judge: of these; se: of its score.
    """
    score, luck = judge.sign * judge.gain(probs), judge.luck(probs, n_clips) if n_clips else 0.0
    half = 1.96 * float(np.sqrt(se**2 + luck**2))
    top = 1.0 if judge.metric.higher_is_better else float("inf")
    return Expected(n_clips, score, (max(0.0, score - half), min(top, score + half)))


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(drawn, INTERVAL) if np.isnan(drawn).any() else np.percentile(drawn, INTERVAL)
    return float(low), float(high)
