"""Folds x shares of the test clips as jobs: the same bytes as on one machine. A stand-in for a cluster, see
tests/test_cluster.py for Ray."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures._base import DoneAndNotDoneFutures
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runs.predict
import runs.predict_shares
from configs.paths import Paths
from configs.processes import ENGINE, Engine
from console.errors import UserError
from runs.predict_shares import Share, predict_share
from runs.run_folder import Trained, read_trained
from submit import main, submit


class Here(Executor):
    """Does each job at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        future.set_result(function(*args, **kwargs))
        return future


class InTurn(Executor):
    """Does a job when `one_more` waits for it."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        future.job = partial(function, *args, **kwargs)  # type: ignore[attr-defined]
        return future


def one_more(running: dict[Future[Any], Any], return_when: str) -> DoneAndNotDoneFutures[Any]:
    """As `concurrent.futures.wait`."""
    first = next(iter(running))
    first.set_result(first.job())  # type: ignore[attr-defined]
    return DoneAndNotDoneFutures({first}, set())


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """A cluster with room for 10 jobs, where a share may be as small as a batch, of four windows; the shares that it
    was asked for."""
    asked: list[tuple[Any, ...]] = []

    def small(folder: Path) -> Trained:
        run = read_trained(folder)
        return replace(run, config=replace(run.config, predict=replace(run.config.predict, batch_size=4)))

    def predict(*args: Any) -> Share:
        asked.append(args)
        return predict_share(*args)

    monkeypatch.setattr(runs.predict, "read_trained", small)
    monkeypatch.setattr(runs.predict_shares, "read_trained", small)
    monkeypatch.setattr(runs.predict_shares, "LEAST", 1)
    monkeypatch.setattr(runs.predict_shares, "predict_share", predict)
    before = ENGINE.set(Engine(lambda *_: nullcontext(Here()), lambda *_: 10))
    yield asked
    ENGINE.reset(before)


def taken(paths: Paths, output: Path, on: Engine | None) -> dict[str, bytes]:
    """The submission with all clips predicted again, and the cache: their bytes; they are removed."""
    before = ENGINE.set(on)
    submit(paths, "default", output, None, refresh=True)
    ENGINE.reset(before)
    files = [output, *paths.predictions.iterdir()]
    found = {file.name: file.read_bytes() for file in files}
    for file in files:
        file.unlink()
    return found


def test_shares_of_folds_give_the_same_bytes(paths: Paths, tmp_path: Path, elsewhere: list[Any]) -> None:
    """In each of two window lengths; a clip without a frame gets the prior."""
    next((paths.input / "audio_test").iterdir()).write_bytes(b"")
    here = taken(paths, tmp_path / "out.csv", None)
    assert len(here) == 5 and not elsewhere
    assert taken(paths, tmp_path / "out.csv", ENGINE.get()) == here
    shares = [args[-1] for args in elsewhere]
    assert sorted(shares) == sorted([(i, 5) for i in range(5)] * 4), "twice the room, among four folds"


def test_what_is_whole_is_kept(paths: Paths, tmp_path: Path, elsewhere: list[Any], monkeypatch: Any) -> None:
    """Interrupted in the third fold of four: the same command predicts the third and fourth."""
    whole = taken(paths, tmp_path / "out.csv", None)
    counted = runs.predict_shares.predict_share

    def interrupted(*args: Any) -> Share:
        if len(elsewhere) == 12:
            raise KeyboardInterrupt
        return counted(*args)

    monkeypatch.setattr(runs.predict_shares, "wait", one_more)
    before = ENGINE.set(Engine(lambda *_: nullcontext(InTurn()), lambda *_: 10))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs.predict_shares, "predict_share", interrupted)
        submit(paths, "default", tmp_path / "out.csv", None, refresh=True)
    assert len(elsewhere) == 12 and not (tmp_path / "out.csv").exists()
    kept = {file.name: file.read_bytes() for file in paths.predictions.iterdir()}
    assert len(kept) == 2 and kept.items() <= whole.items()
    first = {args[0] for args in elsewhere[:10]}
    elsewhere.clear()
    assert taken(paths, tmp_path / "out.csv", ENGINE.get()) == whole
    ENGINE.reset(before)
    then = {args[0] for args in elsewhere}
    assert len(first) == len(then) == 2 and not first & then


def test_a_fold_that_overflows_predicts_in_fp32_as_a_whole(
    paths: Paths, tmp_path: Path, elsewhere: list[Any], monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    counted, always = runs.predict_shares.predict_share, False

    def overflows(*args: Any) -> Share:
        found = replace(counted(*args), precision=args[-2] or "bf16")
        if args[-1] == (2, 5) and (always or args[-2] is None):
            found.probs[0][0, 0] = np.nan
        return found

    monkeypatch.setattr(runs.predict_shares, "predict_share", overflows)
    with monkeypatch.context() as patch:  # this machine may have chosen bf16 too
        patch.setattr("runs.predict.choose_precision", lambda *_: "fp32")
        here = taken(paths, tmp_path / "out.csv", None)
        assert taken(paths, tmp_path / "out.csv", ENGINE.get()) == here
    assert [args[-2] for args in elsewhere] == [None] * 20 + ["fp32"] * 20
    assert "not finite" in capsys.readouterr().err
    always = True
    with pytest.raises(UserError, match="the network returns NaN or infinity"):
        submit(paths, "default", tmp_path / "out.csv", None, refresh=True)
    assert not list(paths.predictions.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "80m"], "--on predicts on a cluster: not with"),
        (["--forecast"], "--on predicts on a cluster: not with"),
        (["--engine", "auto"], "--on: each node would choose an engine of its own"),
    ],
)
def test_what_goes_not_with_a_cluster(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["submit.py", "--on", "ray", *words])
    with pytest.raises(SystemExit):
        main()
    assert message in " ".join(capsys.readouterr().err.split())
