"""Finished experiments as aligned matrices, or one line that says why they cannot be blended."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from configs.errors import UserError
from configs.schema import Config, TrainConfig
from features.store import sound_hash
from folds.assign import fold_hash
from input.competition import Competition
from models.candidates import Candidates, candidates_from_runs
from models.run_folder import Predictions, Run, finish_run

CLASSES = ("ant", "bat", "cat")
TEST = ("t1.wav", "t2.wav")


@pytest.fixture
def competition(tmp_path: Path) -> Competition:
    labels = ["ant", "bat", "cat", "ant", "bat", "cat"]
    names = [f"{i}.wav" for i in range(6)]
    train = pd.DataFrame({"fname": names, "label": labels, "verified": [True, True, True, False, True, True]})
    return Competition(tmp_path / "input", CLASSES, train, pd.DataFrame({"fname": TEST}))


def finish(runs: Path, competition: Competition, cfg: Config, fold: int, **facts: Any) -> None:
    """A run folder as train_fold.py leaves it: clips 0 to 2 in fold 0, 3 to 5 in fold 1."""
    folds = competition.train.assign(fold=[0, 0, 0, 1, 1, 1])
    facts = {
        "experiment": cfg.name,
        "fold": fold,
        "n_folds": 2,
        "skipped": {},
        "test_faults": {},
        "sound_hash": {"train": "s", "test": "t"},
    } | facts
    facts.setdefault("fold_hash", fold_hash(folds[~folds["fname"].isin(facts["skipped"])]))
    held = folds[(folds["fold"] == fold) & ~folds["fname"].isin(facts["skipped"])]
    final = runs / cfg.name / f"fold{fold}"
    partial = final.with_name(final.name + ".partial")
    partial.mkdir(parents=True)
    for name in ("model.safetensors", "metrics.csv"):
        (partial / name).write_text("-")
    rng = np.random.default_rng(fold)
    oof, test = (Predictions(tuple(n), rng.dirichlet(np.ones(3), len(n))) for n in (held["fname"], TEST))
    finish_run(partial, final, cfg, CLASSES, oof, test, {"map3": 0.5}, facts)


@pytest.fixture
def runs(tmp_path: Path, competition: Competition) -> Path:
    """The experiments a and b of two folds."""
    for name in ("a", "b"):
        for fold in (0, 1):
            finish(tmp_path / "runs", competition, Config(name=name), fold)
    return tmp_path / "runs"


def again(runs: Path, competition: Competition, name: str, fold: int, cfg: Config | None = None, **facts: Any) -> None:
    """Another run in the place of that one."""
    shutil.rmtree(runs / name / f"fold{fold}")
    finish(runs, competition, cfg or Config(name=name), fold, **facts)


def relabelled(competition: Competition, column: str, value: object) -> Competition:
    train = competition.train.copy()
    train.loc[4, column] = value
    return replace(competition, train=train)


def test_experiments_are_aligned(runs: Path, competition: Competition) -> None:
    c: Candidates = candidates_from_runs(runs, [], competition)
    assert c.names == ("a", "b")
    assert c.fnames == tuple(competition.train["fname"])
    assert c.fold.tolist() == [0, 0, 0, 1, 1, 1]
    assert c.truth.tolist() == [0, 1, 2, 0, 1, 2]
    assert c.oof.shape == (2, 6, 3) and c.test.shape == (2, 2, 3)


@pytest.mark.parametrize(("column", "value"), [("label", "cat"), ("verified", False), ("fname", "new.wav")])
@pytest.mark.parametrize("skipped", [{}, {"2.wav": "empty"}])
def test_a_table_that_changed_since_the_training_is_refused(
    tmp_path: Path, competition: Competition, column: str, value: object, skipped: dict[str, str]
) -> None:
    for fold in (0, 1):
        finish(tmp_path / "runs", competition, Config(name="a"), fold, skipped=skipped)
    assert len(candidates_from_runs(tmp_path / "runs", [], competition).fnames) == 6 - len(skipped)
    with pytest.raises(UserError, match=r"runs/a: made from other clips, labels or folds than .*input has now"):
        candidates_from_runs(tmp_path / "runs", [], relabelled(competition, column, value))


def test_experiments_from_other_labels_are_not_blended(runs: Path, competition: Competition) -> None:
    for fold in (0, 1):
        again(runs, relabelled(competition, "label", "cat"), "b", fold)
    with pytest.raises(UserError, match=r"b/fold0: its folds or labels are not those of .*a/fold0"):
        candidates_from_runs(runs, [], competition)


def test_folds_trained_with_other_settings_are_not_one_experiment(runs: Path, competition: Competition) -> None:
    again(runs, competition, "b", 1, Config(name="b", train=TrainConfig(epochs=3)))
    with pytest.raises(UserError, match=r"b/fold1: trained with other settings than fold0 \(train\.epochs: 60 -> 3\)"):
        candidates_from_runs(runs, [], competition)


@pytest.mark.parametrize("name", ["a", "b"])
def test_runs_from_other_sound_are_not_blended(runs: Path, competition: Competition, name: str) -> None:
    again(runs, competition, name, 1, sound_hash={"train": "other", "test": "t"})
    with pytest.raises(UserError, match=rf"{name}/fold1: trained on other sound files than .*a/fold0"):
        candidates_from_runs(runs, [], competition)


def test_other_test_sound_and_a_manifest_that_does_not_tell_pass(runs: Path, competition: Competition) -> None:
    again(runs, competition, "a", 0, sound_hash={})
    again(runs, competition, "b", 1, sound_hash={"train": "s", "test": "other"})
    assert candidates_from_runs(runs, [], competition).names == ("a", "b")


def test_a_model_is_called_as_its_folder(runs: Path, competition: Competition) -> None:
    """Whoever copies or renames an experiment's folder gets a model of that name."""
    shutil.copytree(runs / "a", runs / "copy")
    (runs / "b").rename(runs / "renamed")
    c = candidates_from_runs(runs, [], competition)
    assert c.names == ("a", "copy", "renamed")
    assert c.ids[0] == c.ids[1]
    assert candidates_from_runs(runs, list(c.names[1:]), competition).names == c.names[1:]


