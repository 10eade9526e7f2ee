"""What a run answers for test clips: stored with it, cached in work/predictions, or predicted from its weights."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from configs.paths import Paths
from console.errors import UserError, list_some
from console.output import say
from input.competition import Competition, load_competition, sound_hash, sound_sizes
from runs.clips import clip_key, frozen_file_of, open_clips
from runs.predictions import (
    Predictions,
    TestPredictions,
    cached_predictions,
    mean_of_folds,
)
from runs.run_folder import Run

Faults = dict[str, str]  # fname -> reason


def test_predictions(
    experiments: Sequence[Sequence[Run]],
    competition: Competition,
    paths: Paths,
    refresh: bool = False,
    engine: str = "torch",
) -> TestPredictions:
    """What each experiment answers for the test clips as they are now: stored with its runs, and predicted again for
    clips that these have no answer for, or one to another file than lies there now, by its size.

    experiments: the runs of each. refresh: predict every clip. engine: what predicts, see `predict_test`. Raises
    UserError as `predict_new`.
    """
    found = [_of_experiment(runs, competition, paths, refresh, engine) for runs in experiments]
    there = set(competition.test["fname"])
    faults = {fname: reason for _, of_one in found for fname, reason in of_one.items() if fname in there}
    return TestPredictions(np.stack([probs for probs, _ in found]), faults)


def _of_experiment(
    runs: Sequence[Run], competition: Competition, paths: Paths, refresh: bool, engine: str
) -> tuple[np.ndarray, Faults]:
    """(clips, classes), the mean of the fold models, and the faults of the test clips."""
    found, fnames = [run.test for run in runs], competition.test["fname"].tolist()
    faults = {fname: reason for run in runs for fname, reason in run.manifest.test_faults.items()}
    every = refresh or were_predicted(runs, competition, paths, engine)
    if engine == "openvino" and not every:
        say(f"{runs[0].folder.parent}: the answers stored with it are PyTorch's: --force predicts all clips again")
    if new := fnames if every else _new_clips(runs, competition.test):
        answers, new_faults = predict_new(runs, new, competition, paths, engine)
        found = [_updated(*pair) for pair in zip(found, answers, strict=True)]
        faults = {fname: reason for fname, reason in faults.items() if fname not in set(new)} | new_faults
    return mean_of_folds([one.of(fnames, str(run.folder)) for one, run in zip(found, runs, strict=True)]), faults


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


def _updated(stored: Predictions, answers: Predictions) -> Predictions:
    """What is stored, but for the clips that have a new answer."""
    new = set(answers.fnames)
    kept = [i for i, fname in enumerate(stored.fnames) if fname not in new]
    fnames = (*(stored.fnames[i] for i in kept), *answers.fnames)
    return Predictions(fnames, np.concatenate([stored.probs[kept], answers.probs]))


def were_predicted(runs: Sequence[Run], competition: Competition, paths: Paths, engine: str = "torch") -> bool:
    """Whether answers of this engine and these runs to all test clips are kept, for the files as they are now by size
    and time: then `submit.py --force` asked for them, and they are newer than what the runs have stored."""
    test = competition.test
    if "path" not in test:
        return False
    files = [path if isinstance(path, str) else None for path in test["path"]]
    key = clip_key(runs[0].config, test["fname"].tolist(), files, frozen_file_of(runs[0]))
    return all(cached_predictions(paths.predictions, run.id, key, engine).exists() for run in runs)


def predict_new(
    runs: Sequence[Run], fnames: Sequence[str], competition: Competition, paths: Paths, engine: str = "torch"
) -> tuple[list[Predictions], Faults]:
    """Each run's probabilities of these test clips, and what is wrong with the clips.

    What was predicted before is found in work/predictions. A competition whose test sound lies nowhere is unpacked.
    Raises UserError on a missing file, unless the runs' config says to do without.
    """
    from runs.predict import predict_test  # here: what is stored is read without torch

    folder, cfg, test = runs[0].folder.parent, runs[0].config, competition.test
    say(f"{folder}: not stored with it, so predicted or found in {paths.predictions}: {list_some(fnames)}")
    if test["path"].isna().all():
        test = load_competition(paths.input, skip_missing=True, described_by=paths.described_by).test
    clips = test[test["fname"].isin(set(fnames))].reset_index(drop=True)
    gone = clips["fname"][clips["path"].isna()]
    if len(gone) and not cfg.input.skip_unreadable:
        raise UserError(f"{paths.input}: test files are missing: {list_some(gone)}: complete the download")
    found = predict_test([run.folder for run in runs], clips, paths.features, paths.predictions, engine=engine)
    return found, open_clips(cfg, clips, paths.features, frozen_file_of(runs[0])).faults
