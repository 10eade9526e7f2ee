"""Scores of resampled clips equal those of repeated rows, and the error of a score by hand and by simulation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.errors import UserError
from metrics.metric import METRICS, Metric, find_metric
from metrics.resampling import draw_groups, resampled, standard_error, standard_error_of

EVERY = [*METRICS, find_metric("map@2"), find_metric("top@2")]


def example(metric: Metric, seed: int, n: int = 40, classes: int = 5, levels: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random((n, classes)) < 0.25
    if "multi_label" not in metric.tasks:
        truth = np.eye(classes, dtype=bool)[rng.integers(0, classes, n)]
    return rng.integers(0, levels + 1, truth.shape) / levels, truth


@pytest.mark.parametrize("metric", EVERY, ids=lambda one: f"{one.name}-{one.tasks[0]}")
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), levels=st.sampled_from([1, 4, 1000]))
def test_resampled_equals_repeated_rows(metric: Metric, seed: int, levels: int) -> None:
    probs, truth = example(metric, seed, levels=levels)
    times = draw_groups(np.arange(len(probs)) // 2, 20, np.random.default_rng(seed))
    repeated = [metric.score(np.repeat(probs, row, axis=0), np.repeat(truth, row, axis=0)) for row in times]
    np.testing.assert_allclose(resampled(metric, probs, truth, times), repeated, atol=1e-9)
    plain = replace(metric, per_clip=None, resample=None)
    np.testing.assert_allclose(resampled(plain, probs, truth, times), repeated, atol=1e-12)


@pytest.mark.parametrize("metric", [one for one in EVERY if one.per_clip is None], ids=lambda one: one.name)
def test_a_class_that_is_not_drawn_is_left_out_and_nothing_drawn_is_nan(metric: Metric) -> None:
    probs = np.array([[0.9, 0.6], [0.2, 0.8], [0.4, 0.5]])
    truth = np.array([[1, 0], [0, 1], [1, 0]], dtype=bool)
    times = np.array([[2, 0, 1], [1, 1, 1], [0, 0, 0]])
    found = resampled(metric, probs, truth, times)
    alone = [np.repeat(one, times[0], axis=0) for one in (probs, truth)]
    if metric.name == "macro_roc_auc":  # only positives of one class are drawn
        assert np.isnan(found[0])
    else:
        assert found[0] == pytest.approx(metric.score(*alone))
    assert found[1] == pytest.approx(metric.score(probs, truth))
    assert np.isnan(found[2]) or metric.name == "padded_cmap"


def test_many_resamples_in_parts_are_those_of_one_by_one() -> None:
    metric = find_metric("macro_roc_auc")
    probs, truth = example(metric, 0, n=5000, classes=3, levels=300)
    times = draw_groups(np.arange(5000), 500, np.random.default_rng(0))
    found = resampled(metric, probs, truth, times)
    assert len(found) == 500
    np.testing.assert_array_equal(found[[0, 300, 499]], resampled(metric, probs, truth, times[[0, 300, 499]]))


def test_whole_groups_are_drawn() -> None:
    group = np.array(["a", "b", "a", "c", "b"])
    times = draw_groups(group, 200, np.random.default_rng(0))
    assert (times[:, 0] == times[:, 2]).all() and (times[:, 1] == times[:, 4]).all()
    assert (times[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert abs(times.mean() - 1) < 0.1


def test_times_must_fit() -> None:
    metric = find_metric("lwlrap")
    with pytest.raises(ValueError, match="times \\(2, 3\\) and 40 clips"):
        resampled(metric, *example(metric, 0), np.ones((2, 3), int))


def test_of_a_mean_over_clips_the_error_is_the_formula() -> None:
    metric = find_metric("map@3")
    probs, truth = example(metric, 0)
    group = np.arange(40) // 4
    assert metric.per_clip is not None
    found = standard_error_of(metric, probs, truth, group)
    assert found == standard_error(metric.per_clip(probs, truth), group)
    drawn = resampled(metric, probs, truth, draw_groups(group, 2000, np.random.default_rng(1)))
    assert drawn.std() == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize("name", ["macro_roc_auc", "macro_average_precision", "lwlrap"])
def test_the_error_is_that_of_other_clips_of_the_kind(name: str) -> None:
    """Simulated: the spread of the score over 200 draws of 300 clips, and the error that each draw claims."""
    metric = find_metric(name)
    rng = np.random.default_rng(0)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        truth = rng.random((300, 4)) < 0.2
        return rng.random(truth.shape) + 0.4 * truth, truth

    spread = np.std([metric.score(*draw()) for _ in range(200)])
    claimed = np.mean([standard_error_of(metric, *draw(), np.arange(300)) for _ in range(5)])
    assert claimed == pytest.approx(spread, rel=0.25)


def test_copies_of_a_clip_do_not_make_the_error_smaller() -> None:
    metric = find_metric("macro_roc_auc")
    probs, truth = example(metric, 3, n=200, levels=1000)
    once = standard_error_of(metric, probs, truth, np.arange(200))
    copies, group = [np.repeat(one, 4, axis=0) for one in (probs, truth)], np.repeat(np.arange(200), 4)
    assert standard_error_of(metric, *copies, group) == pytest.approx(once, rel=1e-6)
    assert standard_error_of(metric, *copies, np.arange(800)) < 0.7 * once


def test_a_draw_that_ones_own_metric_refuses_does_not_count() -> None:
    def score(probs: np.ndarray, truth: np.ndarray) -> float:
        if truth.all():
            raise UserError("metric: own:score returns nan: return a finite number")
        return 1.0

    truth = np.array([[True], [False]])
    found = resampled(Metric("own:score", "own", "own", score), truth.astype(float), truth, np.array([[2, 0], [1, 1]]))
    assert np.isnan(found[0]) and found[1] == 1
