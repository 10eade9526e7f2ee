"""Sound files -> a packed feature store: in parts, by threads or processes; an interrupted extraction continues."""

import gc
import json
import math
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from configs.files import atomic, write
from configs.processes import runs_elsewhere, worker_processes
from configs.schema import FeatureConfig, hashed_settings
from console.errors import count
from console.output import progress, say, warn
from features.clip_wave import read_clip

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

    from features.log_mel import LogMel
    from features.wave_augmentation import WaveAugmentation


Clip = tuple[str, str | None]  # fname and file
Job = tuple[FeatureConfig, list[Clip], Path, str | None]  # settings, clips, part, wave
Extracted = tuple[np.ndarray, str]  # frames of a clip, and its fault
# of a part's .npz, which also holds the names of its clips: three per clip, and the checksum of the frames
COLUMNS = ("length", "fault", "stats", "crc")
PART = 64  # clips per part at most: an interruption loses little, and the pool's overhead stays small
PARTS, LEAST = 8, 4  # of fewer clips, so that every core has some; clips per part, which takes 2 ms whatever is in it
FEW = 1024  # clips that threads make: processes would take longer to start, since each imports PyTorch
STAGE, STAGE_FRAMES = 8, 24_000  # clips processed together, and their most frames, 6 MB at 64 bands
FORMAT = 3  # to increase when stored numbers or faults change


def make_store(
    cfg: FeatureConfig,
    fnames: Sequence[str],
    files: Sequence[str | None],
    final: Path,
    workers: int,
    wave: str | None = None,
) -> None:
    """Make the folder of a store, see `features.store.open_features`; <final>.partial keeps finished parts."""
    from features.mel_filters import empty_mel_bands

    partial = final.with_name(final.name + ".partial")
    partial.mkdir(exist_ok=True)
    clips = list(zip(fnames, files, strict=True))
    size = part_size(len(clips))
    parts = [partial / f"part-{i:05d}.npz" for i in range(math.ceil(len(clips) / size))]
    jobs = [(cfg, clips[i * size : (i + 1) * size], p, wave) for i, p in enumerate(parts)]
    jobs = [job for job in jobs if not _is_made(job)]
    n_clips = sum(len(job[1]) for job in jobs)
    at = f" changed by {wave}" if wave else "" if cfg.speed == 1 else f" at speed {cfg.speed:g}"
    before = f", {len(clips) - n_clips} done before" if n_clips < len(clips) else ""
    say(f"features: log-mel of {count(len(clips), 'clip')}{at}{before}")
    if cfg.mel_scale != "kaldi" and (empty := empty_mel_bands(cfg)):  # published networks were trained with theirs
        fact = f"features.n_mels={cfg.n_mels}: {len(empty)} mel bands are always empty, as no FFT bin lies in them"
        warn(f"{fact}: use fewer bands or a larger features.n_fft than {cfg.n_fft}")
    with progress("features", n_clips, "clips") as advance:
        for n in _run(jobs, workers, n_clips):
            advance(n)
    _assemble(parts, clips, cfg, partial)
    partial.rename(final)


