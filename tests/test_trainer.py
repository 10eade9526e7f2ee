"""The epochs of a fold: what is said, what is left after Ctrl-C, and that going on ends in the same place."""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only

from configs.schema import TrainConfig
from console.errors import UserError
from console.output import Advance
from runs.run_folder import CHECKPOINT
from tests.conftest import MakeStore
from tests.test_lit_tagger import EVERYTHING, equal, lit_of, same, train_config
from training import trainer as fitting
from training.lit_tagger import SAVED
from training.trainer import PRECISIONS, WholeFiles, finished_epochs, fit, reporter


def test_every_precision_of_the_config_has_lightnings_name() -> None:
    assert {"auto", *PRECISIONS} == set(get_args(get_type_hints(TrainConfig)["precision"]))


SCHEDULERS = {
    "slurm": {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "job",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_NODEID": "1",
    }
    | {"SLURM_LOCALID": "1", "SLURM_NODELIST": "n[1-2]"},
    "torchrun": {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "1", "MASTER_ADDR": "nowhere"}
    | {"MASTER_PORT": "none", "TORCHELASTIC_RUN_ID": "1", "NODE_RANK": "first"},
    "lsf": {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/nope", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "2"},
    "mpi": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMI_RANK": "1", "PBS_JOBID": "1"},
    "lightning": {"PL_TRAINER_FAST_DEV_RUN": "1", "PL_TRAINER_LIMIT_TRAIN_BATCHES": "true"},
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_around_us_changes_nothing(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    one, other = (lit_of(make_store, train_config(epochs=1)) for _ in range(2))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    fit(one, tmp_path / "a", "exp fold 0", "fp32")
    for name, value in SCHEDULERS[scheduler].items():
        monkeypatch.setenv(name, value)
    fit(other, tmp_path / "b", "exp fold 0", "fp32")
    assert same(one, other) and finished_epochs(tmp_path / "b" / CHECKPOINT) == 1
    assert {name: os.environ[name] for name in SCHEDULERS[scheduler]} == SCHEDULERS[scheduler]
    assert rank_zero_only.rank == 0


def test_the_report_of_an_epoch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """10 s for the two epochs of this session, after one of an earlier: 5 s each for the two that are left."""
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(fitting.time, "monotonic", lambda: next(clock))
    reporter("exp fold 0", epochs=5, done=1)({"epoch": 3, "loss": 1.23456, "map3": 0.5})
    assert capsys.readouterr().out == "exp fold 0 epoch 3/5: loss 1.235 map3 0.5; 10 s left\n"


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, str]]]:
    """For every progress bar: its total, then what it was advanced by, each with the note."""
    shown: list[list[tuple[int, str]]] = []

    @contextmanager
    def progress(what: str, total: int, unit: str, every: float) -> Iterator[Advance]:
        shown.append([(total, what)])
        yield lambda n, note="": shown[-1].append((n, note))

    monkeypatch.setattr(fitting, "progress", progress)
    return shown


@pytest.mark.parametrize(
    ("options", "at", "clips"), [({}, 1, [42, 42, 28]), (EVERYTHING, 1, [64, 64, 50]), (EVERYTHING, 4, [64, 64, 11])]
)
def test_going_on_shows_what_is_left(
    make_store: MakeStore,
    tmp_path: Path,
    bars: list[list[tuple[int, str]]],
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
            raise KeyboardInterrupt  # what Ctrl-C is to it; a real signal could end a process of pytest-xdist
        return step(rows, batch_idx)  # type: ignore[arg-type]

    first.training_step = interrupted  # type: ignore
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(first, tmp_path / "halves", "exp", "fp32")
    assert signal.getsignal(signal.SIGINT) == handler  # Ctrl-C still works, should anything go on
    assert finished_epochs(tmp_path / "halves" / CHECKPOINT) == at
    fit(second, tmp_path / "halves", "exp", "fp32")
    assert same(whole, second) and equal(whole.kept, second.kept)
    assert [bar[0][0] for bar in bars] == clips
    assert [sum(n for n, _ in bar[1:]) for bar in bars[::2]] == clips[::2]
    row = whole.history[at - 1]
    assert bars[0][1][1] == f"epoch 1/{whole.epochs}"  # no score yet
    assert bars[2][1][1] == f"epoch {at + 1}/{whole.epochs} loss {row['loss']:.2g} map3 {row['map3']:.3f}"


def test_what_was_begun_on_a_gpu_goes_on_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, object] = dict.fromkeys(SAVED, None)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(found | {"history": [{"epoch": 1}], "best": {"w": torch.ones(2)}}, tmp_path / CHECKPOINT)
    assert finished_epochs(tmp_path / CHECKPOINT) == 1


def test_a_begun_fold_of_another_version_is_told(tmp_path: Path) -> None:
    """Its averages lay elsewhere in the checkpoint."""
    found: dict[str, object] = {name: [] for name in SAVED}
    torch.save(found | {"state_dict": {"tagger.mean": torch.ones(2)}}, tmp_path / CHECKPOINT)
    assert finished_epochs(tmp_path / CHECKPOINT, ["tagger.mean"]) == 0
    with pytest.raises(UserError, match=r"last\.ckpt: damaged \(it lacks ema\.n\).*--force"):
        finished_epochs(tmp_path / CHECKPOINT, ["tagger.mean", "ema.n"])


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / CHECKPOINT
    WholeFiles().save_checkpoint({"epoch": 1}, file)

    def full(part: Path, content: bytes) -> None:
        with part.open("wb") as torn:
            torn.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as error:
        WholeFiles().save_checkpoint({"epoch": 2}, file)
    assert error.value.filename == str(file)
    assert torch.load(file, weights_only=True) == {"epoch": 1}
