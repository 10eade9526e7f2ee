"""A blend on disk: work/ensembles/<name>/ with weights.json, oof.npz, test.npz, scores.json and comparison.json, whole
or not at all."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from blending.apply import SCORES_TOO, Blend, Model, apply_blend, read_blend, write_blend
from blending.bootstrap import Expected, Judge, expected_on
from blending.candidates import Candidates
from blending.compare_methods import Comparison, compare, rows_that_decide, usable_models, without_chance
from blending.methods import AUTO
from configs.competition import LABEL_SEPARATOR
from configs.files import lock, new_folder, read_steady, recover
from configs.forms import read_json, to_json
from console.errors import UserError, list_some
from folds.assign import fold_hash
from metrics.metric import find_metric
from metrics.scores import scores
from runs.predictions import Predictions, load_predictions, replace_predictions, save_predictions

BLEND = "blend"  # its own name among the models' in scores.json
AGAIN = "make it again with ensemble.py --force"


@dataclass(frozen=True)
class Ensemble:
    """A blend with its probabilities and scores."""

    blend: Blend
    oof: Predictions  # every training clip, blended by a fit to the other folds
    test: Predictions  # the test clips, blended by the fit to all
    scores: dict[str, dict[str, float]]  # per model and for BLEND (nested), as `metrics.scores.scores` has them
    comparison: Comparison


Report = Callable[[Path, Ensemble, Candidates], None]  # writes pictures and a page into a folder


def make_ensemble(
    candidates: Candidates,
    method: str,
    by_default: bool = False,
    decide: str = "verified",
    unverified_weight: float | None = None,
) -> Ensemble:
    """Fit a blend to the out-of-fold rows, judge it by nested cross-validation and apply it to the test rows.

    method: one of METHODS, or AUTO. by_default: nobody chose it: a later submission may replace it. decide:
    the rows that judge, 'verified' (all where none is) or 'all'. unverified_weight: of the other rows in the fit; None
    is 0 where verified rows decide and 1 where all do. Raises UserError where too few rows decide, or a model is called
    BLEND.
    """
    c, given = candidates, candidates
    if BLEND in c.names:
        raise UserError(
            f"a model cannot be called {BLEND!r}, as the scores call what is made of all: rename its folder or file"
        )
    c, left_out = without_chance(c, rows_that_decide(c, decide, unverified_weight)[1], by_default)
    left_out = check_values(c, method) | left_out
    fitted, nested, comparison = compare(c, method, rows_that_decide(c, decide, unverified_weight))
    comparison = replace(comparison, left_out=left_out)
    found = {name: fitted.models.get(name, Model(0.0)) for name in given.names}
    models = {name: replace(found[name], ids=ids) for name, ids in zip(given.names, given.ids, strict=True)}
    blend = replace(
        fitted,
        models=models,
        asked=method,
        decide=decide,
        unverified_weight=unverified_weight,
        by_default=by_default,
        classes=c.classes,
        truth=_truth_hash(given),
    )
    test = apply_blend(blend, dict(zip(c.names, c.test, strict=True)))
    all_probs = {**dict(zip(given.names, given.oof, strict=True)), BLEND: nested}
    truth = c.label_index if c.task == "single_label" else c.truth
    score = {name: scores(probs, truth, c.verified, c.metric.name) for name, probs in all_probs.items()}
    return Ensemble(blend, _predictions(c.fnames, nested), _predictions(c.test_fnames, test), score, comparison)


def check_values(candidates: Candidates, method: str) -> dict[str, str]:
    """Models with values outside 0 to 1, and which methods take them. Raises UserError where `method` does not."""
    c, usable = candidates, usable_models(candidates)
    outside = [name for name, one in zip(c.names, usable, strict=True) if not one]
    if outside and method not in (AUTO, *SCORES_TOO):
        raise UserError(
            f"--method {method} needs probabilities, but models have values outside 0 to 1: {list_some(outside)}: "
            f"leave them out with --runs, or use --method {' or '.join(SCORES_TOO)}"
        )
    return dict.fromkeys(outside, f"it has values outside 0 to 1: only {' and '.join(SCORES_TOO)} count it")


def same_runs(ensemble: Ensemble, candidates: Candidates) -> bool:
    """Whether the blend was made from exactly these runs and labels, for whatever test clips."""
    ids = dict(zip(candidates.names, candidates.ids, strict=True))
    same = ids == {name: model.ids for name, model in ensemble.blend.models.items()}
    return same and ensemble.blend.truth == _truth_hash(candidates) and ensemble.blend.metric == candidates.metric.name


def _truth_hash(candidates: Candidates) -> str:
    c = candidates
    labels = [LABEL_SEPARATOR.join(c.classes[i] for i in np.flatnonzero(row)) for row in c.truth]
    return fold_hash(pd.DataFrame({"fname": c.fnames, "label": labels, "verified": c.verified, "fold": c.fold}))


def with_test(ensemble: Ensemble, candidates: Candidates) -> Ensemble:
    """The same blend of these test clips."""
    test = apply_blend(ensemble.blend, dict(zip(candidates.names, candidates.test, strict=True)))
    return replace(ensemble, test=_predictions(candidates.test_fnames, test))


def with_current_test(ensemble: Ensemble, candidates: Candidates, folder: Path, report: Report) -> Ensemble:
    """The same blend of these test clips; its folder gets another test.npz where their answers are others, and is
    written again, with the report that it has (made by `report`), where their number is another: so is what to expect
    of them."""
    found, before = with_test(ensemble, candidates), ensemble.test
    if ensemble.comparison.expected.clips != len(candidates.test_fnames):
        expected = _expected(found, candidates)
        found = replace(found, comparison=replace(ensemble.comparison, expected=expected))
        has_report = (folder / "report.html").exists()
        illustrate = (lambda partial: report(partial, found, candidates)) if has_report else None
        save_ensemble(found, folder, illustrate, over=ensemble)
    elif before.fnames != found.test.fnames or not np.allclose(before.probs, found.test.probs, rtol=0, atol=1e-6):
        with lock(folder):
            if _read_blend(folder) == ensemble.blend:  # another command may have put another blend there
                replace_predictions(folder / "test.npz", found.test)
    return found


def _expected(ensemble: Ensemble, candidates: Candidates) -> Expected:
    """What to expect of as many test clips as there are now, as `compare` has it."""
    c, compared = candidates, ensemble.comparison
    judged = c.verified if compared.decide == "verified" else np.ones(len(c.truth), dtype=bool)
    probs = ensemble.oof.of(c.fnames, "blend, out-of-fold")[judged]
    method = ensemble.blend.asked or compared.chosen
    judge = Judge(c.metric, c.truth, c.group).at(judged)
    found = expected_on(len(c.test_fnames), probs, judge, compared.methods[method].se)
    return replace(found, score=compared.expected.score)


def same_options(ensemble: Ensemble, method: str, decide: str, unverified_weight: float | None) -> bool:
    """Whether the blend is what `make_ensemble` would make of these arguments."""
    wished = replace(ensemble.blend, asked=method, decide=decide, unverified_weight=unverified_weight, by_default=False)
    return ensemble.blend == wished


def save_ensemble(
    ensemble: Ensemble,
    folder: Path,
    illustrate: Callable[[Path], None] | None = None,
    over: Ensemble | None = None,
) -> None:
    """Write the folder; an older one of that name goes only when the new one is whole. illustrate: adds more files to
    the folder that it gets, before that. over: the blend that it may replace, no other. Raises UserError where the
    folder is there and holds something else, or another command made a blend there meanwhile: any other than `over`, a
    chosen one where this is one by default."""

    def check() -> None:
        check_is_blend(folder)
        there = _read_blend(folder) if folder.exists() else None
        chosen_meanwhile = ensemble.blend.by_default and there and not there.by_default
        if chosen_meanwhile or (over and there != over.blend):
            raise UserError(f"{folder}: another command made this blend meanwhile: run the same command again")

    check()
    with new_folder(folder, check) as partial:
        write_blend(partial / "weights.json", ensemble.blend)
        (partial / "scores.json").write_text(json.dumps(ensemble.scores, indent=1))
        (partial / "comparison.json").write_text(json.dumps(to_json(ensemble.comparison), indent=1))
        save_predictions(partial / "oof.npz", ensemble.oof)
        save_predictions(partial / "test.npz", ensemble.test)
        if illustrate:
            illustrate(partial)


def check_is_blend(folder: Path) -> None:
    """Raises UserError where the folder is there, and not one of `save_ensemble`: nothing of it may be replaced."""
    if folder.exists() and not (folder / "weights.json").is_file():
        raise UserError(f"{folder}: exists and is no blend (it has no weights.json): give another name, or delete it")


def find_ensemble(folder: Path) -> Ensemble | None:
    """`load_ensemble` of a folder that is there; None where it is not."""
    recover(folder)
    return load_ensemble(folder) if folder.exists() else None


def load_ensemble(folder: Path) -> Ensemble:
    """The inverse of `save_ensemble`. Raises UserError where the folder is damaged, or no blend."""
    check_is_blend(folder)
    return read_steady(folder, lambda: _load(folder))


def _load(folder: Path) -> Ensemble:
    blend = _read_blend(folder)
    found = read_json(folder / "scores.json", dict[str, dict[str, float]], AGAIN)
    comparison = read_json(folder / "comparison.json", Comparison, AGAIN)
    try:
        oof, test = load_predictions(folder / "oof.npz"), load_predictions(folder / "test.npz")
    except UserError as error:
        raise UserError(f"{error}: {AGAIN}") from None
    key = find_metric(blend.metric, blend.task).key
    if lacking := [name for name in (*blend.models, BLEND) if key not in found.get(name, ())]:
        raise UserError(f"{folder / 'scores.json'}: {lacking[0]} lacks its scores: {AGAIN}")
    if {oof.probs.shape[1], test.probs.shape[1]} != {len(blend.classes)}:
        raise UserError(f"{folder}: damaged (its probabilities are of other classes): {AGAIN}")
    return Ensemble(blend, oof, test, found, comparison)


def _read_blend(folder: Path) -> Blend:
    return read_blend(folder / "weights.json", AGAIN)


def _predictions(fnames: tuple[str, ...], probs: np.ndarray) -> Predictions:
    return Predictions(fnames, probs.astype(np.float32))
