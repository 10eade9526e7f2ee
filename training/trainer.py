"""Lightning's Trainer around a LitTagger: the epochs that are missing, and what is written and said after each."""

import io
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.plugins.environments import LightningEnvironment

from configs.files import atomic
from console.errors import UserError
from console.output import READER_LEFT, Advance, progress, say
from models.device import memory_kept
from runs.run_folder import CHECKPOINT
from training.lit_tagger import SAVED, LitTagger, Scores
from training.loggers import open_loggers
from training.schedule import stage_of

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}  # as Lightning calls them


def fit(lit: LitTagger, partial: Path, what: str, precision: str) -> None:
    """Run the epochs that are missing, from the last checkpoint if there is one, and tell the loggers of train.logger.

    Raises KeyboardInterrupt on Ctrl-C and on SIGTERM, which Lightning turns into an exit of its own, and UserError
    where a logger cannot begin.
    """
    last = partial / CHECKPOINT
    done = finished_epochs(last, lit.state_dict())
    if done:
        say(f"{what}: continuing after epoch {done} of {lit.epochs}")
    missing = sum(len(stage_of(lit.stages, epoch).rows) for epoch in range(done, lit.epochs))
    names = lit.cfg.loggers
    with open_loggers(names, partial, done) as loggers, progress(what, missing, "clips", every=60) as advance:
        keeper = RunKeeper(partial, reporter(what, lit.epochs, done), advance, loggers)
        run_epochs(lit, precision, keeper, last if done else None)


def run_epochs(lit: LitTagger, precision: str, keeper: "EpochReporter", checkpoint: Path | None = None) -> None:
    """All epochs, or those after a checkpoint; `keeper` hears of each. Raises as `fit` does."""
    with quiet(), memory_kept():
        try:
            with without_defaults():
                trainer = build_trainer(lit, precision, keeper, lit.epochs)
            trainer.fit(lit, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as end:
            if end.code == READER_LEFT:
                raise
            raise KeyboardInterrupt from None


def build_trainer(lit: LitTagger, precision: str, keeper: "EpochReporter", epochs: int) -> pl.Trainer:
    """A Trainer that stops after so many epochs and leaves what is said and kept to `keeper`."""
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="gpu" if lit.batches.device.type == "cuda" else "cpu",
        devices=1,
        precision=PRECISIONS[precision],  # type: ignore[arg-type]  # its Literal is not exported
        accumulate_grad_batches=lit.cfg.accumulate,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        inference_mode=False,  # what is copied then takes part in training again
        logger=keeper.loggers or False,
        plugins=[OneProcess(), WholeFiles()],
        enable_checkpointing=False,  # by hand, see RunKeeper
        enable_progress_bar=False,  # ours has plain lines where there is no terminal
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


class EpochReporter(pl.Callback):
    """After every epoch: `report` with its scores. Nothing is written; what report raises ends the training."""

    loggers: Sequence[Logger] = ()

    def __init__(self, report: Callable[[Scores], None]) -> None:
        self.report = report

    def on_train_epoch_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitTagger)
        self.report(lit.history[-1])


class RunKeeper(EpochReporter):
    """After every epoch: metrics.csv, a checkpoint to go on from, and then `report`; the loggers have heard before.

    A kill at any moment leaves the last whole epoch.
    """

    def __init__(
        self, folder: Path, report: Callable[[Scores], None], advance: Advance, loggers: Sequence[Logger] = ()
    ) -> None:
        super().__init__(report)
        self.folder, self.advance, self.loggers = folder, advance, loggers

    def on_train_epoch_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitTagger)
        key = lit.metric.key
        known = "".join(f" loss {last['loss']:.2g} {key} {last[key]:.3f}" for last in lit.history[-1:])
        self.note = f"epoch {trainer.current_epoch + 1}/{lit.epochs}{known}"

    def on_train_batch_end(self, trainer: pl.Trainer, lit: pl.LightningModule, out: Any, batch: Any, i: int) -> None:
        self.advance(len(batch), self.note)

    def on_train_epoch_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitTagger)
        # by hand: CSVLogger deletes the epochs that were before it, and sorts the columns
        lines = [",".join(lit.history[-1]), *(",".join(f"{v:.6g}" for v in row.values()) for row in lit.history)]
        (self.folder / "metrics.csv").write_text("\n".join(lines) + "\n")
        # by hand: ModelCheckpoint saves after all other callbacks, also after `report`: a kill would lose that epoch
        trainer.save_checkpoint(self.folder / CHECKPOINT)
        super().on_train_epoch_end(trainer, lit)


class WholeFiles(TorchCheckpointIO):
    """A checkpoint replaces the one before in one step. Lightning's own copies it there from the temporary folder, and
    a kill in the middle of that would leave neither."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises OSError that names the file, on a full disk for instance."""
        content = io.BytesIO()
        torch.save(checkpoint, content)  # into a file it would call a full disk a RuntimeError
        try:
            with atomic(Path(path)) as part:
                part.write_bytes(content.getbuffer())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None


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


def finished_epochs(checkpoint: Path, state: Iterable[str] = ()) -> int:
    """Whole epochs behind a checkpoint, 0 where there is none. Raises UserError where it is damaged, or lacks a name
    of `state` (of a state dict)."""
    if not checkpoint.exists():
        return 0
    try:
        found = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if lacking := sorted({*SAVED, *state} - {*found, *found.get("state_dict", ())}):  # another version's
            raise ValueError(f"it lacks {lacking[0]}")
        return len(found["history"])
    except Exception as error:  # torch fails in many ways on a file that is not whole
        fact = " ".join(str(error).split())[:200]
        raise UserError(f"{checkpoint}: damaged ({fact}): begin this fold again with --force") from None
