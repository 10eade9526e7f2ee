"""Which folds a budget of time leaves out, worked by hand, with a clock that only the test moves."""

import numpy as np
import pandas as pd
import pytest

from blending.apply import Blend, Model, apply_blend
from blending.needs import needs, without
from console.errors import UserError
from runs.budget import Deadline, Forecast, Needs, choose_folds, duration, make_plan, tell_forecast
from runs.predictions import Predictions, mean_of_folds, mean_of_reached


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


FAST_AND_SLOW = Forecast({"fast": 5, "slow": 5}, {"fast": 10, "slow": 100}, {"fast": "x", "slow": "x"}, {"x": 7})


def needs_of(fast: float, slow: float, all_of_them: bool = True) -> Needs:
    return Needs({"fast": fast, "slow": slow}, all_of_them)


def test_a_forecast_counts_features_once_and_folds_on_all_devices() -> None:
    assert FAST_AND_SLOW.seconds() == 7 + 50 + 500
    assert FAST_AND_SLOW.seconds({"fast": 2, "slow": 0}) == 7 + 20
    assert FAST_AND_SLOW.seconds({"fast": 0, "slow": 0}) == 0
    two = Forecast({"a": 3}, {"a": 10}, {"a": "x"}, {"x": 0}, devices=2)
    assert two.seconds() == 20, "the third fold waits for a device"


@pytest.mark.parametrize(
    ("weights", "seconds", "kept"),
    [
        ((0.8, 0.2), 557, (5, 5)),
        ((0.8, 0.2), 556, (5, 4)),
        ((0.8, 0.2), 300, (5, 2)),
        ((0.8, 0.2), 150, (4, 1)),
        ((0.8, 0.2), 1, (1, 1)),
        # 0.98^2 / 100 > 0.02^2 / 10: what counts so little goes first, though it is fast
        ((0.02, 0.98), 550, (4, 5)),
        ((0.02, 0.98), 500, (1, 4)),
        ((0.0, 1.0), 557, (5, 5)),
        ((0.0, 1.0), 510, (0, 5)),
        ((1.0, 1.0), 400, (5, 3)),
    ],
)
def test_the_folds_that_are_left_out(weights: tuple[float, float], seconds: float, kept: tuple[int, int]) -> None:
    found = choose_folds(FAST_AND_SLOW, needs_of(*weights), seconds)
    assert (found["fast"], found["slow"]) == kept


def test_what_is_stored_is_never_left_out() -> None:
    stored = Forecast({"a": 0, "b": 2}, {"a": 0, "b": 10}, {"a": None, "b": "x"}, {"x": 1})
    assert choose_folds(stored, Needs({"a": 0.1, "b": 0.9}, True), 1) == {"a": 0, "b": 1}
    assert choose_folds(stored, Needs({"a": 0.1, "b": 0.9}, False), 1) == {"a": 0, "b": 0}, "a stored one remains"


@pytest.mark.parametrize(
    ("weights", "seconds", "kept"),
    [
        ((0.1, 0.9), 117, (1, 1)),
        ((0.1, 0.9), 116, (0, 1)),
        ((0.1, 0.9), 106, (5, 0)),  # too little for the one of more weight: 107 s
        ((0.1, 0.9), 40, (3, 0)),
        ((0.9, 0.1), 116, (5, 0)),
        ((0.1, 0.9), 1, (1, 0)),  # the one of more weight per second remains
    ],
)
def test_an_experiment_goes_where_one_fold_of_each_takes_too_long(
    weights: tuple[float, float], seconds: float, kept: tuple[int, int]
) -> None:
    found = choose_folds(FAST_AND_SLOW, needs_of(*weights, all_of_them=False), seconds)
    assert (found["fast"], found["slow"]) == kept


THREE = Forecast(dict.fromkeys("abc", 2), {"a": 10, "b": 20, "c": 40}, dict.fromkeys("abc", "x"), {"x": 0})


def kept_of_three(seconds: float, weights: str, **worths: float) -> str:
    """The folds that remain of a, b and c, which take 20, 40 and 80 s. weights: a digit each."""
    needs = Needs(dict(zip("abc", map(int, weights), strict=True)), False, worths)
    found = choose_folds(THREE, needs, seconds)
    return "".join(str(found[name]) for name in "abc")


