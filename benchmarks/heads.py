"""Point 3: five heads on the embeddings of FSDKaggle2018's 9,473 clips, the strength of L2 chosen in each fold."""

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import Row
from configs.schema import Config, ModelConfig
from features.store import Store
from training.fold_data import FoldData
from training.heads import HeadTrainer, inner_parts

CLIPS, NUMBERS, CLASSES, FOLDS = 9_473, 2_048, 41, 5  # NUMBERS: of CNN14
GOAL = 60  # seconds


def measure(quick: bool) -> list[Row]:
    store, label = embeddings(CLIPS // 10 if quick else CLIPS)
    fold = np.arange(len(label)) % FOLDS
    start = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        right = [fit(store, label, fold, k, Path(scratch)) for k in range(FOLDS)]
    elapsed, busy = time.perf_counter() - start[0], time.process_time() - start[1]
    size = f"{len(label):,} x {NUMBERS:,}, {CLASSES} classes"
    what = f"heads of {FOLDS} folds on {size}, C chosen; {np.mean(right):.2f} right"
    met = None if quick else elapsed <= GOAL
    return [Row(3, what, f"{elapsed:.0f} s, {busy:.0f} s of CPU", goal=f"at most {GOAL} s", met=met)]


def embeddings(n: int) -> tuple[Store, np.ndarray]:
    """Of clips whose classes overlap, their numbers related as those of a network are; label (clips,)."""
    rng = np.random.default_rng(0)
    label = rng.permutation(np.arange(n) % CLASSES)
    hidden = rng.normal(size=(n, 256)) + 0.25 * rng.normal(size=(CLASSES, 256))[label]
    x = hidden @ rng.normal(size=(256, NUMBERS)) / 16 + 0.3 * rng.normal(size=(n, NUMBERS))
    frames = np.maximum(x, 0).astype(np.float32)
    store = Store(
        key="benchmark",
        fnames=tuple(f"{i}.wav" for i in range(n)),
        frames=frames,
        start=np.arange(n),
        length=np.ones(n, np.int64),
        mean=frames,
        mean_square=frames**2,
        faults={},
        silence=0.0,
        frame_rate=0.2,
    )
    return store, label


def fit(store: Store, label: np.ndarray, fold: np.ndarray, k: int, scratch: Path) -> float:
    """Train the head of fold k; the share of its clips that it names right."""
    import torch

    train, val = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
    targets, ones = np.eye(CLASSES, dtype=np.float32)[label], np.ones(len(label))
    names = tuple(store.fnames[row] for row in val)
    parts = FoldData(
        train, val, targets, ones, ones > 0, names, ones[val] > 0, targets[train].mean(axis=0), metric="map@3"
    )
    cfg = Config(model=ModelConfig(name="embedding:benchmark.onnx"))
    head = HeadTrainer(cfg, k, parts, inner_parts(fold[train], train), [store])
    head.fit(scratch, f"fold {k}")
    with torch.inference_mode():
        logits = head.tagger(torch.from_numpy(store.frames[val])[:, None, :, None])
    return float((logits.argmax(1).numpy() == label[val]).mean())
