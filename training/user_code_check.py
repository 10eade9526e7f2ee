"""The user's loss and augmentations, called once on made-up values, before anything is made."""

from dataclasses import replace

import numpy as np
import torch

from configs.competition import Task
from configs.schema import AugmentConfig, Config
from console.errors import UserError
from features.augment import Augment
from features.wave_augmentation import WaveAugmentation
from training.losses import build_loss


def check_user_code(cfg: Config, n_classes: int, task: Task = "single_label", unknown: bool = False) -> None:
    """Raises UserError where a loss or an augmentation that the config names fails, as it would in training.

    unknown: some targets are NaN, since the competition does not know them.
    """
    rng, n_mels = np.random.default_rng(0), cfg.features.n_mels
    for name in cfg.augment.wave:
        second = rng.normal(0, 0.1, cfg.features.sample_rate).astype(np.float32)
        WaveAugmentation(name, cfg.features.sample_rate)("one made of noise", second)
    n_frames = round(cfg.train.crop_seconds * cfg.features.sample_rate / cfg.features.hop_length)
    x = torch.from_numpy(rng.normal(size=(4, 1, n_mels, n_frames)).astype(np.float32))
    loss, y = build_loss(cfg.train, task), torch.eye(n_classes)[torch.arange(4) % n_classes]
    if unknown:
        y[0, 0] = torch.nan
    y, w, logits = loss.with_unverified(y, torch.zeros(4)), torch.ones(4), torch.zeros(4, n_classes, requires_grad=True)
    own = replace(AugmentConfig(), extra=cfg.augment.extra)
    _, y, w = Augment.from_config(own, torch.zeros(n_mels))(x, y, w, rng)
    if unknown and not bool(loss(logits, y, w).isfinite()):
        raise UserError(f"train.loss: {cfg.train.loss} is NaN where a target is, of a label not known: leave those out")
    loss(logits, y, w)
