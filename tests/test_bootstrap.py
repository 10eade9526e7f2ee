"""Nested scores are honest where fitted ones are not, and the choice is the simplest that is as good."""

from dataclasses import replace

import numpy as np
import pytest

from blending.bootstrap import Judge, bootstrap_means, expected_on, method_scores
from blending.chance import at_chance
from blending.compare_methods import Nested, match_ranks, nested_blends, nested_choice, simplest
from blending.fit import FitRows
from blending.parallel_fits import one_by_one
from metrics.map_at_3 import average_precision_at_3, map_at_3
from metrics.metric import Metric, find_metric


def random_rows(clips: int, models: int, classes: int = 6, seed: int = 0) -> FitRows:
    """Models that know nothing."""
    rng = np.random.default_rng(seed)
    stack = rng.dirichlet(np.ones(classes), size=(models, clips)).astype(np.float32)
    return FitRows(
        stack, np.eye(classes, dtype=bool)[rng.integers(classes, size=clips)], np.ones(clips), np.arange(clips) % 4
    )


FIRST = Metric("first", "first", "first", lambda p, _: float(p[:, 0].mean()), lambda p, _: p[:, 0])  # what a blend says


def judge(clips: int) -> Judge:
    """Takes the first column of a blend for the score of each clip."""
    return Judge(FIRST, np.ones((clips, 1), dtype=bool), np.arange(clips))


def columns(gains: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: one[:, None] for name, one in gains.items()}


def test_a_metric_that_is_no_mean_is_drawn_by_groups_and_its_luck_shrinks_with_more_clips() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((400, 6)) < 0.2
    probs = rng.random((400, 6)) + truth
    alone = Judge(find_metric("macro_roc_auc"), truth, np.arange(400))
    four = Judge(alone.metric, np.repeat(truth[:100], 4, axis=0), np.repeat(np.arange(100), 4))
    error = alone.drawn([probs])[0].std()
    assert error == pytest.approx(alone.luck(probs, 400), rel=0.2)
    assert alone.luck(probs, 100) == pytest.approx(2 * error, rel=0.2)
    assert four.drawn([np.repeat(probs[:100], 4, axis=0)])[0].std() == pytest.approx(2 * error, rel=0.3)


def test_a_model_that_knows_nothing_is_at_chance() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((400, 6)) < 0.2
    stack = np.stack([rng.random((400, 6)) + truth, rng.random((400, 6)), np.tile(truth.mean(axis=0), (400, 1))])
    assert at_chance(Judge(find_metric("macro_roc_auc"), truth, np.arange(400)), stack) == [1, 2]


def test_ranks_are_matched_by_hand() -> None:
    ours, theirs = np.array([[0.1], [0.9], [0.5]]), np.array([[3.0], [1.0], [2.0]])
    assert match_ranks(ours, theirs)[:, 0].tolist() == [1, 3, 2]
    assert match_ranks(ours, theirs, np.array([False, True, True]))[:, 0].tolist() == [3, 2], "ranks among all clips"
    assert np.array_equal(match_ranks(theirs, theirs), theirs)


def nested(method: str, rows: FitRows) -> Nested:
    names = "abcdefgh"[: len(rows.stack)]
    return nested_blends([method], rows, names, lambda fits: one_by_one(fits, names))[method]


def test_blends_of_several_fits_get_the_values_of_the_fit_to_all_rows_where_clips_are_compared() -> None:
    rows = replace(random_rows(80, 3), task="multi_label", metric=find_metric("macro_roc_auc"))
    found = nested("temperature", rows)
    for c in range(6):
        assert np.isin(found.nested[:, c], found.fitted[:, c]).all()
    mean = nested("arithmetic", rows)
    assert np.array_equal(mean.nested, mean.fitted), "all fits are the same"


CHANCE = (1 + 1 / 2 + 1 / 3) / 6  # MAP@3 of a random order of six classes


