"""The packed feature store: the log-mel frames of all clips in one float16 array, with an index by fname.

work/features/<key>/ holds frames.f16 (total frames, n_mels), index.npz and manifest.json, which has the checksums. The
key is a hash of the settings and of every file's name, size and modification time. During extraction the folder is
named <key>.partial and collects parts, so that an interrupted extraction can continue.
"""

import hashlib
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs.files import lock
from configs.forms import read_json
from configs.schema import FeatureConfig, hashed_settings
from configs.user_code import hashes, source_files
from console.errors import UserError
from console.output import say
from features.extraction import FORMAT, crc32, make_store

if TYPE_CHECKING:
    import pandas as pd


# Minimum standard deviation in log-mel. Bands with sound have 2 to 4. In a band that is nearly constant (below the
# lowest FFT bin, above a codec's limit) a smaller one would turn shifted or test sound into values in the thousands.
LEAST_STD = 0.5


@dataclass(frozen=True)
class Manifest:
    """The part of a store's manifest.json that is read."""

    clips_per_part: int
    crc32: dict[str, int | list[int]]  # of index.npz, and of each part of frames.f16


@dataclass(frozen=True)
class Store:
    """The features of some clips; clip i has frames[start[i] : start[i] + length[i]]."""

    key: str  # the hash that names the store
    fnames: tuple[str, ...]
    frames: np.ndarray  # (total, n_mels) float16, mapped from disk
    start: np.ndarray  # (clips,)
    length: np.ndarray  # (clips,) frames
    mean: np.ndarray  # (clips, n_mels) float32, over the frames of each clip
    mean_square: np.ndarray  # likewise
    faults: dict[str, str]  # fname -> reason; such a clip may have length 0
    silence: float  # log-mel of digital silence, for padding
    frame_rate: float  # frames per second

    def rows(self, fnames: Sequence[str]) -> np.ndarray:
        """Row numbers of clips by name; raises KeyError for an unknown name."""
        index = {name: i for i, name in enumerate(self.fnames)}
        return np.array([index[name] for name in fnames], dtype=np.int64)


def open_features(
    cfg: FeatureConfig, clips: "pd.DataFrame", folder: Path, workers: int | None = None, wave: str | None = None
) -> Store:
    """The store of these clips; it is made if it does not exist.

    clips: fname and path, None for a missing file. wave: name of a user function that changes the sound. Raises
    UserError if the store is corrupted.
    """
    fnames: list[str] = clips["fname"].tolist()
    files = files_of(clips)
    key = store_key(cfg, fnames, files, wave)
    if not fnames:  # a competition without test clips: nothing is written
        none = np.zeros((0, cfg.n_mels), np.float32)
        start = np.zeros(0, np.int64)
        frame_rate = cfg.sample_rate / cfg.hop_length
        return Store(
            key, (), none.astype(np.float16), start, start, none, none, {}, math.log(cfg.log_floor), frame_rate
        )
    final = folder / key
    if not final.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with lock(final, on_wait=lambda: say(f"features: waiting for the process that makes {final}")):
            if not final.exists():  # another process may have made it while this one waited
                make_store(cfg, fnames, files, final, workers or len(os.sched_getaffinity(0)), wave)
    return _open(final, cfg)


def files_of(clips: "pd.DataFrame") -> list[str | None]:
    """The file of each clip; None for a missing one, which pandas may have as NaN."""
    return [path if isinstance(path, str) else None for path in clips["path"]]


def store_key(cfg: FeatureConfig, fnames: Sequence[str], files: Sequence[str | None], wave: str | None = None) -> str:
    """Twelve hex digits: a hash of settings, name, size and modification time of every file, and user code."""
    code = [wave, hashes(source_files(wave, "augment.wave"))] if wave else []
    digest = hashlib.sha256(json.dumps([FORMAT, hashed_settings(cfg), *code], sort_keys=True).encode())
    for fname, file in zip(fnames, files, strict=True):
        stat = os.stat(file) if file is not None else None  # noqa: PTH116  called 20,000 times
        digest.update(f"{fname}\0{stat and (stat.st_size, stat.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:12]


def _open(folder: Path, cfg: FeatureConfig) -> Store:
    try:
        index = _checked_index(folder, cfg.n_mels)
    except (OSError, ArithmeticError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder}: corrupted ({error}): delete this folder, then run the same command") from None
    fnames, length = tuple(index["fname"].tolist()), index["length"]
    shape = (int(length.sum()), cfg.n_mels)
    if shape[0]:
        frames: np.ndarray = np.memmap(
            folder / "frames.f16", np.float16, "c", shape=shape
        )  # "c": torch needs it writable
    else:
        frames = np.zeros(shape, np.float16)
    return Store(
        key=folder.name,
        fnames=fnames,
        frames=frames,
        start=np.cumsum(length) - length,
        length=length,
        mean=index["mean"],
        mean_square=index["mean_square"],
        faults={fname: fault for fname, fault in zip(fnames, index["fault"].tolist(), strict=True) if fault},
        silence=math.log(cfg.log_floor),
        frame_rate=cfg.sample_rate / cfg.hop_length,
    )


def _checked_index(folder: Path, n_mels: int) -> dict[str, np.ndarray]:
    """The arrays of index.npz. Raises ValueError and others if a file does not match the manifest."""
    manifest = read_json(folder / "manifest.json", Manifest, "")
    packed = (folder / "index.npz").read_bytes()
    if zlib.crc32(packed) != manifest.crc32.get("index.npz"):
        raise ValueError("index.npz changed")
    with np.load(io.BytesIO(packed)) as data:
        index = dict(data)
    per_part = np.add.reduceat(index["length"], np.arange(0, len(index["length"]), max(1, manifest.clips_per_part)))
    with (folder / "frames.f16").open("rb") as frames:
        found = [crc32(frames, int(n) * n_mels * 2) for n in per_part]
        if found != manifest.crc32.get("frames.f16") or frames.read(1):
            raise ValueError("frames.f16 changed")
    return index


def normalisation(
    store: Store, rows: np.ndarray, kind: str, fixed: tuple[float, float] = (0.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """The mean to subtract from the log-mel and the standard deviation to divide by, both (n_mels,) float32.

    'per_mel': of each band over these clips, every clip with the same weight; 'global': of all bands together;
    'decibel': 0 and ln(10) / 10, which turns the natural logarithm of power into 10 log10; 'fixed': the two of `fixed`.
    """
    if kind in ("decibel", "fixed"):
        n_mels = store.frames.shape[1]
        first, second = (0.0, np.log(10) / 10) if kind == "decibel" else fixed
        return np.full(n_mels, first, np.float32), np.full(n_mels, second, np.float32)
    audible = rows[store.length[rows] > 0]
    mean = store.mean[audible].mean(axis=0, dtype=np.float64)
    square = store.mean_square[audible].mean(axis=0, dtype=np.float64)
    if kind == "global":
        mean, square = np.full_like(mean, mean.mean()), np.full_like(square, square.mean())
    std = np.sqrt(np.maximum(square - mean**2, LEAST_STD**2))
    return mean.astype(np.float32), std.astype(np.float32)
