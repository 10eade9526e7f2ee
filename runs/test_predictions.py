"""What a run answers for test clips: stored with it, cached in work/predictions, or predicted from its weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from configs.paths import Paths
from configs.processes import runs_elsewhere
from console.errors import UserError, count, list_some
from console.options import COMPILED
from console.output import say
from features.store import files_of
from input.competition import Competition, load_competition, sound_hash, sound_sizes
from runs.budget import Budget, class_prior
from runs.clips import clip_key, frozen_file_of, open_clips
from runs.predictions import (
    STORED,
    Predictions,
    Sources,
    TestPredictions,
    cached_predictions,
    mean_of_folds,
    mean_of_reached,
)
from runs.run_folder import Run

if TYPE_CHECKING:
    from runs.forecast import Forecast, Room, Work

Faults = dict[str, str]  # fname -> reason


def test_predictions(
    experiments: Sequence[Sequence[Run]],
    competition: Competition,
    paths: Paths,
    refresh: bool = False,
    engine: str = "torch",
    budget: Budget | None = None,
) -> TestPredictions:
    """What each experiment answers for the test clips as they are now: stored with its runs, and predicted again for
    clips that these have no answer for, or one to another file than lies there now, by its size.

    experiments: the runs of each. refresh: predict every clip. engine: what predicts, see `predict_test`. budget: leave
    out folds, experiments and clips that take too long. Raises UserError as `predict_new`.
    """
    new = [_clips_to_predict(runs, competition, paths, refresh, engine) for runs in experiments]
    if runs_elsewhere():  # what is done there is found in the cache below
        from runs.predict_shares import predict_on_cluster

        works = _works(experiments, new, competition, paths, engine).values()
        predict_on_cluster(works, paths.features, paths.predictions, engine)
    rooms: Iterable[Room | None] = repeat(None)
    if budget:
        from runs.forecast import make_rooms

        rooms = make_rooms(_works(experiments, new, competition, paths, engine), paths.features, engine, budget)
    found = [_of_experiment(*one, competition, paths, engine) for one in zip(experiments, new, rooms, strict=False)]
    names = [runs[0].folder.parent.name for runs in experiments]
    there = set(competition.test["fname"])
    faults = {fname: reason for one in found for fname, reason in one.faults.items() if fname in there}
    dropped = found[0].dropped
    late = {name: one.late for name, one in zip(names, found, strict=True) if one.late and name not in dropped}
    sources = {name: one.sources for name, one in zip(names, found, strict=True)}
    left_out = {name: one.left_out for name, one in zip(names, found, strict=True) if one.left_out}
    return TestPredictions(np.stack([one.probs for one in found]), faults, late, dropped, sources, left_out)


def forecast_test(
    experiments: Sequence[Sequence[Run]], competition: Competition, paths: Paths, refresh: bool, engine: str
) -> "Forecast":
    """How long `test_predictions` would take."""
    from models.engine import EngineChoice
    from runs.forecast import forecast

    new = [_clips_to_predict(runs, competition, paths, refresh, engine) for runs in experiments]
    works = _works(experiments, new, competition, paths, engine)
    return forecast(works, paths.features, EngineChoice(engine))


def _works(
    experiments: Sequence[Sequence[Run]], new: Sequence[list[str]], competition: Competition, paths: Paths, engine: str
) -> dict[str, "Work"]:
    """What is yet to predict of each experiment."""
    from runs.forecast import Work

    works = {}
    for runs, fnames in zip(experiments, new, strict=True):
        clips = _files(runs, fnames, competition, paths) if fnames else competition.test[:0]
        key = clip_key(runs[0].config, fnames, files_of(clips), frozen_file_of(runs[0])) if fnames else ""
        kept = [cached_predictions(paths.predictions, run.id, key, engine).exists() for run in runs]
        folders = tuple(run.folder for run, is_kept in zip(runs, kept, strict=True) if fnames and not is_kept)
        works[runs[0].folder.parent.name] = Work(folders, clips)
    return works


@dataclass(frozen=True)
class _Answers:
    probs: np.ndarray  # (clips, classes), the mean of the fold models
    late: list[str]  # clips that no fold reached
    faults: Faults  # of the test clips
    sources: Sources
    dropped: tuple[str, ...] = ()  # experiments that time was too short for
    left_out: list[str] = field(default_factory=list)  # folds that a budget left out


def _clips_to_predict(
    runs: Sequence[Run], competition: Competition, paths: Paths, refresh: bool, engine: str
) -> list[str]:
    every = refresh or engine in COMPILED or were_predicted(runs, competition, paths, engine)
    return competition.test["fname"].tolist() if every else _new_clips(runs, competition.test)


def _of_experiment(
    runs: Sequence[Run], new: list[str], room: "Room | None", competition: Competition, paths: Paths, engine: str
) -> _Answers:
    found, fnames = [run.test for run in runs], competition.test["fname"].tolist()
    faults = {fname: reason for run in runs for fname, reason in run.manifest.test_faults.items()}
    sources = {run.folder.name: _stored(run, fnames, new) for run in runs}
    if new:
        answers, new_faults = predict_new(runs, new, competition, paths, engine, room)
        found = [_updated(*pair, new) for pair in zip(found, answers, strict=True)]
        for run, one in zip(runs, answers, strict=True):
            sources[run.folder.name] |= {str(one.engine): len(one.fnames)} if one.fnames else {}
        faults = {fname: reason for fname, reason in faults.items() if fname not in set(new)} | new_faults
    if room:
        probs, late = mean_of_reached(found, fnames, class_prior([run.folder for run in runs]))
        left_out = [folder.name for folder in room.without]
        return _Answers(probs, late, faults, sources, room.plan.dropped, left_out)
    every = [one.of(fnames, str(run.folder)) for one, run in zip(found, runs, strict=True)]
    return _Answers(mean_of_folds(every), [], faults, sources)


def _stored(run: Run, fnames: Sequence[str], new: Sequence[str]) -> dict[str, int]:
    """How many of the clips have the answer that is stored with the run; nothing where none has."""
    n = len(set(fnames).intersection(run.test.fnames).difference(new))
    return {STORED: n} if n else {}


def _new_clips(runs: Sequence[Run], test: pd.DataFrame) -> list[str]:
    """The test clips that a run has no answer for, or one to another file than lies there now, by its size. A file that
    is not there now changes nothing."""
    size, new = sound_sizes(test), np.zeros(len(test), dtype=bool)
    for run in runs:
        rows = {fname: i for i, fname in enumerate(run.test.fnames)}
        row = np.array([rows.get(fname, -1) for fname in test["fname"]], np.int64)
        new |= row < 0
        if run.test.size is not None:
            new |= (size >= 0) & (run.test.size[row] != size)
        elif set(rows) == set(test["fname"]) and (size >= 0).all():  # an older version of the kit has one hash of all
            then = run.manifest.sound_hash.test
            new |= then not in (None, sound_hash(test.iloc[np.argsort(row)]))
    return [fname for fname, is_new in zip(test["fname"], new, strict=True) if is_new]


def _updated(stored: Predictions, answers: Predictions, new: Sequence[str]) -> Predictions:
    """What is stored, but for the clips that were predicted again, as far as there was time."""
    again = set(new)
    kept = [i for i, fname in enumerate(stored.fnames) if fname not in again]
    fnames = (*(stored.fnames[i] for i in kept), *answers.fnames)
    return Predictions(fnames, np.concatenate([stored.probs[kept], answers.probs]))


def were_predicted(runs: Sequence[Run], competition: Competition, paths: Paths, engine: str = "torch") -> bool:
    """Whether answers of this engine and these runs to all test clips are kept, for the files as they are now by size
    and time: then `submit.py --force` asked for them, and they are newer than what the runs have stored."""
    test = competition.test
    if "path" not in test:
        return False
    key = clip_key(runs[0].config, test["fname"].tolist(), files_of(test), frozen_file_of(runs[0]))
    return all(cached_predictions(paths.predictions, run.id, key, engine).exists() for run in runs)


def predict_new(
    runs: Sequence[Run],
    fnames: Sequence[str],
    competition: Competition,
    paths: Paths,
    engine: str = "torch",
    room: "Room | None" = None,
) -> tuple[list[Predictions], Faults]:
    """Each run's probabilities of these test clips, and what is wrong with the clips. room: fewer of both, then.

    What was predicted before is found in work/predictions. A competition whose test sound lies nowhere is unpacked.
    Raises UserError on a missing file, unless the runs' config says to do without.
    """
    from runs.predict import predict_test  # here: what is stored is read without torch

    folder, cfg = runs[0].folder.parent, runs[0].config
    n, places = len(competition.test), f"unless {paths.predictions} has them as their files are now"
    if room and not room.folders:
        say(f"{folder}: nothing new is predicted")
    elif len(fnames) == n:
        say(f"{folder}: predicting all {count(n, 'test clip')}, {places}")
    else:
        say(f"{folder}: predicting the test clips that are new or have changed, {places}: {list_some(fnames)}")
    clips = _files(runs, fnames, competition, paths)
    if room is None:
        found = predict_test([run.folder for run in runs], clips, paths.features, paths.predictions, engine=engine)
        return found, open_clips(cfg, clips, paths.features, frozen_file_of(runs[0])).faults
    none = Predictions((), np.zeros((0, len(runs[0].classes)), np.float32))
    there = [run.folder for run in runs if run.folder not in (*room.folders, *room.without)]
    some = room.plan.first(clips)
    kept = predict_test(there, clips, paths.features, paths.predictions, engine=engine)
    made = predict_test(room.folders, some, paths.features, paths.predictions, None, room.choice, room.plan.end)
    by_folder = dict(zip((*there, *room.folders), (*kept, *made), strict=True))
    heard = open_clips(cfg, clips if there else some, paths.features, frozen_file_of(runs[0]))
    return [by_folder.get(run.folder, none) for run in runs], heard.faults


def _files(runs: Sequence[Run], fnames: Sequence[str], competition: Competition, paths: Paths) -> pd.DataFrame:
    """fname and path of these test clips. Raises UserError as `predict_new`."""
    test = competition.test
    if test["path"].isna().all():
        test = load_competition(paths.input, skip_missing=True, described_by=paths.described_by).test
    clips = test[test["fname"].isin(set(fnames))].reset_index(drop=True)
    gone = clips["fname"][clips["path"].isna()]
    if len(gone) and not runs[0].config.input.skip_unreadable:
        raise UserError(f"{paths.input}: test files are missing: {list_some(gone)}: complete the download")
    return clips
