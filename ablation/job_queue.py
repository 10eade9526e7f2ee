"""Plan and data -> the runs in order; make those that are missing."""

import hashlib
import json
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

from ablation.job import Id, Trial, run_trial
from ablation.noisy_labels import write_noisy
from ablation.techniques import CONDITIONS, PLAIN, Plan, Recipe, config_of
from configs.paths import Paths
from configs.processes import worker_processes
from configs.schema import hashed_settings
from console.errors import UserError, count
from console.output import say, warn
from folds.assign import fold_number

NOISE_SEED = 0


@dataclass(frozen=True)
class Data:
    """The competition of a condition."""

    folder: Path
    key: str  # hash of tables, sound and true labels
    described_by: str | None = None  # as --as names it


def open_data(clean: Path, work: Path, described_by: str | None = None) -> dict[str, Data]:
    """The competition of each condition; the noisy one is written if it is missing. Raises UserError on bad input."""
    from input.competition import load_competition

    competition = load_competition(clean, described_by=described_by)
    if competition.task != "single_label":
        raise UserError(f"{clean}: clips have several labels, and the ablation takes one label per clip: use another")
    if "fold" in competition.train:
        line = "columns: {fold: null}"
        raise UserError(f"{clean}: has folds of its own, and the ablation makes its: describe it with {line}, by --as")
    if competition.metric != "map@3":
        say(f"{clean}: the ablation compares MAP@3, not the competition's {competition.metric}")
    folders = {CONDITIONS[0]: clean, CONDITIONS[1]: work / "noisy-competition"}
    write_noisy(competition, folders[CONDITIONS[1]], NOISE_SEED)
    truth = _data_key(clean, described_by)
    as_ = dict.fromkeys(CONDITIONS) | {CONDITIONS[0]: described_by}  # the noisy one is in Kaggle's layout
    return {name: Data(folder, truth + _data_key(folder, as_[name]), as_[name]) for name, folder in folders.items()}


def make_trials(plan: Plan, recipes: list[Recipe], data: dict[str, Data], seeds: int, work: Path) -> list[Trial]:
    """All runs of these recipes, needed ones first, and the first fold of every recipe before the second of any.
    Fold f has seed f in the first round, f + the number of folds in the second, and so on."""
    kept = {need for recipe in plan.recipes.values() for need in recipe.needs}
    n_folds = _n_folds(plan)
    found: dict[Id, Trial] = {}
    for i in range(seeds * n_folds):
        for recipe in recipes:
            for condition in recipe.conditions:
                trial = _make(recipe, condition, i % n_folds, i, data, found, work)
                found[trial.id] = replace(trial, keep=recipe.name in kept)
    return list(found.values())


def rounds_found(plan: Plan, work: Path) -> int:
    """The number of seeds per fold that have results, outdated ones included."""
    found = [fold_number(f.stem.partition("-")[2]) for name in CONDITIONS for f in (work / name).glob("*/*-*.json")]
    return max((seed for seed in found if seed is not None), default=0) // _n_folds(plan) + 1


def to_do(trials: list[Trial]) -> list[Trial]:
    """The runs without a result, and those whose run folder is missing although one of these needs it."""
    lacking = {trial.id for trial in trials if trial.result() is None}
    for trial in reversed(trials):  # a needed run comes before those that need it
        needed = any(trial.id in other.needs for other in trials if other.id in lacking)
        if needed and not (trial.run / "manifest.json").exists():
            lacking.add(trial.id)
    return [trial for trial in trials if trial.id in lacking]


def run_all(trials: list[Trial], workers: int) -> list[str]:
    """Make these runs, several at once, with one thread and, where there are any, a GPU each. Returns 'run: reason' of
    each that failed."""
    from models.device import visible_cards
    from training.parallel import MEMORY

    waiting, running = {trial.id: trial for trial in trials}, dict[Future[str], Trial]()
    failed: dict[Id, str] = {}
    started = time.monotonic()
    while waiting:
        with worker_processes(workers, "runs the ablation", cards=visible_cards(), memory=MEMORY) as pool:
            broken = False
            while (waiting or running) and not broken:
                for trial in _ready(waiting, running.values(), failed, workers - len(running)):
                    running[pool.submit(run_trial, waiting.pop(trial.id))] = trial
                ended = wait(running, return_when=FIRST_COMPLETED).done
                if broken := any(isinstance(job.exception(), BrokenProcessPool) for job in ended):
                    ended = wait(running).done  # all running jobs are lost; the others run in a new pool
                for job in ended:
                    trial = running.pop(job)
                    reason = "its process died" if job.exception() else job.result()
                    _report(trial, reason, failed)
                done = len(trials) - len(waiting) - len(running)
                if done and done % 10 == 0:
                    left = (time.monotonic() - started) / done * (len(trials) - done)
                    say(f"{done} of {count(len(trials), 'run')}, {left / 60:.0f} min left")
    return [f"{id}: {reason}" for id, reason in failed.items()]


def _ready(waiting: dict[Id, Trial], running: Iterable[Trial], failed: dict[Id, str], free: int) -> list[Trial]:
    """The next runs, at most `free`; a run that needs a failed one fails here."""
    open_ids = {*waiting, *(trial.id for trial in running)}
    found: list[Trial] = []
    for trial in list(waiting.values()):
        if lost := [need for need in trial.needs if need in failed]:
            _report(waiting.pop(trial.id), f"needs {lost[0].recipe}, which failed", failed)
        elif len(found) < free and not open_ids & set(trial.needs):
            found.append(trial)
    return found


def _report(trial: Trial, reason: str, failed: dict[Id, str]) -> None:
    if reason:
        failed[trial.id] = reason
        warn(f"{trial.id}: failed: {reason}")
    elif found := trial.result():
        say(f"{trial.id}: MAP@3 {found['map3']:.4f}, {found['seconds']:.0f} s of CPU")


def _make(
    recipe: Recipe, condition: str, fold: int, seed: int, data: dict[str, Data], found: dict[Id, Trial], work: Path
) -> Trial:
    needs = {name: Id(condition, name, fold, seed) for name in recipe.needs}
    voters = {name: found[needs[name]].cfg.name for name in recipe.votes}
    weights_of = found[needs[recipe.predicts_with]].cfg.name if recipe.predicts_with else None
    cfg = config_of(recipe, seed, "any", voters)
    decisive = json.dumps([hashed_settings(cfg), fold, data[condition].key, weights_of], sort_keys=True)
    key = hashlib.sha256(decisive.encode()).hexdigest()[:12]
    return Trial(
        id=Id(condition, recipe.name, fold, seed),
        needs=tuple(needs.values()),
        cfg=replace(cfg, name=f"{recipe.name}-{key}"),
        paths=Paths(data[condition].folder, work, data[condition].described_by),
        truth=Paths(data[CONDITIONS[0]].folder, work, data[CONDITIONS[0]].described_by),
        weights_of=weights_of,
        keep=False,
        key=key,
        file=work / condition / recipe.name / f"{fold}-{seed}.json",
    )


def _n_folds(plan: Plan) -> int:
    return config_of(plan.recipes[PLAIN], 0, "any", {}).folds.n_folds


def _data_key(folder: Path, described_by: str | None) -> str:
    from input.competition import load_competition, sound_hash

    competition = load_competition(folder, described_by=described_by)
    digest = hashlib.sha256(competition.train.drop(columns="path").to_csv(index=False).encode())
    for clips in (competition.train, competition.test):
        digest.update(sound_hash(clips).encode())
    return digest.hexdigest()[:12]
