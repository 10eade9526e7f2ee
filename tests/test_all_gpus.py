"""Every GPU of a machine has a fold or a trial: with a faked number of devices."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import runs.predict
import tune
from configs.paths import Paths
from input.competition import load_competition
from models.engine import EngineChoice
from runs.budget import Plan
from runs.forecast import Work, predict_planned
from runs.predict import prediction_devices
from runs.run_folder import Trained
from submit import submit
from tests.test_tune import plan_of


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_openvino_predicts_on_the_cpu_alone(two_gpus: None) -> None:
    assert prediction_devices() == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert prediction_devices("openvino") == [torch.device("cpu")]


@pytest.mark.parametrize("way", ["submit.py", "kernel"])
def test_folds_are_spread_over_the_gpus(
    two_gpus: None, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Two at a time, never two on one: the second waits for the first."""
    both, used, busy = threading.Barrier(2, timeout=60), list[tuple[str, Path]](), set[torch.device]()

    def predict_store(run: Trained, store: Any, device: torch.device, choice: EngineChoice, *_: Any) -> np.ndarray:
        assert device not in busy
        busy.add(device)
        both.wait()
        used.append((str(device), run.folder))
        choice.chosen[runs.predict.kind(run)] = "torch"
        both.wait()
        busy.remove(device)
        return np.full((len(store.fnames), len(run.classes)), 1 / len(run.classes), np.float32)

    monkeypatch.setattr(runs.predict, "predict_store", predict_store)
    folders = sorted(paths.runs.glob("*/fold?"))
    if way == "submit.py":
        submit(paths, "default", tmp_path / "out.csv", None, refresh=True)
    else:
        clips = load_competition(paths.input).test
        works = {
            name: Work(tuple(paths.runs.glob(f"{name}/fold?")), clips) for name in {f.parent.name for f in folders}
        }
        plan = Plan(dict.fromkeys(works, 2))
        found = predict_planned(works, plan, tmp_path, EngineChoice())
        assert found.folds == dict.fromkeys(works, 2)
    assert sorted(folder for _, folder in used) == folders
    assert [device for device, _ in used].count("cuda:0") == 2


@pytest.mark.parametrize(
    ("trials", "device", "found"), [(5, "auto", (2, ["0", "1"])), (1, "auto", None), (5, "cpu", None)]
)
def test_a_trial_per_gpu(
    two_gpus: None, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int, device: str, found: Any
) -> None:
    """--workers auto; a single trial, and training on the CPU, stay in this process."""
    seen: list[Any] = []

    def workers(n: int, what: str, cards: Sequence[str], memory: int) -> Any:
        seen.append((n, cards))
        raise KeyboardInterrupt

    def search(*_: Any) -> None:
        seen.append(None)
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "worker_processes", workers)
    monkeypatch.setattr("tuning.study.search", search)
    monkeypatch.setattr("training.experiment_data.prepare", lambda *_: None)
    monkeypatch.setattr("tests.test_tune.TINY", (f"train.device={device}", "folds.n_folds=2"))
    with pytest.raises(KeyboardInterrupt):
        tune.tune(plan_of(tmp_path, trials=trials), "s", paths, None)
    assert seen == [found]
