"""The study: counting, continuing, sharing, pruning, errors. The objective is a formula, so nothing is trained."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from configs.schema import Config, from_dict
from console.errors import UserError
from tuning.search_space import load_space
from tuning.study import (
    Objective,
    Plan,
    Report,
    Sampler,
    TrialFailed,
    best_trial,
    finished,
    open_study,
    outside_of_space,
    search,
    settings_of,
)
from tuning.study_locks import at_work, locked
from tuning.study_report import write_report

BASE = Path("configs/demo_resnetish.yaml")
DATA = {"fold_hash": "f", "sound_hash": "s", "where": {"input": "in"}}
SPACE = "train.lr: {log: [1e-3, 1e-1]}\nmodel.dropout: {uniform: [0, 0.5]}\naugment.roll: {choice: [false, true]}\n"
MakePlan = Callable[..., Plan]


@pytest.fixture
def make_plan(tmp_path: Path) -> MakePlan:
    def make(text: str = SPACE, trials: int = 6, folds: tuple[int, ...] = (0,), **more: Any) -> Plan:
        overrides = more.pop("overrides", ("train.epochs=4",))
        (tmp_path / "space.yaml").write_text(text)
        return Plan(BASE, overrides, load_space(tmp_path / "space.yaml", BASE, overrides), folds, trials, **more)

    return make


def score(cfg: Config) -> float:
    """The best is at dropout 0.2, whatever the rate."""
    return 1 - abs(cfg.model.dropout - 0.2)


def easy(cfg: Config, fold: int, report: Report) -> float:
    for epoch in range(1, cfg.train.epochs + 1):
        report(epoch, score(cfg) * epoch / cfg.train.epochs)
    return score(cfg)


def run(folder: Path, plan: Plan, objective: Objective = easy) -> optuna.Study:
    study = open_study(folder, plan.facts() | DATA, plan)
    search(folder, study, plan, objective)
    return open_study(folder)


def draws(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in finished(study)]


def test_one_process_finds_the_same_trials_again(tmp_path: Path, make_plan: MakePlan) -> None:
    one, two, other = (run(tmp_path / name, make_plan(trials=14, seed=s)) for name, s in (("a", 0), ("b", 0), ("c", 1)))
    assert draws(one) == draws(two) and len(draws(one)) == 14
    assert draws(one)[0] == draws(other)[0] == {"train.lr": 4e-3, "model.dropout": 0, "augment.roll": False}  # the base
    assert not any(params in draws(other) for params in draws(one)[1:])


def test_the_score_and_the_config_are_in_the_journal(tmp_path: Path, make_plan: MakePlan) -> None:
    study = run(tmp_path / "a", make_plan(pruner="none"))
    for trial in finished(study):
        cfg = from_dict(trial.user_attrs["config"])
        assert trial.value == score(cfg) == trial.user_attrs["scores"]["0"]
        assert (cfg.train.lr, cfg.augment.roll) == (trial.params["train.lr"], trial.params["augment.roll"])
        assert cfg.train.epochs == 4
    best = best_trial(study)
    assert best is not None and best.value == max(trial.value or 0 for trial in finished(study))


def test_it_continues_to_the_requested_number(tmp_path: Path, make_plan: MakePlan) -> None:
    whole = run(tmp_path / "a", make_plan(trials=13))
    run(tmp_path / "b", make_plan(trials=5))
    parts = run(tmp_path / "b", make_plan(trials=13))
    assert draws(parts) == draws(whole)
    assert len(draws(run(tmp_path / "b", make_plan(trials=7)))) == 13


@pytest.mark.parametrize("worker", [None, "gone"])
def test_trials_of_killed_processes_are_repeated(tmp_path: Path, make_plan: MakePlan, worker: str | None) -> None:
    whole = run(tmp_path / "a", make_plan(trials=4))
    study = run(tmp_path / "b", make_plan(trials=2))
    lost = study.ask()
    if worker:
        lost.set_user_attr("worker", worker)
        (tmp_path / "b/workers" / f".{worker}.lock").touch()  # nobody holds it
    study = run(tmp_path / "b", make_plan(trials=4))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2 + [TrialState.FAIL] + [
        TrialState.COMPLETE
    ] * 2
    assert draws(study) == draws(whole)
    assert not list((tmp_path / "b/workers").iterdir())


def test_trials_of_running_processes_count(tmp_path: Path, make_plan: MakePlan) -> None:
    study = run(tmp_path / "a", make_plan(trials=2))
    with at_work(tmp_path / "a") as worker:
        study.ask().set_user_attr("worker", worker)
        study = run(tmp_path / "a", make_plan(trials=4))
        assert len(finished(study)) == 3 and study.trials[2].state == TrialState.RUNNING
    assert len(finished(run(tmp_path / "a", make_plan(trials=4)))) == 4


def test_several_processes_run_exactly_the_requested_number(tmp_path: Path, make_plan: MakePlan) -> None:
    plan = make_plan(trials=20, pruner="none")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: run(tmp_path / "a", plan), range(3)))
    study = open_study(tmp_path / "a")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 20
    assert len({json.dumps(params) for params in draws(study)}) == 20


def test_a_bad_trial_is_pruned_and_costs_few_epochs(tmp_path: Path, make_plan: MakePlan) -> None:
    """Five complete trials first; epoch 1 of 4 is the quarter that every trial has."""
    seen: list[int] = []

    def objective(cfg: Config, fold: int, report: Report) -> float:
        seen.append(0)
        for epoch in range(1, 5):
            seen[-1] = epoch
            report(epoch, 0.9 if len(seen) <= 5 else 0.1)
        return 0.9

    study = run(tmp_path / "a", make_plan(trials=8), objective)
    assert seen == [4] * 5 + [1] * 3
    assert [trial.state for trial in study.trials[5:]] == [TrialState.PRUNED] * 3
    assert study.trials[5].value == 0.1 and study.trials[5].user_attrs["note"] == "pruned"


def test_after_the_last_epoch_nothing_is_pruned(tmp_path: Path, make_plan: MakePlan) -> None:
    def objective(cfg: Config, fold: int, report: Report) -> float:
        report(4, 0.9 if not seen else 0.1)
        return 0.5

    seen: list[int] = []
    study = run(tmp_path / "a", make_plan(trials=5), objective)
    seen.append(1)
    study = run(tmp_path / "a", make_plan(trials=7), objective)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 7


def test_hyperband_prunes_and_none_does_not(tmp_path: Path, make_plan: MakePlan) -> None:
    states = {
        pruner: {trial.state for trial in finished(run(tmp_path / pruner, make_plan(trials=16, pruner=pruner)))}
        for pruner in ("hyperband", "none")
    }
    assert states["hyperband"] == {TrialState.COMPLETE, TrialState.PRUNED}
    assert states["none"] == {TrialState.COMPLETE}


def test_the_pruner_sees_the_mean_over_folds_so_far(tmp_path: Path, make_plan: MakePlan) -> None:
    """Fold 0 ends at 0.2, fold 2 at 0.6: the mean is 0.4, and a step is an epoch of a fold."""

    def objective(cfg: Config, fold: int, report: Report) -> float:
        report(1, 0.1)
        report(2, 0.2 + fold / 5)
        return 0.2 + fold / 5

    plan = make_plan(trials=1, folds=(0, 2), overrides=("train.epochs=2",))
    (trial,) = finished(run(tmp_path / "a", plan, objective))
    assert trial.intermediate_values == pytest.approx({1: 0.1, 2: 0.2, 3: 0.15, 4: 0.4})
    assert trial.value == pytest.approx(0.4)


def test_a_step_is_the_same_epoch_of_the_same_fold_where_epochs_are_searched(make_plan: MakePlan) -> None:
    assert make_plan("train.epochs: {int: [2, 10]}").most_epochs() == 10
    two = ("train.epochs=5", "train.finetune_epochs=2")
    assert make_plan("train.epochs: {choice: [7, 3]}", overrides=two).most_epochs() == 9
    assert make_plan("train.epochs: {choice: [4, 3]}", overrides=two).most_epochs() == 7, "of the base, the first trial"


def test_failed_trainings_count_as_bad(tmp_path: Path, make_plan: MakePlan) -> None:
    def objective(cfg: Config, fold: int, report: Report) -> float:
        raise TrialFailed("diverged in epoch 1")

    study = run(tmp_path / "a", make_plan(trials=2), objective)
    assert [(trial.state, trial.user_attrs["note"]) for trial in study.trials] == [
        (TrialState.PRUNED, "diverged in epoch 1")
    ] * 2
    assert best_trial(study) is None


def test_settings_that_do_not_fit_together_count_as_bad(tmp_path: Path, make_plan: MakePlan) -> None:
    text = "train.crop_seconds: {choice: [0.5, 1.0]}\ntrain.crop_seconds_min: {choice: [0.4, 0.8]}"
    study = run(tmp_path / "a", make_plan(text, trials=12))
    for trial in study.trials[1:]:  # after the base config, which has no crop_seconds_min
        excluded = trial.params["train.crop_seconds"] < trial.params["train.crop_seconds_min"]
        assert (trial.state == TrialState.PRUNED) == excluded
        assert ("crop_seconds_min must be in" in trial.user_attrs["note"]) == excluded
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_trial_is_failed(tmp_path: Path, make_plan: MakePlan, error: type[BaseException]) -> None:
    def objective(cfg: Config, fold: int, report: Report) -> float:
        raise error

    with pytest.raises(error):
        run(tmp_path / "a", make_plan(trials=2), objective)
    assert [trial.state for trial in open_study(tmp_path / "a").trials] == [TrialState.FAIL]
    assert len(draws(run(tmp_path / "a", make_plan(trials=2)))) == 2


def test_each_trial_has_its_line(tmp_path: Path, make_plan: MakePlan, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "a", make_plan(trials=2))
    first, settings, second, _ = capsys.readouterr().out.splitlines()
    assert first == "trial 0: MAP@3 0.8000, 0 s; best 0.8000 (trial 0); 1/2 finished"
    assert settings == "  train.lr=0.004 model.dropout=0 augment.roll=False"
    assert second.startswith("trial 1: MAP@3 0.") and second.endswith("2/2 finished")


def test_another_plan_or_other_data_is_an_error(tmp_path: Path, make_plan: MakePlan) -> None:
    plan = make_plan(trials=1)
    run(tmp_path / "a", plan)
    more = SPACE + "train.warmup: {uniform: [0, 0.5]}"
    wider = SPACE.replace("0.5]", "0.6]")
    for other, data, message in (
        (make_plan(overrides=("train.epochs=5",)), {}, "another base config (train.epochs: 4 -> 5)"),
        (make_plan(more), {}, 'another search space (train.warmup: not searched -> {"uniform": [0.0, 0.5]})'),
        (make_plan(wider), {}, 'search space (model.dropout: {"uniform": [0.0, 0.5]} -> {"uniform": [0.0, 0.6]})'),
        (replace(plan, folds=(0, 1)), {}, "was started with --folds 0: "),
        (plan, {"fold_hash": "g"}, "other clips, labels or folds"),
        (plan, {"sound_hash": "t"}, "other sound files"),
        (plan, {"corrections_hash": "c"}, "other corrections"),
    ):
        with pytest.raises(UserError) as caught:
            open_study(tmp_path / "a", other.facts() | DATA | data, other)
        assert message in str(caught.value) and "another --name" in str(caught.value) and "\n" not in str(caught.value)
    open_study(tmp_path / "a", replace(plan, trials=9, pruner="none").facts() | DATA | {"where": {}}, plan)


def test_a_metric_whose_lower_values_are_better_is_minimised(
    tmp_path: Path, make_plan: MakePlan, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five complete trials first; then the pruner stops those above the median."""
    values = [0.5, 0.3, 0.2, 0.4, 0.6, 0.9, 0.1]

    def objective(cfg: Config, fold: int, report: Report) -> float:
        value = values.pop(0)
        for epoch in range(1, 5):
            report(epoch, value)
        return value

    plan = replace(make_plan(trials=7), metric="log_loss")
    study = run(tmp_path / "a", plan, objective)
    best = best_trial(study)
    assert best is not None and (best.number, best.value) == (6, 0.1)
    assert study.trials[5].state == TrialState.PRUNED
    assert capsys.readouterr().out.startswith("trial 0: log loss 0.5000, 0 s; best 0.5000 (trial 0); 1/7 finished")
    write_report(tmp_path / "a", study)
    assert "trial 6, out-of-fold log loss 0.1000\nthis score is biased downwards" in capsys.readouterr().out
    assert "log loss 0.1000 (fold 0, seed 0): biased downwards" in (tmp_path / "a/best.yaml").read_text()
    assert (tmp_path / "a/trials.csv").read_text().startswith("trial,state,log_loss,fold0,")


