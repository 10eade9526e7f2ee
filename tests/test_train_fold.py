"""What train_fold.py does itself; tests/test_pipeline.py runs it whole."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args, get_type_hints

import pandas as pd
import pytest

import train_fold
from configs.errors import UserError
from configs.schema import TrainConfig
from models.lit_tagger import finished_epochs
from models.run_folder import CHECKPOINT
from tests.conftest import MakeStore
from tests.test_lit_tagger import EVERYTHING, equal, lit_of, same, train_config
from train_fold import PRECISIONS, check_training_clips, fit, parse_folds, reporter, usable_clips


@pytest.mark.parametrize(
    ("text", "folds"),
    [
        ("3", [3]),
        ("0..4", [0, 1, 2, 3, 4]),
        ("0,2,4", [0, 2, 4]),
        ("4, 0..1", [0, 1, 4]),
        ("1..1", [1]),
        ("2,2", [2]),
    ],
)
def test_folds_as_people_write_them(text: str, folds: list[int]) -> None:
    assert parse_folds(text, 5) == folds


@pytest.mark.parametrize("text", ["", "a", "1-3", "0...4", "..4", "0..", "-1", "1,,2", "0..a", "1.5", "²"])
def test_folds_that_are_no_folds(text: str) -> None:
    with pytest.raises(UserError, match=r"write 3, 0\.\.4 or 0,2,4"):
        parse_folds(text, 5)


@pytest.mark.parametrize("text", ["5", "0..5", "3..1", "0..99999999999999", "0,7"])
def test_folds_that_do_not_exist(text: str) -> None:
    with pytest.raises(UserError, match=r"folds go from 0 to 4 \(folds\.n_folds=5\)"):
        parse_folds(text, 5)


def test_every_precision_of_the_config_has_lightnings_name() -> None:
    assert {"auto", *PRECISIONS} == set(get_args(get_type_hints(TrainConfig)["precision"]))


def test_training_clips_without_sound_stop_or_are_named(
    make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    store = make_store([np.ones((2, 2)), np.zeros((0, 2))])
    with pytest.raises(UserError, match=r"used: 1\.wav \(empty\); .*input\.skip_unreadable=true"):
        check_training_clips(store, skip=False)
    check_training_clips(store, skip=True)
    assert "left out of training: 1.wav (empty)" in capsys.readouterr().err
    check_training_clips(make_store([np.ones((2, 2))]), skip=False)


def test_a_label_that_loses_all_its_clips_is_named() -> None:
    import pandas as pd

    folds = pd.DataFrame({"fname": ["a", "b", "c", "d"], "label": ["Bark", "Bark", "Gong", "Meow"]})
    assert list(usable_clips(folds, {"a": "empty"})["fname"]) == ["b", "c", "d"]
    with pytest.raises(UserError, match="labels without a training clip that can be used: 2: Gong, Meow; repair"):
        usable_clips(folds, {"a": "empty", "c": "silent", "d": "missing"})


def test_the_report_of_an_epoch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """10 s for the two epochs of this session, after one of an earlier: 5 s each for the two that are left."""
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(train_fold.time, "monotonic", lambda: next(clock))
    reporter("exp fold 0", epochs=5, done=1)({"epoch": 3, "loss": 1.23456, "map3": 0.5})
    assert capsys.readouterr().out == "exp fold 0 epoch 3/5: loss 1.235 map3 0.5; 10 s left\n"


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """For every progress bar: its total, then what it was advanced by."""
    shown: list[list[int]] = []

    @contextmanager
    def progress(what: str, total: int, unit: str, every: float) -> Iterator[Callable[[int], None]]:
        shown.append([total])
        yield shown[-1].append

    monkeypatch.setattr(train_fold, "progress", progress)
    return shown


@pytest.mark.parametrize(
    ("options", "at", "clips"), [({}, 1, [42, 42, 28]), (EVERYTHING, 1, [64, 64, 50]), (EVERYTHING, 4, [64, 64, 11])]
)
def test_going_on_shows_what_is_left(
    make_store: MakeStore,
    tmp_path: Path,
    bars: list[list[int]],
    options: dict[str, object],
    at: int,
    clips: list[int],
) -> None:
    """14 training clips in 3 epochs, and 11 in 2 of finetuning; stopped by Ctrl-C in epoch `at` from 0."""
    whole, first, second = (lit_of(make_store, train_config(**options)) for _ in range(3))
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    fit(whole, tmp_path / "whole", "exp", "fp32")
    step = first.training_step

    def interrupted(rows: object, batch_idx: int) -> object:
        if first.current_epoch == at and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(rows, batch_idx)  # type: ignore[arg-type]

    first.training_step = interrupted  # type: ignore
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(first, tmp_path / "halves", "exp", "fp32")
    assert signal.getsignal(signal.SIGINT) == handler  # Ctrl-C still works, should anything go on
    assert finished_epochs(tmp_path / "halves" / CHECKPOINT) == at
    fit(second, tmp_path / "halves", "exp", "fp32")
    assert same(whole, second) and equal(whole.kept, second.kept)
    assert [bar[0] for bar in bars] == clips
    assert sum(bars[0][1:]) == clips[0] and sum(bars[2][1:]) == clips[2]


def test_finetuning_on_nothing_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    from configs.load import load_config
    from configs.paths import Paths
    from input.demo import make_demo

    make_demo(tmp_path / "input", train_per_class=2, test_per_class=1)
    table = pd.read_csv(tmp_path / "input" / "train.csv").assign(manually_verified=0)
    table.to_csv(tmp_path / "input" / "train.csv", index=False)
    cfg = load_config(Path("configs/demo_vggish.yaml"), ["folds.n_folds=2", "train.finetune_epochs=1"])
    with pytest.raises(UserError, match=r"train\.finetune_epochs=1: none of the training clips of fold 1 is verified"):
        train_fold.train_folds(cfg, [1], Paths(tmp_path / "input", tmp_path / "work"))
    assert [f.name for f in (tmp_path / "work").iterdir()] == ["folds"]