def test_faults_are_those_of_the_clips_that_are_there(runs: Path, competition: Competition) -> None:
    for fold in (0, 1):
        again(runs, competition, "a", fold, test_faults={"t1.wav": "empty", "t2.wav": "silent"})
    fewer = replace(competition, test=competition.test[1:])
    assert candidates_from_runs(runs, [], fewer).test_faults == {"t2.wav": "silent"}


@pytest.fixture
def heard(runs: Path, competition: Competition, tmp_path: Path) -> Competition:
    """The competition with the test sound that all runs heard."""
    for name in TEST:
        (tmp_path / name).write_text(name)
    test = pd.DataFrame({"fname": TEST, "path": [str(tmp_path / name) for name in TEST]})
    for name in ("a", "b"):
        for fold in (0, 1):
            again(runs, competition, name, fold, sound_hash={"train": "s", "test": sound_hash(test)})
    return replace(competition, test=test)


def never(of: Sequence[Run]) -> tuple[list[Predictions], dict[str, str]]:
    raise AssertionError("predicted")


def predicted(of: Sequence[Run]) -> tuple[list[Predictions], dict[str, str]]:
    return [Predictions(tuple(TEST), np.tile(np.float32([[0.2, 0.3, 0.5]]), (2, 1))) for _ in of], {}


def test_stored_answers_do_while_the_test_files_are_the_same(runs: Path, heard: Competition) -> None:
    """In any order, and copied elsewhere."""
    stored = candidates_from_runs(runs, [], heard, never)
    turned = candidates_from_runs(runs, [], replace(heard, test=heard.test[::-1].reset_index(drop=True)), never)
    assert np.array_equal(turned.test, stored.test[:, ::-1])
    os.utime(heard.test["path"][0], (1, 1))
    candidates_from_runs(runs, [], heard, never)


@pytest.mark.parametrize("turned", [False, True])
def test_a_test_file_of_another_size_is_predicted_again(runs: Path, heard: Competition, turned: bool) -> None:
    Path(heard.test["path"][1]).write_text("repaired")
    test = heard.test[::-1].reset_index(drop=True) if turned else heard.test
    found = candidates_from_runs(runs, [], replace(heard, test=test), predicted)
    assert np.allclose(found.test, [0.2, 0.3, 0.5])
    assert not np.allclose(candidates_from_runs(runs, [], heard).test, found.test), "a blend asks for no sound"


def test_an_experiment_predicts_again_that_has_one_run_of_before(
    runs: Path, competition: Competition, heard: Competition
) -> None:
    again(runs, competition, "b", 1, sound_hash={"train": "s", "test": "before"})
    found = candidates_from_runs(runs, [], heard, predicted)
    assert not np.allclose(found.test[0], [0.2, 0.3, 0.5]) and np.allclose(found.test[1], [0.2, 0.3, 0.5])


def test_a_file_that_was_missing_already_hides_no_change(
    runs: Path, competition: Competition, heard: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    test = heard.test.assign(path=[None, heard.test["path"][1]])
    candidates_from_runs(runs, [], replace(heard, test=test), never)
    assert f"test sound is gone: {TEST[0]}: stored probabilities stand" in capsys.readouterr().err
    for name in ("a", "b"):
        for fold in (0, 1):
            facts = {"test_faults": {TEST[0]: "missing"}, "sound_hash": {"train": "s", "test": sound_hash(test)}}
            again(runs, competition, name, fold, **facts)
    candidates_from_runs(runs, [], replace(heard, test=test), never)
    Path(heard.test["path"][1]).write_text("repaired")
    found = candidates_from_runs(runs, [], replace(heard, test=test), predicted)
    assert np.allclose(found.test, [0.2, 0.3, 0.5]) and capsys.readouterr().err == ""


def test_predicted_clips_bring_their_own_faults(runs: Path, competition: Competition) -> None:
    for fold in (0, 1):
        again(runs, competition, "a", fold, test_faults={"t1.wav": "empty"})
    asked = []

    def predict(of: Sequence[Run]) -> tuple[list[Predictions], dict[str, str]]:
        asked.append([str(run.folder.relative_to(runs)) for run in of])
        found = Predictions(("new.wav", "t2.wav"), np.tile(np.float32([[0.2, 0.3, 0.5]]), (2, 1)))
        return [found for _ in of], {"new.wav": "missing"}

    new = replace(competition, test=pd.DataFrame({"fname": ["t2.wav", "new.wav"]}))
    assert candidates_from_runs(runs, [], new, predict).test_faults == {"new.wav": "missing"}
    assert asked == [["a/fold0", "a/fold1"], ["b/fold0", "b/fold1"]]
