"""The forecast of predictions, with a clock that the stand-ins of the work move, and predictions that end in time."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import runs.forecast
import runs.predict
from configs.paths import Paths
from input.competition import load_competition
from models.engine import EngineChoice
from runs.budget import Deadline
from runs.forecast import POOL, Work, forecast, sample_of
from runs.predict import in_time, kind, predict_test
from tests.test_budget import Clock


class FakeStore:
    def __init__(self, fnames: Sequence[str]) -> None:
        self.fnames = tuple(fnames)


class FakeRun:
    """Takes `each` seconds for a clip; 5 clips are a batch for each stream."""

    few, n_windows = 5, 40

    def __init__(self, clock: Clock, each: float, n_classes: int = 1) -> None:
        self.clock, self.each, self.n_classes, self.asked = clock, each, n_classes, list[int]()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.clock.time += self.each * len(rows)
        self.asked.append(len(rows))
        return np.repeat(rows[:, None], self.n_classes, axis=1).astype(np.float32)


def clips_in(folder: Path, n: int) -> pd.DataFrame:
    """Files of 1 to n bytes, in no order."""
    sizes = np.random.default_rng(1).permutation(n) + 1
    for i, size in enumerate(sizes):
        (folder / f"{i}.wav").write_bytes(b"x" * int(size))
    return pd.DataFrame({"fname": [f"{i}.wav" for i in range(n)], "path": [str(folder / f"{i}.wav") for i in range(n)]})


def test_a_sample_is_as_long_as_all_on_average(tmp_path: Path) -> None:
    clips = clips_in(tmp_path, 400)
    sample = sample_of(clips)
    sizes = [Path(path).stat().st_size for path in sample["path"]]
    assert len(sample) == 20 and np.mean(sizes) == pytest.approx(200.5, abs=1) and sizes != sorted(sizes)
    assert len(sample_of(clips[:30])) == 8 and len(sample_of(clips[:3])) == 3
    clips.loc[clips.index[:300], "path"] = None
    assert sample_of(clips)["path"].notna().all() and len(sample_of(clips.assign(path=None))) == 20


@pytest.mark.parametrize(("cores", "few"), [(1, 400), (2, 400), (2, 399)])
def test_a_forecast_is_what_the_work_takes(
    blended: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, few: int
) -> None:
    """400 clips: log-mel 0.25 s each on a core, 2 s for each store; networks 3 s to load, 0.5 s a clip."""
    clock, clips, threads = Clock(), clips_in(tmp_path, 400), list[int]()
    before = torch.get_num_threads()

    def open_clips(cfg: Any, some: pd.DataFrame, folder: Path, frozen: Any, workers: int) -> FakeStore:
        assert workers == 1, "a sample tells what one of them takes"
        clock.time += 2 + 0.25 * len(some)
        threads.append(torch.get_num_threads())
        return FakeStore(some["fname"])

    def load_run(run: Any, store: FakeStore, device: Any, choice: Any, more: float) -> FakeRun:
        assert more * len(store.fnames) == 400
        clock.time += 3
        return FakeRun(clock, 0.5)

    monkeypatch.setattr(runs.forecast, "open_clips", open_clips)
    monkeypatch.setattr(runs.forecast, "load_run", load_run)
    monkeypatch.setattr(runs.forecast, "FEW", few)
    monkeypatch.setattr(runs.forecast.os, "sched_getaffinity", lambda _: set(range(cores)))
    folds = {name: tuple(sorted((blended.runs / name).glob("fold?"))) for name in ("demo_resnetish", "demo_vggish")}
    works = {name: Work(folders, clips) for name, folders in folds.items()}
    features = tmp_path / "features"
    torch.set_num_threads(2)
    try:
        found = forecast(works, features, EngineChoice(), clock)
        assert torch.get_num_threads() == 2 and set(threads) == {2 if cores == 1 else 1}, "as in several processes"
    finally:
        torch.set_num_threads(before)
    log_mel = 400 * 0.25 + 2 if cores == 1 else 400 * 0.25 / 2 + (POOL if few < 400 else 0)
    assert found.fold == {"demo_resnetish": 203.0, "demo_vggish": 203.0} and set(found.folds.values()) == {2}
    assert sum(found.features.values()) == pytest.approx(log_mel, abs=2), "both hear the same"
    assert found.seconds() == pytest.approx(4 * 203 + log_mel, abs=2)
    works["demo_vggish"] = Work((), clips)
    monkeypatch.setattr(runs.forecast, "clip_key", lambda *_: "there")
    (features / "there").mkdir(parents=True)
    assert forecast(works, features, EngineChoice(), clock).seconds() == 2 * 203


@pytest.mark.parametrize(
    ("seconds", "asked"),
    [
        (1000, [5, 35]),
        (60, [5, 12, 6, 5]),  # 50 s left, half of them for 12 clips; 26 s; 14 s; 4 s are too few
        (9, [5]),
        (0, []),
    ],
)
def test_predictions_end_in_time(seconds: float, asked: list[int]) -> None:
    clock = Clock()
    run = FakeRun(clock, 2.0)
    found = list(in_time(run, 40, Deadline(seconds, clock)))  # type: ignore[arg-type]
    rows = np.concatenate([part[:, 0] for part in found]) if found else np.zeros(0)
    assert np.array_equal(rows, np.arange(len(rows))), "the first clips, each once"
    assert run.asked == asked


def test_what_is_not_whole_is_not_kept(blended: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 clips at 2 s each, 30 s are enough for 15 by the first run; the second one is not loaded."""
    clock, loaded = Clock(), list[Path]()

    def load_run(run: Any, store: Any, device: Any, choice: EngineChoice) -> FakeRun:
        loaded.append(run.folder)
        choice.chosen[kind(run)] = "torch"
        return FakeRun(clock, 2.0, len(run.classes))

    monkeypatch.setattr(runs.predict, "load_run", load_run)
    test = load_competition(blended.input).test
    folders = sorted((blended.runs / "demo_vggish").glob("fold?"))
    keep = tmp_path / "kept"
    first, second = predict_test(folders, test, tmp_path, keep, end=Deadline(30, clock))
    assert first.fnames == tuple(test["fname"][:15]) and first.probs.shape == (15, 14)
    assert second.fnames == () and second.probs.shape == (0, 14) and loaded == folders[:1] and not keep.exists()
    predict_test(folders, test, tmp_path, keep, end=Deadline(100, clock))
    assert len(list(keep.iterdir())) == 1, "the first is whole after 60 s, the second is not"


def test_a_real_forecast_writes_nothing(blended: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from submit import show_forecast

    paths = Paths(blended.input, tmp_path / "work")
    shutil.copytree(blended.work, paths.work, ignore=shutil.ignore_patterns("features"))
    before = sorted(paths.work.rglob("*"))
    show_forecast(paths, "default")
    assert capsys.readouterr().out.splitlines()[-1] == "forecast: 0.0 s in all on this machine"
    show_forecast(paths, "default", refresh=True)
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(" of ")[0] for line in told[-4:-2]] == [
        "forecast: demo_resnetish: 2 folds",
        "forecast: demo_vggish: 2 folds",
    ]
    assert told[-2].startswith("forecast: log-mel and embeddings of the test clips: ") and "0.0" not in told[-1]
    assert sorted(paths.work.rglob("*")) == before
