"""All methods side by side on the rows that decide, and the one that is taken."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from blending.apply import SCORES_TOO, Blend, apply_blend
from blending.bootstrap import MEAN, SINGLE, Expected, Judge, MethodScore, bootstrap_means, expected_on, method_scores
from blending.candidates import Candidates
from blending.chance import at_chance
from blending.fit import MAP_AT_3, FitRows
from blending.greedy import greedy_path
from blending.methods import AUTO, METHODS
from blending.metric_greedy import metric_greedy_path
from blending.parallel_fits import Fit, FitAll, fitting
from blending.worth import Fits, with_worths
from console.errors import UserError
from console.output import progress
from metrics.metric import Metric

UNVERIFIED_WEIGHTS = (0.0, 0.1, 0.3, 1.0)  # shown side by side where some rows are not verified
FEWEST_ROWS = 2  # that decide, outside of any fold: there is nothing to fit to below


@dataclass(frozen=True)
class Nested:
    """A method's fits to all rows and to all but one fold, and what they give."""

    fits: Fits
    fitted: np.ndarray  # (clips, classes) on the rows that it was fitted to
    nested: np.ndarray  # (clips, classes), each fold by the fit to the others

    @property
    def blend(self) -> Blend:
        """The fit to all rows."""
        return self.fits[None]


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
    metric: str = "map@3"  # a name for `metrics.metric.find_metric`
    left_out: dict[str, str] = field(default_factory=dict)  # model -> why it does not count


def rows_that_decide(
    candidates: Candidates, decide: str, unverified_weight: float | None
) -> tuple[FitRows, np.ndarray]:
    """The rows with their weight in a fit, and which of them judge, (clips,) bool; arguments as in `make_ensemble`.

    Raises UserError where fewer than FEWEST_ROWS judging rows lie outside of some fold.
    """
    c = candidates
    only_verified = decide == "verified" and bool(c.verified.any())
    judged = c.verified if only_verified else np.ones(len(c.truth), dtype=bool)
    if not c.truth[judged].any():
        raise UserError("none of the rows that decide has a label: judge by all rows with --decide all")
    other = unverified_weight if unverified_weight is not None else float(not only_verified)
    weight = np.where(c.verified, 1.0, other) if c.verified.any() else np.ones(len(c.truth))
    for k in np.unique(c.fold):
        if (n := int((judged & (c.fold != k) & (weight > 0)).sum())) < FEWEST_ROWS:
            remedy = ": judge by all rows with --decide all" if only_verified else ""
            raise UserError(f"only {n} rows that decide lie outside of fold {k}: too few to fit a blend{remedy}")
    return FitRows(c.oof, c.truth, weight, c.fold, c.task, c.metric, usable_models(c)), judged


def usable_models(candidates: Candidates) -> tuple[bool, ...]:
    """Per model, whether all its values lie in 0 to 1: the methods but SCORES_TOO take no others."""
    pairs = zip(candidates.oof, candidates.test, strict=True)
    return tuple(all(one.min(initial=0) >= 0 and one.max(initial=0) <= 1 for one in both) for both in pairs)


def without_chance(
    candidates: Candidates, judged: np.ndarray, is_plain_mean: bool = False
) -> tuple[Candidates, dict[str, str]]:
    """The candidates without the models at chance level, and why each was left out.

    For several labels, and for a mean that nobody chose: a single-label blend that is fitted keeps every model, as its
    weights tell which are of use.
    """
    c = candidates
    if c.task == "single_label" and not is_plain_mean:
        return c, {}
    lost = set(at_chance(Judge(c.metric, c.truth, c.group).at(judged), c.oof[:, judged]))
    kept = [i for i in range(len(c.names)) if i not in lost]
    reason = f"its out-of-fold {c.metric.title} is no better than chance"
    return c.of_models(kept), {c.names[i]: reason for i in sorted(lost)}


