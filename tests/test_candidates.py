"""Finished experiments as aligned matrices, or one line that says why they cannot be blended."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from blending.candidates import Candidates, align, finished_runs
from configs.paths import Paths
from configs.schema import Config, TrainConfig
from console.errors import UserError
from folds.assign import fold_hash
from input.competition import Competition, one_hot, sound_hash, sound_sizes
from runs import test_predictions as answers
from runs.predictions import Predictions, load_predictions, save_predictions
from runs.provenance import file_sha256
from runs.run_folder import Manifest, Run, SoundHash, finish_run

CLASSES = ("ant", "bat", "cat")
TEST = ("t1.wav", "t2.wav")


@pytest.fixture
def competition(tmp_path: Path) -> Competition:
    labels = ["ant", "bat", "cat", "ant", "bat", "cat"]
    names = [f"{i}.wav" for i in range(6)]
    train = pd.DataFrame({"fname": names, "label": labels, "verified": [True, True, True, False, True, True]})
    targets = one_hot(train["label"], CLASSES)
    return Competition(tmp_path / "input", CLASSES, train, pd.DataFrame({"fname": TEST}), targets)


def finish(runs: Path, competition: Competition, cfg: Config, fold: int, **facts: Any) -> None:
    """A run folder as train_fold.py leaves it: clips 0 to 2 in fold 0, 3 to 5 in fold 1."""
    folds = competition.train.assign(fold=[0, 0, 0, 1, 1, 1])
    facts = {"sound_hash": SoundHash(train="s"), "skipped": {}} | facts
    used = folds[~folds["fname"].isin(facts["skipped"])]
    manifest = Manifest(experiment=cfg.name, fold=fold, n_folds=2, fold_hash=fold_hash(used), **facts)
    held = used[used["fold"] == fold]
    final = runs / cfg.name / f"fold{fold}"
    partial = final.with_name(final.name + ".partial")
    partial.mkdir(parents=True)
    for name in ("model.safetensors", "metrics.csv"):
        (partial / name).write_text("-")
    rng = np.random.default_rng(fold)
    oof, test = (Predictions(tuple(n), rng.dirichlet(np.ones(3), len(n))) for n in (held["fname"], TEST))
    test = replace(test, size=sound_sizes(competition.test))
    finish_run(partial, final, cfg, CLASSES, oof, test, {"map3": 0.5}, manifest)


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


def candidates_of(runs: Path, names: Sequence[str], competition: Competition, refresh: bool = False) -> Candidates:
    """As the commands do it."""
    experiments = finished_runs(runs, names, competition)
    paths = Paths(competition.folder, runs.parent)
    return align(experiments, answers.test_predictions(experiments, competition, paths, refresh), competition)


def relabelled(competition: Competition, column: str, value: object) -> Competition:
    train = competition.train.copy()
    train.loc[4, column] = value
    return replace(competition, train=train)


def test_experiments_are_aligned(runs: Path, competition: Competition) -> None:
    c: Candidates = candidates_of(runs, [], competition)
    assert c.names == ("a", "b")
    assert c.fnames == tuple(competition.train["fname"])
    assert c.fold.tolist() == [0, 0, 0, 1, 1, 1]
    assert c.label_index.tolist() == [0, 1, 2, 0, 1, 2]
    assert c.oof.shape == (2, 6, 3) and c.test.shape == (2, 2, 3)


@pytest.mark.parametrize(("column", "value"), [("label", "cat"), ("verified", False), ("fname", "new.wav")])
@pytest.mark.parametrize("skipped", [{}, {"2.wav": "empty"}])
def test_a_table_that_changed_since_the_training_is_refused(
    tmp_path: Path, competition: Competition, column: str, value: object, skipped: dict[str, str]
) -> None:
    for fold in (0, 1):
        finish(tmp_path / "runs", competition, Config(name="a"), fold, skipped=skipped)
    assert len(candidates_of(tmp_path / "runs", [], competition).fnames) == 6 - len(skipped)
    with pytest.raises(UserError, match=r"runs/a: made from other clips, labels or folds than .*input has now"):
        candidates_of(tmp_path / "runs", [], relabelled(competition, column, value))


def test_experiments_from_other_labels_are_not_blended(runs: Path, competition: Competition) -> None:
    for fold in (0, 1):
        again(runs, relabelled(competition, "label", "cat"), "b", fold)
    with pytest.raises(UserError, match=r"b/fold0: its folds or labels are not those of .*a/fold0"):
        candidates_of(runs, [], competition)


def test_folds_trained_with_other_settings_are_not_one_experiment(runs: Path, competition: Competition) -> None:
    again(runs, competition, "b", 1, Config(name="b", train=TrainConfig(epochs=3)))
    with pytest.raises(UserError, match=r"b/fold1: trained with other settings than fold0 \(train\.epochs: 60 -> 3\)"):
        candidates_of(runs, [], competition)


@pytest.mark.parametrize("name", ["a", "b"])
def test_runs_from_other_sound_are_not_blended(runs: Path, competition: Competition, name: str) -> None:
    again(runs, competition, name, 1, sound_hash=SoundHash(train="other", test="t"))
    with pytest.raises(UserError, match=rf"{name}/fold1: trained on other sound files than .*a/fold0"):
        candidates_of(runs, [], competition)


def test_other_test_sound_and_a_manifest_that_does_not_tell_pass(runs: Path, competition: Competition) -> None:
    again(runs, competition, "a", 0, sound_hash=SoundHash())
    again(runs, competition, "b", 1, sound_hash=SoundHash(train="s", test="other"))
    assert candidates_of(runs, [], competition).names == ("a", "b")


def test_a_model_is_called_as_its_folder(runs: Path, competition: Competition) -> None:
    """Whoever copies or renames an experiment's folder gets a model of that name."""
    shutil.copytree(runs / "a", runs / "copy")
    (runs / "b").rename(runs / "renamed")
    c = candidates_of(runs, [], competition)
    assert c.names == ("a", "copy", "renamed")
    assert c.ids[0] == c.ids[1]
    assert candidates_of(runs, list(c.names[1:]), competition).names == c.names[1:]


