"""What is refused before any work, and said once."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.load import load_config
from configs.paths import Paths
from console.errors import UserError
from input.demo import make_demo
from models.resnetish import ResNetish
from tests.conftest import MakeStore
from training.experiment_data import check_training_clips, load_data, prepare, usable_clips
from tuning.objective import without_test_clips


def test_training_clips_without_sound_stop_or_are_named(
    make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store([np.ones((2, 2)), np.zeros((0, 2))])
    with pytest.raises(UserError, match=r"used: 1\.wav \(empty\); .*input\.skip_unreadable=true"):
        check_training_clips(store, skip=False)
    check_training_clips(store, skip=True)
    assert "left out of training: 1.wav (empty)" in capsys.readouterr().err
    check_training_clips(make_store([np.ones((2, 2))]), skip=False)


def test_a_label_that_loses_all_its_clips_is_named() -> None:
    folds = pd.DataFrame({"fname": ["a", "b", "c", "d"], "label": ["Bark", "Bark", "Gong", "Meow"]})
    assert list(usable_clips(folds, {"a": "empty"})["fname"]) == ["b", "c", "d"]
    with pytest.raises(UserError, match="labels without a training clip that can be used: 2: Gong, Meow; repair"):
        usable_clips(folds, {"a": "empty", "c": "silent", "d": "missing"})


def test_finetuning_on_nothing_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    make_demo(tmp_path / "input", train_per_class=2, test_per_class=1)
    table = pd.read_csv(tmp_path / "input" / "train.csv").assign(manually_verified=0)
    table.to_csv(tmp_path / "input" / "train.csv", index=False)
    cfg = load_config(Path("configs/demo_vggish.yaml"), ["folds.n_folds=2", "train.finetune_epochs=1"])
    paths = Paths(tmp_path / "input", tmp_path / "work")
    with pytest.raises(UserError, match=r"train\.finetune_epochs=1: none of the training clips of fold 1 is verified"):
        prepare(cfg, load_data(cfg, [1], paths), paths, [1])
    assert [f.name for f in (tmp_path / "work").iterdir()] == ["folds"]


def test_weights_of_a_run_that_saw_what_a_fold_is_scored_on_are_refused(blended: Paths, tmp_path: Path) -> None:
    """Those of the fold itself are a start, and so are those of other sound."""
    weights = Path(shutil.copytree(blended.run("demo_resnetish", 0), tmp_path / "run")) / "model.safetensors"
    cfg = load_config(
        Path("configs/demo_resnetish.yaml"), ["model.width=8", "folds.n_folds=2", f"model.weights={weights}"]
    )
    data = load_data(cfg, [0, 1], blended)
    prepare(cfg, data, blended, [0])
    with pytest.raises(UserError, match=rf"model\.weights: {weights} learned from clips that fold 1 is scored on: st"):
        prepare(cfg, data, blended, [0, 1])
    other = replace(data, folds=data.folds.assign(fold=1 - data.folds["fold"]))
    with pytest.raises(UserError, match="learned from clips that fold 0 is scored on"):
        prepare(cfg, other, blended, [0])
    copied = Path(shutil.copy(weights, tmp_path / "best.safetensors"))
    elsewhere = load_config(Path("configs/demo_resnetish.yaml"), ["model.width=8", f"model.weights={copied}"])
    with pytest.raises(UserError, match=rf"model\.weights: {copied} learned from clips that fold 1 is scored on: st"):
        prepare(elsewhere, data, blended, [1])
    state = load_file(weights)
    save_file(state | {"prior": state["prior"] + 1}, weights)  # other bytes
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    manifest["sound_hash"]["train"] = "of another competition"
    (tmp_path / "run/manifest.json").write_text(json.dumps(manifest))
    prepare(cfg, data, blended, [0, 1])


def test_a_logger_that_is_not_installed_is_named_before_features_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_demo(tmp_path / "input", train_per_class=2, test_per_class=1)
    cfg = load_config(None, ["model.name=resnetish10", "train.logger=csv,wandb", "folds.n_folds=2"])
    paths = Paths(tmp_path / "input", tmp_path / "work")
    monkeypatch.setattr("training.loggers.find_spec", lambda name: None)
    with pytest.raises(UserError, match="wandb is not installed"):
        prepare(cfg, load_data(cfg, [0], paths), paths, [0])
    assert not (tmp_path / "work" / "features").exists()


def test_weights_that_lack_a_part_of_a_frozen_network_are_refused_before_features_are_made(tmp_path: Path) -> None:
    make_demo(tmp_path / "input", train_per_class=2, test_per_class=1)
    state = ResNetish(10, 2, width=8).state_dict() | {"stem.0.0.weight": torch.zeros(8, 1, 5, 5)}
    save_file(state, tmp_path / "other.safetensors")
    settings = ["model.name=embedding:resnetish10", "model.width=8", f"model.weights={tmp_path}/other.safetensors"]
    cfg = load_config(None, [*settings, "train.normalise=fixed", "folds.n_folds=2"])
    paths = Paths(tmp_path / "input", tmp_path / "work")
    with pytest.raises(UserError, match=r"stem\.0\.0\.weight: a frozen network needs all its weights"):
        prepare(cfg, load_data(cfg, [0], paths), paths, [0])
    assert not (tmp_path / "work" / "features").exists()


def test_where_training_clips_stand_in_for_test_clips_they_are_not_called_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_demo(tmp_path / "input", train_per_class=2, test_per_class=1)
    table = pd.read_csv(tmp_path / "input/train.csv")
    often = table["label"] == table["label"].mode()[0]  # its label has others
    clip = tmp_path / "input/audio_train" / table["fname"][often].iloc[0]
    clip.write_bytes(b"nothing")
    cfg = load_config(Path("configs/demo_vggish.yaml"), ["folds.n_folds=2", "input.skip_unreadable=true"])
    paths = Paths(tmp_path / "input", tmp_path / "work")
    data = load_data(cfg, [0], paths)
    prepare(cfg, without_test_clips(data), paths, [0])
    told = capsys.readouterr().err
    assert f"left out of training: {clip.name}" in told and "test clips" not in told
    prepare(cfg, data, paths, [0])
    assert "test clips with a fault" in capsys.readouterr().err


def test_a_label_that_is_still_there_in_company_is_not_lost() -> None:
    """Of several labels: the only clip with just these two is left out, other clips have them."""
    folds = pd.DataFrame({"fname": ["a", "b", "c", "d"], "label": ["Bark|Meow", "Bark", "Meow|Purr", ""]})
    assert list(usable_clips(folds, {"a": "empty", "d": "empty"})["fname"]) == ["b", "c"]
    with pytest.raises(UserError, match="labels without a training clip that can be used: Purr; repair"):
        usable_clips(folds, {"c": "silent"})


def test_an_unknown_metric_is_refused_before_features_are_made(tmp_path: Path) -> None:
    make_demo(tmp_path / "input", train_per_class=2, test_per_class=1)
    (tmp_path / "input" / "competition.yaml").write_text("metric: lwrlap\n")
    cfg = load_config(Path("configs/demo_vggish.yaml"), ["folds.n_folds=2"])
    paths = Paths(tmp_path / "input", tmp_path / "work")
    with pytest.raises(UserError, match="metric 'lwrlap': no such metric: did you mean 'lwlrap'"):
        prepare(cfg, load_data(cfg, [0], paths), paths, [0])
    assert not (tmp_path / "work" / "features").exists()


def test_the_file_of_ones_own_metric_is_part_of_what_a_run_is_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_demo(tmp_path / "input", train_per_class=2, test_per_class=1)
    (tmp_path / "input" / "competition.yaml").write_text("metric: metric_of_a_test:score\n")
    cfg = load_config(Path("configs/demo_vggish.yaml").absolute(), ["folds.n_folds=2"])
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "metric_of_a_test.py"
    file.write_text("def score(probs, truth):\n    return 0.5\n")
    origin = load_data(cfg, [0], Paths(tmp_path / "input", tmp_path / "work")).origin
    assert origin.metric_code == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()} and origin.code == {}
