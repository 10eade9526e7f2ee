"""A search for better settings: an Optuna study in a journal, shared by several processes and safe against kills.

work/studies/<name>/ holds journal.log (the study), a lock file (held while a trial starts) and workers/ (a locked file
per running process).
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from configs.competition import Task
from configs.load import Setting, load_config
from configs.schema import Config, differences, from_dict, to_dict
from console.errors import UserError, list_some
from console.output import say
from metrics.metric import Metric, find_metric
from tuning.search_space import Range, value_of
from tuning.study_locks import Journal, at_work, is_alive, locked, remove_dead_locks

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
DEFAULT_METRIC = "map@3"
NEW_STUDY = "choose another --name, or delete that folder"
NO_TRIALS = "this study has no trials yet: continue it without --report"
Report = Callable[[float, float], None]  # (epoch, score), after every epoch of a fold
Objective = Callable[[Config, int, Report], float]  # trains a fold of a config; its out-of-fold score


class TrialFailed(Exception):
    """A training that cannot finish, for example because it diverges: a bad trial, not an error of the search."""


@dataclass(frozen=True)
class Plan:
    """What to search and how."""

    config: Path | None  # of the base experiment; None: the defaults
    overrides: tuple[str, ...]  # of the base experiment
    space: tuple[Range, ...]
    folds: tuple[int, ...]  # that score a trial
    trials: int  # finished ones, in total
    pruner: str = "median"  # see `choose_pruner`
    seed: int = 0
    metric: str = DEFAULT_METRIC  # of the competition, see metrics.metric.find_metric
    task: Task = "single_label"  # of the competition

    @property
    def scored_by(self) -> Metric:
        return find_metric(self.metric, self.task)

    def base(self) -> Config:
        return load_config(self.config, self.overrides)

    def config_of(self, params: dict[str, Any]) -> Config:
        """The config of a trial; keys without a parameter are as in the base config. Raises UserError if its
        values do not fit together."""
        return self.with_settings([r.setting(r.value(params[r.key])) for r in self.space if r.key in params])

    def with_settings(self, settings: Sequence[Setting]) -> Config:
        """The base config with other values."""
        return load_config(self.config, self.overrides, settings)

    def most_epochs(self) -> int:
        """Epochs of the longest trial, so that a step is the same epoch of the same fold in all trials."""
        base = self.base()
        most = {key: value_of(base, key) for key in ("train.epochs", "train.finetune_epochs")}
        most |= {r.key: max(most[r.key], *(r.choices or (r.high,))) for r in self.space if r.key in most}
        return int(sum(most.values()))

    def facts(self) -> dict[str, Any]:
        """What all trials of a study share, except the data."""
        space = {r.key: r.about() for r in self.space}
        scored = {"folds": list(self.folds), "metric": self.metric, "task": self.task}
        return {"config": to_dict(self.base()), "space": space, **scored}


def open_study(folder: Path, facts: dict[str, Any] | None = None, plan: Plan | None = None) -> optuna.Study:
    """The study in a folder, created if facts are given.

    facts: of the plan, and hashes and paths of the data. Raises UserError if the study was started with other facts,
    is damaged, or does not exist and no facts are given.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = folder / "journal.log"
    if facts is None and not journal.exists():
        raise UserError(f"{folder}: no study here: use the --name of a study, or start one without --report")
    with locked(folder):
        try:
            storage = optuna.storages.JournalStorage(Journal(journal))
            if facts is None and not optuna.get_all_study_names(storage):
                raise UserError(f"{folder}: {NO_TRIALS}")
            study = optuna.create_study(
                storage=storage,
                study_name=folder.name,
                direction="maximize" if plan is None or plan.scored_by.higher_is_better else "minimize",
                load_if_exists=True,
                pruner=choose_pruner(plan) if plan else None,
            )
        except (UserError, OSError, MemoryError):
            raise
        except Exception as error:  # Optuna checks no record
            raise UserError(f"{journal}: damaged ({type(error).__name__} {error}): {NEW_STUDY}") from None
        if facts and "facts" not in study.user_attrs:
            study.set_user_attr("facts", facts)
        elif facts:
            _check_same_plan(study.user_attrs["facts"], facts, folder)
    return study


