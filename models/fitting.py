"""Lightning's Trainer around a LitTagger: the epochs that are missing, and what is written and said after each."""

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment

from configs.console import READER_LEFT, progress, say
from configs.errors import UserError
from configs.files import atomic, name_in_utf8
from models.lit_tagger import SAVED, LitTagger, Scores
from models.memory import memory_kept
from models.run_folder import CHECKPOINT
from models.stages import stage_of

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}  # as Lightning calls them


def fit(lit: LitTagger, partial: Path, what: str, precision: str) -> None:
    """Run the epochs that are missing, going on from the last checkpoint if there is one.

    Raises KeyboardInterrupt on Ctrl-C and on SIGTERM, which Lightning turns into an exit of its own.
    """
    last = partial / CHECKPOINT
    done = finished_epochs(last)
    if done:
        say(f"{what}: going on after epoch {done} of {lit.epochs}")
    missing = sum(len(stage_of(lit.stages, epoch).rows) for epoch in range(done, lit.epochs))
    with progress(what, missing, "clips", every=60) as advance:
        keeper = RunKeeper(partial, reporter(what, lit.epochs, done), advance)
        run_epochs(lit, precision, keeper, last if done else None)


def run_epochs(lit: LitTagger, precision: str, keeper: pl.Callback, checkpoint: Path | None = None) -> None:
    """All epochs, or those after a checkpoint; `keeper` calls finish_epoch after each. Raises as `fit` does."""
    with quiet(), memory_kept():
        try:
            with without_defaults():
                trainer = build_trainer(lit, precision, keeper, lit.epochs)
            trainer.fit(lit, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as end:
            if end.code == READER_LEFT:
                raise
            raise KeyboardInterrupt from None


def build_trainer(lit: LitTagger, precision: str, keeper: pl.Callback, epochs: int) -> pl.Trainer:
    """A Trainer that stops after so many epochs and leaves validation, files and lines to `keeper`."""
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="gpu" if lit.batches.device.type == "cuda" else "cpu",
        devices=1,
        plugins=[OneProcess()],
        precision=PRECISIONS[precision],  # type: ignore[arg-type]  # its Literal is not exported
        reload_dataloaders_every_n_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[keeper],
    )


@contextmanager
def without_defaults() -> Iterator[None]:
    """Lightning takes what its Trainer is not given from the environment: PL_TRAINER_FAST_DEV_RUN=1 would end all after
    one batch."""
    aside = {key: os.environ.pop(key) for key in tuple(os.environ) if key.startswith("PL_TRAINER_")}
    try:
        yield
    finally:
        os.environ.update(aside)


class OneProcess(LightningEnvironment):
    """We train on one device in one process, whatever a scheduler (Slurm, LSF, MPI) or a launcher (torchrun) says in
    the environment: each of its processes is a command of its own."""

    creates_processes_externally = False

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return 0

    def teardown(self) -> None:
        """The environment is as it was."""


def reporter(what: str, epochs: int, done: int) -> Callable[[dict[str, float]], None]:
    """Called with the scores of each epoch, it says them in a line with the time left."""
    started = time.monotonic()

    def report(scores: dict[str, float]) -> None:
        left = (time.monotonic() - started) / (scores["epoch"] - done) * (epochs - scores["epoch"])
        numbers = " ".join(f"{k} {v:.4g}" for k, v in scores.items() if k != "epoch")
        say(f"{what} epoch {scores['epoch']:.0f}/{epochs}: {numbers}; {left:.0f} s left")

    return report


class RunKeeper(pl.Callback):
    """After every epoch: a checkpoint to go on from, metrics.csv, TensorBoard, and `report` with the epoch's scores.

    The checkpoint is replaced in one step, so a kill at any moment leaves the last whole epoch.
    """

    def __init__(self, folder: Path, report: Callable[[Scores], None], advance: Callable[[int], None]) -> None:
        self.folder, self.report, self.advance = folder, report, advance
        self.board: Any = None

    def on_train_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(name_in_utf8(self.folder), purge_step=trainer.current_epoch + 1)

    def on_train_batch_end(self, trainer: pl.Trainer, lit: pl.LightningModule, out: Any, batch: Any, i: int) -> None:
        self.advance(len(batch))

    def on_train_epoch_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitTagger)
        last = lit.finish_epoch()  # not the module's own hook: Lightning calls that one after the callbacks
        for key, value in last.items():
            self.board.add_scalar(key, value, int(last["epoch"]))
        self.board.flush()
        lines = [",".join(last), *(",".join(f"{v:.6g}" for v in row.values()) for row in lit.history)]
        (self.folder / "metrics.csv").write_text("\n".join(lines) + "\n")
        try:
            with atomic(self.folder / CHECKPOINT) as part:
                trainer.save_checkpoint(part)
        except OSError as error:
            if error.strerror is None:
                raise
            way = f"{self.folder / CHECKPOINT} (by way of {tempfile.gettempdir()})"  # as Lightning writes it
            raise OSError(error.errno, error.strerror, way) from None
        self.report(last)

    def on_train_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        self.board.close()


class EpochReporter(pl.Callback):
    """After every epoch: `report` with its scores. Nothing is written; what report raises ends the training."""

    def __init__(self, report: Callable[[Scores], None]) -> None:
        self.report = report

    def on_train_epoch_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitTagger)
        self.report(lit.finish_epoch())


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning's advice on loaders and hardware does not fit batches of row numbers, and hides our own lines."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        try:
            yield
        finally:
            log.setLevel(level)


def finished_epochs(checkpoint: Path) -> int:
    """Whole epochs behind a checkpoint, 0 where there is none. Raises UserError where it is damaged."""
    if not checkpoint.exists():
        return 0
    try:
        found = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if lacking := sorted(set(SAVED) - set(found)):  # of another version of the kit
            raise ValueError(f"it lacks {lacking[0]}")
        return len(found["history"])
    except Exception as error:  # torch fails in many ways on a file that is not whole
        fact = " ".join(str(error).split())[:200]
        raise UserError(f"{checkpoint}: damaged ({fact}): begin this fold again with --force") from None
