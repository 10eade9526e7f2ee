"""A teacher's probabilities as a part of the training labels, fold by fold, from models that never saw the fold.

Fold k of the student may only hear the teacher's model of fold k. Its other models know the labels of fold k: so do
their out-of-fold predictions, which for a training clip come from the model of that clip's own fold, and would carry
the labels of fold k into what fold k of the student learns. The model of fold k has learned the labels of the training
clips themselves, so it is too sure of them: a temperature above 1 flattens that. An embedding experiment, whose head is
held back by its L2, knows them less by heart. Source: G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a
Neural Network", 2015; the student has temperature 1 here, as its labels are mixed with the true ones.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from configs.competition import Task
from configs.schema import TrainConfig
from console.errors import UserError
from features.store import Store
from runs.predictions import geometric
from runs.run_folder import Run, read_trained
from training.fold_data import FoldData
from training.pseudo_labels import check_voter, read_voter


def read_teacher(
    cfg: TrainConfig, name: str, fold: int, runs: Path, folds: pd.DataFrame, classes: tuple[str, ...], task: Task
) -> Run:
    """The teacher's model of this one fold. name: the experiment that is to be trained; folds: fname, label, verified,
    fold of all training clips.

    Raises UserError where the teacher is this experiment, is not finished, or was made from other folds or classes.
    """
    if cfg.teacher == name:
        raise UserError(f"train.teacher: {name} cannot teach itself: give this experiment another name=NEW")
    run = read_voter(runs / str(cfg.teacher) / f"fold{fold}", "train.teacher")
    check_voter(run, fold, folds, classes, task, "train.teacher")
    return run


def add_teacher(parts: FoldData, cfg: TrainConfig, teacher: Run, heard: Store) -> FoldData:
    """The fold with the teacher's answers mixed into the labels of its training clips; unknown labels stay unknown, and
    what is scored stays as it is, and so do the labels of clips in which the teacher hears nothing. heard: the training
    clips as the teacher hears them."""
    from runs.predict import predict_store, prediction_devices

    probs = predict_store(read_trained(teacher.folder), heard, prediction_devices()[0])
    rows = parts.train[heard.length[parts.train] > 0]
    soft = softened(probs[rows], cfg.teacher_temperature, parts.task)
    targets = parts.targets.copy()
    targets[rows] = (1 - cfg.teacher_weight) * targets[rows] + cfg.teacher_weight * soft
    return replace(parts, targets=targets)


def softened(probs: np.ndarray, temperature: float, task: Task) -> np.ndarray:
    """probs (clips, classes) float32 as of logits divided by the temperature."""
    if temperature == 1:
        return probs
    power = 1 / temperature
    if task == "single_label":
        return geometric(probs[None], np.array([power])).astype(np.float32)
    present, absent = probs.astype(np.float64) ** power, (1 - probs.astype(np.float64)) ** power
    return (present / (present + absent)).astype(np.float32)
