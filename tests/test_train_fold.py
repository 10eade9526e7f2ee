"""What train_fold.py does itself; tests/test_pipeline.py runs it whole."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from configs.load import chosen
from configs.paths import Paths
from configs.schema import Config, PseudoConfig
from console.errors import UserError
from training.parallel import automatic_jobs, available_memory, number_of_jobs, train_at_once


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
    monkeypatch.setattr("models.device.visible_cards", list)
    monkeypatch.setattr("training.experiment_data.load_data", lambda cfg, folds, paths: seen.append(len(ended)))
    monkeypatch.setattr("training.experiment_data.prepare", lambda *_: None)
    several = [Config(name="a"), Config(name="b"), Config(name="c", pseudo=PseudoConfig(("a", "b")))]
    train_at_once(several, [[0, 1]] * 3, Paths(Path("i"), Path("none")), False, 2)
    assert seen[2] == 4 and {name for name, _ in ended[:4]} == {"a", "b"}
    assert sorted(ended[4:]) == [("c", "0"), ("c", "1")]
    assert told == [(name, [0, 1]) for name in ("a", "b", "c")]


def test_the_number_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU a core each, as far as the memory reaches; none where the user has shared out the cores."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("training.parallel.available_memory", lambda: 13 << 30)
    some = [Config()]
    assert (automatic_jobs(some, 5), automatic_jobs(some, 2)) == (3, 2)
    assert (number_of_jobs("auto", some, 5), number_of_jobs("auto", some, 1), number_of_jobs("7", some, 1)) == (3, 1, 7)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert automatic_jobs(some, 5) == 1
    for text in ("0", "-1", "many", ""):
        with pytest.raises(UserError, match=f"--jobs {text}: expected auto or a number from 1 on"):
            number_of_jobs(text, some, 2)


def test_memory_in_the_cache_of_files_is_available() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 0.9 < available_memory() < total


def test_a_fold_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from configs.schema import TrainConfig

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert (automatic_jobs([Config()], 5), automatic_jobs([Config()], 1)) == (2, 1)
    assert automatic_jobs([Config(train=TrainConfig(device="cpu"))], 5) == 1


@pytest.mark.parametrize(
    ("narrowed", "count", "cards"),
    [
        (None, 0, []),
        (None, 2, ["0", "1"]),
        ("1,3", 2, ["1", "3"]),
        ("GPU-8f6, MIG-1a", 2, ["GPU-8f6", "MIG-1a"]),
        ("0,1,-1,2", 2, ["0", "1"]),  # CUDA reads no further than an invalid one
        ("", 0, []),
    ],
)
def test_cards_are_named_as_the_environment_has_them(
    monkeypatch: pytest.MonkeyPatch, narrowed: str | None, count: int, cards: list[str]
) -> None:
    from models.device import visible_cards

    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if narrowed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", narrowed)
    assert visible_cards() == cards
