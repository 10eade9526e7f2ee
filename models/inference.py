"""Clips -> probabilities: the one inference path of validation, out-of-fold, test and the Kaggle kernel."""

from collections.abc import Callable, Iterable, Iterator, Sequence

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

DAMAGED = "the network returns NaN or infinity: its weights are damaged: train this fold again"


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
    found = predict_windows(tagger, batches, rows, cfg, precision, advance, forward)
    store, prior = batches.store, tagger.prior.cpu().numpy()
    return mean_of_windows([found], store.length[rows], store.frame_rate, cfg, prior, precision)


def predict_windows(
    tagger: Tagger,
    batches: Batches,
    rows: np.ndarray,
    cfg: PredictConfig,
    precision: str,
    advance: Advance | None = None,
    forward: Forward | None = None,
    share: tuple[int, int] = (0, 1),
) -> list[np.ndarray]:
    """(windows, classes) float32 probabilities of each window length, without those clips that have no frame.

    share: (i, n) for the i-th of n shares of the batches; a share has the same batches as the whole, so the same
    numbers. Otherwise as `predict_clips`, which takes the mean of them.
    """

    def logits_of(given: Iterable[Tensor]) -> Iterator[Tensor]:
        return forward(given, precision) if forward else map(tagger, given)

    audible = rows[batches.store.length[rows] > 0]
    training = tagger.training
    tagger.eval()
    try:
        with torch.inference_mode(), autocast(precision, batches.device):
            frames = window_frames(cfg, batches.store.frame_rate) if len(audible) else []
            return [_of_length(tagger, batches, audible, n, cfg, logits_of, share, advance) for n in frames]
    finally:
        tagger.train(training)


def mean_of_windows(
    shares: Sequence[Sequence[np.ndarray]],
    length: np.ndarray,
    frame_rate: float,
    cfg: PredictConfig,
    prior: np.ndarray,
    precision: str,
) -> np.ndarray:
    """(clips, classes) float32 probabilities from the shares of `predict_windows`, in their order.

    length (clips,): frames of each; prior (classes,): for clips without any. Raises FloatingPointError if a probability
    is not finite."""
    audible = np.flatnonzero(length > 0)
    out, means = np.tile(prior, (len(length), 1)), []
    for i, n_frames in enumerate(window_frames(cfg, frame_rate) if len(audible) else []):
        clip, _ = windows(length[audible], n_frames, cfg.overlap)
        count = np.bincount(clip)
        probs = np.concatenate([share[i] for share in shares])
        means.append(np.add.reduceat(probs, np.cumsum(count) - count) / count[:, None])
    if means:
        out[audible] = np.mean(means, 0)
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
    raise UserError(DAMAGED)


def window_frames(cfg: PredictConfig, frame_rate: float) -> list[int]:
    return [round(seconds * frame_rate) for seconds in (cfg.window_seconds, *cfg.more_window_seconds)]


def first_batches(batches: Batches, rows: np.ndarray, cfg: PredictConfig) -> tuple[list[Tensor], int]:
    """A batch of each window length, of windows at even steps through all clips, and how many batches of the first
    length `predict_clips` makes; none without sound."""
    audible = rows[batches.store.length[rows] > 0]
    found, n_windows = [], []
    for n_frames in window_frames(cfg, batches.store.frame_rate) if len(audible) else []:
        clip, first = windows(batches.store.length[audible], n_frames, cfg.overlap)
        n_windows.append(len(clip))
        n = min(cfg.batch_size, len(clip))
        some = np.arange(n) * len(clip) // n
        found.append(batches.at(audible[clip[some]], first[some], n_frames))
    return found, -(-n_windows[0] // cfg.batch_size) if found else 0


def _of_length(
    tagger: Tagger,
    batches: Batches,
    rows: np.ndarray,
    n_frames: int,
    cfg: PredictConfig,
    logits_of: Callable[[Iterable[Tensor]], Iterator[Tensor]],
    share: tuple[int, int],
    advance: Advance | None,
) -> np.ndarray:
    """(windows, classes) float32 probabilities of one window length, of clips with sound."""
    clip, first = windows(batches.store.length[rows], n_frames, cfg.overlap)
    n_batches, (i, n) = -(-len(clip) // cfg.batch_size), share
    own = range(n_batches * i // n, n_batches * (i + 1) // n)
    parts = [slice(k * cfg.batch_size, (k + 1) * cfg.batch_size) for k in own]
    found = [torch.zeros((0, len(tagger.prior)), device=batches.device)]
    for logits in logits_of(batches.at(rows[clip[part]], first[part], n_frames) for part in parts):
        found.append(tagger.probabilities(logits.float()))
        if advance:
            advance(len(logits))
    return torch.cat(found).cpu().numpy()
