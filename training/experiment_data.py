"""What the folds of an experiment share before training: competition, folds, labels, features, device."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from configs.competition import Task
from configs.forms import read_json
from configs.paths import Paths
from configs.processes import runs_elsewhere
from configs.schema import Config, config_hash
from configs.user_code import hashes, is_user_code, metric_files, user_files
from console.errors import UserError, count, list_faults, list_some
from console.output import say, warn
from features.store import Store, open_features
from folds.assign import fold_hash, load_folds, n_folds_of
from folds.scorable import check_scorable
from input.competition import Competition, load_competition, sound_hash, sound_sizes
from input.corrections import correct, corrections_hash, read_corrections, targets_hash
from input.labels import split_text
from runs.clips import FrozenFile, clip_settings, frozen_file, frozen_file_of, open_clips
from runs.network_code import check_no_code_inside
from runs.predictions import warn_of_faults
from runs.provenance import file_sha256
from runs.run_folder import Manifest, Origin, Run, SoundHash
from training.distillation import read_teacher
from training.fold_data import check_finetuning_rows
from training.pseudo_labels import PseudoLabels, read_pseudo_labels

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Data:
    """What is needed to recognise a finished fold: no features, no torch."""

    competition: Competition
    folds: pd.DataFrame  # fname, label, verified, group, fold of all training clips, as given
    corrections: dict[str, str]  # fname -> label to train on
    pseudo: dict[int, PseudoLabels]  # of each fold to train, where there are any
    teachers: dict[int, Run]  # of each fold to train, where there is one
    origin: Origin  # what the manifest says of all this, without what differs from fold to fold
    test_sizes: np.ndarray  # (test clips,) bytes of the files before features are made, -1 of a missing one
    frozen: FrozenFile | None  # of model.name=embedding:<checkpoint>

    def origin_of(self, fold: int) -> Origin:
        pseudo = self.pseudo[fold].ids if fold in self.pseudo else None
        teacher = self.teachers[fold].id if fold in self.teachers else None
        return replace(self.origin, pseudo_runs=pseudo, teacher_run=teacher)


@dataclass(frozen=True)
class Prepared(Data):
    """What all folds share in training; `folds` has the clips that can be used."""

    train: Store
    copies: list[Store]  # of the training clips, at other speeds or with their sound changed
    test: Store
    taught: dict[int, Store]  # the training clips as the teacher of each fold hears them
    device: "torch.device"
    precision: str


def load_data(cfg: Config, folds_to_train: list[int], paths: Paths) -> Data:
    """Competition, folds (assigned by the first call), corrections, and the pseudo-labels of these folds.

    Raises UserError on bad input.
    """
    competition = load_competition(paths.input, cfg.input.skip_unreadable, described_by=paths.described_by)
    check_task(cfg, competition.task)
    folds = load_folds(cfg.folds, competition, paths.folds)
    if code := user_files(cfg):
        check_no_code_inside(code, paths.work)
    frozen = frozen_file(cfg)
    corrections, corrected = dict[str, str](), None
    if cfg.input.corrections:
        corrections = read_corrections(
            Path(cfg.input.corrections), competition.train, competition.classes, competition.task
        )
        corrected = corrections_hash(corrections)
        say(f"{cfg.input.corrections}: corrects {count(len(corrections), 'clip')}, for training only")
    origin = Origin(
        n_folds=n_folds_of(cfg.folds, competition),
        task=competition.task,
        metric=competition.metric,
        fold_hash=fold_hash(folds),
        feature_hash=config_hash(cfg.features),
        sound_hash=SoundHash(train=sound_hash(competition.train), test=sound_hash(competition.test)),
        targets_hash=targets_hash(competition),
        corrections_hash=corrected,
        code=hashes(code) | ({frozen.path.name: frozen.sha256} if frozen else {}),
        metric_code=hashes(metric_files(competition.metric)),
    )
    data = Data(competition, folds, corrections, {}, {}, origin, sound_sizes(competition.test), frozen)
    if cfg.train.teacher:
        classes, task = competition.classes, competition.task
        teachers = {k: read_teacher(cfg.train, cfg.name, k, paths.runs, folds, classes, task) for k in folds_to_train}
        data = replace(data, teachers=teachers)
    return replace(data, pseudo=read_pseudo(cfg, folds_to_train, data, paths)) if cfg.pseudo.runs else data


def read_pseudo(cfg: Config, folds_to_train: list[int], data: Data, paths: Paths) -> dict[int, PseudoLabels]:
    """The pseudo-labels of each of these folds, from the models of that fold alone. Raises UserError on bad input."""
    of, test_sound = data.competition, data.origin.sound_hash.test
    return {
        fold: read_pseudo_labels(cfg.pseudo, cfg.name, fold, paths.runs, data.folds, of.classes, test_sound, of.task)
        for fold in folds_to_train
    }


def prepare(cfg: Config, data: Data, paths: Paths, folds_to_train: list[int]) -> Prepared:
    """Device, precision and features, which the first call makes.

    Raises UserError on bad input, and before it makes features: on a metric, a device, a precision, a network or a
    second stage that is not possible, and on weights to start from that have learned from clips that one of the folds
    is scored on.
    """
    from models.build import build_model
    from models.device import choose_device, choose_precision
    from models.frozen import build_frozen
    from training.fine_tuning import set_up
    from training.heads import check_settings
    from training.loggers import check_loggers
    from training.user_code_check import check_user_code

    origins = list(runs_with(Path(cfg.model.weights), paths.runs)) if cfg.model.weights else []
    for fold in folds_to_train:
        for made in origins:
            check_no_leak(str(cfg.model.weights), made, fold, data)
        check_finetuning_rows(cfg.train, correct(data.folds, data.corrections, fold), fold)
    check_scorable(data.competition, data.folds, folds_to_train)
    t = replace(cfg.train, device="auto", precision="auto") if runs_elsewhere() else cfg.train  # another's may suit it
    device = choose_device(t.device)
    precision = choose_precision(t.precision, device)
    of = data.competition
    check_loggers(cfg.train.loggers)
    if data.frozen:
        check_settings(cfg)
        if not cfg.model.frozen_is_file:
            build_frozen(cfg)  # it may refuse its weights
    else:
        set_up(build_model(cfg, len(of.classes)), cfg)  # a second at most; it may refuse its name, weights or settings
    check_user_code(cfg, len(of.classes), of.task, unknown=bool(np.isnan(of.targets).any()))
    train = open_clips(cfg, of.train, paths.features, data.frozen)
    check_training_clips(train, cfg.input.skip_unreadable)
    folds = usable_clips(data.folds, train.faults)
    test = open_clips(cfg, of.test, paths.features, data.frozen)
    if test.key != train.key:  # in a search the training clips stand in for them
        warn_of_faults(test.faults)
    copies = [open_features(replace(cfg.features, speed=s), of.train, paths.features) for s in cfg.train.speeds]
    copies += [open_features(cfg.features, of.train, paths.features, wave=name) for name in cfg.augment.wave]
    origin = replace(data.origin, fold_hash=fold_hash(folds), skipped=train.faults, test_faults=test.faults)
    known = (of, folds, data.corrections, data.pseudo, data.teachers, origin, data.test_sizes, data.frozen)
    return Prepared(*known, train, copies, test, teachers_stores(data, paths), device, precision)


def teachers_stores(data: Data, paths: Paths) -> dict[int, Store]:
    """The training clips as the teacher of each fold hears them: the folds of an experiment may differ in their
    settings."""
    heard = {fold: clip_settings(run.config, frozen_file_of(run)) for fold, run in data.teachers.items()}
    of_settings = {heard[fold]: run for fold, run in data.teachers.items()}
    stores = {
        settings: open_clips(run.config, data.competition.train, paths.features, frozen_file_of(run))
        for settings, run in of_settings.items()
    }
    return {fold: stores[settings] for fold, settings in heard.items()}


def check_task(cfg: Config, task: Task) -> None:
    """Raises UserError on a setting that only the other task has."""
    t = cfg.train
    if task == "single_label":
        if t.positive_weight:
            raise UserError(f"train.positive_weight={t.positive_weight:g}: for several labels a clip: use 0")
        if cfg.augment.mixup_labels == "max":
            raise UserError("augment.mixup_labels=max: for several labels a clip: use mean")
    elif is_user_code(t.loss) and (t.positive_weight or t.class_weights):
        key = "positive_weight" if t.positive_weight else "class_weights"
        raise UserError(f"train.{key}: not with a loss of your own ({t.loss}) for several labels: turn it off")


def runs_with(weights: Path, runs: Path) -> Iterator[Manifest]:
    """The manifests of finished folds whose model is in this file: of the folder that it lies in, and of those under
    `runs` that hold the same bytes, since a file may be copied."""
    digest = file_sha256(weights) if weights.is_file() else None
    for file in {weights.parent / "manifest.json", *runs.glob("*/fold*/manifest.json")}:
        try:
            made = read_json(file, Manifest, "")
        except UserError:
            continue  # of something else
        if file.parent == weights.parent or made.files.get("model.safetensors") == digest:
            yield made


def check_no_leak(weights: str, made: Manifest, fold: int, data: Data) -> None:
    """Raises UserError where a model learned from clips that this fold is scored on: one of another fold, or of other
    folds of the same training sound. made: the manifest of its fold."""
    if made.sound_hash.train != data.origin.sound_hash.train:
        return
    used = data.folds[~data.folds["fname"].isin(made.skipped)]
    if (made.fold, made.fold_hash) != (fold, fold_hash(used)):
        raise UserError(
            f"model.weights: {weights} learned from clips that fold {fold} is scored on: start from fold {fold} of "
            f"that experiment, made from the same folds, or from weights of other sound"
        )


def check_training_clips(store: Store, skip: bool) -> None:
    """Raises UserError that lists empty, silent and unreadable clips, or warns of them where they are to be skipped."""
    if store.faults and not skip:
        remedy = "repair them, or leave them out with input.skip_unreadable=true"
        raise UserError(f"training clips that cannot be used: {list_faults(store.faults)}; {remedy}")
    if store.faults:
        warn(f"left out of training: {list_faults(store.faults)}")


def usable_clips(folds: pd.DataFrame, faults: dict[str, str]) -> pd.DataFrame:
    """The rows without clips that are left out. Raises UserError where a label loses all of its clips."""
    usable = folds[~folds["fname"].isin(faults)]
    known, left = ({one for text in set(table["label"]) for one in split_text(text)} for table in (folds, usable))
    if lost := sorted(known - left):
        raise UserError(f"labels without a training clip that can be used: {list_some(lost)}; repair one clip of each")
    return usable
