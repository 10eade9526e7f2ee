"""What a run hears of clips: their log-mel, or the embeddings of its frozen network."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.schema import Config, ModelConfig, hashed_settings
from console.errors import UserError
from features.clip_wave import read_clip
from features.embeddings import Embed, Embedded, Job, open_embeddings, save_part
from features.store import Store, files_of, normalisation, open_features, store_key
from runs.network_file import network_sha256
from runs.run_folder import Run, Trained

if TYPE_CHECKING:
    import pandas as pd

USUAL = ModelConfig()
FORMAT = 1  # to increase when stored numbers or faults change


@dataclass(frozen=True)
class FrozenFile:
    """The file of a frozen network. It is needed only where embeddings are to be made."""

    path: Path  # as the config names it
    sha256: str  # see `network_sha256`: also of the files that an ONNX file keeps its weights in
    beside: Path | None = None  # the folder of an experiment, where a bundle has it

    def find(self) -> Path:
        """Raises UserError where it is missing, or is not what the run was made with."""
        places = [self.path] + ([self.beside / self.path.name] if self.beside else [])
        for file in places:
            if file.is_file() and network_sha256(file) == self.sha256:
                return file
        fact = "is not the file" if any(file.is_file() for file in places) else "is missing, the file"
        raise UserError(
            f"{self.path}: {fact} that {self.beside or 'this run'} was made with (sha256 {self.sha256[:12]}): bring it "
            f"back, clips that are new cannot be predicted without it"
        )


def frozen_file(cfg: Config) -> FrozenFile | None:
    """That of an experiment to be trained; None without a frozen network. Raises UserError where there is no file."""
    if cfg.model.frozen is None:
        return None
    path = frozen_path(cfg)
    if not path.is_file():
        if cfg.model.frozen_is_file:
            raise UserError(f"model.name={cfg.model.name}: there is no such file: put it there, see docs/pretrained.md")
        fetch = "python -m models.fetch lists those that it downloads"
        raise UserError(f"model.name={cfg.model.name}: no file {path}: {fetch}")
    return FrozenFile(path, network_sha256(path))


def frozen_path(cfg: Config) -> Path:
    """Raises UserError where the config names no weights."""
    from models.published_names import weights_file

    if cfg.model.frozen_is_file:
        return Path(str(cfg.model.frozen)).expanduser()
    if cfg.model.weights is None:
        remedy = "name them with model.weights=FILE, or a file of configs/pretrained as embedding:NAME"
        raise UserError(f"model.name={cfg.model.name}: a frozen network needs trained weights: {remedy}")
    return weights_file(cfg.model.weights)


def frozen_file_of(run: Run | Trained) -> FrozenFile | None:
    """That of a finished run, by its manifest."""
    if run.config.model.frozen is None:
        return None
    names = [name for name in run.manifest.code if Path(name).suffix != ".py"]
    if len(names) != 1:
        raise UserError(f"{run.folder}: its manifest does not name its frozen network: train it again with --force")
    path = Path(str(run.config.model.frozen)) if run.config.model.frozen_is_file else Path(names[0])
    if not run.config.model.frozen_is_file:
        try:
            path = frozen_path(run.config)
        except UserError:  # a package that is not installed here: a bundle has its file
            path = Path(names[0])
    return FrozenFile(path, run.manifest.code[names[0]], run.folder.parent)


def clip_settings(cfg: Config, frozen: FrozenFile | None) -> tuple[Any, ...]:
    """All that the numbers of a clip depend on; equal where two runs hear the same."""
    if frozen is None:
        return (cfg.features,)
    m, t, p = cfg.model, cfg.train, cfg.predict
    log_mel: tuple[Any, ...] = ()
    if not m.frozen_is_file:
        shape = [f"{key}={getattr(m, key)}" for key in ("width", "pooling") if getattr(m, key) != getattr(USUAL, key)]
        log_mel = (t.normalise, t.fixed_mean, t.fixed_std, m.deltas, m.frequency_channel, *shape)
    windows = (p.window_seconds, p.overlap, cfg.input.padding)
    return (cfg.features, frozen.sha256, m.name.rpartition("/")[2], m.output, m.clip_pooling, *windows, *log_mel)


def clip_key(cfg: Config, fnames: Sequence[str], files: Sequence[str | None], frozen: FrozenFile | None) -> str:
    """Twelve hex digits that name the store of these clips."""
    plain = store_key(cfg.features, fnames, files)
    if frozen is None:
        return plain
    features, sha256, name, output, _, *rest = clip_settings(cfg, frozen)  # windows are pooled when it is opened
    values = [FORMAT, plain, hashed_settings(features), sha256, name, output, rest]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def open_clips(
    cfg: Config, clips: "pd.DataFrame", folder: Path, frozen: FrozenFile | None, workers: int | None = None
) -> Store:
    """The store of these clips (fname, path): log-mel frames, or with a frozen network one embedding for each clip. It
    is made if it does not exist, log-mel by so many workers (None: one for each core), embeddings by jobs on a cluster.

    Raises UserError if the store is corrupted, and on a frozen network that is missing or does not fit the config.
    """
    if frozen is None or clips.empty:
        return open_features(cfg.features, clips, folder, workers)
    fnames, files, model = clips["fname"].tolist(), files_of(clips), cfg.model
    key = clip_key(cfg, fnames, files, frozen)
    make = partial(_embed, cfg, clips, folder, frozen)
    job = Job(partial(_save_in_job, key, cfg, clips, folder, frozen), not model.frozen_is_file)
    return open_embeddings(folder / key, fnames, make, model.clip_pooling, cfg.predict.window_seconds, job)


def _embed(cfg: Config, clips: "pd.DataFrame", folder: Path, frozen: FrozenFile) -> Embed:
    if cfg.model.frozen_is_file:
        return _of_waves(cfg, files_of(clips), frozen.find())
    return _of_log_mel(cfg, open_features(cfg.features, clips, folder), frozen.find())


def _save_in_job(
    key: str, cfg: Config, clips: "pd.DataFrame", folder: Path, frozen: FrozenFile, file: Path, first: int, end: int
) -> None:
    """A part of the embeddings called `key`. The network stays loaded for the next part that comes to this process."""
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = _embed(cfg, clips, folder, frozen)
    save_part(file, _loaded[key](first, end))


_loaded: dict[str, Embed] = {}  # in the process of jobs: the last network, by the key of what it embeds


def _of_waves(cfg: Config, files: Sequence[str | None], file: Path) -> Embed:
    """Windows of the waveform through an ONNX or TFLite file. Raises UserError where it takes another length."""
    from features.batches import windows
    from models.frozen import wave_network

    network, rate = wave_network(str(file), cfg.model.output), cfg.features.sample_rate
    n = round(cfg.predict.window_seconds * rate)
    if network.n_samples not in (None, n):
        raise UserError(
            f"{file}: takes {network.n_samples} samples, not the {n} of predict.window_seconds="
            f"{cfg.predict.window_seconds:g} at features.sample_rate={rate}: set those that it was trained with"
        )

    def embed(first: int, end: int) -> Iterator[Embedded]:
        for path in files[first:end]:
            wave, fault = read_clip(path, cfg.features)
            if wave is None or not wave.any():
                yield np.zeros((0, 0), np.float32), fault
                continue
            _, start = windows(np.array([len(wave)]), n, cfg.predict.overlap)
            size, repeat = cfg.predict.batch_size, cfg.input.padding == "repeat"
            parts = [start[i : i + size] for i in range(0, len(start), size)]  # all at once would fill the memory
            yield np.concatenate([network(_cut(wave, part, n, repeat)) for part in parts]), fault

    return embed


def _cut(wave: np.ndarray, start: np.ndarray, n: int, repeat: bool) -> np.ndarray:
    """(windows, n) of a wave, from each start on; beyond its ends zeros, or the wave again."""
    place = start[:, None] + np.arange(n)
    if repeat:
        place %= len(wave)
    inside = (place >= 0) & (place < len(wave))
    return np.where(inside, wave[np.clip(place, 0, len(wave) - 1)], np.float32(0))


def _of_log_mel(cfg: Config, store: Store, file: Path) -> Embed:
    """Windows of the log-mel through a network of ours or of timm."""
    from dataclasses import replace

    import torch

    from features.batches import Batches, windows
    from models.device import choose_device
    from models.frozen import FrozenTagger

    every, t = np.arange(len(store.fnames)), cfg.train
    if t.normalise not in ("decibel", "fixed"):
        mean, std = normalisation(store, every, "global")
        raise UserError(
            f"train.normalise={t.normalise}: a frozen network needs the same numbers in all folds: use "
            f"train.normalise=fixed train.fixed_mean={mean[0]:.2f} train.fixed_std={std[0]:.2f}, those of these clips"
        )
    device = choose_device(t.device) if torch.cuda.is_available() else torch.device("cpu")
    cfg = replace(cfg, model=replace(cfg.model, weights=str(file)))
    network = FrozenTagger(cfg, *normalisation(store, every, t.normalise, (t.fixed_mean, t.fixed_std)), device)
    batches, n = Batches(store, device, cfg.input.padding), round(cfg.predict.window_seconds * store.frame_rate)

    def embed(first: int, end: int) -> Iterator[Embedded]:
        silent = [store.faults.get(fname) == "silent" for fname in store.fnames[first:end]]
        rows = first + np.flatnonzero((store.length[first:end] > 0) & ~np.array(silent))
        clip, start = windows(store.length[rows], n, cfg.predict.overlap)
        size = cfg.predict.batch_size
        parts = [slice(i, i + size) for i in range(0, len(clip), size)]
        found = [network(batches.at(rows[clip[part]], start[part], n)) for part in parts]
        vectors = np.concatenate(found) if found else np.zeros((0, 0), np.float32)
        for row in range(first, end):
            yield vectors[rows[clip] == row], store.faults.get(store.fnames[row], "")

    return embed
