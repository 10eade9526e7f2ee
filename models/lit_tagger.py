"""The LightningModule that trains every backbone. Lightning is imported here and in train_fold.py only."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from configs.errors import UserError
from configs.schema import Config, TrainConfig
from features.augment import Augment
from features.batches import Batches
from features.store import Store
from models.fold_data import FoldData
from models.metrics import scores
from models.predict import predict_clips
from models.run_folder import CHECKPOINT
from models.tagger import Tagger, build_tagger, normalisation

Scores = dict[str, float]
Validate = Callable[[Tagger], Scores]


class LitTagger(pl.LightningModule):
    """Trains `tagger` on random crops of the fold's training rows and scores it on its validation rows.

    Batches are row numbers; crops are gathered and augmented on the device. `validate` scores the tagger after every
    epoch, or raises FloatingPointError where a probability is not finite; the weights of the epoch with the highest
    map3 are kept in `best`, the scores of all epochs in `history`, and both travel in the checkpoint. `seed` fixes
    order, crops, augmentation and dropout of every epoch.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        tagger: Tagger,
        batches: Batches,
        parts: FoldData,
        augment: Augment,
        validate: Validate,
        seed: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.cfg, self.tagger, self.batches, self.parts = cfg, tagger, batches, parts
        self.augment, self.validate, self.seed = augment, validate, seed
        self._network = (torch.compile(tagger) if cfg.compile else tagger,)  # a tuple hides it: one copy in the state
        self.labels, self.weights = torch.from_numpy(parts.labels), torch.from_numpy(parts.weights).float()
        self.n_frames = round(cfg.crop_seconds * batches.store.frame_rate)
        self.history: list[Scores] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = -1
        self._losses: list[Tensor] = []

    def train_dataloader(self) -> "RowBatches":
        """The rows of this epoch, shuffled. Lightning asks anew every epoch."""
        self.rng = np.random.default_rng([*self.seed, self.current_epoch])
        torch.manual_seed(int(self.rng.integers(2**63)))  # dropout
        return RowBatches(self.rng.permutation(self.parts.train), self.steps_per_epoch)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.parts.train) / self.cfg.batch_size)

    def training_step(self, rows: np.ndarray, batch_idx: int) -> Tensor:
        x = self.batches.crop(rows, self.n_frames, self.rng)
        y = torch.nn.functional.one_hot(self.labels[rows], len(self.parts.prior)).float().to(x.device)
        x, y, w = self.augment(x, y, self.weights[rows].to(x.device), self.rng)
        loss = soft_cross_entropy(self._network[0](x).float(), y, w, self.cfg.label_smoothing)
        self._losses.append(loss.detach())
        return loss

    def finish_epoch(self) -> Scores:
        """Score the epoch and remember its weights if they are the best.

        Raises UserError where the loss, a weight or a validation probability is not finite; the checkpoint of the epoch
        before stays.
        """
        loss = float(torch.stack(self._losses).mean())  # one synchronisation per epoch, not one per step
        self._losses.clear()
        try:
            if not math.isfinite(loss) or not all(bool(p.isfinite().all()) for p in self.tagger.parameters()):
                raise FloatingPointError
            found = self.validate(self.tagger)
        except FloatingPointError:
            raise UserError(
                f"training diverged in epoch {self.current_epoch + 1} (loss {loss:.3g}): begin again with a lower "
                f"train.lr than {self.cfg.lr:g} and --force"
            ) from None
        lr = float(self.lr_schedulers().get_last_lr()[0])  # type: ignore[union-attr]
        self.history.append({"epoch": self.current_epoch + 1, "loss": loss, "lr": lr, **found})
        if self.best_epoch < 0 or found["map3"] > self.history[self.best_epoch]["map3"]:
            self.best_epoch = self.current_epoch
            self.best = {k: v.detach().clone() for k, v in self.tagger.state_dict().items()}
        return self.history[-1]

    def configure_optimizers(self) -> Any:
        # Fused, since VGGish's step took seven times as long without. Norms and biases are not decayed, as is usual.
        decayed = [p for p in self.tagger.parameters() if p.dim() > 1]
        plain = [p for p in self.tagger.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": self.cfg.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.cfg.lr, fused=True)
        total = self.cfg.epochs * self.steps_per_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, total, self.cfg.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(history=self.history, best=self.best, best_epoch=self.best_epoch)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history, self.best, self.best_epoch = (checkpoint[k] for k in ("history", "best", "best_epoch"))


class RowBatches:
    """Row numbers in n batches of nearly equal size: a last batch of one would upset batch normalisation.

    A class of its own, because Lightning takes a list for several loaders side by side.
    """

    def __init__(self, rows: np.ndarray, n: int) -> None:
        self.batches = np.array_split(rows, n)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def build_lit_tagger(
    cfg: Config, fold: int, parts: FoldData, store: Store, device: torch.device, precision: str
) -> LitTagger:
    """The untrained network of a fold, all its randomness fixed by train.seed and the fold."""
    torch.manual_seed(1000 * cfg.train.seed + fold)  # initial weights
    mean, std = normalisation(store, parts.train, cfg.train.normalise)
    tagger = build_tagger(cfg, parts.prior, mean, std)
    batches = Batches(store, device)

    def validate(tagger: Tagger) -> Scores:
        probs = predict_clips(tagger, batches, parts.val, cfg.predict, precision)
        if not np.isfinite(probs).all():  # finite weights may overflow in fp16
            raise FloatingPointError
        return scores(probs, parts.labels[parts.val], parts.val_verified)

    # decibels have no mean of their own, and 0 dB would be a loud mask
    fill = normalisation(store, parts.train, "per_mel")[0] if cfg.train.normalise == "decibel" else mean
    augment = Augment.from_config(cfg.augment, torch.from_numpy(fill))
    return LitTagger(cfg.train, tagger, batches, parts, augment, validate, (cfg.train.seed, fold))


class RunKeeper(pl.Callback):
    """After every epoch: a checkpoint to go on from, metrics.csv, TensorBoard, and `report` with the epoch's scores.

    The checkpoint is replaced in one step, so a kill at any moment leaves the last whole epoch.
    """

    def __init__(self, folder: Path, report: Callable[[Scores], None], advance: Callable[[int], None]) -> None:
        self.folder, self.report, self.advance = folder, report, advance
        self.board: Any = None

    def on_train_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(self.folder), purge_step=trainer.current_epoch + 1)

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
        trainer.save_checkpoint(self.folder / "next.ckpt")
        (self.folder / "next.ckpt").replace(self.folder / CHECKPOINT)
        self.report(last)

    def on_train_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        self.board.close()


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
        return len(torch.load(checkpoint, mmap=True, weights_only=True)["history"])
    except Exception as error:  # torch fails in many ways on a file that is not whole
        fact = " ".join(str(error).split())[:200]
        raise UserError(f"{checkpoint}: damaged ({fact}): begin this fold again with --force") from None


def soft_cross_entropy(logits: Tensor, y: Tensor, w: Tensor, smoothing: float = 0.0) -> Tensor:
    """Weighted mean of the cross-entropy with soft labels.

    logits, y (batch, classes), w (batch,). smoothing moves that share of each label to all classes alike (C. Szegedy
    et al., "Rethinking the Inception Architecture", 2016).
    """
    y = y * (1 - smoothing) + smoothing / y.shape[1]
    loss = -(y * logits.log_softmax(dim=1)).sum(dim=1)
    return (loss * w).sum() / w.sum().clamp_min(1e-12)  # a batch of weight 0 has loss 0


def one_cycle(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: a linear rise over `warmup` of all steps, then a half cosine down to 0.

    Source: L. Smith, "Super-convergence", 2018, with the linear-cosine shape of today's practice.
    """
    rise = max(1, round(total * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))
