"""What is refused before any work, and said once."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs.errors import UserError
from configs.load import load_config
from configs.paths import Paths
from input.demo import make_demo
from models.preparation import check_training_clips, load_data, prepare, usable_clips
from tests.conftest import MakeStore


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
