"""Clips -> probabilities: the one inference path of validation, out-of-fold, test and the Kaggle kernel."""

import numpy as np
import torch

from configs.schema import PredictConfig
from console.errors import UserError
from console.output import Advance, warn
from features.batches import Batches, windows
from models.device import autocast
from models.tagger import Tagger


def predict_clips(
    tagger: Tagger,
    batches: Batches,
    rows: np.ndarray,
    cfg: PredictConfig,
    precision: str,
    advance: Advance | None = None,
) -> np.ndarray:
    """(clips, classes) float32 probabilities: the mean over all windows of each clip, then over the window lengths.

    Windows of many clips share a batch. A clip without a frame (empty, unreadable, missing) gets the tagger's prior.
    The tagger's mode is restored. Raises FloatingPointError if a probability is not finite: half precision may
    overflow.
    """
    audible = np.flatnonzero(batches.store.length[rows] > 0)
    out = np.tile(tagger.prior.cpu().numpy(), (len(rows), 1))
    training = tagger.training
    tagger.eval()
    try:
        with torch.inference_mode(), autocast(precision, batches.device):
            if len(audible):
                lengths = (cfg.window_seconds, *cfg.more_window_seconds)
                frames = [round(seconds * batches.store.frame_rate) for seconds in lengths]
                out[audible] = np.mean(
                    [_over_windows(tagger, batches, rows[audible], n, cfg, advance) for n in frames], 0
                )
    finally:
        tagger.train(training)
    if not np.isfinite(out).all():
        raise FloatingPointError(f"{precision}: a probability is not finite")
    return out


def predict_finite(
    tagger: Tagger, batches: Batches, rows: np.ndarray, cfg: PredictConfig, precision: str
) -> np.ndarray:
    """As `predict_clips`; after an overflow in half precision, warn and predict again in fp32. Raises UserError if that
    does not help."""
    for tried in dict.fromkeys((precision, "fp32")):
        try:
            return predict_clips(tagger, batches, rows, cfg, tried)
        except FloatingPointError as error:
            warn(str(error))
    raise UserError("the network returns NaN or infinity: its weights are damaged: train this fold again")


def _over_windows(
    tagger: Tagger, batches: Batches, rows: np.ndarray, n_frames: int, cfg: PredictConfig, advance: Advance | None
) -> np.ndarray:
    """(clips, classes) float64 probabilities of clips with sound: the mean over windows of one length."""
    clip, first = windows(batches.store.length[rows], n_frames, cfg.overlap)
    found = []
    for i in range(0, len(clip), cfg.batch_size):
        part = slice(i, i + cfg.batch_size)
        x = batches.at(rows[clip[part]], first[part], n_frames)
        found.append(tagger.probabilities(tagger(x).float()))
        if advance:
            advance(len(x))
    count = np.bincount(clip)
    return np.add.reduceat(torch.cat(found).cpu().numpy(), np.cumsum(count) - count) / count[:, None]
