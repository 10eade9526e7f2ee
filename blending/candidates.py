"""What can be blended: the experiments' out-of-fold and test probabilities as aligned matrices, checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from configs.competition import SubmissionForm, Task
from configs.paths import Paths
from configs.schema import FoldConfig, differences
from console.errors import UserError, list_some
from console.output import warn
from folds.assign import fold_hash, group_numbers, n_folds_of
from input.competition import Competition
from input.names import respell
from metrics.metric import Metric, find_metric
from runs.out_of_fold import join_folds
from runs.predictions import TestPredictions
from runs.run_folder import Run, finished_folds, read_run


@dataclass(frozen=True)
class Candidates:
    """Models to blend, their probabilities as aligned matrices."""

    names: tuple[str, ...]  # as their folders or files are called; two seeds of one experiment are two models
    ids: tuple[tuple[str, ...], ...]  # per model, of what its predictions were read from, one a fold
    classes: tuple[str, ...]
    fnames: tuple[str, ...]  # of the training clips
    truth: np.ndarray  # (clips, classes) bool
    verified: np.ndarray  # (clips,) bool
    fold: np.ndarray  # (clips,)
    group: np.ndarray  # (clips,): clips of one number were cut from one recording
    oof: np.ndarray  # (models, clips, classes) float32, out-of-fold
    test_fnames: tuple[str, ...]
    test: np.ndarray  # (models, test clips, classes), the mean of the fold models
    test_faults: dict[str, str]  # test clips -> what is wrong with them
    selected_on_oof: tuple[str, ...] = ()  # models whose epoch was chosen by its score on these training clips
    task: Task = "single_label"
    metric: Metric = field(default_factory=lambda: find_metric("map@3"))
    form: SubmissionForm = field(default_factory=SubmissionForm)

    @property
    def label_index(self) -> np.ndarray:
        """(clips,) class indices, for one label per clip."""
        return np.asarray(self.truth.argmax(axis=1))

    @property
    def all_folds(self) -> str:
        """As train_fold.py --fold takes them: '0..4'."""
        return f"0..{self.fold.max()}"

    def of_models(self, kept: Sequence[int]) -> "Candidates":
        """Those models alone."""
        names, ids = tuple(self.names[i] for i in kept), tuple(self.ids[i] for i in kept)
        return replace(self, names=names, ids=ids, oof=self.oof[kept], test=self.test[kept])


def finished_runs(folder: Path, names: Sequence[str], competition: Competition) -> list[list[Run]]:
    """All folds of each named experiment; without names, of every experiment whose folds are all finished.

    Raises UserError where there is none, a named one is unfinished, or they differ in classes, folds or clips from each
    other or from the competition.
    """
    experiments = [_experiment(one) for one in _folders(folder, names)]
    whole = [runs for runs, reason in experiments if not reason]
    for _, reason in experiments:
        if reason and names:
            raise UserError(reason)
        if reason:
            warn(f"left out: {reason}")
    if not whole:
        begun = [run.manifest.n_folds for runs, _ in experiments for run in runs]
        last = (max(begun) if begun else n_folds_of(FoldConfig(), competition)) - 1
        options = Paths(competition.folder, folder.parent, competition.described_by).options
        raise UserError(
            f"{folder}: no experiment with all its folds finished: python train_fold.py --fold 0..{last}{options}"
        )
    _check_comparable(whole, competition)
    return whole


def _folders(runs: Path, names: Sequence[str]) -> list[Path]:
    there = sorted(f for f in runs.glob("*") if f.is_dir()) if runs.is_dir() else []
    names = respell(names, [f.name for f in there])
    if unknown := [name for name in names if name not in [f.name for f in there]]:
        raise UserError(f"{runs}: no experiment {list_some(unknown)}; there are {list_some(f.name for f in there)}")
    return [f for f in there if not names or f.name in names]


def _experiment(folder: Path) -> tuple[list[Run], str]:
    """The finished folds of an experiment, and why they cannot be used ('' if they can)."""
    runs = [read_run(f) for f in finished_folds(folder)]
    n_folds = runs[0].manifest.n_folds if runs else 0
    if lacking := sorted(set(range(n_folds)) - {run.fold for run in runs}):
        begun = [k for k in lacking if (folder / f"fold{k}.partial").exists()]
        more = f" ({list_some(begun)} begun)" if begun else ""
        one = "fold {} is" if len(lacking) == 1 else "folds {} are"
        fact = f"{folder}: {one.format(', '.join(map(str, lacking)))} not finished, of 0..{n_folds - 1}{more}"
        return runs, f"{fact}: train what is missing, or blend others with ensemble.py --runs"
    return runs, "" if runs else f"{folder}: no fold is finished"


def _check_comparable(whole: list[list[Run]], competition: Competition) -> None:
    first = whole[0][0]
    heard = [run for runs in whole for run in runs if _train_sound(run)]
    for runs in whole:
        _check_one_setting(runs)
    for run in (run for runs in whole for run in runs):
        if run.classes != competition.classes:
            odd = sorted(set(run.classes) ^ set(competition.classes)) or ["another order"]
            raise UserError(f"{run.folder}: its classes are not those of {competition.folder}: {list_some(odd)}")
        if run.manifest.fold_hash != first.manifest.fold_hash:
            raise UserError(
                f"{run.folder}: its folds or labels are not those of {first.folder}: out-of-fold rows of the two "
                f"cannot be blended; choose experiments with --runs"
            )
        if _train_sound(run) not in ("", *map(_train_sound, heard[:1])):
            raise UserError(
                f"{run.folder}: trained on other sound files than {heard[0].folder}: train one of them again with "
                f"--force, or choose experiments with --runs"
            )
    if _fold_hash_now(whole[0], competition.train) != first.manifest.fold_hash:
        raise UserError(
            f"{first.folder.parent}: made from other clips, labels or folds than {competition.folder} has now: "
            f"train it again with --force"
        )


def _check_one_setting(runs: list[Run]) -> None:
    for run in runs[1:]:
        if changed := differences(runs[0].config, run.config):
            raise UserError(
                f"{run.folder}: trained with other settings than {runs[0].folder.name} ({list_some(changed, 3)}): "
                f"train one of the two again with --force"
            )


def _train_sound(run: Run) -> str:
    """The hash of the training sound; '' where a manifest of an older version does not say."""
    return run.manifest.sound_hash.train or ""


def _fold_hash_now(runs: list[Run], train: pd.DataFrame) -> str:
    """The hash of today's table with the folds that the runs' out-of-fold rows show, as train_fold.py took it."""
    used = train[~train["fname"].isin(set().union(*(run.manifest.skipped for run in runs)))]
    fold = {fname: run.fold for run in runs for fname in run.oof.fnames}
    return fold_hash(used.assign(fold=[fold.get(fname, -1) for fname in used["fname"]]))


def align(whole: Sequence[list[Run]], test: TestPredictions, competition: Competition) -> Candidates:
    """Experiments, as `finished_runs` gives them, and what they answer for the test clips, as matrices.

    Raises UserError where a training clip has no out-of-fold prediction or two, or a prediction is not finite.
    """
    train = competition.train
    skipped = set().union(*(run.manifest.skipped for runs in whole for run in runs))
    used = train[~train["fname"].isin(skipped)]
    fnames = tuple(used["fname"])
    fold = {fname: run.fold for run in whole[0] for fname in run.oof.fnames}
    metric = find_metric(competition.metric, competition.task)
    oof = [join_folds(runs, metric).of(fnames, f"{runs[0].folder.parent}, out-of-fold") for runs in whole]
    for runs, one, other in zip(whole, oof, test.probs, strict=True):
        if not (np.isfinite(one).all() and np.isfinite(other).all()):
            raise UserError(f"{runs[0].folder.parent}: its predictions hold NaN or infinity: train it again")
    return Candidates(
        names=tuple(runs[0].folder.parent.name for runs in whole),
        ids=tuple(tuple(run.id for run in runs) for runs in whole),
        classes=competition.classes,
        fnames=fnames,
        truth=competition.targets[~train["fname"].isin(skipped).to_numpy()] == 1,
        verified=used["verified"].to_numpy(dtype=bool),
        fold=np.array([fold[fname] for fname in fnames]),
        group=group_numbers(used, competition.group_column or whole[0][0].config.folds.group_column),
        oof=np.stack(oof),
        test_fnames=tuple(competition.test["fname"]),
        test=test.probs,
        test_faults=test.faults,
        selected_on_oof=tuple(runs[0].folder.parent.name for runs in whole if runs[0].config.train.keep == "best"),
        task=competition.task,
        metric=metric,
        form=competition.form,
    )
