"""What the folds of an experiment share before training: competition, folds, labels, features, device."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from configs.forms import read_json
from configs.paths import Paths
from configs.schema import Config, config_hash
from configs.user_code import hashes, user_files
from console.errors import UserError, list_faults, list_some
from console.output import say, warn
from features.store import Store, open_features
from folds.assign import fold_hash, load_folds
from input.competition import Competition, load_competition, sound_hash, sound_sizes
from input.corrections import correct, corrections_hash, read_corrections
from runs.network_code import check_no_code_inside
from runs.predictions import warn_of_faults
from runs.provenance import file_sha256
from runs.run_folder import Manifest, Origin, SoundHash
from training.fold_data import check_finetuning_rows
from training.pseudo_labels import PseudoLabels, read_pseudo_labels

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Data:
    """What suffices to know a finished fold again: no features, no torch. folds: fname, label, verified, group, fold of
    all training clips, as given; corrections: fname -> label to train on; pseudo: of each fold that is asked for, where
    there are any; origin: what the manifest says of all this, but for what one fold has of its own; test_sizes: bytes
    of the test files (test clips,), -1 of a missing one, before anything is made of them."""

    competition: Competition
    folds: pd.DataFrame
    corrections: dict[str, str]
    pseudo: dict[int, PseudoLabels]
    origin: Origin
    test_sizes: np.ndarray

    def origin_of(self, fold: int) -> Origin:
        return replace(self.origin, pseudo_runs=self.pseudo[fold].ids) if fold in self.pseudo else self.origin


@dataclass(frozen=True)
class Prepared(Data):
    """What all folds share in training. folds: the clips that can be used; copies: of the training clips, at other
    speeds or with their sound changed."""

    train: Store
    copies: list[Store]
    test: Store
    device: "torch.device"
    precision: str


def load_data(cfg: Config, wanted: list[int], paths: Paths) -> Data:
    """Competition and folds, which are made where they are not there, corrections, and the pseudo-labels of the wanted
    folds. Raises UserError on bad input."""
    competition = load_competition(paths.input, cfg.input.skip_unreadable)
    n_train, n_test, n_classes = len(competition.train), len(competition.test), len(competition.classes)
    say(f"{paths.input}: {n_train} training clips, {n_test} test clips, {n_classes} classes")
    folds = load_folds(cfg.folds, competition.train, paths.folds)
    if code := user_files(cfg):
        check_no_code_inside(code, paths.work)
    corrections, corrected = dict[str, str](), None
    if cfg.input.corrections:
        corrections = read_corrections(Path(cfg.input.corrections), competition.train, competition.classes)
        corrected = corrections_hash(corrections)
        say(f"{cfg.input.corrections}: corrects {len(corrections)} clips, for training only")
    origin = Origin(
        n_folds=cfg.folds.n_folds,
        fold_hash=fold_hash(folds),
        feature_hash=config_hash(cfg.features),
        sound_hash=SoundHash(train=sound_hash(competition.train), test=sound_hash(competition.test)),
        corrections_hash=corrected,
        code=hashes(code),
    )
    data = Data(competition, folds, corrections, {}, origin, sound_sizes(competition.test))
    return replace(data, pseudo=read_pseudo(cfg, wanted, data, paths)) if cfg.pseudo.runs else data


def read_pseudo(cfg: Config, wanted: list[int], data: Data, paths: Paths) -> dict[int, PseudoLabels]:
    """The pseudo-labels of each wanted fold, from the models of that fold alone. Raises UserError on bad input."""
    of, test_sound = data.competition, data.origin.sound_hash.test
    return {
        fold: read_pseudo_labels(cfg.pseudo, cfg.name, fold, paths.runs, data.folds, of.classes, test_sound)
        for fold in wanted
    }


def prepare(cfg: Config, data: Data, paths: Paths, wanted: list[int]) -> Prepared:
    """Device, precision and features; features are made where they are not there. Raises UserError on bad input, and
    before features are made on a device, a precision, a network or a finetuning of a wanted fold that cannot be had,
    and on weights to start from that learned what it is scored on."""
    from models.build import build_model
    from models.device import choose_device, choose_precision
    from training.user_code_check import check_user_code

    origins = list(runs_with(Path(cfg.model.weights), paths.runs)) if cfg.model.weights else []
    for fold in wanted:
        for made in origins:
            check_no_leak(str(cfg.model.weights), made, fold, data)
        check_finetuning_rows(cfg.train, correct(data.folds, data.corrections, fold), fold)
    device = choose_device(cfg.train.device)
    precision = choose_precision(cfg.train.precision, device)
    of = data.competition
    build_model(cfg, len(of.classes))  # a second at most; it may refuse its name or weights
    check_user_code(cfg, len(of.classes))
    train = open_features(cfg.features, of.train, paths.features)
    check_training_clips(train, cfg.input.skip_unreadable)
    folds = usable_clips(data.folds, train.faults)
    test = open_features(cfg.features, of.test, paths.features)
    if test.key != train.key:  # in a search the training clips stand in for them
        warn_of_faults(test.faults)
    copies = [open_features(replace(cfg.features, speed=s), of.train, paths.features) for s in cfg.train.speeds]
    copies += [open_features(cfg.features, of.train, paths.features, wave=name) for name in cfg.augment.wave]
    origin = replace(data.origin, fold_hash=fold_hash(folds), skipped=train.faults, test_faults=test.faults)
    known = (of, folds, data.corrections, data.pseudo, origin, data.test_sizes)
    return Prepared(*known, train, copies, test, device, precision)


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
    if lost := sorted(set(folds["label"]) - set(usable["label"])):
        raise UserError(f"labels without a training clip that can be used: {list_some(lost)}; repair one clip of each")
    return usable
