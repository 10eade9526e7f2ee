"""All methods side by side on the rows that decide, and the one that is taken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from blending.apply import Blend, apply_blend
from blending.bootstrap import MEAN, SINGLE, Expected, MethodScore, bootstrap_means, expected_on, method_scores
from blending.candidates import Candidates
from blending.fit import FitRows, fit_blend
from blending.greedy import greedy_path
from blending.methods import AUTO, METHODS
from console.errors import UserError
from console.output import Advance, progress
from metrics.map_at_3 import average_precision_at_3

UNVERIFIED_WEIGHTS = (0.0, 0.1, 0.3, 1.0)  # shown side by side where some rows are not verified
FEWEST_ROWS = 2  # that decide, outside of any fold: there is nothing to fit to below


@dataclass(frozen=True)
class Nested:
    """A method's fit to all rows, and what it and the fits to all but one fold give."""

    blend: Blend
    fitted: np.ndarray  # (clips, classes) on the rows that it was fitted to
    nested: np.ndarray  # (clips, classes), each fold by the fit to the others


@dataclass(frozen=True)
class Comparison:
    """comparison.json: all methods tried, and what to expect of the one that is taken."""

    chosen: str  # a method
    decide: str  # the rows that judge, one of DECIDE
    rows: int  # how many they are
    methods: dict[str, MethodScore]  # AUTO among them, where it was asked for
    expected: Expected  # of the test clips
    unverified_weight: dict[str, float] = field(default_factory=dict)  # weight -> score, see `_by_unverified_weight`
    greedy_path: tuple[tuple[str, float], ...] = ()  # the models in order, and the fitted score after each


def rows_that_decide(
    candidates: Candidates, decide: str, unverified_weight: float | None
) -> tuple[FitRows, np.ndarray]:
    """The rows with their weight in a fit, and which of them judge, (clips,) bool; arguments as in `make_ensemble`.

    Raises UserError where fewer than FEWEST_ROWS judging rows lie outside of some fold.
    """
    c = candidates
    only_verified = decide == "verified" and bool(c.verified.any())
    judged = c.verified if only_verified else np.ones(len(c.truth), dtype=bool)
    other = unverified_weight if unverified_weight is not None else float(not only_verified)
    weight = np.where(c.verified, 1.0, other) if c.verified.any() else np.ones(len(c.truth))
    for k in np.unique(c.fold):
        if (n := int((judged & (c.fold != k) & (weight > 0)).sum())) < FEWEST_ROWS:
            remedy = ": judge by all rows with --decide all" if only_verified else ""
            raise UserError(f"only {n} rows that decide lie outside of fold {k}: too few to fit a blend{remedy}")
    return FitRows(c.oof, c.truth, weight, c.fold), judged


def compare(
    candidates: Candidates, method: str, rows_judged: tuple[FitRows, np.ndarray]
) -> tuple[Blend, np.ndarray, Comparison]:
    """The fit that is taken, its nested probabilities (clips, classes), and the comparison.

    AUTO compares all METHODS and counts beside them as a method of its own, whose score pays for most of the choice,
    see `nested_choice`.
    """
    c, (rows, judged) = candidates, rows_judged
    tried = list(METHODS) if method == AUTO else [name for name in METHODS if name in (SINGLE, MEAN, method)]
    fits = len(tried) * (1 + len(np.unique(c.fold)))
    with progress("fitting", fits, "fits") as advance:
        found = {name: nested_blend(name, rows, c.names, advance) for name in tried}
    nested = {name: one.nested for name, one in found.items()}
    gains = {name: average_precision_at_3(one, c.truth) for name, one in nested.items()}
    fitted = {name: average_precision_at_3(one.fitted, c.truth) for name, one in found.items()}
    chosen = method
    if method == AUTO:
        chosen = simplest({name: one[judged] for name, one in gains.items()}, c.group[judged])
        nested[AUTO] = nested_choice(gains, nested, c.fold, judged, c.group)
        gains[AUTO], fitted[AUTO] = average_precision_at_3(nested[AUTO], c.truth), fitted[chosen]
    methods = method_scores(gains, fitted, judged, c.verified, c.group)
    path, path_scores = greedy_path(*_plain_rows(rows))
    comparison = Comparison(
        chosen=chosen,
        decide="verified" if judged.sum() < len(judged) else "all",
        rows=int(judged.sum()),
        methods=methods,
        expected=expected_on(len(c.test_fnames), gains[method][judged], methods[method].se),
        unverified_weight=_by_unverified_weight(c, found["log_linear"], judged) if method == AUTO else {},
        greedy_path=tuple((c.names[i], score) for i, score in zip(path, path_scores, strict=True)),
    )
    return found[chosen].blend, nested[method], comparison


def _plain_rows(rows: FitRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    used = rows.at(rows.weight > 0)
    return used.stack, used.truth, used.weight


def _by_unverified_weight(candidates: Candidates, found: Nested, judged: np.ndarray) -> dict[str, float]:
    """Score of the log-linear pool per weight of the unverified rows; empty where all rows are alike. Each fold is
    blended by a fit to the others, but not nested: to save time the offsets' spread is the one chosen on all rows."""
    c = candidates
    if c.verified.all() or not c.verified.any():
        return {}
    scores = {}
    for weight in UNVERIFIED_WEIGHTS:
        rows = FitRows(c.oof, c.truth, np.where(c.verified, 1.0, weight), c.fold)
        probs = nested_probs("log_linear", rows, c.names, found.blend.offset_spread)
        scores[str(weight)] = float(average_precision_at_3(probs, c.truth)[judged].mean())
    return scores


def no_bar(n: int, note: str = "") -> None:
    """For who shows no progress."""


def nested_blend(method: str, rows: FitRows, names: Sequence[str], advance: Advance = no_bar) -> Nested:
    """Fit `method` to all rows and to all but each fold. Rows of weight 0 are blended, not fitted to."""
    blend = fit_blend(method, rows.at(rows.weight > 0), names)
    advance(1)
    return Nested(blend, _apply(blend, rows.stack, names), nested_probs(method, rows, names, advance=advance))


def nested_probs(
    method: str,
    rows: FitRows,
    names: Sequence[str],
    spread: float | None = None,
    advance: Advance = no_bar,
) -> np.ndarray:
    """(clips, classes): each fold blended by a fit to the others; spread as in `fit_blend`."""
    out = np.zeros(rows.stack.shape[1:])
    for k in np.unique(rows.fold):
        held = rows.fold == k
        out[held] = _apply(fit_blend(method, rows.at(~held), names, spread), rows.stack[:, held], names)
        advance(1)
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


def _apply(blend: Blend, stack: np.ndarray, names: Sequence[str]) -> np.ndarray:
    return apply_blend(blend, dict(zip(names, stack, strict=True)))
