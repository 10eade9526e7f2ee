"""Clips -> probabilities: the one inference path of validation, out-of-fold, test and the Kaggle kernel."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
import torch

from configs.console import Advance, progress, warn
from configs.errors import UserError
from configs.schema import PredictConfig
from features.batches import Batches, windows
from features.store import Store, open_features
from models.memory import memory_kept
from models.run_folder import Predictions, Trained, kept_answers, load_predictions, read_trained, replace_predictions
from models.tagger import Tagger, autocast, choose_precision, load_tagger

if TYPE_CHECKING:
    import pandas as pd


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
    Leaves the tagger in the mode it came in. Raises FloatingPointError where a probability is not finite: half
    precision may overflow.
    """
    heard = np.flatnonzero(batches.store.length[rows] > 0)
    out = np.tile(tagger.prior.cpu().numpy(), (len(rows), 1))
    training = tagger.training
    tagger.eval()
    try:
        with torch.inference_mode(), autocast(precision, batches.device):
            if len(heard):
                lengths = (cfg.window_seconds, *cfg.more_window_seconds)
                frames = [round(seconds * batches.store.frame_rate) for seconds in lengths]
                out[heard] = np.mean([_over_windows(tagger, batches, rows[heard], n, cfg, advance) for n in frames], 0)
    finally:
        tagger.train(training)
    if not np.isfinite(out).all():
        raise FloatingPointError(f"{precision}: a probability is not finite")
    return out


def predict_finite(
    tagger: Tagger, batches: Batches, rows: np.ndarray, cfg: PredictConfig, precision: str
) -> np.ndarray:
    """As `predict_clips`; what overflows in half precision is told, and predicted again in fp32. Raises UserError where
    that does not help."""
    for tried in dict.fromkeys((precision, "fp32")):
        try:
            return predict_clips(tagger, batches, rows, cfg, tried)
        except FloatingPointError as error:
            warn(str(error))
    raise UserError("the network does not answer with numbers: its weights are damaged, train this fold again")


def _over_windows(
    tagger: Tagger, batches: Batches, rows: np.ndarray, n_frames: int, cfg: PredictConfig, advance: Advance | None
) -> np.ndarray:
    """(clips, classes) float64 probabilities of clips with sound: the mean over windows of one length."""
    clip, first = windows(batches.store.length[rows], n_frames, cfg.overlap)
    found = []
    for i in range(0, len(clip), cfg.batch_size):
        part = slice(i, i + cfg.batch_size)
        x = batches.at(rows[clip[part]], first[part], n_frames)
        found.append(tagger(x).float().softmax(dim=1))
        if advance:
            advance(len(x))
    count = np.bincount(clip)
    return np.add.reduceat(torch.cat(found).cpu().numpy(), np.cumsum(count) - count) / count[:, None]


def predict_test(
    folders: Sequence[Path], clips: "pd.DataFrame", features: Path, keep: Path | None = None
) -> list[Predictions]:
    """Each run folder's probabilities of test clips (fname, path), from its weights and the sound.

    The runs are shared out among the GPUs, or take turns on the CPU; the log-mel is made once per feature setting, in
    the folder `features`. keep: a folder where the probabilities of a run for this sound are kept, and found again.
    Raises UserError where a run folder is damaged, or a file of `keep`.
    """
    runs = [read_trained(folder) for folder in folders]
    stores = {run.config.features: open_features(run.config.features, clips, features) for run in runs}
    free: SimpleQueue[torch.device] = SimpleQueue()
    for device in prediction_devices():
        free.put(device)

    def predict(run: Trained) -> Predictions:
        store = stores[run.config.features]
        kept = kept_answers(keep, run.id, store.key) if keep else None
        if kept and kept.exists():
            advance(1)
            try:
                return load_predictions(kept)
            except UserError as error:
                raise UserError(f"{error}: delete this file, it will be made again") from None
        device = free.get()
        try:
            found = Predictions(tuple(clips["fname"]), predict_store(run, store, device))
        finally:
            free.put(device)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            replace_predictions(kept, found)
        advance(1)
        return found

    with memory_kept(), ThreadPoolExecutor(free.qsize()) as pool, progress("predicting", len(runs), "runs") as advance:
        return list(pool.map(predict, runs))


def predict_store(run: Trained, store: Store, device: torch.device) -> np.ndarray:
    """(clips, classes) float32 probabilities of all clips of a store, from a run folder's weights.

    In the precision that the run asked for, but where this device has no gain from it.
    """
    cfg = run.config
    suits = choose_precision("auto", device)
    useless = {"bf16"} - {suits} if device.type == "cuda" else {"bf16", "fp16"} - {suits}
    precision = suits if cfg.train.precision in {"auto", *useless} else cfg.train.precision
    tagger = load_tagger(cfg, run.weights).to(device)
    rows = np.arange(len(store.fnames))
    return predict_finite(tagger, Batches(store, device, cfg.input.padding), rows, cfg.predict, precision)


def prediction_devices() -> list[torch.device]:
    """Every GPU there is, else the CPU."""
    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    return gpus or [torch.device("cpu")]
