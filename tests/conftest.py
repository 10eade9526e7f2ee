"""What several test modules share: a small finished competition, and a stand-in for Kaggle."""

import contextlib
import io
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from kaggle_server import KaggleServer

from configs.paths import Paths

CANARY = "canary-3f1c9a-token"


@pytest.fixture(scope="session")
def blended(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The demo competition with two experiments of two folds, blended, and submission.csv in its work folder.

    Shared: copy what a test changes.
    """
    from configs.load import load_config
    from ensemble import blend
    from input.demo import make_demo
    from submit import submit
    from train_fold import train_folds

    root = tmp_path_factory.mktemp("blended")
    paths = Paths(root / "input" / "tiny-tagging", root / "work")
    paths.input.parent.mkdir()
    overrides = ["model.width=8", "train.epochs=1", "folds.n_folds=2"]
    with contextlib.redirect_stdout(io.StringIO()):
        make_demo(paths.input, train_per_class=6, test_per_class=3)
        for name in ("demo_resnetish", "demo_vggish"):
            train_folds(load_config(Path("configs") / f"{name}.yaml", overrides), [0, 1], paths)
        blend(paths, [], "geometric", "default", force=False)
        submit(paths, "default", paths.work / "submission.csv", None)
    return paths


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
