"""What each model of a blend is worth: on paper, against a plain loop, and where it means nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_ensemble_folder import made

from blending.apply import Blend, Model, softmax
from blending.candidates import Candidates
from blending.ensemble_folder import Ensemble, load_ensemble, make_ensemble, same_options, save_ensemble
from blending.fit import FitRows, fit_blend
from blending.worth import Fits, with_worths
from metrics.map_at_3 import map_at_3
from metrics.metric import find_metric


def worths(ensemble: Ensemble) -> dict[str, float | None]:
    return {name: model.worth for name, model in ensemble.blend.models.items()}


def eight_clips() -> Candidates:
    """Two classes; every clip appears twice, in one fold. The true class gets, of x, y and z:"""
    true = np.array([[0.9, 0.9, 0.9, 0.2], [0.4, 0.2, 0.6, 0.6], [0.4, 0.45, 0.2, 0.9]]).repeat(2, axis=1)
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    oof = np.stack([np.where(label == c, true, 1 - true) for c in range(2)], axis=2)
    c = made(clips=8)
    return replace(
        c,
        classes=("ant", "bat"),
        truth=np.eye(2, dtype=bool)[label],
        fold=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        oof=oof.astype(np.float32),
        test=c.test[:, :, :2],
        metric=find_metric("accuracy"),
    )


def test_on_paper() -> None:
    """The mean of all is right for all clips: (0.57, 0.52, 0.57, 0.57). Without x it is (0.40, 0.33, 0.40, 0.75),
    without y (0.65, 0.68, 0.55, 0.55), without z (0.65, 0.55, 0.75, 0.40)."""
    assert worths(make_ensemble(eight_clips(), "arithmetic")) == {"x": 0.75, "y": 0.0, "z": 0.25}


def test_only_the_rows_that_decide_count() -> None:
    """Without the last clip z is worth nothing, not even after y: x alone is right for the others."""
    c = replace(eight_clips(), verified=np.arange(8) < 6)
    assert worths(make_ensemble(c, "arithmetic")) == {"x": 1.0, "y": 0.0, "z": 0.0}
    assert worths(make_ensemble(c, "arithmetic", decide="all")) == {"x": 0.75, "y": 0.0, "z": 0.25}


def test_fitted_weights_against_a_plain_loop() -> None:
    """Each fold by the weights of the fit to the others, those of the remaining models scaled to sum 1."""
    c = made(clips=120)
    found = worths(make_ensemble(c, "greedy"))
    rows = FitRows(c.oof, c.truth, np.ones(120), c.fold)
    score = {}
    for left_out in (None, *c.names):
        nested = np.zeros((120, 4))
        for k in range(4):
            fit = fit_blend("greedy", rows.at(c.fold != k), c.names)
            weights = {name: one.weight for name, one in fit.models.items() if name != left_out}
            for i in np.flatnonzero(c.fold == k):
                parts = [w / sum(weights.values()) * c.oof[c.names.index(n), i] for n, w in weights.items()]
                nested[i] = np.sum(parts, axis=0)
        score[left_out] = map_at_3(nested, c.label_index)
    assert all(worth and worth > 0 for worth in found.values()), "so each is measured with both others there"
    assert found == pytest.approx({name: score[None] - score[name] for name in c.names}, abs=1e-6)


@pytest.mark.parametrize(
    ("method", "task", "metric"),
    [
        ("geometric", "single_label", "map@3"),
        ("rank", "single_label", "map@3"),
        ("arithmetic", "single_label", "log_loss"),
        ("geometric", "multi_label", "macro_roc_auc"),
        ("rank", "multi_label", "macro_roc_auc"),
    ],
)
def test_without_one_a_mean_is_that_of_the_others(method: str, task: str, metric: str) -> None:
    """On the verified rows, which decide."""
    c = replace(made(verified=0.7), metric=find_metric(metric), task=task)  # type: ignore[arg-type]
    if task == "multi_label":
        noise, skill = np.random.default_rng(0).normal(size=c.oof.shape), np.array([3.0, 2.0, 1.0])[:, None, None]
        c = replace(c, oof=softmax(noise + skill * c.truth).astype(np.float32))
    sign = -1 if metric == "log_loss" else 1
    whole = make_ensemble(c, method)
    for i, (name, worth) in enumerate(worths(whole).items()):
        others = make_ensemble(c.of_models([j for j in range(3) if j != i]), method)
        nested = [one.comparison.methods[method].score for one in (whole, others)]
        assert worth == pytest.approx(sign * (nested[0] - nested[1]), abs=3e-6), name  # a weight has six digits


def blend_of(names: str, weights: tuple[float, ...] = (0.4, 0.3, 0.3)) -> Blend:
    return Blend("arithmetic", {name: Model(w) for name, w in zip(names, weights, strict=False)})


def worths_by(scores: dict[str, float], fits: Fits) -> dict[str, float | None]:
    """scores: of a blend by the models that have a weight."""
    blend = with_worths(fits, lambda one: scores["".join(one[0].used)])
    return {name: model.worth for name, model in blend.models.items()}


def test_of_two_that_are_alike_one_is_worth_nothing() -> None:
    """a and b: without either the score stays, without both it falls from 0.80 to 0.50."""
    scores = {"abc": 0.80, "bc": 0.80, "ac": 0.80, "ab": 0.70, "c": 0.50}
    assert worths_by(scores, {None: blend_of("abc"), 0: blend_of("abc")}) == {"a": 0.0, "b": 0.3, "c": 0.1}


def test_a_worse_one_goes_first_and_the_next_is_measured_without_it() -> None:
    scores = {"abc": 0.80, "bc": 0.81, "ac": 0.82, "ab": 0.70, "c": 0.825}
    assert worths_by(scores, {None: blend_of("abc"), 0: blend_of("abc")}) == {"a": -0.005, "b": -0.02, "c": 0.1}


def test_nothing_is_known_where_a_fit_has_no_other_model() -> None:
    fits = {None: blend_of("abc"), 0: blend_of("abc", (0.0, 1.0, 0.0))}
    assert worths_by({"b": 0.8}, fits) == {"a": 0.0, "b": None, "c": 0.0}
    two = {None: blend_of("ab", (0.5, 0.5)), 0: blend_of("ab", (0.5, 0.5))}
    assert worths_by({"ab": 0.8, "a": 0.8, "b": 0.8}, two) == {"a": 0.0, "b": None}, "the last cannot go"


def test_it_means_nothing_for_a_single_model_and_for_what_was_fitted_as_a_whole() -> None:
    for method in ("single", "log_linear", "stack"):
        assert set(worths(make_ensemble(made(), method)).values()) == {None}
    assert worths(make_ensemble(made().of_models([0]), "arithmetic")) == {"x": None}


def test_it_is_stored_and_a_blend_made_before_is_read(tmp_path: Path) -> None:
    e = make_ensemble(made(), "geometric")
    save_ensemble(e, tmp_path / "e")
    assert load_ensemble(tmp_path / "e").blend == e.blend and None not in worths(e).values()
    file = tmp_path / "e" / "weights.json"
    about = json.loads(file.read_text())
    for model in about["models"].values():
        del model["worth"]
    file.write_text(json.dumps(about))
    found = load_ensemble(tmp_path / "e")
    assert set(worths(found).values()) == {None} and same_options(found, "geometric", "verified", None)
    save_ensemble(make_ensemble(made(), "stack"), tmp_path / "s")
    assert '"worth"' not in (tmp_path / "s" / "weights.json").read_text()
