"""A run's weights and sound -> probabilities of test clips, on every GPU there is, here and in the Kaggle kernel."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pandas as pd
import torch

from console.errors import UserError
from console.output import progress, say
from features.batches import Batches
from features.sections import Sections, cut
from features.store import Store, open_features
from models.device import choose_precision, memory_kept
from models.inference import predict_finite
from models.tagger import load_tagger
from runs.clips import clip_settings, frozen_file_of, open_clips
from runs.network_code import network_code
from runs.predictions import Predictions, cached_predictions, load_predictions, replace_predictions
from runs.run_folder import Trained, read_trained


def predict_test(
    folders: Sequence[Path],
    clips: pd.DataFrame,
    features: Path,
    keep: Path | None = None,
    sections: Sections | None = None,
) -> list[Predictions]:
    """Each run folder's probabilities of test clips (fname, path), from its weights and the sound.

    The runs are shared out among the GPUs, or take turns on the CPU; the log-mel is made once per feature setting, in
    the folder `features`. keep: a folder where the probabilities of a run for this sound are kept, and found again.
    sections: a row for each of these parts of the clips instead; then nothing is trimmed or kept. Raises UserError
    where a run folder is damaged, or a file of `keep`.
    """
    runs = [read_trained(folder) for folder in folders]
    own = {run.config.model.name: code for run in runs if (code := network_code(run))}
    for name, code in own.items():
        say(f"network of your own, {name}: {', '.join(map(str, code.values()))}")
    settings = [clip_settings(run.config, frozen_file_of(run)) for run in runs]
    first = dict(zip(settings, runs, strict=True))
    stores = {heard: _open(run, clips, features, sections) for heard, run in first.items()}
    free: SimpleQueue[torch.device] = SimpleQueue()
    for device in prediction_devices():
        free.put(device)

    def predict(run: Trained, heard: tuple[Any, ...]) -> Predictions:
        store = stores[heard]
        kept = cached_predictions(keep, run.id, store.key) if keep and sections is None else None
        if kept and kept.exists():
            advance(1)
            try:
                return load_predictions(kept)
            except UserError as error:
                raise UserError(f"{error}: delete this file, it will be made again") from None
        device = free.get()
        try:
            found = Predictions(store.fnames, predict_store(run, store, device))
        finally:
            free.put(device)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            replace_predictions(kept, found)
        advance(1)
        return found

    with memory_kept(), ThreadPoolExecutor(free.qsize()) as pool, progress("predicting", len(runs), "runs") as advance:
        return list(pool.map(predict, runs, settings))


def _open(run: Trained, clips: pd.DataFrame, folder: Path, sections: Sections | None) -> Store:
    cfg = run.config
    if sections is None:
        return open_clips(cfg, clips, folder, frozen_file_of(run))
    if cfg.model.frozen is not None:
        raise UserError(f"{run.folder}: {cfg.model.name} gives one embedding for a whole clip: use other experiments")
    return cut(open_features(replace(cfg.features, trim_db=None), clips, folder), sections)


def predict_store(run: Trained, store: Store, device: torch.device) -> np.ndarray:
    """(clips, classes) float32 probabilities of all clips of a store, from a run folder's weights.

    In the precision that the run asked for, but where this device has no gain from it.
    """
    cfg = run.config
    suits = choose_precision("auto", device)
    useless = {"bf16"} - {suits} if device.type == "cuda" else {"bf16", "fp16"} - {suits}
    precision = suits if cfg.train.precision in {"auto", *useless} else cfg.train.precision
    tagger = load_tagger(cfg, run.weights, run.manifest.task).to(device)
    rows = np.arange(len(store.fnames))
    return predict_finite(tagger, Batches(store, device, cfg.input.padding), rows, cfg.predict, precision)


def prediction_devices() -> list[torch.device]:
    """Every GPU there is, else the CPU."""
    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    return gpus or [torch.device("cpu")]
