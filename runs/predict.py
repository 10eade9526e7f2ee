"""A run's weights and sound -> probabilities of test clips, on every GPU there is, here and in the Kaggle kernel."""

from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pandas as pd
import torch

from configs.schema import PredictConfig
from console.errors import UserError
from console.options import COMPILED
from console.output import progress, say
from features.batches import Batches, windows
from features.sections import Sections, cut
from features.store import Store, open_features
from models.device import choose_precision, memory_kept, streams
from models.engine import EngineChoice, Forward
from models.inference import first_batches, predict_finite, window_frames
from models.quantised import WINDOWS
from models.tagger import Tagger, load_tagger
from runs.budget import Deadline
from runs.clips import clip_settings, frozen_file_of, open_clips
from runs.network_code import network_code
from runs.predictions import Predictions, cached_predictions, engine_of, load_predictions, replace_predictions
from runs.run_folder import Trained, read_trained


def predict_test(
    folders: Sequence[Path],
    clips: pd.DataFrame,
    features: Path,
    keep: Path | None = None,
    sections: Sections | None = None,
    engine: str | EngineChoice = "torch",
    end: Deadline | None = None,
) -> list[Predictions]:
    """Each run folder's probabilities of test clips (fname, path), from its weights and the sound.

    The runs are shared out among the GPUs, or take turns on the CPU; the log-mel is made once per feature setting, in
    the folder `features`. keep: a folder where the probabilities of a run for this sound are kept, and found again
    if this engine made them. sections: a row for each of these parts of the clips instead; then nothing is trimmed or
    kept. engine: torch, openvino or int8 (on the CPU) or auto, see `models.engine`, or a choice that notes them; a line
    says which predicted, where that is not PyTorch. end: what is not predicted by then is left out, clips of a run or
    all of it; only whole answers are kept. Raises UserError where a run folder is damaged, or a file of `keep`.
    """
    choice = EngineChoice(engine) if isinstance(engine, str) else engine
    runs = [read_trained(folder) for folder in folders]
    own = {run.config.model.name: code for run in runs if (code := network_code(run))}
    for name, code in own.items():
        say(f"network of your own, {name}: {', '.join(map(str, code.values()))}")
    settings = [clip_settings(run.config, frozen_file_of(run)) for run in runs]
    first = dict(zip(settings, runs, strict=True))
    stores = {heard: _open(run, clips, features, sections) for heard, run in first.items()}
    free: SimpleQueue[torch.device] = SimpleQueue()
    for device in prediction_devices(choice.asked):
        free.put(device)

    def predict(run: Trained, heard: tuple[Any, ...]) -> tuple[Predictions, str]:
        store = stores[heard]
        kept = cached_predictions(keep, run.id, store.key, choice.asked) if keep and sections is None else None
        if kept and kept.exists():
            advance(1)
            try:
                return load_predictions(kept), engine_of(kept)
            except UserError as error:
                raise UserError(f"{error}: delete this file, it will be made again") from None
        device = free.get()
        try:
            if end and end.left() <= 0:
                return Predictions((), np.zeros((0, len(run.classes)), np.float32)), "none"
            probs = predict_store(run, store, device, choice, end)
            found = Predictions(store.fnames[: len(probs)], probs)
        finally:
            free.put(device)
        used = choice.chosen[kind(run)]
        if keep and sections is None and len(probs) == len(store.fnames):
            keep.mkdir(parents=True, exist_ok=True)
            replace_predictions(cached_predictions(keep, run.id, store.key, used), found)
        advance(1)
        return found, used

    with memory_kept(), ThreadPoolExecutor(free.qsize()) as pool, progress("predicting", len(runs), "runs") as advance:
        answers = list(pool.map(predict, runs, settings))
    for name, what in (("openvino", "OpenVINO"), ("int8", "OpenVINO in eight bits")):
        if n := sum(used == name for _, used in answers):
            say(f"predicted by {what}: {n} of {len(runs)} runs")
    return [replace(found, engine=used) for found, used in answers]


def check_engine(engine: str) -> None:
    """Raises UserError on an engine that is not known or not installed."""
    EngineChoice(engine)