def _check_same_plan(there: dict[str, Any], facts: dict[str, Any], folder: Path) -> None:
    """Raises UserError if a study was started with another plan or other data."""
    fact, there = f"{folder} was started", {"metric": DEFAULT_METRIC} | there  # older studies do not name it
    try:
        base = from_dict(there["config"])
    except (ValueError, TypeError) as error:
        raise UserError(f"{fact} with settings that this version cannot read ({error}): {NEW_STUDY}") from None
    if changed := differences(base, from_dict(facts["config"])):
        raise UserError(f"{fact} with another base config ({list_some(changed, 3)}): {NEW_STUDY}")
    old, new = there["space"], facts["space"]
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if keys:
        changed = [f"{key}: {old.get(key, 'not searched')} -> {new.get(key, 'not searched')}" for key in keys]
        raise UserError(f"{fact} with another search space ({list_some(changed, 3)}): {NEW_STUDY}")
    if there["folds"] != facts["folds"]:
        raise UserError(f"{fact} with --folds {','.join(map(str, there['folds']))}: {NEW_STUDY}")
    data = {"fold_hash": "clips, labels or folds", "sound_hash": "sound files", "corrections_hash": "corrections"}
    for key, what in {**data, "code": "user code", "metric": "metric"}.items():
        if there.get(key) != facts.get(key):
            raise UserError(f"{fact} with {'another' if key == 'metric' else 'other'} {what}: {NEW_STUDY}")


def choose_pruner(plan: Plan) -> optuna.pruners.BasePruner:
    """median: stop a trial below the median of the others at its step, after five complete trials and a quarter of its
    first fold. hyperband: L. Li et al., "Hyperband", 2018. none: all trials are complete."""
    epochs = plan.most_epochs()
    if plan.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=epochs // 4)
    if plan.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs * len(plan.folds))
    return optuna.pruners.NopPruner()


def search(folder: Path, study: optuna.Study, plan: Plan, objective: Objective) -> None:
    """Run trials, together with other processes, until as many as the plan has are finished or running."""
    with at_work(folder) as worker:
        while (trial := _next_trial(folder, study, plan, worker)) is not None:
            _run_trial(study, trial, plan, objective)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: complete and pruned ones."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the best score, the first of equals; None if there is none."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = max if study.direction == optuna.study.StudyDirection.MAXIMIZE else min
    return best(complete, key=lambda trial: trial.value, default=None)  # type: ignore[arg-type,return-value]


def fail_abandoned(folder: Path, study: optuna.Study) -> None:
    """Mark running trials of killed processes as failed, so that they do not count. Call it in `locked`."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not is_alive(folder, trial.user_attrs.get("worker")):
            study.tell(trial.number, state=TrialState.FAIL)
    remove_dead_locks(folder)


class Sampler(optuna.samplers.TPESampler):
    """TPE that draws all settings together. Optuna's own draws a setting separately as soon as a trial lacks it, as the
    base config does where it lies outside of the space."""

    def __init__(self, ranges: dict[str, BaseDistribution], seed: int) -> None:
        super().__init__(multivariate=True, constant_liar=True, seed=seed)
        self.ranges = ranges

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(sorted(self.ranges.items()))


def _next_trial(folder: Path, study: optuna.Study, plan: Plan, worker: str) -> optuna.Trial | None:
    """Start a trial; None if there are enough. The first is the base config, without its values outside of the space.

    A trial's draws depend on the seed and on the number of trials started before it and not failed. So one process gets
    the same trials in one run or in several, and trials of killed processes are repeated.
    """
    with locked(folder):
        fail_abandoned(folder, study)
        started = study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING))
        if len(started) >= plan.trials:
            return None
        seed = int(np.random.SeedSequence([plan.seed, len(started)]).generate_state(1)[0])
        ranges = {r.key: distribution(r) for r in plan.space}
        study.sampler = Sampler(ranges, seed)
        if not started:
            base = _params_of(plan.base(), plan.space, ranges)
            if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):  # else a process was killed here
                study.enqueue_trial(base)
            ranges = {key: ranges[key] for key in base}
        trial = study.ask(ranges)
        trial.set_user_attr("worker", worker)
        return trial


def outside_of_space(plan: Plan) -> list[str]:
    """Values of the base config that no trial can draw, as 'model.dropout: 0.7, not in {"uniform": [0.0, 0.5]}'."""
    base = plan.base()
    inside = _params_of(base, plan.space, {r.key: distribution(r) for r in plan.space})
    return [f"{r.key}: {value_of(base, r.key)}, not in {r.about()}" for r in plan.space if r.key not in inside]


def distribution(r: Range) -> BaseDistribution:
    """The range as an Optuna distribution."""
    if r.kind == "choice":
        return CategoricalDistribution(r.labels())
    if r.kind == "int":
        return IntDistribution(int(r.low), int(r.high), step=r.step)
    return FloatDistribution(r.low, r.high, log=r.kind == "log")


def _params_of(cfg: Config, space: Sequence[Range], ranges: dict[str, BaseDistribution]) -> dict[str, Any]:
    """The parameters of a trial with this config, without values outside of the space."""
    params = {}
    for r in space:
        value = label_of(cfg, r.key)
        try:
            inside = ranges[r.key]._contains(ranges[r.key].to_internal_repr(value))
        except (ValueError, TypeError):  # no such choice, or null for a number
            inside = False
        if inside:
            params[r.key] = value
    return params


def label_of(cfg: Config, key: str) -> Any:
    """A value of the config as a trial parameter, see `Range.labels`."""
    value = value_of(cfg, key)
    return json.dumps(value) if isinstance(value, list) else value


def settings_of(trial: FrozenTrial, keys: Iterable[str]) -> dict[str, Any]:
    """The trial's values of searched keys, also of keys that are no parameters of it."""
    cfg = from_dict(trial.user_attrs["config"]) if "config" in trial.user_attrs else None
    return {key: trial.params.get(key, cfg and label_of(cfg, key)) for key in keys}


