"""The stages of a training: all rows first, then verified ones alone; each with its own cycle of the learning rate."""

import math
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from configs.schema import Config
from console.errors import UserError
from features.augment import Augment
from training.fold_data import FoldData


@dataclass(frozen=True)
class Stage:
    """Epochs over the same rows of the store, with one augmentation and one cycle of the learning rate.

    steps: of the optimizer per epoch, each of `accumulate` batches. lr: the peak; lr_key: the setting it comes from.
    """

    epochs: int
    rows: np.ndarray
    steps: int
    lr: float
    lr_key: str
    augment: Augment
    accumulate: int = 1

    @property
    def batches(self) -> int:
        return self.steps * self.accumulate


def build_stages(cfg: Config, parts: FoldData, fill: Tensor) -> list[Stage]:
    """One stage, or two with train.finetune_epochs: the second on verified rows alone, without mixup and concat_mix.

    fill (n_mels,): what a mask shows. Raises UserError where there are fewer rows than batches of a step.
    """
    each = cfg.train.accumulate

    def stage(epochs: int, rows: np.ndarray, lr_key: str, **changes: float) -> Stage:
        augment = Augment.from_config(replace(cfg.augment, **changes), fill)  # type: ignore[arg-type]
        steps = math.ceil(len(rows) / (cfg.train.batch_size * each))
        if len(rows) < steps * each:
            raise UserError(f"train.accumulate={each}: {len(rows)} clips are too few for {each} batches: lower it")
        return Stage(epochs, rows, steps, getattr(cfg.train, lr_key), f"train.{lr_key}", augment, each)

    stages = [stage(cfg.train.epochs, parts.train, "lr")]
    if cfg.train.finetune_epochs:
        verified = parts.train[parts.verified[parts.train]]
        stages.append(stage(cfg.train.finetune_epochs, verified, "finetune_lr", mixup_alpha=0.0, concat_mix=0.0))
    return stages


def stage_of(stages: list[Stage], epoch: int) -> Stage:
    """The stage of an epoch, counted from 0 over all stages; the last one's after the end."""
    for stage in stages:
        if epoch < stage.epochs:
            return stage
        epoch -= stage.epochs
    return stages[-1]


def lr_factor(stages: list[Stage], step: int, warmup: float) -> float:
    """Learning rate at a step, as a share of the first stage's peak; steps count from 0 over all stages.

    Every stage rises and falls on its own; after the last it is 0.
    """
    for stage in stages:
        total = stage.epochs * stage.steps
        if step < total or stage is stages[-1]:
            break
        step -= total
    return stage.lr / stages[0].lr * one_cycle(step, total, warmup)


def one_cycle(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: a linear rise over `warmup` of all steps, then a half cosine down to 0.

    Source: L. Smith, "Super-convergence", 2018, with the linear-cosine shape of today's practice.
    """
    rise = max(1, round(total * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))


def step_shares(weights: list[float], accumulate: int) -> list[float]:
    """What the loss of each batch counts, so that a step has the gradient of all its clips in one batch: the loss is a
    weighted mean, and Lightning takes the mean over the `accumulate` batches of a step.

    weights: of each batch in that mean, see `LitTagger.count`.
    """
    steps = [weights[i : i + accumulate] for i in range(0, len(weights), accumulate)]
    return [accumulate * one / max(sum(step), 1e-12) for step in steps for one in step]