def _open(run: Trained, clips: pd.DataFrame, folder: Path, sections: Sections | None) -> Store:
    cfg = run.config
    if sections is None:
        return open_clips(cfg, clips, folder, frozen_file_of(run))
    if cfg.model.frozen is not None:
        raise UserError(f"{run.folder}: {cfg.model.name} gives one embedding for a whole clip: use other experiments")
    return cut(open_features(replace(cfg.features, trim_db=None), clips, folder), sections)


def predict_store(
    run: Trained, store: Store, device: torch.device, choice: EngineChoice | None = None, end: Deadline | None = None
) -> np.ndarray:
    """(clips, classes) float32 probabilities of all clips of a store, from a run folder's weights; of the first of them
    that are reached before `end`.

    choice: the engine asked for, and where it is noted which predicted; without it PyTorch.
    """
    ready = load_run(run, store, device, choice)
    if end is None:
        return ready(np.arange(len(store.fnames)))
    return np.concatenate([np.zeros((0, len(run.classes)), np.float32), *in_time(ready, len(store.fnames), end)])


@dataclass(frozen=True)
class Ready:
    """A run that is loaded to predict the clips of a store. Call: rows -> (rows, classes) float32 probabilities."""

    tagger: Tagger
    batches: Batches
    cfg: PredictConfig
    precision: str
    forward: Forward | None
    n_windows: int  # of the first length, for all clips

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return predict_finite(self.tagger, self.batches, rows, self.cfg, self.precision, self.forward)

    @property
    def few(self) -> int:
        """So many clips that each stream of the CPU has a batch."""
        n = len(self.batches.store.fnames) * self.cfg.batch_size * streams()
        return max(1, n // max(self.n_windows, 1))


def load_run(
    run: Trained, store: Store, device: torch.device, choice: EngineChoice | None = None, more: float = 1.0
) -> Ready:
    """A run's weights on the device, in the precision that the run asked for, but where this device has no gain from
    it. choice: as for `predict_store`. more: how many times more clips than the store has are to be predicted."""
    cfg = run.config
    suits = choose_precision("auto", device)
    useless = {"bf16"} - {suits} if device.type == "cuda" else {"bf16", "fp16"} - {suits}
    precision = suits if cfg.train.precision in {"auto", *useless} else cfg.train.precision
    tagger = load_tagger(cfg, run.weights, run.manifest.task).to(device)
    n, batches = len(store.fnames), Batches(store, device, cfg.input.padding)
    length = store.length[store.length > 0]
    n_windows = len(windows(length, window_frames(cfg.predict, store.frame_rate)[0], cfg.predict.overlap)[0])
    size = cfg.predict.batch_size
    if choice and choice.asked == "int8":
        size = max(size, WINDOWS)
    n_rows = n if more <= 1 else min(round(n * more), max(n, size))  # repeated, to fill a batch
    first, _ = first_batches(batches, np.resize(np.arange(n), n_rows), replace(cfg.predict, batch_size=size))
    n_batches = -(-round(n_windows * more) // cfg.predict.batch_size)
    forward = (choice or EngineChoice()).forward(kind(run), tagger, first, n_batches, precision, run.folder)
    return Ready(tagger, batches, cfg.predict, precision, forward, n_windows)


def in_time(ready: Ready, n: int, end: Deadline) -> Iterator[np.ndarray]:
    """The answers for clips 0 to n in parts, until the time is over: first for a few clips, then for as many as half of
    the time left is enough for."""
    done, size, least = 0, ready.few, ready.few
    began = end.left()
    while done < n and end.left() > 0:
        rows = np.arange(done, min(done + size, n))
        yield ready(rows)
        done += len(rows)
        left = end.left()
        each = (began - left) / done
        if each * min(least, n - done) > left:
            return
        size = max(least, int(left / 2 / each)) if each > 0 else n


def kind(run: Trained) -> Hashable:
    """Runs of one kind take the same time: the folds of an experiment."""
    return run.config.model, run.config.features, run.config.predict, run.config.train.precision


def prediction_devices(engine: str = "torch") -> list[torch.device]:
    """Every GPU there is, else the CPU; the CPU alone for OpenVINO."""
    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())] if engine not in COMPILED else []
    return gpus or [torch.device("cpu")]