def compare(
    candidates: Candidates, method: str, rows_judged: tuple[FitRows, np.ndarray]
) -> tuple[Blend, np.ndarray, Comparison]:
    """The fit that is taken, its nested probabilities (clips, classes), and the comparison.

    AUTO compares all METHODS and counts beside them as a method of its own, whose score pays for most of the choice,
    see `nested_choice`.
    """
    c, (rows, judged) = candidates, rows_judged
    judge = Judge(c.metric, c.truth, c.group)
    mean = MEAN if any(usable_models(c)) else "rank"
    tried = [
        name
        for name in METHODS
        if (method == AUTO and (mean == MEAN or name in SCORES_TOO)) or name in (SINGLE, mean, method)
    ]
    mixed = bool(c.verified.any()) and not c.verified.all()
    shares = UNVERIFIED_WEIGHTS if mixed and method == AUTO and "log_linear" in tried else ()
    n_fits = len(tried) * len(held_out(rows, True)) + len(shares) * len(held_out(rows, compares_clips(c.metric)))
    with progress("fitting", n_fits, "fits") as advance, fitting(tried, rows, c.names, advance) as fit_all:
        found = nested_blends(tried, rows, c.names, fit_all)
        spread = found["log_linear"].blend.offset_spread if shares else None
        by_weight = _by_unverified_weight(c, shares, spread, judged, fit_all)
    nested = {name: one.nested for name, one in found.items()}
    fitted = {name: one.fitted for name, one in found.items()}
    chosen = method
    if method == AUTO:
        chosen = simplest({name: one[judged] for name, one in nested.items()}, judge.at(judged))
        nested[AUTO] = nested_choice(nested, c.fold, judged, judge)
        fitted[AUTO] = fitted[chosen]
    methods = method_scores(nested, fitted, judge, judged, c.verified)
    comparison = Comparison(
        chosen=chosen,
        decide="verified" if judged.sum() < len(judged) else "all",
        rows=int(judged.sum()),
        methods=methods,
        expected=expected_on(len(c.test_fnames), nested[method][judged], judge.at(judged), methods[method].se),
        unverified_weight={str(share): score for share, score in by_weight.items()},
        greedy_path=_greedy_path(rows, c.names),
        metric=c.metric.name,
    )
    gain = _nested_gain(rows, c.names, judge, judged)
    return with_worths(found[chosen].fits, gain), nested[method], comparison


def _nested_gain(rows: FitRows, names: Sequence[str], judge: Judge, judged: np.ndarray) -> Callable[[Fits], float]:
    """What gives the nested score of fits on the rows that decide, higher for a better one."""
    seen = judged | compares_clips(rows.metric)  # the rows that the score depends on
    if not seen.all():
        stack, truth, weight, fold = rows.stack[:, seen], rows.truth[seen], rows.weight[seen], rows.fold[seen]
        rows = replace(rows, stack=stack, truth=truth, weight=weight, fold=fold)
    decides = judge.at(judged)
    return lambda fits: decides.gain(nested_probs(rows, names, fits)[judged[seen]])