def test_experiments_that_are_worth_nothing_go_before_any_fold() -> None:
    assert kept_of_three(139, "181", a=0.01, b=0.0, c=0.02) == "202", "whatever its weight"
    assert kept_of_three(140, "181", a=0.01, b=0.0, c=0.02) == "222", "all of them fit"
    assert kept_of_three(139, "118", a=0.01, b=0.03, c=0.02) == "212", "all are worth something: a fold goes"
    assert kept_of_three(99, "181", a=0.01, b=0.0, c=0.02) == "201", "then folds"
    # -0.02 / 20 s goes before -0.03 / 80 s, and that before -0.01 / 40 s
    assert kept_of_three(139, "111", a=-0.02, b=-0.01, c=-0.03) == "022"
    assert kept_of_three(119, "111", a=-0.02, b=-0.01, c=-0.03) == "020"
    assert kept_of_three(139, "111", a=0.0, b=0.0, c=0.0) == "220", "of equals the one that saves most"
    assert kept_of_three(39, "111", a=-0.02, b=-0.01, c=-0.03) == "010", "one remains, with fewer folds"
    assert kept_of_three(1, "111", a=-0.02, b=-0.01, c=-0.03) == "010"
    assert kept_of_three(139, "118", b=-0.01) == "202", "what is known counts"


def test_what_is_worth_nothing_stays_in_a_blend_of_all_and_may_all_go_where_another_is_stored() -> None:
    stored = Forecast({"a": 0, "b": 2, "c": 2}, {"a": 0, "b": 20, "c": 40}, {"a": None, "b": "x", "c": "x"}, {"x": 0})
    weights, worths = dict.fromkeys("abc", 1.0), {"a": -0.5, "b": -0.1, "c": 0.0}
    assert choose_folds(stored, Needs(weights, False, worths), 1) == {"a": 0, "b": 0, "c": 0}
    assert choose_folds(stored, Needs(weights, True, worths), 1) == {"a": 0, "b": 1, "c": 1}


def test_the_experiments_of_most_worth_remain_where_one_fold_of_each_takes_too_long() -> None:
    """A fold of each takes 10 + 20 + 40 s."""
    assert kept_of_three(69, "118", a=0.02, b=0.03, c=0.04) == "011"
    assert kept_of_three(49, "118", a=0.02, b=0.03, c=0.04) == "210", "0.05 of a and b in place of 0.04 of c"
    assert kept_of_three(50, "118", a=0.02, b=0.03, c=0.04) == "101"
    assert kept_of_three(49, "118", a=0.02, b=0.03) == "001", "the weights count where one worth is not known"
    assert kept_of_three(49, "118", a=0.02, b=-0.01, c=0.04) == "001", "b is gone already"
    assert kept_of_three(5, "118", a=0.01, b=0.03, c=0.04) == "010", "most worth per second"


def test_a_plan_says_what_a_dropped_experiment_costs(capsys: pytest.CaptureFixture[str]) -> None:
    for worth in (0.0123, -0.0123, 0.00004, 0.0):
        end = Deadline(129, Clock())  # 116 s: less than one fold of each
        make_plan(FAST_AND_SLOW, Needs({"fast": 0.5, "slow": 0.5}, False, {"fast": worth, "slow": 0.2}, "MAP@3"), end)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("budget: fast")]
    start = "budget: fast: 5 of 5 folds left out, saves 50 s: without it the blend's nested MAP@3 is "
    assert said == [start + end for end in ("0.0123 worse", "0.0123 better", "the same", "the same")]


