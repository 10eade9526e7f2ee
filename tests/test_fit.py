"""Every fit: finds what was planted, stays sane on odd models, and does not depend on the order of rows or models."""

import numpy as np
import pytest
from scipy.optimize import minimize

from blending.apply import Blend, apply_blend, arithmetic, softmax
from blending.fit import FitRows, _logistic, fit_blend, optuna_weights
from blending.log_linear import cross_entropy, fit_log_linear, fit_temperature
from blending.methods import METHODS
from metrics.map_at_3 import map_at_3

FITTED = ["single", "temperature", "greedy", "weights", "log_linear", "stack"]


def made_rows(clips: int = 240, classes: int = 5, skill: tuple[float, ...] = (2.0, 1.0, 0.3), seed: int = 0) -> FitRows:
    """A model's logits are noise plus its skill at the true class."""
    rng = np.random.default_rng(seed)
    truth = np.arange(clips) % classes
    logits = rng.normal(size=(len(skill), clips, classes)) + np.array(skill)[:, None, None] * np.eye(classes)[truth]
    stack = np.stack([softmax(one) for one in logits]).astype(np.float32)
    return FitRows(stack, np.eye(classes, dtype=bool)[truth], np.ones(clips), (np.arange(clips) // classes) % 4)


def blend(about: Blend, rows: FitRows, names: str) -> np.ndarray:
    return apply_blend(about, dict(zip(names, rows.stack, strict=True)))


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_models_and_of_rows_changes_nothing(method: str) -> None:
    rows = made_rows()
    first = blend(fit_blend(method, rows, "abc"), rows, "abc")
    if method not in ("greedy", "weights"):  # their draws follow the order, so they only nearly agree
        models = np.array([2, 0, 1])
        other = FitRows(rows.stack[models], rows.truth, rows.weight, rows.fold)
        assert np.allclose(blend(fit_blend(method, other, "cab"), other, "cab"), first, atol=2e-3)
    if method != "greedy":  # its bags draw rows
        order = np.random.default_rng(5).permutation(len(rows.truth))
        told = fit_blend(method, rows.at(order), "abc")
        assert np.allclose(blend(told, rows, "abc"), first, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_identical_models_blend_to_the_model(method: str) -> None:
    one = made_rows(skill=(1.5,))
    rows = FitRows(np.repeat(one.stack, 3, axis=0), one.truth, one.weight, one.fold)
    about = fit_blend(method, rows, "abc")
    weights = [model.weight for model in about.models.values()]
    assert np.isfinite(weights).all()
    assert min(weights) >= 0
    if method == "log_linear":
        assert np.ptp(weights) < 1e-3  # shrunk towards equal weights
    if method not in ("stack", "log_linear", "temperature"):
        assert sum(weights) == pytest.approx(1, abs=1e-5)
    if method in ("single", "arithmetic", "geometric", "greedy", "weights"):
        assert np.allclose(blend(about, rows, "abc"), one.stack[0], atol=1e-5)


@pytest.mark.parametrize("method", FITTED)
def test_a_model_of_constant_output_does_no_harm(method: str) -> None:
    rows = made_rows()
    constant = np.full((1, *rows.stack.shape[1:]), 0.2, dtype=np.float32)
    more = FitRows(np.concatenate([rows.stack, constant]), rows.truth, rows.weight, rows.fold)
    with_it = map_at_3(blend(fit_blend(method, more, "abcd"), more, "abcd"), rows.label)
    without = map_at_3(blend(fit_blend(method, rows, "abc"), rows, "abc"), rows.label)
    assert with_it > without - 0.02


def test_optuna_leaves_equal_weights_where_slsqp_stays() -> None:
    rows = made_rows(clips=400, skill=(2.5, 0.0, 0.0, 0.0))
    equal = np.full(4, 0.25)

    def loss(weights: np.ndarray) -> float:
        return -map_at_3(arithmetic(rows.stack, weights), rows.label)

    stuck = minimize(loss, equal, method="SLSQP", bounds=[(0, 1)] * 4)
    assert np.allclose(stuck.x, equal, atol=1e-4)  # the known trap: the gradient of MAP@3 is 0
    weights = optuna_weights(rows)
    assert weights[0] > 0.4
    assert loss(weights) < loss(equal) - 0.02


def test_temperature_of_probabilities_that_were_sharpened() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3))
    truth = np.array([rng.choice(3, p=p) for p in softmax(logits)])
    # probabilities made with logits x 2 are right again at temperature 2
    is_true = np.eye(3, dtype=bool)[truth]
    assert fit_temperature(softmax(2 * logits), is_true, np.ones(4000)) == pytest.approx(2, rel=0.15)


def test_offsets_find_a_shift_of_class_shares() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6000, 3))
    shift = np.array([1.0, 0.0, -1.0])
    truth = np.array([rng.choice(3, p=p) for p in softmax(logits + shift)])
    fold = np.arange(6000) % 3
    pool = fit_log_linear(softmax(logits)[None], np.eye(3, dtype=bool)[truth], np.ones(6000), fold, "single_label")
    weights, offsets = pool.weights, pool.offsets
    assert weights[0] == pytest.approx(1, abs=0.15)
    assert np.allclose(offsets - offsets.mean(), shift, atol=0.2)


def test_cross_entropy_by_hand() -> None:
    # two clips: the true class has 1/2 and 1/4; with weights 1 and 3 (log 2 + 3 log 4) / 4
    logits = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))
    assert cross_entropy(logits, np.array([[True, False]] * 2), np.array([1.0, 3.0])) == pytest.approx(
        7 / 4 * np.log(2)
    )


def test_rows_of_weight_zero_are_left_out() -> None:
    rows = made_rows()
    wrong = np.where((rows.fold == 0)[:, None], np.arange(rows.truth.shape[1]) == 0, rows.truth)
    noisy = FitRows(rows.stack, wrong, (rows.fold > 0).astype(float), rows.fold)
    assert fit_blend("log_linear", noisy.at(noisy.weight > 0), "abc") == fit_blend(
        "log_linear", rows.at(rows.fold > 0), "abc"
    )


def test_a_class_that_no_row_has_does_not_stop_the_stack() -> None:
    rows = made_rows()
    some = rows.at(rows.label < 4)
    found = blend(fit_blend("stack", some, "abc"), rows, "abc")
    assert np.isfinite(found).all()
    assert (found.argmax(axis=1) < 4).all()


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        fit_blend("nonsense", made_rows(), "abc")


@pytest.mark.parametrize("method", METHODS)
def test_models_that_say_the_same_of_every_clip_blend_to_that(method: str) -> None:
    """A collapsed network: nothing to listen to, and no reason to stop."""
    one = made_rows()
    rows = FitRows(np.full_like(one.stack, 1 / one.stack.shape[2]), one.truth, one.weight, one.fold)
    about = fit_blend(method, rows, "abc")
    found = blend(about, rows, "abc")
    assert np.isfinite([model.weight for model in about.models.values()]).all()
    assert np.isfinite(found).all() and np.ptp(found, axis=0).max() < 1e-6


def test_few_clips_of_many_classes_give_no_warning_of_a_library(recwarn: pytest.WarningsRecorder) -> None:
    """scikit-learn takes more classes than half the clips for a regression, in two lines that name its own file."""
    features = np.random.default_rng(0).normal(size=(30, 3))
    coefficients, _ = _logistic(features, np.arange(30) % 20, np.ones(30), 1.0, 21)  # it warns above 20 rows only
    assert coefficients.shape == (3, 21) and [str(one.message) for one in recwarn] == []
