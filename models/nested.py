"""What a blend is worth on clips that its weights have not seen: nested cross-validation, bootstrap, and the choice.

The models' rows are out-of-fold already; here the blend is too: weights, temperatures and stackers, with the choices
that a method makes itself, are fitted on the other folds and judged on the held-out one. What was chosen before, such
as the epoch of a run, is not chosen anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.blend_fitting import FitRows, fit_blend
from models.blending import apply_blend

RESAMPLES = 2000  # of the bootstrap
INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Nested:
    """A method's fit to all rows, what that gives on the rows it was fitted to, and what the fits to the other folds
    give: (clips, classes)."""

    about: dict[str, Any]
    fitted: np.ndarray
    nested: np.ndarray


def nested_blend(method: str, rows: FitRows, names: Sequence[str]) -> Nested:
    """Fit `method` to all rows and to all but each fold. Rows of weight 0 are blended, not fitted to."""
    about = fit_blend(method, rows.at(rows.weight > 0), names)
    return Nested(about, _apply(about, rows.stack, names), nested_probs(method, rows, names))


def nested_probs(method: str, rows: FitRows, names: Sequence[str], spread: float | None = None) -> np.ndarray:
    """(clips, classes): each fold blended by a fit to the others; spread as in `fit_blend`."""
    out = np.zeros(rows.stack.shape[1:])
    for k in np.unique(rows.fold):
        held = rows.fold == k
        out[held] = _apply(fit_blend(method, rows.at(~held), names, spread), rows.stack[:, held], names)
    return out


def simplest(gains: Mapping[str, np.ndarray], group: np.ndarray) -> str:
    """The first, so the simplest, method whose score is within one standard error of the best.

    gains: average precision (clips,) per method, the simplest first. The standard error is that of the paired
    difference to the best over the same clips, not that of a score: most of a score's error is which clips are hard,
    which all methods share, and a rule with that error would give up gains that are four errors of the difference.
    Source: L. Breiman et al., "Classification and regression trees", 1984 (the one-standard-error rule).
    """
    best = max(gains, key=lambda name: float(gains[name].mean()))  # the first of equals
    lost = np.stack([gains[best] - one for one in gains.values()])
    error = bootstrap_means(lost, group).std(axis=1)
    return next(name for name, d, se in zip(gains, lost.mean(axis=1), error, strict=True) if d <= se)


def nested_choice(
    gains: Mapping[str, np.ndarray],
    probs: Mapping[str, np.ndarray],
    fold: np.ndarray,
    judged: np.ndarray,
    group: np.ndarray,
) -> np.ndarray:
    """(clips, classes) of `simplest` as a method of its own: each fold by the method that the other folds choose.

    Not quite blind: the blends that the other folds choose by were fitted to rows of this fold among others.

    gains (clips,) and probs (clips, classes) per method, nested; judged (clips,) bool: the rows that decide.
    """
    out = np.zeros_like(next(iter(probs.values())))
    for k in np.unique(fold):
        seen = judged & (fold != k)
        chosen = simplest({name: one[seen] for name, one in gains.items()}, group[seen])
        out[fold == k] = probs[chosen][fold == k]
    return out


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


def _apply(about: dict[str, Any], stack: np.ndarray, names: Sequence[str]) -> np.ndarray:
    return apply_blend(about, dict(zip(names, stack, strict=True)))