def test_a_plan_says_which_experiment_goes(capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(FAST_AND_SLOW, needs_of(0.05, 0.95, all_of_them=False), Deadline(129, Clock()))
    assert plan.dropped == ("fast",) and plan.kept == {"fast": 0, "slow": 1} and plan.share == 1
    assert (
        "budget: fast: 5 of 5 folds left out, saves 50 s: its weight was 5% of the blend\n" in capsys.readouterr().out
    )


def test_a_plan_keeps_a_tenth_of_the_time_left_and_cuts_the_clips_last(capsys: pytest.CaptureFixture[str]) -> None:
    clock, clips = Clock(), pd.DataFrame({"fname": list("abcdefgh")})
    end = Deadline(700, clock)
    clock.time += 100
    plan = make_plan(FAST_AND_SLOW, needs_of(1, 1), end)  # 540 s of 600
    assert plan.kept == {"fast": 5, "slow": 4} and plan.first(clips).equals(clips)
    assert plan.end is not None and plan.end.left() == pytest.approx(580)
    told = capsys.readouterr()
    assert told.out == "budget: slow: 1 of 5 folds left out, saves 100 s: the mean of 4 fold models remains\n"
    assert told.err == ""
    clock.time += 535  # 58.5 s of 65 are left for the 117 s of a fold each
    plan = make_plan(FAST_AND_SLOW, needs_of(1, 1), end)
    assert plan.kept == {"fast": 1, "slow": 1} and len(plan.first(clips)) == 4
    assert (
        "the least that the blend needs takes 117 s, there are 58 s: not all clips are reached"
        in capsys.readouterr().err
    )
    clock.time += 100
    late = make_plan(FAST_AND_SLOW, needs_of(1, 1), end)
    assert len(late.first(clips)) == 0 and late.end is not None and late.end.left() < 0
    nothing = Forecast({"a": 0}, {"a": 0}, {"a": None}, {})
    assert make_plan(nothing, Needs({"a": 1}, False), end).share == 1


def test_a_forecast_is_told_by_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    tell_forecast(Forecast({"a": 2, "b": 0}, {"a": 400, "b": 0}, {"a": 1, "b": None}, {1: 8.25}))
    assert capsys.readouterr().out.splitlines() == [
        "forecast: a: 2 folds of 7 min",
        "forecast: b: nothing to predict",
        "forecast: log-mel and embeddings of the test clips: 8.2 s",
        "forecast: 13 min in all on this machine",
    ]
    assert duration(7 * 3600 + 5 * 60) == "7 h 05 min"


def test_a_clip_gets_the_mean_of_the_folds_that_reached_it() -> None:
    whole = Predictions(("a", "b", "c"), np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], np.float32))
    part = Predictions(("b",), np.array([[0.6, 0.4]], np.float32))
    none = Predictions((), np.zeros((0, 2), np.float32))
    prior = np.array([0.5, 0.5])
    probs, late = mean_of_reached([whole, part, none], ["a", "b", "c", "d"], prior)
    np.testing.assert_allclose(probs, [[0.1, 0.9], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]], rtol=1e-6)
    assert late == ["d"] and probs.dtype == np.float32
    assert mean_of_reached([], ["a"], prior)[1] == ["a"]
    both, late = mean_of_reached([whole, whole], ["c", "a"], prior)
    assert np.array_equal(both, mean_of_folds([whole.probs[[2, 0]]] * 2)) and not late


def test_a_blend_needs_its_experiments_by_their_weights_where_it_has_some() -> None:
    models = {"a": Model(0.7), "b": Model(0.3), "c": Model(0.0)}
    assert needs(Blend("geometric", models)) == Needs({"a": 0.7, "b": 0.3, "c": 0.0}, False, {}, "MAP@3")
    assert needs(Blend("stack", models)) == Needs({"a": 1, "b": 1, "c": 0}, True, {}, "MAP@3")
    assert needs(Blend("log_linear", {"a": Model(0.0), "b": Model(0.0)})).weights == {"a": 1, "b": 1}


def test_a_blend_needs_its_experiments_by_what_they_are_worth_where_it_knows() -> None:
    models = {"a": Model(0.7, worth=0.01), "b": Model(0.3, worth=-0.02), "c": Model(0.0)}
    found = needs(Blend("geometric", models, metric="log_loss"))
    assert found == Needs({"a": 0.7, "b": 0.3, "c": 0.0}, False, {"a": 0.01, "b": -0.02}, "log loss")
    assert needs(Blend("geometric", models, metric="not_there.py:my_score")).metric == "my_score"


@pytest.mark.parametrize("method", ["arithmetic", "geometric", "temperature", "rank"])
def test_a_blend_without_an_experiment_is_that_of_the_others(method: str) -> None:
    rng = np.random.default_rng(0)
    probs = {name: rng.dirichlet(np.ones(3), 5) for name in "abc"}
    blend = Blend(method, {name: Model(w, temperature=0.5) for name, w in zip("abc", (0.5, 0.3, 0.2), strict=True)})
    two = Blend(method, {name: Model(w, temperature=0.5) for name, w in zip("ac", (5 / 7, 2 / 7), strict=True)})
    np.testing.assert_allclose(apply_blend(without(blend, ["b"]), probs), apply_blend(two, probs))
    assert without(blend, []) is blend
    with pytest.raises(UserError, match="--budget leaves no time for a or b or c, which the blend needs"):
        without(blend, ["a", "b", "c"])
