"""What can be blended: the experiments' out-of-fold and test probabilities as aligned matrices, checked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from configs.console import warn
from configs.errors import UserError, list_some
from configs.schema import differences
from features.store import sound_hash, sound_sizes
from folds.assign import fold_hash
from input.competition import Competition
from input.names import respell
from models.run_folder import Predictions, Run, finished_folds, mean_of_folds, read_run

Faults = dict[str, str]  # fname -> reason
Predict = Callable[[Sequence[Run], Sequence[str]], tuple[list[Predictions], Faults]]


@dataclass(frozen=True)
class Candidates:
    """names: the models, as their folders are called; two seeds of one experiment are two models. ids: per model what
    its predictions were read from (one id a fold). oof (models, clips, classes) float32 over the training clips
    `fnames` with truth, verified, fold and group (clips,): clips of one group number were cut from one recording. test
    (models, test clips, classes) over `test_fnames`, the mean of the fold models. kept_best: the models whose epoch was
    chosen by its score on these training clips."""

    names: tuple[str, ...]
    ids: tuple[tuple[str, ...], ...]
    classes: tuple[str, ...]
    fnames: tuple[str, ...]
    truth: np.ndarray
    verified: np.ndarray
    fold: np.ndarray
    group: np.ndarray
    oof: np.ndarray
    test_fnames: tuple[str, ...]
    test: np.ndarray
    test_faults: Faults
    kept_best: tuple[str, ...] = ()


def candidates_from_runs(
    runs: Path,
    names: Sequence[str],
    competition: Competition,
    predict: Predict | None = None,
    anew: Callable[[Sequence[Run]], bool] | None = None,
) -> Candidates:
    """All folds of the named experiments; without names, of every experiment whose folds are all finished.

    predict: called with the runs of an experiment and the test clips that these have no answer for, or one to another
    file than lies there now, by its size; it gives each run's probabilities of these clips, and their faults. Without
    it, files are not looked at, and a clip without an answer is an error. anew: called with the runs of an experiment,
    whether it is asked for every clip, whatever is stored.
    Raises UserError where there is none, a named one is unfinished, or they differ in classes, folds or clips from each
    other or from the competition.
    """
    experiments = [_experiment(folder) for folder in _folders(runs, names)]
    whole = [runs_of for runs_of, reason in experiments if not reason]
    for _, reason in experiments:
        if reason and names:
            raise UserError(reason)
        if reason:
            warn(f"left out: {reason}")
    if not whole:
        raise UserError(f"{runs}: no experiment with all its folds finished: python train_fold.py --fold 0..4")
    _refuse_differences(whole, competition)
    return _align(whole, competition, predict, anew or (lambda runs: False))


def _folders(runs: Path, names: Sequence[str]) -> list[Path]:
    there = sorted(f for f in runs.glob("*") if f.is_dir()) if runs.is_dir() else []
    names = respell(names, [f.name for f in there])
    if unknown := [name for name in names if name not in [f.name for f in there]]:
        raise UserError(f"{runs}: no experiment {list_some(unknown)}; there are {list_some(f.name for f in there)}")
    return [f for f in there if not names or f.name in names]


def _experiment(folder: Path) -> tuple[list[Run], str]:
    """The finished folds of an experiment, and why they cannot be used ('' if they can)."""
    runs = [read_run(f) for f in finished_folds(folder)]
    n_folds = runs[0].manifest["n_folds"] if runs else 0
    if lacking := sorted(set(range(n_folds)) - {run.fold for run in runs}):
        begun = [k for k in lacking if (folder / f"fold{k}.partial").exists()]
        told = f"{folder}: folds {', '.join(map(str, lacking))} of {n_folds} are not finished"
        return runs, told + (
            f" ({list_some(begun)} begun)" if begun else ""
        ) + ": train them, or name others with --runs"
    return runs, "" if runs else f"{folder}: no fold is finished"


def _refuse_differences(whole: list[list[Run]], competition: Competition) -> None:
    first = whole[0][0]
    heard = [run for runs in whole for run in runs if _train_sound(run)]
    for runs in whole:
        _refuse_mixed_settings(runs)
    for run in (run for runs in whole for run in runs):
        if run.classes != competition.classes:
            odd = sorted(set(run.classes) ^ set(competition.classes)) or ["another order"]
            raise UserError(f"{run.folder}: its classes are not those of {competition.folder}: {list_some(odd)}")
        if run.manifest["fold_hash"] != first.manifest["fold_hash"]:
            raise UserError(
                f"{run.folder}: its folds or labels are not those of {first.folder}: out-of-fold rows of the two "
                f"cannot be blended; choose experiments with --runs"
            )
        if _train_sound(run) not in ("", *map(_train_sound, heard[:1])):
            raise UserError(
                f"{run.folder}: trained on other sound files than {heard[0].folder}: train one of them again with "
                f"--force, or choose experiments with --runs"
            )
    if _fold_hash_now(whole[0], competition.train) != first.manifest["fold_hash"]:
        raise UserError(
            f"{first.folder.parent}: made from other clips, labels or folds than {competition.folder} has now: "
            f"train it again with --force"
        )


def _refuse_mixed_settings(runs: list[Run]) -> None:
    for run in runs[1:]:
        if changed := differences(runs[0].config, run.config):
            raise UserError(
                f"{run.folder}: trained with other settings than {runs[0].folder.name} ({list_some(changed, 3)}): "
                f"train one of the two again with --force"
            )


def _train_sound(run: Run) -> str:
    """The hash of the training sound; '' where a manifest of an older version does not tell."""
    return str(run.manifest.get("sound_hash", {}).get("train", ""))


def _fold_hash_now(runs: list[Run], train: pd.DataFrame) -> str:
    """The hash of today's table with the folds that the runs' out-of-fold rows show, as train_fold.py took it."""
    used = train[~train["fname"].isin(set().union(*(run.manifest["skipped"] for run in runs)))]
    fold = {fname: run.fold for run in runs for fname in run.oof.fnames}
    return fold_hash(used.assign(fold=[fold.get(fname, -1) for fname in used["fname"]]))


def _align(
    whole: list[list[Run]], competition: Competition, predict: Predict | None, anew: Callable[[Sequence[Run]], bool]
) -> Candidates:
    train = competition.train
    skipped = set().union(*(run.manifest["skipped"] for runs in whole for run in runs))
    used = train[~train["fname"].isin(skipped)]
    fnames = tuple(used["fname"])
    fold = {fname: run.fold for run in whole[0] for fname in run.oof.fnames}
    oof = [_join(runs).of(fnames, f"{runs[0].folder.parent}, out-of-fold") for runs in whole]
    test_fnames = tuple(competition.test["fname"])
    test, faults = zip(*(_mean_test(runs, competition.test, predict, anew(runs)) for runs in whole), strict=True)
    for runs, one, other in zip(whole, oof, test, strict=True):
        if not (np.isfinite(one).all() and np.isfinite(other).all()):
            raise UserError(f"{runs[0].folder.parent}: its predictions hold NaN or infinity: train it again")
    return Candidates(
        names=tuple(runs[0].folder.parent.name for runs in whole),
        ids=tuple(tuple(run.id for run in runs) for runs in whole),
        classes=competition.classes,
        fnames=fnames,
        truth=np.array([competition.classes.index(label) for label in used["label"]]),
        verified=used["verified"].to_numpy(dtype=bool),
        fold=np.array([fold[fname] for fname in fnames]),
        group=group_numbers(used, whole[0][0].config.folds.group_column),
        oof=np.stack(oof),
        test_fnames=test_fnames,
        test=np.stack(test),
        test_faults={k: v for one in faults for k, v in one.items() if k in set(test_fnames)},
        kept_best=tuple(runs[0].folder.parent.name for runs in whole if runs[0].config.train.keep == "best"),
    )


def _mean_test(runs: list[Run], test: pd.DataFrame, predict: Predict | None, anew: bool) -> tuple[np.ndarray, Faults]:
    """(clips, classes) of an experiment, the mean of its fold models, and the faults of the test clips."""
    found = [run.test for run in runs]
    faults = {fname: reason for run in runs for fname, reason in run.manifest["test_faults"].items()}
    new = test["fname"].tolist() if anew else _new_clips(runs, test) if predict else []
    if predict and new:
        answers, new_faults = predict(runs, new)
        found = [_renewed(*pair) for pair in zip(found, answers, strict=True)]
        faults = {fname: reason for fname, reason in faults.items() if fname not in set(new)} | new_faults
    fnames = test["fname"].tolist()
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
            then = run.manifest.get("sound_hash", {}).get("test")
            new |= then not in (None, sound_hash(test.iloc[np.argsort(row)]))
    return [fname for fname, is_new in zip(test["fname"], new, strict=True) if is_new]


def _renewed(stored: Predictions, answers: Predictions) -> Predictions:
    """What is stored, but for the clips that are answered anew."""
    anew = set(answers.fnames)
    kept = [i for i, fname in enumerate(stored.fnames) if fname not in anew]
    fnames = (*(stored.fnames[i] for i in kept), *answers.fnames)
    return Predictions(fnames, np.concatenate([stored.probs[kept], answers.probs]))


def group_numbers(train: pd.DataFrame, column: str | None) -> np.ndarray:
    """The number of each clip's group, (clips,); a clip without one is its own, as when the folds were dealt."""
    if column is None or column not in train:
        return np.arange(len(train))
    named = train[column].where(train[column] != "", "clip " + train["fname"])
    return np.asarray(pd.factorize(named)[0])


def _join(runs: list[Run]) -> Predictions:
    """The out-of-fold rows of all folds. Raises UserError where a clip is in two of them."""
    fnames = [fname for run in runs for fname in run.oof.fnames]
    if len(set(fnames)) < len(fnames):
        twice = sorted({f for f in fnames if fnames.count(f) > 1})
        raise UserError(f"{runs[0].folder.parent}: clips are out-of-fold twice: {list_some(twice)}")
    return Predictions(tuple(fnames), np.concatenate([run.oof.probs for run in runs]))
