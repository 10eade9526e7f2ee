"""Pseudo-labels by hand, what is refused, and a detector of leaks of a fold into its own training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from configs.schema import Config, PseudoConfig, TrainConfig
from console.errors import UserError
from folds.assign import fold_hash
from runs.predictions import Predictions
from runs.run_folder import Manifest, SoundHash, finish_run, unfinished
from tests.conftest import MakeStore
from training.fold_data import split
from training.pseudo_labels import PseudoLabels, add_pseudo_labels, read_pseudo_labels

CLASSES = ("bark", "gong", "siren")
FOLDS = pd.DataFrame(
    {
        "fname": ["0.wav", "1.wav", "2.wav", "3.wav"],
        "label": ["bark", "gong", "siren", "gong"],
        "verified": [True, True, False, True],
        "fold": [0, 0, 1, 1],
    }
)
SOUND = SoundHash(train="s", test="t")
TEST = ("x.wav", "y.wav", "z.wav")
MANIFEST = Manifest(experiment="a", fold=0, n_folds=2, fold_hash=fold_hash(FOLDS), sound_hash=SOUND)
SURE = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]]


def finished(
    runs: Path, name: str, fold: int, probs: Any = SURE, classes: tuple[str, ...] = CLASSES, **facts: Any
) -> None:
    """A run folder of that experiment whose model says these probabilities of x, y and z."""
    final, about = runs / name / f"fold{fold}", replace(MANIFEST, experiment=name, fold=fold, **facts)
    oof = Predictions(("0.wav",), np.full((1, 3), 1 / 3, np.float32))
    with unfinished(final, Config(name=name), about, restart=True) as partial:
        (partial / "model.safetensors").write_bytes(b"weights")
        (partial / "metrics.csv").write_text("epoch\n1\n")
        test = Predictions(TEST, np.float32(probs))
        finish_run(partial, final, Config(name=name), classes, oof, test, {"map3": 0.5}, about)


def read(
    runs: Path, names: tuple[str, ...] = ("a",), fold: int = 0, folds: pd.DataFrame = FOLDS, **cfg: Any
) -> PseudoLabels:
    return read_pseudo_labels(PseudoConfig(names, **cfg), "new", fold, runs, folds, CLASSES, SOUND.test)


def test_the_geometric_mean_of_the_models_by_hand(tmp_path: Path) -> None:
    """x: (0.8, 0.1, 0.1) and (0.2, 0.4, 0.4) give roots of (0.16, 0.04, 0.04), 0.4 : 0.2 : 0.2."""
    finished(tmp_path, "a", 0, [[0.8, 0.1, 0.1], [0.9, 0.05, 0.05], [0.1, 0.1, 0.8]])
    finished(tmp_path, "b", 0, [[0.2, 0.4, 0.4], [0.9, 0.05, 0.05], [0.8, 0.1, 0.1]])
    found = read(tmp_path, ("a", "b"), min_confidence=0.5)
    assert found.fnames == ("x.wav", "y.wav")  # z divides them: 0.45, 0.16, 0.45 of 1.06
    np.testing.assert_allclose(found.probs, [[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]], rtol=1e-6)
    assert found.probs.dtype == np.float32 and sorted(found.ids) == ["a", "b"]


def test_the_confidence_is_inclusive(tmp_path: Path) -> None:
    finished(tmp_path, "a", 0, [[0.5, 0.25, 0.25], [0.75, 0.125, 0.125], [0.25, 0.5, 0.25]])
    with np.errstate(all="raise"):
        assert read(tmp_path, min_confidence=0.74).fnames == ("y.wav",)
        assert read(tmp_path, min_confidence=0.4999).fnames == TEST
    with pytest.raises(
        UserError, match=r"pseudo\.min_confidence: a are as sure as 0\.9 of none of the 3 .*0\.750.*lower"
    ):
        read(tmp_path, min_confidence=0.9)


# Leaks


def test_what_a_fold_learns_from_is_blind_to_all_other_folds(tmp_path: Path) -> None:
    """x and y are secret twins of fold 0's clips. Only the model of fold 1, which saw these, can tell their labels."""
    blind = [[1 / 3, 1 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3], [0.1, 0.1, 0.8]]
    knowing = [[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.1, 0.1, 0.8]]
    for name in ("a", "b"):
        finished(tmp_path, name, 0, blind)
        finished(tmp_path, name, 1, knowing)
    all_clips = read(tmp_path, ("a", "b"), min_confidence=0.0)
    np.testing.assert_allclose(all_clips.probs[:2], 1 / 3, rtol=1e-6)
    assert read(tmp_path, ("a", "b"), min_confidence=0.5).fnames == ("z.wav",)
    assert (
        read(tmp_path, ("a", "b"), fold=1, min_confidence=0.5).fnames == TEST
    )  # fold 1 may: they are not scored there


def test_only_the_runs_of_the_same_fold_matter_to_the_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for fold in (0, 1):
            finished(tmp_path, name, fold, rng.dirichlet([0.3] * 3, 3))
    before = read(tmp_path, ("a", "b"), min_confidence=0.0)
    for name in ("a", "b"):
        finished(tmp_path, name, 1, rng.dirichlet([0.3] * 3, 3))
    after = read(tmp_path, ("a", "b"), min_confidence=0.0)
    assert before.fnames == after.fnames and before.ids == after.ids
    assert before.probs.tobytes() == after.probs.tobytes()
    finished(tmp_path, "b", 0, rng.dirichlet([0.3] * 3, 3))
    changed = read(tmp_path, ("a", "b"), min_confidence=0.0)
    assert changed.ids["a"] == before.ids["a"] and changed.ids["b"] != before.ids["b"]
    assert changed.probs.tobytes() != before.probs.tobytes()


