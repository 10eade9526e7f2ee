"""A blend on disk: work/ensembles/<name>/ with weights.json, oof.npz, test.npz and scores.json, whole or not at all."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from models.blending import apply_blend, fit_weights
from models.candidates import Candidates
from models.metrics import scores
from models.run_folder import Predictions, load_predictions, save_predictions


@dataclass(frozen=True)
class Ensemble:
    """weights: the content of weights.json: method, models with their weight and ids, classes. scores: per model and
    for 'blend': map3, accuracy, map3_verified."""

    weights: dict[str, Any]
    oof: Predictions
    test: Predictions
    scores: dict[str, dict[str, float]]


def make_ensemble(candidates: Candidates, method: str, by_default: bool = False) -> Ensemble:
    """Fit a blend to the out-of-fold rows and apply it to the test rows. by_default: nobody chose it, so a later
    submission may make it anew."""
    c = candidates
    weights = fit_weights(method, c.oof, c.truth)
    models = {
        name: {"weight": float(w), "ids": list(ids)} for name, w, ids in zip(c.names, weights, c.ids, strict=True)
    }
    about = {"method": method, "models": models, "classes": list(c.classes), "by_default": by_default}
    oof, test = dict(zip(c.names, c.oof, strict=True)), dict(zip(c.names, c.test, strict=True))
    blend = apply_blend(about, oof)
    found = {name: scores(probs, c.truth, c.verified) for name, probs in (oof | {"blend": blend}).items()}
    return Ensemble(about, _predictions(c.fnames, blend), _predictions(c.test_fnames, apply_blend(about, test)), found)


def is_current(ensemble: Ensemble, candidates: Candidates) -> bool:
    """Whether the blend was made from exactly these runs, for these test clips."""
    return made_from(ensemble, candidates) and ensemble.test.fnames == candidates.test_fnames


def made_from(ensemble: Ensemble, candidates: Candidates) -> bool:
    """Whether the blend was made from exactly these runs, for whatever test clips."""
    ids = {name: list(ids) for name, ids in zip(candidates.names, candidates.ids, strict=True)}
    return ids == {name: model["ids"] for name, model in ensemble.weights["models"].items()}


def applied(ensemble: Ensemble, candidates: Candidates) -> Ensemble:
    """The same blend of other test clips."""
    test = apply_blend(ensemble.weights, dict(zip(candidates.names, candidates.test, strict=True)))
    return replace(ensemble, test=_predictions(candidates.test_fnames, test))


def save_ensemble(ensemble: Ensemble, folder: Path) -> None:
    """Write the folder; an older one of that name goes only when the new one is whole."""
    partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
    for left_over in (partial, old):
        shutil.rmtree(left_over, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "weights.json").write_text(json.dumps(ensemble.weights, indent=1))
    (partial / "scores.json").write_text(json.dumps(ensemble.scores, indent=1))
    save_predictions(partial / "oof.npz", ensemble.oof)
    save_predictions(partial / "test.npz", ensemble.test)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_ensemble(folder: Path) -> Ensemble:
    """The inverse of `save_ensemble`. Raises UserError where the folder is damaged."""
    try:
        weights = json.loads((folder / "weights.json").read_text())
        found = json.loads((folder / "scores.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: damaged ({error}): make it again with ensemble.py --force") from None
    return Ensemble(weights, load_predictions(folder / "oof.npz"), load_predictions(folder / "test.npz"), found)


def _predictions(fnames: tuple[str, ...], probs: np.ndarray) -> Predictions:
    return Predictions(fnames, probs.astype(np.float32))