def test_a_study_without_a_metric_is_of_map_at_3(tmp_path: Path, make_plan: MakePlan) -> None:
    """As older versions wrote it."""
    plan = make_plan(trials=1)
    facts = {key: value for key, value in plan.facts().items() if key != "metric"}
    open_study(tmp_path / "a", facts | DATA, plan)
    open_study(tmp_path / "a", plan.facts() | DATA, plan)
    with pytest.raises(UserError, match="was started with another metric"):
        open_study(tmp_path / "a", replace(plan, metric="accuracy").facts() | DATA, plan)


def test_a_score_that_is_no_number_is_a_bad_trial(tmp_path: Path, make_plan: MakePlan) -> None:
    study = run(tmp_path / "a", make_plan(trials=1), lambda cfg, fold, report: float("nan"))
    assert study.trials[0].user_attrs["note"] == "MAP@3 of fold 0 is nan"


def test_no_study_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no study here"):
        open_study(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_partial_line_of_a_killed_process_is_skipped(tmp_path: Path, make_plan: MakePlan) -> None:
    whole = run(tmp_path / "a", make_plan(trials=4))
    run(tmp_path / "b", make_plan(trials=2))
    with (tmp_path / "b/journal.log").open("a") as journal:
        journal.write('{"op_code":4,"worker')
    assert draws(run(tmp_path / "b", make_plan(trials=4))) == draws(whole)


def test_other_lines_than_records_are_skipped(tmp_path: Path, make_plan: MakePlan) -> None:
    whole = run(tmp_path / "a", make_plan(trials=4))
    run(tmp_path / "b", make_plan(trials=2))
    journal = tmp_path / "b/journal.log"
    lines = journal.read_text().splitlines()
    for at in (len(lines), len(lines) // 2, 0):
        lines[at:at] = ["", '{"op_code":4,"worker', "\0\0\0", "[]", 'er_id":"w"}']
    journal.write_text("\n".join(lines) + "\n")
    assert draws(run(tmp_path / "b", make_plan(trials=4))) == draws(whole)


def test_a_damaged_journal_is_named(tmp_path: Path, make_plan: MakePlan) -> None:
    run(tmp_path / "a", make_plan(trials=2))
    journal = tmp_path / "a/journal.log"
    journal.write_text('{"op_code":99,"worker_id":"w"}\n' + journal.read_text())
    with pytest.raises(UserError, match=r"journal\.log: damaged \(.*another --name, or delete that folder"):
        open_study(tmp_path / "a")


def test_two_at_once_wait_for_each_other(tmp_path: Path) -> None:
    inside: list[str] = []

    def enter(_: int) -> None:
        with locked(tmp_path / "a"):
            inside.append("in")
            inside.append("out")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(40)))
    assert inside == ["in", "out"] * 40