# What is refused


def test_runs_that_are_not_there_or_not_finished(tmp_path: Path) -> None:
    finished(tmp_path, "a", 0)
    with pytest.raises(UserError, match=r"pseudo\.runs: .*b/fold0 is not finished: train it first.*finished in a$"):
        read(tmp_path, ("a", "b"))
    (tmp_path / "a" / "fold1.partial").mkdir()
    with pytest.raises(UserError, match=r"a/fold1 is not finished \(begun\): .*fold1 is finished in none"):
        read(tmp_path, fold=1)
    (tmp_path / "a/fold0/test.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"files changed since the run was finished: test\.npz"):
        read(tmp_path)


def test_itself_and_twice(tmp_path: Path) -> None:
    for name in ("a", "new"):
        finished(tmp_path, name, 0)
    with pytest.raises(UserError, match="new cannot learn from itself"):
        read(tmp_path, ("a", "new"))
    with pytest.raises(UserError, match="an experiment appears twice in a, a"):
        read(tmp_path, ("a", "a"))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"classes": ("bark", "drum", "siren")}, "classes"),
        ({"fold_hash": "other"}, "folds"),
        ({"sound_hash": SoundHash(train="s", test="other")}, "test sound"),
        ({"sound_hash": SoundHash()}, "test sound"),
    ],
)
def test_runs_made_from_something_else(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    finished(tmp_path, "a", 0)
    finished(tmp_path, "b", 0, **change)
    with pytest.raises(
        UserError, match=rf"pseudo\.runs: .*b/fold0 was made from other {what} than this experiment: tr"
    ):
        read(tmp_path, ("a", "b"))


def test_a_run_of_another_fold_in_the_place_of_this_one_is_refused(tmp_path: Path) -> None:
    """A folder that someone renamed: its model saw the clips of fold 0."""
    finished(tmp_path, "a", 1)
    (tmp_path / "a/fold1").rename(tmp_path / "a/fold0")
    with pytest.raises(UserError, match="a/fold0 was made from other folds"):
        read(tmp_path)


def test_other_folds_today_are_refused_and_skipped_clips_are_known(tmp_path: Path) -> None:
    finished(tmp_path, "a", 0)
    with pytest.raises(UserError, match="was made from other folds"):
        read(tmp_path, folds=FOLDS.assign(fold=[0, 1, 0, 1]))
    faulty = pd.concat([FOLDS, pd.DataFrame([["4.wav", "bark", True, 0]], columns=FOLDS.columns)])
    with pytest.raises(UserError, match="was made from other folds"):
        read(tmp_path, folds=faulty)
    finished(tmp_path, "a", 0, skipped={"4.wav": "empty"})
    read(tmp_path, folds=faulty)


def test_predictions_that_are_no_numbers(tmp_path: Path) -> None:
    finished(tmp_path, "a", 0, [[np.nan, 0.5, 0.5], *SURE[1:]])
    with pytest.raises(UserError, match="a/fold0: its predictions hold NaN or infinity"):
        read(tmp_path)


# Among the training clips


def test_the_rows_that_join_by_hand(make_store: MakeStore) -> None:
    """Four training clips; of the test clips 0.wav to 3.wav the first is empty, and nobody was sure of 2.wav."""
    train = make_store([np.zeros((2, 3))] * 4)
    test = make_store([np.zeros((0, 3)), *[np.zeros((2, 3))] * 3])
    parts = split(TrainConfig(), FOLDS, train, CLASSES, fold=1)
    probs = np.float32([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.2, 0.3, 0.5]])
    found = add_pseudo_labels(parts, PseudoLabels(("3.wav", "0.wav", "1.wav"), probs, {}), 0.25, test)
    assert found.train.tolist() == [0, 1, 4 + 3, 4 + 1]
    assert found.weights[[7, 5]].tolist() == [0.25, 0.25] and found.weights[[4, 6]].tolist() == [0, 0]
    assert found.labels[4:].tolist() == [-1, 2, -1, 2]
    assert not found.verified[4:].any()  # no second stage on them
    np.testing.assert_array_equal(found.verified[:4], parts.verified)
    np.testing.assert_array_equal(found.targets[:4], parts.targets)
    np.testing.assert_array_equal(found.targets[4:], [[0, 0, 0], probs[2], [0, 0, 0], probs[0]])
    np.testing.assert_array_equal(found.prior, parts.prior)
    np.testing.assert_array_equal(found.weights[:4], parts.weights)
    np.testing.assert_array_equal(found.val, parts.val)


def test_pseudo_labels_weigh_what_their_classes_weigh(make_store: MakeStore):
    """Without fold 1 there are two barks and a gong: weights 3 / (3 * 2) = 0.5 and 1; a siren counts as if once."""
    folds = FOLDS.assign(label=["bark", "gong", "bark", "siren"], fold=[0, 0, 0, 1])
    train, test = make_store([np.zeros((2, 3))] * 4), make_store([np.zeros((2, 3))])
    parts = split(TrainConfig(class_weights=True), folds, train, CLASSES, fold=1)
    pseudo = PseudoLabels(("0.wav",), np.float32([[0.75, 0.25, 0]]), {})
    assert add_pseudo_labels(parts, pseudo, 0.5, test).weights.tolist() == [0.5, 1, 0.5, 1, 0.5 * 0.625]
