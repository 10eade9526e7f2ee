"""Clips -> probabilities: the one inference path of validation, out-of-fold, test and the Kaggle kernel."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from configs.schema import PredictConfig
from console.errors import UserError
from console.output import Advance, warn
from features.batches import Batches, windows
from models.device import autocast
from models.engine import Forward
from models.tagger import Tagger


def predict_clips(
    tagger: Tagger,
    batches: Batches,
    rows: np.ndarray,
    cfg: PredictConfig,
    precision: str,
    advance: Advance | None = None,
    forward: Forward | None = None,
) -> np.ndarray:
    """(clips, classes) float32 probabilities: the mean over all windows of each clip, then over the window lengths.

    Windows of many clips share a batch. A clip without a frame (empty, unreadable, missing) gets the tagger's prior.
    forward: what computes the logits, see `models.engine`; without it the tagger itself does, batch by batch.
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

                def logits_of(given: Iterable[Tensor]) -> Iterator[Tensor]:
                    return forward(given, precision) if forward else map(tagger, given)

                frames = window_frames(cfg, batches.store.frame_rate)
                out[audible] = np.mean(
                    [_over_windows(tagger, batches, rows[audible], n, cfg, logits_of, advance) for n in frames], 0
                )
    finally:
        tagger.train(training)
    if not np.isfinite(out).all():
        raise FloatingPointError(f"{precision}: a probability is not finite")
    return out


def predict_finite(
    tagger: Tagger,
    batches: Batches,
    rows: np.ndarray,
    cfg: PredictConfig,
    precision: str,
    forward: Forward | None = None,
) -> np.ndarray:
    """As `predict_clips`; after an overflow in half precision, warn and predict again in fp32. Raises UserError if that
    does not help."""
    for tried in dict.fromkeys((precision, "fp32")):
        try:
            return predict_clips(tagger, batches, rows, cfg, tried, forward=forward)
        except FloatingPointError as error:
            warn(str(error))
    raise UserError("the network returns NaN or infinity: its weights are damaged: train this fold again")


def window_frames(cfg: PredictConfig, frame_rate: float) -> list[int]:
    return [round(seconds * frame_rate) for seconds in (cfg.window_seconds, *cfg.more_window_seconds)]


def first_batches(batches: Batches, rows: np.ndarray, cfg: PredictConfig) -> tuple[list[Tensor], int]:
    """The first batch of each window length, as `predict_clips` makes them, and how many of the first length there are;
    none without sound."""
    audible = rows[batches.store.length[rows] > 0]
    found, n_windows = [], []
    for n_frames in window_frames(cfg, batches.store.frame_rate) if len(audible) else []:
        clip, first = windows(batches.store.length[audible], n_frames, cfg.overlap)
        n_windows.append(len(clip))
        found.append(batches.at(audible[clip[: cfg.batch_size]], first[: cfg.batch_size], n_frames))
    return found, -(-n_windows[0] // cfg.batch_size) if found else 0


def _over_windows(
    tagger: Tagger,
    batches: Batches,
    rows: np.ndarray,
    n_frames: int,
    cfg: PredictConfig,
    logits_of: Callable[[Iterable[Tensor]], Iterator[Tensor]],
    advance: Advance | None,
) -> np.ndarray:
    """(clips, classes) float64 probabilities of clips with sound: the mean over windows of one length."""
    clip, first = windows(batches.store.length[rows], n_frames, cfg.overlap)
    parts = [slice(i, i + cfg.batch_size) for i in range(0, len(clip), cfg.batch_size)]
    found = []
    for logits in logits_of(batches.at(rows[clip[part]], first[part], n_frames) for part in parts):
        found.append(tagger.probabilities(logits.float()))
        if advance:
            advance(len(logits))
    count = np.bincount(clip)
    return np.add.reduceat(torch.cat(found).cpu().numpy(), np.cumsum(count) - count) / count[:, None]
