"""The packed store of embeddings: what a frozen network makes of every window of every clip.

work/features/<key>/embeddings.npz holds the vectors of all windows, and the number of windows and the fault of each
clip; it is a zip file, so every array has a checksum. <key>.partial collects parts: an interrupted run continues.
"""

import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from configs.files import atomic, lock
from configs.processes import runs_elsewhere, worker_processes
from console.errors import UserError
from console.output import progress, say, warn
from features.store import Store

Embedded = tuple[np.ndarray, str]  # (windows, n) float32 of a clip, none without sound; its fault, '' without one
Embed = Callable[[int, int], Iterable[Embedded]]  # of the clips from one number to before another
Arrays = dict[str, np.ndarray]
PART = 64  # clips
MEMORY = 2 << 30  # bytes of a job


@dataclass(frozen=True)
class Job:
    """How a job on a cluster saves a part."""

    save: Callable[[Path, int, int], None]  # as `save_part`, for the clips from one number to before another
    gains_from_gpu: bool


def open_embeddings(
    folder: Path,
    fnames: Sequence[str],
    make: Callable[[], Embed],
    pooling: Literal["mean", "mean_max"],
    seconds: float,
    job: Job | None = None,
) -> Store:
    """The embeddings of clips as a store with one frame for each clip, pooled over its windows; made where the folder
    does not exist. A clip without sound has no frame.

    make: called only then, for the network. seconds: of a window. job: what makes a part where jobs run on a cluster;
    without it all are made here. Raises UserError if the store is damaged.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock(folder, on_wait=lambda: say(f"embeddings: waiting for the process that makes {folder}")):
            if not folder.exists():  # another process may have made it while this one waited
                _make(folder, len(fnames), make(), job)
    try:
        found = _read(folder / "embeddings.npz", len(fnames))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder}: corrupted ({error}): delete this folder, then run the same command") from None
    frames = _pooled(found["vectors"], found["count"], pooling)
    length = (found["count"] > 0).astype(np.int64)
    per_clip = np.zeros((len(fnames), frames.shape[1]), np.float32)
    per_clip[length > 0] = frames
    return Store(
        key=folder.name,
        fnames=tuple(fnames),
        frames=frames,
        start=np.cumsum(length) - length,
        length=length,
        mean=per_clip,
        mean_square=per_clip**2,
        faults={fname: fault for fname, fault in zip(fnames, found["fault"].tolist(), strict=True) if fault},
        silence=0.0,
        frame_rate=1 / seconds,  # a window of prediction is one frame
    )


def _pooled(vectors: np.ndarray, count: np.ndarray, pooling: str) -> np.ndarray:
    """(clips with a window, n), of mean_max (., 2 n)."""
    counts = count[count > 0]
    first = np.cumsum(counts) - counts
    if not len(counts):
        return np.zeros((0, vectors.shape[1] * (2 if pooling == "mean_max" else 1)), np.float32)
    mean = np.add.reduceat(vectors, first, dtype=np.float64) / counts[:, None]
    parts = [mean, np.maximum.reduceat(vectors, first)] if pooling == "mean_max" else [mean]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _make(final: Path, n_clips: int, embed: Embed, job: Job | None) -> None:
    partial = final.with_name(final.name + ".partial")
    partial.mkdir(exist_ok=True)
    parts = {partial / f"part-{i:05d}.npz": (i * PART, min((i + 1) * PART, n_clips)) for i in range(_parts(n_clips))}
    missing = {file: span for file, span in parts.items() if not _is_made(file, span[1] - span[0])}
    left = sum(end - first for first, end in missing.values())
    before = f", {n_clips - left} done before" if left < n_clips else ""
    say(f"embeddings: {n_clips} clips through the frozen network{before}")
    with progress("embeddings", left, "clips") as advance:
        for n in _saved(missing, embed, job):
            advance(n)
    pieces = [_read(file, end - first) for file, (first, end) in parts.items()]
    with atomic(partial / "embeddings.npz") as new, new.open("wb") as out:
        count, fault = (np.concatenate([piece[key] for piece in pieces]) for key in ("count", "fault"))
        np.savez(out, vectors=_joined([piece["vectors"] for piece in pieces]), count=count, fault=fault)
    for file in parts:
        file.unlink()
    partial.rename(final)


def _saved(parts: dict[Path, tuple[int, int]], embed: Embed, job: Job | None) -> Iterator[int]:
    """Save each part, here or in jobs; the number of its clips."""
    if job is None or not runs_elsewhere():
        for file, (first, end) in parts.items():
            save_part(file, embed(first, end))
            yield end - first
        return
    with worker_processes(1, "makes embeddings", 0, () if job.gains_from_gpu else None, MEMORY) as pool:
        running = {pool.submit(job.save, file, *span): span for file, span in parts.items()}
        for done in as_completed(running):
            done.result()
            yield running[done][1] - running[done][0]


def _joined(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """(windows, n) float32 of all; those without a window may have no n."""
    heard = [vectors for vectors in pieces if len(vectors)]
    return np.concatenate(heard).astype(np.float32) if heard else np.zeros((0, 0), np.float32)


def _parts(n_clips: int) -> int:
    return math.ceil(n_clips / PART)


def save_part(file: Path, embedded: Iterable[Embedded]) -> None:
    """Raises UserError where an embedding is not finite."""
    clips = list(embedded)
    vectors = _joined([vectors for vectors, _ in clips])
    if not np.isfinite(vectors).all():
        raise UserError("embeddings: the frozen network returns NaN or infinity: another weights file or model.output")
    with atomic(file) as new, new.open("wb") as out:
        count, fault = np.array([len(one) for one, _ in clips]), np.array([reason for _, reason in clips])
        np.savez(out, vectors=vectors, count=count, fault=fault)


def _read(file: Path, n_clips: int) -> Arrays:
    """Raises ValueError and others where the file is damaged."""
    with np.load(file) as data:
        found = {key: data[key] for key in ("vectors", "count", "fault")}
    if (
        len(found["count"]) != n_clips
        or len(found["fault"]) != n_clips
        or found["count"].sum() != len(found["vectors"])
    ):
        raise ValueError("its arrays do not match")
    return found


def _is_made(file: Path, n_clips: int) -> bool:
    """Whether a part is there and intact; a damaged one is removed."""
    try:
        _read(file, n_clips)
    except FileNotFoundError:
        return False
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        warn(f"{file}: damaged ({error}): making it again")
        file.unlink()
        return False
    return True