OUTSIDE = ("train.epochs=4", "model.dropout=0.7", "augment.roll=true")
NARROW = SPACE + "train.crop_seconds_min: {uniform: [0.1, 0.9]}\nmodel.width: {choice: [24, 32]}\n"


def test_a_base_config_outside_of_the_space_is_still_the_first_trial(
    tmp_path: Path, make_plan: MakePlan, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(NARROW, trials=14, overrides=OUTSIDE)
    assert outside_of_space(plan) == [
        'model.dropout: 0.7, not in {"uniform": [0.0, 0.5]}',
        'train.crop_seconds_min: None, not in {"uniform": [0.1, 0.9]}',
        'model.width: 16, not in {"choice": [24, 32]}',
    ]
    study = run(tmp_path / "a", plan)
    first, *others = study.trials
    assert from_dict(first.user_attrs["config"]) == plan.base() and first.value == pytest.approx(0.5)
    assert first.params == {"train.lr": 4e-3, "augment.roll": True}
    assert settings_of(first, ["model.dropout", "model.width"]) == {"model.dropout": 0.7, "model.width": 16}
    message = capsys.readouterr().out.splitlines()[1]
    assert "train.lr=0.004 model.dropout=0.7 augment.roll=True train.crop_seconds_min=None model.width=16" in message
    assert all(set(trial.params) == {r.key for r in plan.space} for trial in others)
    run(tmp_path / "b", replace(plan, trials=5))
    assert draws(run(tmp_path / "b", plan)) == draws(study)


def test_all_settings_are_drawn_together_even_if_the_first_trial_has_fewer(
    tmp_path: Path, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone(*_: Any) -> None:
        raise AssertionError("drawn one by one")

    plan = make_plan(NARROW, trials=14, overrides=OUTSIDE)
    run(tmp_path / "a", replace(plan, trials=10))  # the first ten are random
    monkeypatch.setattr(Sampler, "sample_independent", alone)
    run(tmp_path / "a", plan)


def test_a_killed_base_is_the_first_again(tmp_path: Path, make_plan: MakePlan) -> None:
    plan = make_plan(NARROW, trials=2, overrides=OUTSIDE)

    def killed(cfg: Config, fold: int, report: Report) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", plan, killed)
    first, second = finished(run(tmp_path / "a", plan))
    assert from_dict(first.user_attrs["config"]) == plan.base() != from_dict(second.user_attrs["config"])
