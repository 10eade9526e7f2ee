"""What several test modules share: a store in memory, a small finished competition, a stand-in for Kaggle."""

import contextlib
import io
import os
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from kaggle_server import KaggleServer

from configs.paths import Paths
from features.store import Store

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as models.openvino_conversion does, but first
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored, its children too
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as models.openvino_conversion does
CANARY = "canary-3f1c9a-token"
MIXTURES = """
task: multi_label
metric: macro_roc_auc
train: [{file: train_curated.csv, audio: "train_curated/{fname}"}]
sample_submission: {file: sample.csv, separator: ";"}
columns: {name: fname, label: labels}
label_separator: ","
audio: {test: "test/{name}.wav"}
"""
LONGEST = ("test_pages", "test_cluster", "test_pipeline", "test_engine", "test_kernel_predict", "test_fine_tuning")
MOST_WORKERS, WORKER_BYTES = 8, 4 << 30  # of a worker and the commands that its tests start
MakeStore = Callable[..., Store]


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `make test`: one per core that is ours, as far as the memory reaches; 0 is this process alone."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    workers = min(cores, MOST_WORKERS, int(memory / WORKER_BYTES))
    return workers if workers > 1 else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first, so that no worker is left alone with one of them at the end; and one thread for
    networks that are too small for two, which would wait for each other, the more so beside other workers."""
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def make_store() -> MakeStore:
    """make_store(clips, ...): clips are (n_frames, n_mels) arrays; they are called 0.wav, 1.wav, ..."""

    def make(clips: list[np.ndarray], frame_rate: float = 10.0, silence: float = -10.0) -> Store:
        length = np.array([len(clip) for clip in clips])
        n_mels = clips[0].shape[1]

        def per_clip(power: int) -> np.ndarray:
            return np.array([(c.astype(float) ** power).mean(0) if len(c) else np.zeros(n_mels) for c in clips])

        return Store(
            key="test",
            fnames=tuple(f"{i}.wav" for i in range(len(clips))),
            frames=np.concatenate(clips).astype(np.float16),
            start=np.cumsum(length) - length,
            length=length,
            mean=per_clip(1).astype(np.float32),
            mean_square=per_clip(2).astype(np.float32),
            faults={f"{i}.wav": "empty" for i, n in enumerate(length) if n == 0},
            silence=silence,
            frame_rate=frame_rate,
        )

    return make


@pytest.fixture(scope="session")
def blended(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The demo competition with two experiments of two folds, blended, and submission.csv in its work folder.

    Shared: copy what a test changes.
    """
    from configs.load import load_config
    from ensemble import blend
    from input.demo import make_demo
    from submit import submit
    from training.train import train_folds

    root = tmp_path_factory.mktemp("blended")
    paths = Paths(root / "input" / "tiny-tagging", root / "work")
    paths.input.parent.mkdir()
    overrides = ["model.width=8", "train.epochs=1", "folds.n_folds=2"]
    # Not the defaults: the kernel must predict as training did.
    overrides += ["input.padding=repeat", "predict.overlap=0.5", "predict.more_window_seconds=[1.0]"]
    with contextlib.redirect_stdout(io.StringIO()):
        make_demo(paths.input, train_per_class=4, test_per_class=2)
        for name in ("demo_resnetish", "demo_vggish"):
            train_folds(load_config(Path("configs") / f"{name}.yaml", overrides), [0, 1], paths)
        blend(paths, [], "geometric", "default", force=False)
        submit(paths, "default", paths.work / "submission.csv", None)
    return paths


@pytest.fixture
def paths(blended: Paths, tmp_path: Path) -> Paths:
    """A copy of `blended`, to be changed."""
    paths = Paths(tmp_path / "input", tmp_path / "work")
    shutil.copytree(blended.input, paths.input)
    shutil.copytree(blended.work, paths.work, ignore=shutil.ignore_patterns("features"))
    return paths


@pytest.fixture(scope="session")
def blended_labels(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """As `blended`, of the demo with several labels per clip: one experiment, probabilities, described by a file."""
    from configs.load import load_config
    from ensemble import blend
    from input.demo import make_demo
    from submit import submit
    from training.train import train_folds

    root = tmp_path_factory.mktemp("blended_labels")
    paths = Paths(root / "input" / "tiny-labels", root / "work", str(root / "mine.yaml"))
    (root / "mine.yaml").write_text(MIXTURES)
    cfg = load_config(Path("configs/demo_multilabel.yaml"), ["model.width=8", "train.epochs=2", "folds.n_folds=2"])
    with contextlib.redirect_stdout(io.StringIO()):
        make_demo(paths.input, train_per_class=8, test_per_class=2, multi_label=True)
        use_other_names(paths.input)
        train_folds(cfg, [0, 1], paths)
        blend(paths, [], "geometric", "default", force=False)
        submit(paths, "default", paths.work / "submission.csv", None)
    return paths


def use_other_names(folder: Path) -> None:
    """Another header, names without an extension, classes in another order and another file name."""
    sample = pd.read_csv(folder / "sample_submission.csv").rename(columns={"fname": "row_id"})
    sample["row_id"] = sample["row_id"].str.removesuffix(".wav")
    sample[["row_id", *reversed(list(sample)[1:])]].to_csv(folder / "sample.csv", index=False, sep=";")
    (folder / "sample_submission.csv").unlink()


@pytest.fixture(scope="session")
def chromium() -> Iterator["Chrome"]:
    """Debian's Chromium without a window, whose downloads go where a test says; skips where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e '.[dev]'")
    there = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    binary, driver = next(filter(None, there), None), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no browser to look at pages with: apt install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    for one in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "mute-audio"):
        options.add_argument(f"--{one}")
    options.add_argument("--autoplay-policy=no-user-gesture-required")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = selenium.Chrome(options, selenium.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    """A stand-in server, and the client's environment set so that it reaches nothing else; the token is a canary."""
    server = KaggleServer(key=CANARY)
    for name in ("KAGGLE_API_TOKEN", "VERBOSE", "VERBOSE_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxy of its first use
    (tmp_path / "home").mkdir()
    yield server
    server.close()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody sleeps; the seconds that were asked for."""
    asked: list[float] = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked
