"""What train_fold.py does itself; tests/test_pipeline.py runs it whole."""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from configs.schema import Config, PseudoConfig
from console.errors import UserError
from train_fold import chosen
from training.parallel import train_at_once


def test_experiments_are_chosen_by_name_in_the_order_that_was_asked() -> None:
    several = [Config(name=name) for name in ("a", "b", "c")]
    assert [cfg.name for cfg in chosen(several, "c,a")] == ["c", "a"]
    with pytest.raises(UserError, match="--only: no experiment d in the file: use 3: a, b, c"):
        chosen(several, "a,d")


def test_an_experiment_that_learns_from_others_waits_for_all_their_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --jobs, in a file that holds those others before it."""
    ended: list[tuple[str, str]] = []
    seen: list[int] = []

    def train(cfg: Config, fold: int, *_: object) -> int:
        time.sleep(0.05)
        ended.append((cfg.name, str(fold)))
        return 0

    told: list[tuple[str, list[int]]] = []  # set first: it imports what is replaced below
    monkeypatch.setattr("training.train.say_all_folds", lambda cfg, some, *_: told.append((cfg.name, some)))
    monkeypatch.setattr("training.parallel._train", train)
    monkeypatch.setattr("training.parallel.worker_processes", lambda n, *_: ThreadPoolExecutor(n))
    monkeypatch.setattr("training.experiment_data.load_data", lambda cfg, folds, paths: seen.append(len(ended)))
    monkeypatch.setattr("training.experiment_data.prepare", lambda *_: None)
    several = [Config(name="a"), Config(name="b"), Config(name="c", pseudo=PseudoConfig(("a", "b")))]
    args = argparse.Namespace(input=Path("i"), work=Path("none"), jobs=2, described_by=None, force=False)
    train_at_once(several, [[0, 1]] * 3, args)
    assert seen[2] == 4 and {name for name, _ in ended[:4]} == {"a", "b"}
    assert sorted(ended[4:]) == [("c", "0"), ("c", "1")]
    assert told == [(name, [0, 1]) for name in ("a", "b", "c")]
