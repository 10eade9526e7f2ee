"""Thresholds for macro F1: by hand, never worse where they are fitted than a half, and robust for rare classes."""

import numpy as np
import pytest

from metrics.f1 import decide, fit_thresholds, macro_f1
from metrics.metric import find_metric


def test_a_clear_gap_by_hand() -> None:
    """Positives at 0.3 and 0.2, negatives below 0.1: any threshold between is perfect, 0.5 finds nothing."""
    probs = np.array([[0.3], [0.2], [0.1], [0.05]])
    truth = np.array([[1], [1], [0], [0]], dtype=bool)
    assert macro_f1(probs, truth) == 0
    thresholds = fit_thresholds(probs, truth)
    assert 0.1 < thresholds[0] <= 0.2
    assert macro_f1(decide(probs, thresholds), truth) == 1


def test_with_many_positives_each_class_has_its_own() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((4000, 2)) < 0.3
    probs = (0.5 * rng.random(truth.shape) + 0.5 * truth) * [1.0, 0.2]  # the second class is scored low throughout
    thresholds = fit_thresholds(probs, truth)
    assert thresholds[0] > 3 * thresholds[1]
    assert macro_f1(decide(probs, thresholds), truth) > 0.98


def test_a_class_with_one_positive_keeps_near_to_the_common_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((1000, 3)) < 0.3
    probs = 0.6 * rng.random(truth.shape) + 0.4 * truth
    truth[:, 2] = np.arange(1000) == probs[:, 2].argmax()  # alone, only the very highest score would do
    thresholds = fit_thresholds(probs, truth)
    assert abs(thresholds[2] - thresholds[:2].mean()) < 0.15 < probs[:, 2].max() - thresholds[2]


def test_a_class_without_positives_has_the_common_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((300, 3)) < [0.3, 0.3, 0.0]
    thresholds = fit_thresholds(rng.random(truth.shape), truth)
    assert np.isfinite(thresholds).all() and thresholds.shape == (3,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(5))
def test_fitted_on_other_clips_beats_a_half(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((1200, 10)) < np.linspace(0.02, 0.2, 10)
    probs = (1 / (1 + np.exp(-(rng.normal(-3, 1, truth.shape) + 2 * truth)))).astype(dtype)
    fit, held_out = slice(0, 600), slice(600, None)
    thresholds = fit_thresholds(probs[fit], truth[fit])
    assert (
        macro_f1(decide(probs[held_out], thresholds), truth[held_out])
        > macro_f1(probs[held_out], truth[held_out]) + 0.1
    )


def test_only_macro_f1_of_several_labels_has_thresholds() -> None:
    assert find_metric("macro_f1", "multi_label").fit_thresholds is fit_thresholds
    assert find_metric("macro_f1", "single_label").fit_thresholds is None