def part_size(n_clips: int) -> int:
    """Clips in a part of a store. It must not depend on the machine: another one may continue."""
    return max(min(LEAST, PART), min(PART, n_clips // PARTS))


def _run(jobs: list[Job], workers: int, n_clips: int) -> Iterator[int]:
    """Do the jobs: one by one, in threads or in processes. A user's function on waves never runs in several threads."""
    if len(jobs) < 2 or (workers == 1 and not runs_elsewhere()):
        with _blas().limit(limits=1):
            yield from map(_extract_part, jobs)
    elif n_clips <= FEW and not runs_elsewhere() and jobs[0][3] is None:
        yield from _in_threads(jobs, workers)
    else:
        with worker_processes(min(workers, len(jobs)), "makes features") as pool:
            for done in as_completed([pool.submit(_extract_in_worker, job) for job in jobs]):
                yield done.result()


def _in_threads(jobs: list[Job], workers: int) -> Iterator[int]:
    """Decoder, FFT and products let the other threads work. An exception here ends them after their present clips."""
    import torch

    n_threads, stop = torch.get_num_threads(), Event()
    try:
        with (
            _blas().limit(limits=1),
            ThreadPoolExecutor(min(workers, len(jobs)), initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            try:
                for done in as_completed([pool.submit(_extract_part, job, stop) for job in jobs]):
                    yield done.result()
            finally:
                stop.set()
    finally:  # once the others have ended: each changes what new threads begin with
        torch.set_num_threads(n_threads)


def _extract_in_worker(job: Job) -> int:
    with _blas().limit(limits=1):
        n = _extract_part(job)
    gc.freeze()  # joblib collects garbage once a second, which takes 0.1 s for PyTorch's objects alone
    return n


@cache
def _blas() -> "ThreadpoolController":
    """NumPy's BLAS, to limit it to one thread: for such small products several threads are slower. The limit is of the
    whole process, so it is set where jobs are shared out, not in each of them."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _extract_part(job: Job, stop: Event | None = None) -> int:
    """Features of a few clips: the frames in <part>.f16, then the rest in <part>.npz, which marks the part as done.
    stop: raise CancelledError before the next clip once it is set.

    An .npz with the frames would take five times as long to write and to read.
    """
    import torch

    from features.wave_augmentation import WaveAugmentation

    cfg, clips, part, wave = job
    log_mel, change = _log_mel_of(cfg), WaveAugmentation(wave, cfg.sample_rate) if wave else None
    lengths, faults, stats, crc = [], [], [], 0
    with atomic(part.with_suffix(".f16")) as new, new.open("wb") as out:
        clips_in_turn = (_extract_clip(log_mel, fname, file, cfg, change) for fname, file in _until(stop, clips))
        for stage in _in_stages(clips_in_turn):
            for frames, fault in stage:
                packed = torch.from_numpy(frames).half().numpy().data  # a fifth of the time of NumPy's astype
                crc = zlib.crc32(packed, crc)
                out.write(packed)
                lengths.append(len(frames))
                faults.append(fault)
            stats += [_mean_and_square(frames) for frames, _ in stage]
    with atomic(part) as new, new.open("wb") as out:
        names, length = _names(clips), np.array(lengths, np.int64)
        np.savez(out, fname=names, length=length, fault=np.array(faults), stats=np.array(stats), crc=crc)
    return len(clips)


@cache
def _log_mel_of(cfg: FeatureConfig) -> "LogMel":
    """Its filters take half a clip's time to compute."""
    from features.log_mel import LogMel

    return LogMel.from_config(cfg)


def _until(stop: Event | None, clips: Iterable[Clip]) -> Iterator[Clip]:
    for clip in clips:
        if stop is not None and stop.is_set():
            raise CancelledError
        yield clip


def _in_stages(clips: Iterable[Extracted]) -> Iterator[list[Extracted]]:
    """STAGE clips at a time, fewer if they are long: each step is a little faster for several clips in a row."""
    stage: list[Extracted] = []
    for clip in clips:
        stage.append(clip)
        if len(stage) == STAGE or sum(len(frames) for frames, _ in stage) > STAGE_FRAMES:
            yield stage
            stage = []
    if stage:
        yield stage


def _mean_and_square(frames: np.ndarray) -> np.ndarray:
    """(2, n_mels) float32: over the frames, the mean and the mean of the squares."""
    ones = np.ones(len(frames), np.float32)
    sums = np.stack([ones @ frames, ones @ (frames * frames)])  # a third of the time of NumPy's sum over the rows
    return np.asarray(sums / np.float32(max(len(frames), 1)))


def _extract_clip(
    log_mel: Any, fname: str, file: str | None, cfg: FeatureConfig, change: "WaveAugmentation | None"
) -> Extracted:
    """The frames at cfg.speed, (0, n_mels) without sound, and the fault, '' without one. change: applied to the wave
    first."""
    from input.resample import at_speed

    wave, fault = read_clip(file, cfg, keep_int16=cfg.speed == 1 and not change)
    if wave is None:
        return np.zeros((0, cfg.n_mels), dtype=np.float32), fault
    return log_mel(at_speed(change(fname, wave) if change else wave, cfg.speed)), fault


def _is_made(job: Job) -> bool:
    """Whether a part is there and intact; a damaged one is removed."""
    cfg, clips, part, _ = job
    if not part.exists():
        return False
    try:
        with np.load(part) as data, part.with_suffix(".f16").open("rb") as frames:
            piece = {name: data[name] for name in COLUMNS}
            n_bytes = int(piece["length"].sum()) * cfg.n_mels * 2
            same = crc32(frames, n_bytes) == piece["crc"] and not frames.read(1)
            if not same or {len(piece[name]) for name in COLUMNS[:-1]} != {len(clips)}:
                raise ValueError("changed since it was written")
            if not np.array_equal(data["fname"], _names(clips)):  # the kit has changed how large a part is
                raise ValueError("it holds other clips")
    except MemoryError:
        raise
    except Exception as error:  # a damaged npz raises OSError, ValueError, KeyError, BadZipFile and others
        warn(f"{part}: damaged ({error}): making it again")
        part.unlink()
        return False
    return True


def _names(clips: Sequence[Clip]) -> np.ndarray:
    return np.array([fname for fname, _ in clips])


def _assemble(parts: list[Path], clips: list[Clip], cfg: FeatureConfig, partial: Path) -> None:
    """Join the parts one by one, so that memory does not grow with the competition."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    with (partial / "frames.f16").open("wb") as out:
        for part in parts:
            with np.load(part) as piece:
                for name, values in found.items():
                    values.append(np.atleast_1d(piece[name]))
            with part.with_suffix(".f16").open("rb") as frames:
                shutil.copyfileobj(frames, out, 1 << 20)
    for left in partial.glob(".*.part"):  # of an interrupted extraction
        left.unlink()
    length, fault, stats, crc = (np.concatenate(values) for values in found.values())
    fname, (mean, square) = _names(clips), stats.swapaxes(0, 1)
    np.savez(partial / "index.npz", fname=fname, length=length, fault=fault, mean=mean, mean_square=square)
    sums = {"index.npz": zlib.crc32((partial / "index.npz").read_bytes()), "frames.f16": crc.tolist()}
    size = part_size(len(clips))
    manifest = {"format": FORMAT, "settings": hashed_settings(cfg), "clips_per_part": size, "crc32": sums}
    write(partial / "manifest.json", json.dumps(manifest, indent=1))
    for part in parts:
        part.unlink()
        part.with_suffix(".f16").unlink()


def crc32(stream: BinaryIO, n_bytes: int) -> int:
    """The checksum of the next n_bytes of a stream, or of the rest if it is shorter; in blocks, because a part of long
    clips is large."""
    crc = 0
    while n_bytes > 0 and (block := stream.read(min(n_bytes, 1 << 20))):
        crc = zlib.crc32(block, crc)
        n_bytes -= len(block)
    return crc