def _greedy_path(rows: FitRows, names: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """The models in order, and the fitted score after each, over all rows of a weight above 0, unbagged."""
    used = rows.at(rows.weight > 0)
    if used.task == "single_label" and used.metric.key == MAP_AT_3.key:
        path, scores = greedy_path(used.stack, used.label, used.weight)
    else:
        sign = 1 if used.metric.higher_is_better else -1
        path, gains = metric_greedy_path(used.metric, used.stack, used.truth, used.weight, 30)
        scores = [sign * gain for gain in gains]
    return tuple((names[i], score) for i, score in zip(path, scores, strict=True))


def _by_unverified_weight(
    candidates: Candidates, shares: Sequence[float], spread: float | None, judged: np.ndarray, fit_all: FitAll
) -> dict[float, float]:
    """Score of the log-linear pool by the weight of the unverified rows. Each fold is blended by a fit to the others,
    but not nested: to save time the spread is the one chosen on all rows."""
    c = candidates
    judge = Judge(c.metric, c.truth, c.group).at(judged)
    rows = FitRows(c.oof, c.truth, c.verified, c.fold, c.task, c.metric, usable_models(c))
    weighted = [replace(rows, weight=np.where(c.verified, 1.0, share)) for share in shares]
    held = held_out(rows, whole=compares_clips(c.metric))
    blends = iter(fit_all([Fit("log_linear", one, k, spread) for one in weighted for k in held]))
    probs = [nested_probs(one, c.names, {k: next(blends) for k in held}) for one in weighted]
    return {share: judge.sign * judge.gain(one[judged]) for share, one in zip(shares, probs, strict=True)}


def held_out(rows: FitRows, whole: bool) -> list[int | None]:
    """The folds that are left out of a fit in turn; first None, for a fit to all, if that is needed too."""
    return [*([None] if whole else []), *np.unique(rows.fold).tolist()]


def nested_blends(methods: Sequence[str], rows: FitRows, names: Sequence[str], fit_all: FitAll) -> dict[str, Nested]:
    """Each method fitted to all rows and to all but each fold. Rows of weight 0 are blended, not fitted to."""
    held = held_out(rows, whole=True)
    blends = iter(fit_all([Fit(method, rows, k) for method in methods for k in held]))
    found = {}
    for method in methods:
        of_method = {k: next(blends) for k in held}
        fitted = _apply(of_method[None], rows.stack, names)
        found[method] = Nested(of_method, fitted, nested_probs(rows, names, of_method))
    return found


def nested_probs(rows: FitRows, names: Sequence[str], fits: Fits) -> np.ndarray:
    """(clips, classes): each fold blended by the fit to the others.

    A metric that compares clips within a class would compare blends of several fits, whose offsets of a class depend on
    how frequent it is in the other folds: less where it is more frequent in this one. Therefore each value is replaced
    by the one of the same rank, among all rows, in the fit to all rows, `fits[None]`: no fit's order of clips changes.
    """
    out = np.zeros(rows.stack.shape[1:])
    by_rank = compares_clips(rows.metric)
    reference = _apply(fits[None], rows.stack, names) if by_rank else out
    for k in np.unique(rows.fold).tolist():
        held = rows.fold == k
        if by_rank and fits[k] == fits[None]:  # a plain mean: its values have their ranks already
            out[held] = reference[held]
        elif by_rank:
            out[held] = match_ranks(_apply(fits[k], rows.stack, names), reference, held)
        else:
            out[held] = _apply(fits[k], rows.stack[:, held], names)
    return out


def compares_clips(metric: Metric) -> bool:
    """Whether it compares clips within a class by nothing but their order."""
    return metric.within == "class" and metric.fit_thresholds is None


def match_ranks(probs: np.ndarray, reference: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Each value replaced by the one of the same rank in the reference's column; ties become their middle. Both (clips,
    classes). rows: (clips,) bool, of the clips that are returned; None: all."""
    asked = probs if rows is None else probs[rows]
    out = np.empty(asked.shape)
    for c in range(probs.shape[1]):
        ours, theirs = np.sort(probs[:, c]), np.sort(reference[:, c])
        low, high = (ours.searchsorted(asked[:, c], side) for side in ("left", "right"))
        out[:, c] = theirs[(low + high - 1) // 2]
    return out


def simplest(nested: Mapping[str, np.ndarray], judge: Judge) -> str:
    """The first, so the simplest, method whose score is within one standard error of the best.

    nested: blends (clips, classes) per method, the simplest first. The standard error is that of the paired difference
    to the best over the same clips, not that of a score: most of a score's error is which clips are hard, which all
    methods share, and a rule with that error would give up gains that are four errors of the difference.
    Source: L. Breiman et al., "Classification and regression trees", 1984 (the one-standard-error rule).
    """
    if judge.metric.per_clip is not None:  # the mean of differences, not the difference of means: equal clips are equal
        gains = {name: judge.gains(one) for name, one in nested.items()}
        best = max(gains, key=lambda name: float(gains[name].mean()))  # the first of equals
        lost = np.stack([gains[best] - one for one in gains.values()])
        losses, error = lost.mean(axis=1), bootstrap_means(lost, judge.group).std(axis=1)
    else:
        scores = np.array([judge.gain(one) for one in nested.values()])
        drawn = judge.drawn(list(nested.values()))
        losses, error = scores.max() - scores, np.nanstd(drawn[scores.argmax()] - drawn, axis=1)
    return next(name for name, d, se in zip(nested, losses, error, strict=True) if d <= se)


def nested_choice(nested: Mapping[str, np.ndarray], fold: np.ndarray, judged: np.ndarray, judge: Judge) -> np.ndarray:
    """(clips, classes) of `simplest` as a method of its own: each fold by the method that the other folds choose.

    Not quite blind: the blends that the other folds choose by were fitted to rows of this fold among others.

    nested: blends (clips, classes) per method; judged (clips,) bool: the rows that decide; judge: of all clips.
    """
    out = np.zeros_like(next(iter(nested.values())))
    if compares_clips(judge.metric):  # see `nested_probs`
        reference = nested[simplest({name: one[judged] for name, one in nested.items()}, judge.at(judged))]
        nested = {name: match_ranks(one, reference) for name, one in nested.items()}
    for k in np.unique(fold):
        seen = judged & (fold != k)
        chosen = simplest({name: one[seen] for name, one in nested.items()}, judge.at(seen))
        out[fold == k] = nested[chosen][fold == k]
    return out


def _apply(blend: Blend, stack: np.ndarray, names: Sequence[str]) -> np.ndarray:
    return apply_blend(blend, dict(zip(names, stack, strict=True)))