def test_faults_are_those_of_the_clips_that_are_there(runs: Path, competition: Competition) -> None:
    for fold in (0, 1):
        again(runs, competition, "a", fold, test_faults={"t1.wav": "empty", "t2.wav": "silent"})
    fewer = replace(competition, test=competition.test[1:])
    assert candidates_of(runs, [], fewer).test_faults == {"t2.wav": "silent"}


ANSWER = np.float32([0.2, 0.3, 0.5])


class Asked:
    """Stands for predicting from the weights, and knows what was asked."""

    def __init__(self) -> None:
        self.clips: list[tuple[str, list[str]]] = []

    def __call__(self, of: Sequence[Run], fnames: Sequence[str], *_: Any) -> tuple[list[Predictions], dict[str, str]]:
        self.clips.append((of[0].experiment, list(fnames)))
        found = Predictions(tuple(fnames), np.tile(ANSWER, (len(fnames), 1)))
        return [found for _ in of], {fname: "truncated" for fname in fnames if fname == "new.wav"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(answers, "predict_new", asked)
    return asked


@pytest.fixture
def heard(runs: Path, competition: Competition, tmp_path: Path) -> Competition:
    """The competition with the test sound that all runs heard."""
    for name in TEST:
        (tmp_path / name).write_text(name)
    test = pd.DataFrame({"fname": TEST, "path": [str(tmp_path / name) for name in TEST]})
    competition = replace(competition, test=test)
    for name in ("a", "b"):
        for fold in (0, 1):
            again(runs, competition, name, fold, test_faults={"t1.wav": "empty", "t2.wav": "silent"})
    return competition


def test_stored_answers_do_while_the_test_files_are_the_same(runs: Path, heard: Competition, asked: Asked) -> None:
    """In any order, copied elsewhere, or gone."""
    stored = candidates_of(runs, [], heard)
    turned = candidates_of(runs, [], replace(heard, test=heard.test[::-1].reset_index(drop=True)))
    assert np.array_equal(turned.test, stored.test[:, ::-1])
    os.utime(heard.test["path"][0], (1, 1))
    for test in (heard.test, heard.test.assign(path=[None, heard.test["path"][1]]), heard.test[["fname"]]):
        assert np.array_equal(candidates_of(runs, [], replace(heard, test=test)).test, stored.test)
    assert asked.clips == []


def test_a_test_file_of_another_size_is_predicted_again_and_no_other(
    runs: Path, heard: Competition, asked: Asked
) -> None:
    before = candidates_of(runs, [], heard)
    Path(heard.test["path"][1]).write_text("repaired")
    found = candidates_of(runs, [], heard)
    assert asked.clips == [("a", ["t2.wav"]), ("b", ["t2.wav"])]
    assert np.allclose(found.test[:, 1], ANSWER) and np.array_equal(found.test[:, 0], before.test[:, 0])
    assert found.test_faults == {"t1.wav": "empty"}
    for test in (heard.test[1:], heard.test[::-1], heard.test.assign(path=[None, heard.test["path"][1]])):
        found = candidates_of(runs, ["a"], replace(heard, test=test.reset_index(drop=True)))
        assert asked.clips[-1] == ("a", ["t2.wav"])
        assert np.allclose(found.test[0, found.test_fnames.index("t2.wav")], ANSWER)


def test_an_experiment_predicts_again_where_one_of_its_runs_heard_another_file(
    runs: Path, heard: Competition, asked: Asked
) -> None:
    Path(heard.test["path"][0]).write_text("repaired")
    again(runs, heard, "a", 0)
    again(runs, heard, "a", 1)
    again(runs, heard, "b", 1)
    candidates_of(runs, [], heard)
    assert asked.clips == [("b", ["t1.wav"])]


def test_a_file_that_has_come_since_is_predicted(runs: Path, heard: Competition, asked: Asked) -> None:
    lacking = replace(heard, test=heard.test.assign(path=[None, heard.test["path"][1]]))
    for fold in (0, 1):
        again(runs, lacking, "a", fold, test_faults={"t1.wav": "missing"})
    assert candidates_of(runs, ["a"], lacking).test_faults == {"t1.wav": "missing"}
    assert asked.clips == []
    assert candidates_of(runs, ["a"], heard).test_faults == {}
    assert asked.clips == [("a", ["t1.wav"])]


def test_every_clip_is_predicted_again_where_that_is_asked(runs: Path, heard: Competition, asked: Asked) -> None:
    found = candidates_of(runs, ["b"], heard, refresh=True)
    assert asked.clips == [("b", list(TEST))] and np.allclose(found.test, ANSWER)


def test_a_run_that_tells_little_of_what_it_heard_is_believed_as_long_as_it_can_be(
    runs: Path, heard: Competition, asked: Asked
) -> None:
    """One of an older version of the kit."""
    for fold in (0, 1):
        again(runs, replace(heard, test=heard.test[["fname"]]), "a", fold)
        file = runs / f"a/fold{fold}/test.npz"
        save_predictions(file, replace(load_predictions(file), size=None))
        manifest = file.with_name("manifest.json")
        about = json.loads(manifest.read_text())
        about["files"]["test.npz"] = file_sha256(file)
        manifest.write_text(json.dumps(about))
    candidates_of(runs, ["a"], heard)
    assert asked.clips == []
    for fold in (0, 1):
        manifest = runs / f"a/fold{fold}/manifest.json"
        about = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(about | {"sound_hash": {"train": "s", "test": sound_hash(heard.test)}}))
    turned = replace(heard, test=heard.test[::-1].reset_index(drop=True))
    candidates_of(runs, ["a"], turned)
    assert asked.clips == []
    Path(heard.test["path"][0]).write_text("repaired")
    candidates_of(runs, ["a"], turned)
    assert asked.clips == [("a", ["t2.wav", "t1.wav"])]


def test_predicted_clips_bring_their_own_faults(runs: Path, heard: Competition, asked: Asked) -> None:
    new = replace(heard, test=pd.DataFrame({"fname": ["t2.wav", "new.wav"], "path": [heard.test["path"][1]] * 2}))
    found = candidates_of(runs, [], new)
    assert found.test_faults == {"t2.wav": "silent", "new.wav": "truncated"}
    assert asked.clips == [("a", ["new.wav"]), ("b", ["new.wav"])]


def test_the_folds_still_to_train_are_named(runs: Path, competition: Competition) -> None:
    """By their numbers, and with a command that this number of folds allows."""
    for name in ("a", "b"):
        shutil.rmtree(runs / name / "fold1")
    with pytest.raises(UserError, match=r"a: fold 1 is not finished, of 0\.\.1: train what"):
        finished_runs(runs, ["a"], competition)
    with pytest.raises(
        UserError, match=r"no experiment with all its folds finished: python train_fold\.py --fold 0\.\.1 --input "
    ):
        finished_runs(runs, [], competition)
