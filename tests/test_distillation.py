"""A teacher's probabilities among the labels: from its model of the same fold alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeStore
from test_clips import trained  # noqa: F401  a fixture

from configs.load import load_config
from configs.paths import Paths
from configs.schema import Config, TrainConfig
from console.errors import UserError
from runs.run_folder import read_run
from training import distillation
from training.distillation import add_teacher, softened
from training.experiment_data import load_data, teachers_stores
from training.fold_data import FoldData
from training.train import train_folds

STUDENT = ["model.name=resnetish10", "model.width=8", "train.epochs=1", "folds.n_folds=3", "train.teacher=frozen"]


def test_temperature():
    p = np.float32([[0.8, 0.2]])
    np.testing.assert_allclose(softened(p, 2, "single_label"), [[2 / 3, 1 / 3]], rtol=1e-5)  # sqrt(4) : 1
    np.testing.assert_allclose(softened(p, 2, "multi_label"), [[2 / 3, 1 / 3]], rtol=1e-5)  # each by itself
    assert softened(np.float32([[0, 1]]), 3, "multi_label").tolist() == [[0, 1]]


def test_only_training_labels_change_and_unknown_ones_stay_unknown(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("runs.predict.predict_store", lambda *_: np.float32([[0.5, 0.5], [0.25, 0.75]]))
    monkeypatch.setattr(distillation, "read_trained", lambda folder: folder)
    one = np.ones(2)
    targets = np.float32([[1, 0], [np.nan, 1]])
    parts = FoldData(
        np.array([1]), np.array([0]), targets, one, one > 0, ("0.wav",), one[:1] > 0, one, task="multi_label"
    )
    cfg, run = TrainConfig(teacher="a", teacher_weight=0.25), type("R", (), {"folder": Path()})()
    heard = make_store([np.zeros((3, 1))] * 2)
    found = add_teacher(parts, cfg, run, heard)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.targets, np.float32([[1, 0], [np.nan, 0.9375]]))
    assert targets[1, 1] == 1
    deaf = make_store([np.zeros((3, 1)), np.zeros((0, 1))])  # it would answer with its prior
    np.testing.assert_array_equal(add_teacher(parts, cfg, run, deaf).targets, targets)  # type: ignore[arg-type]


def test_a_student_hears_the_teacher_of_its_fold_alone(
    trained: tuple[Paths, Config],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    paths, _ = trained
    asked = []

    def ask(parts: FoldData, cfg: TrainConfig, teacher: object, heard: object) -> FoldData:
        asked.append(teacher)
        return add_teacher(parts, cfg, teacher, heard)  # type: ignore[arg-type]

    monkeypatch.setattr(distillation, "add_teacher", ask)
    cfg = load_config(None, ["name=student", *STUDENT])
    train_folds(cfg, [1], paths)
    assert [run.folder for run in asked] == [paths.run("frozen", 1)]
    assert read_run(paths.run("student", 1)).manifest.teacher_run == read_run(paths.run("frozen", 1)).id
    train_folds(cfg, [1], paths)  # found
    with pytest.raises(UserError, match=r"with other settings \(train\.teacher"):
        train_folds(replace(cfg, train=replace(cfg.train, teacher=None)), [1], paths)


def test_teachers_of_two_settings_each_hear_with_their_own(trained: tuple[Paths, Config]):  # noqa: F811
    paths, _ = trained
    data = load_data(load_config(None, ["name=new", *STUDENT]), [0, 1], paths)
    before = data.teachers[0]
    changed = replace(before.config, predict=replace(before.config.predict, overlap=0.5))
    data = replace(data, teachers={0: replace(before, config=changed), 1: data.teachers[1]})
    stores = teachers_stores(data, paths)
    assert stores[0].key != stores[1].key and stores[0].fnames == stores[1].fnames
    same = teachers_stores(replace(data, teachers={0: before, 1: data.teachers[1]}), paths)
    assert same[0] is same[1]


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ("name=frozen", "train.teacher: frozen cannot teach itself"),
        ("train.teacher=none", r"train\.teacher: .*none/fold0 is not finished: train it first.*finished in frozen"),
        ("folds.seed=1", r"train\.teacher: .*frozen/fold0 was made from other folds than this experiment"),
    ],
)
def test_a_teacher_that_may_know_the_fold_is_refused(
    trained: tuple[Paths, Config],  # noqa: F811
    change: str,
    fact: str,
):
    with pytest.raises(UserError, match=fact):
        load_data(load_config(None, ["name=new", *STUDENT, change]), [0], trained[0])
