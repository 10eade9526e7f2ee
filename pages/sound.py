"""What of its sound goes with a page: the address of every file, short copies, and log-mel pictures."""

import base64
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import soundfile
from matplotlib.image import imsave

from configs.paths import Paths
from configs.schema import FeatureConfig
from console.output import progress, warn
from features.store import Store, files_of, open_features, store_key
from input.audio import AudioFault, read_wave

WIDTH = 160  # columns of a picture at most
SHADES = 24  # few, so that a picture of 64 bands has about 4 kB
COPY_RATE, COPY_SECONDS = 24_000, 10.0  # of an Ogg copy


def address(file: str | None, page: Path) -> str:
    """The address of a file relative to the page; '' where there is none."""
    if not isinstance(file, str):
        return ""
    return quote(os.fsencode(os.path.relpath(Path(file).absolute(), page.absolute().parent)))


def inside(file: Path) -> str:
    """An Ogg file as a data: address."""
    return "data:audio/ogg;base64," + base64.b64encode(file.read_bytes()).decode()


def copies(files: Sequence[str | None], folder: Path) -> list[str | None]:
    """Write the first COPY_SECONDS of each file as <number>.ogg into the folder, in place of older ones; the paths,
    None where there is no sound."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ogg"):
        old.unlink()
    written = list[str | None]()
    with progress("sound", len(files), "clips") as advance:
        for i, file in enumerate(files):
            written.append(_copy(file, folder / f"{i}.ogg") if isinstance(file, str) else None)
            advance(1)
    return written


def _copy(file: str, to: Path) -> str | None:
    try:
        wave = read_wave(file, COPY_RATE)
    except AudioFault as fault:
        if fault.wave is None:
            return None
        wave = fault.wave
    samples = wave[: int(COPY_SECONDS * COPY_RATE)]
    with soundfile.SoundFile(to, "w", COPY_RATE, 1, format="OGG", subtype="VORBIS") as out:
        for start in range(0, len(samples), COPY_RATE):  # libsndfile's encoder crashes on long blocks
            out.write(np.clip(samples[start : start + COPY_RATE], -1, 1))
    return str(to)


def pictures(cfg: FeatureConfig, train: pd.DataFrame, fnames: Sequence[str], paths: Paths) -> list[str]:
    """A log-mel picture of each of these clips as a data: address, time to the right, high sound above; '' of a clip
    without sound. They are read from the feature store; where it is gone, these clips' features are made for it."""
    with tempfile.TemporaryDirectory(prefix="report-") as scratch:
        store = _store(cfg, train, fnames, paths, Path(scratch))
        found = []
        for row in store.rows(fnames):
            frames = store.frames[store.start[row] : store.start[row] + store.length[row]]
            found.append(_picture(np.asarray(frames, np.float32)) if len(frames) else "")
    return found


def _store(cfg: FeatureConfig, train: pd.DataFrame, fnames: Sequence[str], paths: Paths, scratch: Path) -> Store:
    if (paths.features / store_key(cfg, train["fname"].tolist(), files_of(train))).exists():
        return open_features(cfg, train, paths.features)
    warn(f"{paths.features}: no features of these clips: made again for the pictures")
    return open_features(cfg, train[train["fname"].isin(set(fnames))], scratch)


def _picture(frames: np.ndarray) -> str:
    """frames (n, n_mels)."""
    edges = np.linspace(0, len(frames), min(WIDTH, len(frames)) + 1).astype(int)
    columns = np.add.reduceat(frames, edges[:-1], axis=0) / np.diff(edges)[:, None]
    low, high = np.percentile(columns, [5, 99.5])
    shades = np.clip((columns - low) / max(high - low, 1e-6), 0, 1)
    out = io.BytesIO()
    imsave(out, np.round(shades.T[::-1] * SHADES) / SHADES, cmap="magma", vmin=0, vmax=1, format="png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