@pytest.mark.parametrize("method", ["single", "greedy", "weights", "log_linear", "stack"])
def test_random_models_have_no_nested_lift_and_a_fitted_one(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blending.fit.TRIALS", 30)  # enough to overfit
    rows = random_rows(240, 8)
    found = nested(method, rows)
    gains = average_precision_at_3(found.nested, rows.label)
    error = gains.std() / np.sqrt(len(gains))
    assert abs(gains.mean() - CHANCE) < 3 * error
    assert map_at_3(found.fitted, rows.label) > CHANCE + error  # optimistic


def test_the_held_out_fold_has_no_part_in_its_own_blend() -> None:
    rows = random_rows(120, 3)
    first = nested("log_linear", rows).nested
    other_truth = np.where((rows.fold == 0)[:, None], np.roll(rows.truth, 1, axis=1), rows.truth)
    changed = nested("log_linear", replace(rows, truth=other_truth)).nested
    assert np.array_equal(changed[rows.fold == 0], first[rows.fold == 0])
    assert not np.array_equal(changed[rows.fold == 1], first[rows.fold == 1])


def test_simplest_takes_the_first_within_one_error_and_keeps_a_clear_gain() -> None:
    rng = np.random.default_rng(0)
    base = rng.choice([0.0, 0.5, 1.0], size=1000)  # hard and easy clips, which all methods share
    clear = np.minimum(1, base + (rng.random(1000) < 0.05) * 0.5)  # lifts some clips, harms none
    same = clear.copy()
    same[0] = 1.5 - same[0] if same[0] == 0.5 else 0.5
    # the gain is less than 1.5 errors of a score, but many of the paired difference
    assert clear.mean() - base.mean() < 1.5 * base.std() / np.sqrt(1000)
    assert simplest(columns({"plain": base, "better": clear, "complex": same}), judge(1000)) == "better"
    assert simplest(columns({"plain": base, "equal": base}), judge(1000)) == "plain"


def test_nested_choice_judges_each_fold_by_the_choice_of_the_others() -> None:
    # fold 0 alone likes b, fold 1 alone likes a: each gets what the other one chose
    fold = np.array([0] * 20 + [1] * 20)
    gains = {"a": np.where(fold == 0, 0.0, 1.0), "b": np.where(fold == 0, 1.0, 0.0)}
    chosen = nested_choice(columns(gains), fold, np.ones(40, dtype=bool), judge(40))[:, 0]
    assert np.array_equal(chosen[fold == 0], gains["a"][fold == 0])
    assert np.array_equal(chosen[fold == 1], gains["b"][fold == 1])


def test_bootstrap_error_is_that_of_the_formula_and_grows_with_groups() -> None:
    rng = np.random.default_rng(0)
    values = rng.choice([0.0, 1.0], size=(1, 400))
    alone = bootstrap_means(values, np.arange(400)).std()
    assert alone == pytest.approx(values.std() / 20, rel=0.1)
    four_times = np.repeat(values[:, :100], 4, axis=1)  # four copies of each clip, as cuts of one recording
    grouped = bootstrap_means(four_times, np.repeat(np.arange(100), 4)).std()
    assert grouped == pytest.approx(values[0, :100].std() / 10, rel=0.1)


def test_summary_of_two_methods_that_differ_by_a_constant() -> None:
    gains = {"single": np.array([0.0, 0.5, 0.5]), "arithmetic": np.array([0.25, 0.75, 0.75])}
    every = np.ones(3, dtype=bool)
    found = method_scores(columns(gains), columns(gains), judge(3), every, ~every)
    assert found["arithmetic"].to_single.difference == pytest.approx(0.25)
    assert found["arithmetic"].to_single.interval == pytest.approx([0.25, 0.25])
    assert found["single"].se == pytest.approx(found["arithmetic"].se)
    assert found["single"].fitted == pytest.approx(1 / 3) and found["single"].nested_verified is None


def test_expected_interval_holds_new_scores_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        ours, new = rng.choice([0.0, 0.5, 1.0], size=400), rng.choice([0.0, 0.5, 1.0], size=100)
        low, high = expected_on(100, ours[:, None], judge(400), ours.std() / 20).interval
        held += low <= new.mean() <= high
    assert 0.9 < held / 300 < 0.99
