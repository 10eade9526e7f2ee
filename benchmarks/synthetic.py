"""Sound, feature stores and folds of random numbers, of any size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from features.store import Store
from training.fold_data import FoldData

RATE = 44_100  # Hz
SECONDS = 5.0
N_CLASSES = 41
N_MELS = 64


def write_clips(folder: Path, n: int) -> list[str]:
    """n mono PCM16 WAVs of 5 s: a tone in noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    t = np.arange(int(SECONDS * RATE)) / RATE
    files = [str(folder / f"{i:04d}.wav") for i in range(n)]
    for file in files:
        wave = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 5000) * t) + 0.05 * rng.standard_normal(len(t))
        soundfile.write(file, wave, RATE, subtype="PCM_16")
    return files


def clip_table(files: Sequence[str]) -> pd.DataFrame:
    """fname and path of len(files) clips; several clips may have the same file."""
    return pd.DataFrame({"fname": [f"{i}.wav" for i in range(len(files))], "path": files})


def make_store(n: int, n_frames: int, n_mels: int = N_MELS) -> Store:
    """n clips of n_frames random frames, in memory."""
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((n * n_frames, n_mels), dtype=np.float32).astype(np.float16)
    length = np.full(n, n_frames)
    return Store(
        key="synthetic",
        fnames=tuple(map(str, range(n))),
        frames=frames,
        start=np.cumsum(length) - length,
        length=length,
        mean=np.zeros((n, n_mels), np.float32),
        mean_square=np.ones((n, n_mels), np.float32),
        faults={},
        silence=-13.8,
        frame_rate=100.0,
    )


def make_fold(n: int) -> FoldData:
    """n training clips with random labels, none to validate."""
    return FoldData(
        train=np.arange(n),
        val=np.arange(0),
        targets=np.eye(N_CLASSES, dtype=np.float32)[np.random.default_rng(0).integers(0, N_CLASSES, n)],
        weights=np.ones(n),
        verified=np.ones(n, bool),
        val_fnames=(),
        val_verified=np.zeros(0, bool),
        prior=np.full(N_CLASSES, 1 / N_CLASSES),
    )
