"""The whole loop of `train_fold.py` against the bare training step, on any device."""

import io
import math
import time
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import median
from benchmarks.synthetic import N_CLASSES, N_MELS, make_fold, make_store
from configs.schema import Config, ModelConfig, TrainConfig
from features.augment import Augment
from features.batches import Batches, Sources
from models.device import autocast
from models.tagger import Tagger, build_tagger
from training.lit_tagger import LitTagger
from training.losses import soft_cross_entropy
from training.schedule import Stage
from training.trainer import fit

CPU = torch.device("cpu")


class Step:
    """A bare training step on a batch that is already on the device; call it to do one."""

    def __init__(
        self, tagger: Tagger, n_frames: int, batch: int, precision: str, fused: bool = True, device: torch.device = CPU
    ) -> None:
        self.tagger, self.precision, self.device = tagger.to(device).train(), precision, device
        self.optimizer = torch.optim.AdamW(tagger.parameters(), fused=fused)
        self.x = torch.randn(batch, 1, N_MELS, n_frames, device=device)
        self.y = torch.eye(N_CLASSES, device=device)[torch.arange(batch) % N_CLASSES]
        self.w = torch.ones(batch, device=device)

    def __call__(self) -> None:
        with autocast(self.precision, self.device):
            logits = self.tagger(self.x)
        soft_cross_entropy(logits.float(), self.y, self.w).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def whole_loop(
    name: str, n_frames: int, batch: int, steps: int, rounds: int, device: torch.device, precision: str
) -> tuple[float, float]:
    """Seconds per step of the loop of `train_fold.py` (crops, augmentation, Lightning, schedule) and the bare step."""
    tagger = make_tagger(name)
    bare = Step(tagger, n_frames, batch, precision, device=device)
    found: dict[str, list[float]] = {"loop": [], "bare": []}
    for i in range(-1, rounds):  # the first warms up
        loop_seconds = seconds_in_loop(tagger, n_frames, batch, steps, device, precision)
        synchronise(device)
        start = time.perf_counter()
        for _ in range(steps):
            bare()
        synchronise(device)
        if i >= 0:
            found["loop"].append(loop_seconds)
            found["bare"].append((time.perf_counter() - start) / steps)
    return median(found, "loop"), median(found, "bare")


def seconds_in_loop(
    tagger: Tagger, n_frames: int, batch: int, steps: int, device: torch.device, precision: str
) -> float:
    """Seconds per step of an epoch, from its second batch until validation begins, when all steps are finished."""
    began: list[float] = []
    ended: list[float] = []
    augment = Augment(torch.zeros(N_MELS, device=device), mixup_alpha=0.4, time_masks=1, freq_masks=1)

    def clocked(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
        if len(began) == 1:  # the clock starts after the first batch; from then on the host may run ahead of the device
            synchronise(device)
        began.append(time.perf_counter())
        return augment(*args)

    def validate(_: Tagger) -> dict[str, float]:
        ended.append(time.perf_counter())
        return {"map3": 0.0}

    n = batch * (steps + 1)
    cfg = TrainConfig(epochs=1, batch_size=batch, crop_seconds=n_frames / 100, device=device.type)  # type: ignore[arg-type]
    sources = Sources([[Batches(make_store(n, n_frames + 50), device)]])
    stages = [Stage(1, np.arange(n), math.ceil(n / batch), cfg.lr, "train.lr", clocked)]  # type: ignore[arg-type]
    lit = LitTagger(cfg, tagger, sources, make_fold(n), stages, validate, (0, 0))
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        fit(lit, Path(folder), "benchmark", precision)
    tagger.to(device)  # Lightning leaves it on the CPU
    return (ended[0] - began[1]) / steps


def make_tagger(name: str, channels_last: bool = True, width: int = 64) -> Tagger:
    """A network with random weights for N_CLASSES, and normalisation by mean 0 and deviation 1."""
    cfg = Config(model=ModelConfig(name=name, width=width), train=TrainConfig(channels_last=channels_last))
    return build_tagger(cfg, np.full(N_CLASSES, 1 / N_CLASSES), np.zeros(N_MELS), np.ones(N_MELS))


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