def _run_trial(study: optuna.Study, trial: optuna.Trial, plan: Plan, objective: Objective) -> None:
    """Run one trial and print its line. TrialFailed and TrialPruned end it as pruned, other exceptions as failed."""
    started = time.monotonic()
    note, score = "", None
    try:
        try:
            cfg = plan.config_of(trial.params)
        except UserError as error:  # two values that do not fit together
            raise TrialFailed(str(error)) from None
        trial.set_user_attr("config", to_dict(cfg))
        score = _mean_score(cfg, trial, plan, objective)
    except TrialFailed as error:
        note = str(error)
    except optuna.TrialPruned:
        note = "pruned"
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    trial.set_user_attr("seconds", round(time.monotonic() - started, 1))
    trial.set_user_attr("note", note)
    study.tell(trial, score, state=None if score is not None else TrialState.PRUNED)
    _say_trial(study, trial.number, plan)


def _mean_score(cfg: Config, trial: optuna.Trial, plan: Plan, objective: Objective) -> float:
    """Mean score over the folds. After each epoch the pruner gets the mean over the folds so far."""
    found: list[float] = []
    epochs = plan.most_epochs()

    def report(epoch: float, score: float) -> None:
        trial.report(float(np.mean([*found, score])), len(found) * epochs + int(epoch))
        last = epoch >= cfg.train.epochs + cfg.train.finetune_epochs and len(found) + 1 == len(plan.folds)
        if not last and trial.should_prune():  # after the last epoch pruning saves nothing
            raise optuna.TrialPruned

    for fold in plan.folds:
        found.append(objective(cfg, fold, report))
        if not np.isfinite(found[-1]):
            raise TrialFailed(f"{plan.scored_by.title} of fold {fold} is {found[-1]}")
    trial.set_user_attr("scores", {str(fold): score for fold, score in zip(plan.folds, found, strict=True)})
    return float(np.mean(found))


def _say_trial(study: optuna.Study, number: int, plan: Plan) -> None:
    done = finished(study)
    trial = next(one for one in done if one.number == number)
    best = best_trial(study)
    if trial.state == TrialState.COMPLETE:
        result = f"{plan.scored_by.title} {trial.value:.4f}"
    else:
        step = f" at {trial.value:.4f} (step {trial.last_step})" if trial.last_step else ""
        result = trial.user_attrs["note"] + step
    record = f"best {best.value:.4f} (trial {best.number})" if best else "none complete"
    own = settings_of(trial, [r.key for r in plan.space])
    settings = " ".join(f"{key}={_short(value)}" for key, value in own.items())
    seconds, count = trial.user_attrs["seconds"], f"{len(done)}/{plan.trials} finished"
    say(f"trial {number}: {result}, {seconds:.0f} s; {record}; {count}\n  {settings}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
