"""The LightningModule that trains every backbone. Lightning is imported here, in training/trainer.py and in
training/loggers.py only."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from configs.schema import Config, TrainConfig
from console.errors import UserError
from features.batches import Batches, Sources, draw_length
from features.store import Store, normalisation
from metrics.metric import find_metric
from models.inference import predict_clips
from models.tagger import Tagger, build_tagger, check_input_size
from training.fine_tuning import hold, optimizer_groups, set_up
from training.fold_data import FoldData, RowBatches, balanced
from training.losses import build_loss
from training.schedule import Stage, build_stages, lr_factor, stage_of, step_shares
from training.weight_averaging import WeightAverage, ema_share, mean_share

Scores = dict[str, float]
State = dict[str, Tensor]
Validate = Callable[[Tagger], Scores]
SAVED = ("history", "best", "best_epoch")  # of ours, in a checkpoint


class Diverged(UserError):
    """A loss, a weight or a probability is not finite any more."""


class LitTagger(pl.LightningModule):
    """Trains `tagger` on random crops of the stages' rows and scores it on the fold's validation rows.

    Batches are row numbers of `sources`, whose first part holds the labelled clips; crops are gathered and augmented on
    the device. `validate` scores the tagger after every epoch, or raises FloatingPointError where a probability is not
    finite. What is validated and in the end `kept` are the averaged weights where the config asks for an average; the
    raw ones go on training. With keep=best those of the epoch with the best score are kept in `best`. The scores of
    all epochs are in `history`. All of this travels in the checkpoint. `seed` fixes order, crops, augmentation and
    dropout of every epoch.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        tagger: Tagger,
        sources: Sources,
        parts: FoldData,
        stages: list[Stage],
        validate: Validate,
        seed: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.cfg, self.tagger, self.sources, self.parts = cfg, tagger, sources, parts
        self.batches = sources.parts[0][0]  # of the labelled clips, as they are
        self.stages, self.validate, self.seed = stages, validate, seed
        self.epochs = sum(stage.epochs for stage in stages)
        self.loss, self.metric = build_loss(cfg, parts.task, parts), find_metric(parts.metric, parts.task)
        self._network = (torch.compile(tagger) if cfg.compile else tagger,)  # a tuple hides it: one copy in the state
        self.labels, self.weights = torch.from_numpy(parts.targets), torch.from_numpy(parts.weights).float()
        shortest = cfg.crop_seconds_min or cfg.crop_seconds
        self.shortest, self.longest = (round(s * self.batches.store.frame_rate) for s in (shortest, cfg.crop_seconds))
        self.unverified = 1 - torch.from_numpy(parts.verified).float()
        self.history: list[Scores] = []
        self.ema = WeightAverage(tagger, ema_share(cfg.ema)) if cfg.ema else None  # of steps
        self.mean = WeightAverage(tagger, mean_share) if cfg.average_epochs > 1 else None  # of epochs
        self.best: State = {}
        self.best_epoch = -1
        self._losses: list[Tensor] = []  # by hand: self.log takes half a millisecond more at every step

    @property
    def stage(self) -> Stage:
        return stage_of(self.stages, self.current_epoch)

    def train_dataloader(self) -> RowBatches:
        """The rows of this epoch, shuffled. Lightning asks again every epoch."""
        self.rng = np.random.default_rng([*self.seed, self.current_epoch])
        torch.manual_seed(int(self.rng.integers(2**63)))  # dropout
        rows = self.stage.rows
        if self.cfg.balanced:
            drawn = balanced(*self.parts.memberships(rows), self.rng, len(rows))
        else:
            drawn = self.rng.permutation(rows)
        batches = RowBatches(drawn, self.stage.batches)
        self.shares = step_shares([self.count(rows) for rows in batches], self.cfg.accumulate)
        return batches

    def count(self, rows: np.ndarray) -> float:
        """What these clips weigh in the mean that the loss is; of several labels a clip, only the known ones count."""
        known = (~self.labels[rows].isnan()).double()
        if self.parts.task == "multi_label" and self.parts.class_weight is not None:  # else it is in the weights
            known *= torch.from_numpy(self.parts.class_weight)
        return float((self.weights[rows] * known.sum(dim=1)).sum())

    def on_train_epoch_start(self) -> None:
        hold(self.tagger.backbone, self.cfg, self.current_epoch)

    def training_step(self, rows: np.ndarray, batch_idx: int) -> Tensor:
        x = self.sources.crop(rows, draw_length(self.shortest, self.longest, self.rng), self.rng)
        y, w = self.targets(rows, x.device)
        x, y, w = self.stage.augment(x, y, w, self.rng)
        loss = self.loss(self._network[0](x).float(), y, w)
        self._losses.append(loss.detach())
        return loss if self.cfg.accumulate == 1 else loss * self.shares[batch_idx]

    def targets(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Labels as the loss takes them, and weights (batch,)."""
        y, w = self.loss.with_unverified(self.labels[rows], self.unverified[rows]), self.weights[rows]
        return y.to(device, non_blocking=True), w.to(device, non_blocking=True)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        # by hand: Lightning refuses it beside a fused optimizer under bf16, where nothing is scaled
        if self.cfg.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.tagger.parameters(), self.cfg.clip_norm)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.ema and (batch_idx + 1) % self.cfg.accumulate == 0:
            self.ema.add(self.tagger)

    def val_dataloader(self) -> RowBatches:
        return RowBatches(self.parts.val, 1)

    def validation_step(self, rows: np.ndarray, batch_idx: int) -> None:
        """Score the epoch and remember what of it may be kept; `rows` are all validation rows, since a score is no mean
        over batches.

        Raises UserError where the loss, a weight or a validation probability is not finite; the checkpoint of the epoch
        before stays.
        """
        loss = float(torch.stack(self._losses).mean())  # one synchronisation per epoch, not one per step
        self._losses.clear()
        if self.mean and self.cfg.average_epochs >= self.epochs - self.current_epoch:
            self.mean.add(self.ema.network if self.ema else self.tagger)
        try:
            if not math.isfinite(loss) or not all(bool(p.isfinite().all()) for p in self.tagger.parameters()):
                raise FloatingPointError
            found = self.validate(self.judged)
        except FloatingPointError:
            raise Diverged(
                f"training diverged in epoch {self.current_epoch + 1} (loss {loss:.3g}): begin again with a lower "
                f"{self.stage.lr_key} than {self.stage.lr:g} and --force"
            ) from None
        lr = self.cfg.lr * lr_factor(self.stages, self.lr_schedulers().last_epoch, self.cfg.warmup)  # type: ignore[union-attr]
        self.history.append({"epoch": self.current_epoch + 1, "loss": loss, "lr": lr, **found})
        if self.cfg.keep == "best" and (self.best_epoch < 0 or self.gain(self.history[-1]) > self.best_gain):
            self.best_epoch = self.current_epoch
            self.best = {k: v.detach().clone() for k, v in self.judged.state_dict().items()}
        step = self.current_epoch + 1.0  # on TensorBoard's axis
        self.log_dict({**self.history[-1], "step": step}, batch_size=1)

    def gain(self, found: Scores) -> float:
        """Of these scores the competition's, negated where lower is better."""
        score = found[self.metric.key]
        return score if self.metric.higher_is_better else -score

    @property
    def best_gain(self) -> float:
        return self.gain(self.history[self.best_epoch])

    @property
    def judged(self) -> Tagger:
        """What is validated: the average of the last epochs, once they have begun, or of the steps, or the tagger."""
        averages = [average.network for average in (self.mean, self.ema) if average and average.n]
        return averages[0] if averages else self.tagger

    @property
    def kept(self) -> State:
        """The weights to predict with, once all epochs are done."""
        return self.best or self.judged.state_dict()

    @property
    def kept_epoch(self) -> int:
        """The last epoch that had a part in them, counted from 1."""
        return (self.best_epoch if self.best else self.epochs - 1) + 1

    def configure_optimizers(self) -> Any:
        # Fused, since VGGish's step took seven times as long without. Not where it would be what unscales the gradients
        # of fp16, after they are clipped.
        fused = not (self.cfg.clip_norm and self.trainer.precision == "16-mixed")
        optimizer = torch.optim.AdamW(optimizer_groups(self.tagger.backbone, self.cfg), lr=self.cfg.lr, fused=fused)
        stages, warmup = self.stages, self.cfg.warmup
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(stages, step, warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(history=self.history, best=self.best, best_epoch=self.best_epoch)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history, self.best, self.best_epoch = (checkpoint[k] for k in ("history", "best", "best_epoch"))


def build_lit_tagger(
    cfg: Config,
    fold: int,
    parts: FoldData,
    store: Store,
    device: torch.device,
    precision: str,
    copies: Sequence[Store] = (),
    test: Store | None = None,
) -> LitTagger:
    """The untrained network of a fold, all its randomness fixed by train.seed and the fold.

    copies: of the clips of `store`, for training. test: the clips of the pseudo-labels in `parts`. The network's
    statistics and prior come from the labelled training clips alone.
    """
    torch.manual_seed(1000 * cfg.train.seed + fold)  # initial weights
    labelled = parts.train[parts.train < len(store.fnames)]
    fixed = (cfg.train.fixed_mean, cfg.train.fixed_std)
    mean, std = normalisation(store, labelled, cfg.train.normalise, fixed)
    tagger = build_tagger(cfg, parts.prior, mean, std, task=parts.task)
    set_up(tagger.backbone, cfg)
    batches = Batches(store, device, cfg.input.padding)
    versions = [batches, *(Batches(copy, device, cfg.input.padding) for copy in copies)]
    sources = Sources([versions] if test is None else [versions, [Batches(test, device, cfg.input.padding)]])

    def validate(tagger: Tagger) -> Scores:
        return parts.scores(predict_clips(tagger, batches, parts.val, cfg.predict, precision))

    # decibels have no mean of their own, and 0 dB would be a loud mask
    fill = normalisation(store, labelled, "per_mel")[0] if cfg.train.normalise == "decibel" else mean
    stages = build_stages(cfg, parts, torch.from_numpy(fill))
    lit = LitTagger(cfg.train, tagger, sources, parts, stages, validate, (cfg.train.seed, fold))
    fewest = min(len(stage.rows) // stage.batches for stage in stages)
    remedy = "longer train.crop_seconds, more mels or a larger train.batch_size"
    check_input_size(tagger, fewest, lit.shortest, True, remedy)
    for seconds in (cfg.predict.window_seconds, *cfg.predict.more_window_seconds):
        n_frames = round(seconds * store.frame_rate)
        check_input_size(tagger, 1, n_frames, False, "longer predict.window_seconds or more mels")
    return lit
