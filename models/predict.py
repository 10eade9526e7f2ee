"""Clips -> probabilities: the one inference path of validation, out-of-fold, test and the Kaggle kernel."""

import numpy as np
import torch

from configs.console import Advance
from configs.schema import PredictConfig
from features.batches import Batches, windows
from models.tagger import Tagger, autocast


def predict_clips(
    tagger: Tagger,
    batches: Batches,
    rows: np.ndarray,
    cfg: PredictConfig,
    precision: str,
    advance: Advance | None = None,
) -> np.ndarray:
    """(clips, classes) float32 probabilities: the mean over all windows of each clip.

    Windows of many clips share a batch. A clip without a frame (empty, unreadable, missing) gets the tagger's prior.
    Leaves the tagger in the mode it came in.
    """
    n_frames = round(cfg.window_seconds * batches.store.frame_rate)
    length = batches.store.length[rows]
    heard = np.flatnonzero(length > 0)
    clip, first = windows(length[heard], n_frames)
    found = []
    training = tagger.training
    tagger.eval()
    try:
        with torch.inference_mode(), autocast(precision, batches.device):
            for i in range(0, len(clip), cfg.batch_size):
                part = slice(i, i + cfg.batch_size)
                x = batches.at(rows[heard[clip[part]]], first[part], n_frames)
                found.append(tagger(x).float().softmax(dim=1))
                if advance:
                    advance(len(x))
    finally:
        tagger.train(training)
    out = np.tile(tagger.prior.cpu().numpy(), (len(rows), 1))
    if len(heard):
        count = np.bincount(clip)
        out[heard] = np.add.reduceat(torch.cat(found).cpu().numpy(), np.cumsum(count) - count) / count[:, None]
    return out
