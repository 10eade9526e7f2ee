"""A run of the ablation: train a fold, or predict with a trained one, score it by true labels, write a JSON file."""

import contextlib
import json
import shutil
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from configs.files import write
from configs.forms import read_json
from configs.paths import Paths
from configs.schema import Config, to_dict
from console.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from runs.run_folder import Run


class Id(NamedTuple):
    condition: str
    recipe: str
    fold: int
    seed: int

    def __str__(self) -> str:
        return f"{self.condition} {self.recipe} fold {self.fold} seed {self.seed}"


@dataclass(frozen=True)
class Trial:
    """One run, made or to make."""

    id: Id
    needs: tuple[Id, ...]  # runs that must be finished before
    cfg: Config
    paths: Paths  # the competition of the condition, and the folder of features, folds and runs
    truth: Paths  # the competition with the true labels
    weights_of: str | None  # the experiment whose weights predict; None: train
    keep: bool  # whether other runs need the run folder
    key: str  # hash of all that decides the result
    file: Path  # of the result

    @property
    def run(self) -> Path:
        return self.paths.run(self.cfg.name, self.id.fold)

    def result(self) -> dict[str, Any] | None:
        """The result; None if there is none, or only one of other settings or data."""
        try:
            found: dict[str, Any] = read_json(self.file, dict, "")
        except UserError:
            return None
        return found if found.get("key") == self.key else None


def run_trial(trial: Trial) -> str:
    """Make a run and write its file. Returns the error in one line, '' without one. The output goes to a .log next to
    the file, which is removed unless the run fails."""
    trial.file.parent.mkdir(parents=True, exist_ok=True)
    log = trial.file.with_suffix(".log")
    lines = log.open("w", buffering=1, encoding="utf-8", errors="backslashreplace")
    with lines as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            found = _predict(trial) if trial.weights_of else _train(trial)
            result = {"key": trial.key, **trial.id._asdict(), **found, "config": to_dict(trial.cfg)}
            write(trial.file, json.dumps(result, indent=1))
        except Exception as error:  # the other runs continue
            traceback.print_exc()
            fact = " ".join(str(error).split())[:300]
            return fact if isinstance(error, UserError) else f"{type(error).__name__}: {fact} (see {log})"
    log.unlink()
    return ""


def _train(trial: Trial) -> dict[str, Any]:
    from features.store import open_features
    from input.competition import load_competition
    from runs.run_folder import partial_of, read_run
    from training.train import train_folds

    competition = load_competition(trial.paths.input, described_by=trial.paths.described_by)
    for clips in (competition.train, competition.test):  # before the clock starts
        open_features(trial.cfg.features, clips, trial.paths.features)
    for left in (trial.run, partial_of(trial.run)):  # of a killed process; continued, the time would be wrong
        shutil.rmtree(left, ignore_errors=True)
    started = time.process_time()
    train_folds(trial.cfg, [trial.id.fold], trial.paths)
    seconds = time.process_time() - started
    run = read_run(trial.run)
    found = _scores(trial, run, run.oof.probs) | {"seconds": round(seconds, 2)}
    if not trial.keep:
        shutil.rmtree(trial.run.parent)
    return found


def _predict(trial: Trial) -> dict[str, Any]:
    """seconds: of prediction alone; ratio: of these to the seconds with the settings of the training."""
    import torch

    from features.store import open_features
    from input.competition import load_competition
    from runs.predict import predict_store
    from runs.predictions import Predictions
    from runs.run_folder import read_run, read_trained

    assert trial.weights_of is not None
    folder = trial.paths.run(trial.weights_of, trial.id.fold)
    store = open_features(
        trial.cfg.features,
        load_competition(trial.paths.input, described_by=trial.paths.described_by).train,
        trial.paths.features,
    )
    trained, seconds = read_trained(folder), []
    for cfg in (trained.config, trial.cfg):
        started = time.process_time()
        probs = predict_store(replace(trained, config=cfg), store, torch.device("cpu"))
        seconds.append(time.process_time() - started)
    run = read_run(folder)
    rows = Predictions(store.fnames, probs).of(run.oof.fnames, str(folder))
    return _scores(trial, run, rows) | {"seconds": round(seconds[1], 2), "ratio": round(seconds[1] / seconds[0], 3)}


def _scores(trial: Trial, run: "Run", probs: "np.ndarray") -> dict[str, Any]:
    """map3 and accuracy by the true labels of all out-of-fold clips, map3_given by the labels used in training."""
    import numpy as np

    from input.competition import load_competition
    from metrics.map_at_3 import map_at_3
    from metrics.scores import accuracy

    def rows_of(of: Paths) -> "np.ndarray":
        table = load_competition(of.input, sound=False, described_by=of.described_by).train
        label = dict(zip(table["fname"], table["label"], strict=True))
        return np.array([run.classes.index(label[fname]) for fname in run.oof.fnames])

    truth, given = rows_of(trial.truth), rows_of(trial.paths)
    scores = {"map3": map_at_3(probs, truth), "accuracy": accuracy(probs, truth), "map3_given": map_at_3(probs, given)}
    return {**scores, "clips": len(truth), "git_revision": run.manifest.git_revision}
