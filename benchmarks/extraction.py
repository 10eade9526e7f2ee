"""Point 1: from WAV to float16 store, against what tutorials do with torchaudio and with librosa."""

import io
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch

from benchmarks.measure import Row, Work, by_turns, cpu_times, median, quotient
from benchmarks.synthetic import RATE, SECONDS, clip_table, write_clips
from configs.schema import FeatureConfig
from features.store import Store, open_features

CFG = FeatureConfig()
COPIED = 16 << 20  # bytes
HOURS = 36  # of FSDKaggle2018: 18 to train on, as much to predict


def measure(quick: bool) -> list[Row]:
    n, rounds = (32, 3) if quick else (64, 9)
    with TemporaryDirectory() as name:
        folder = Path(name)
        files = write_clips(folder / "wav", n)
        rows, seconds = per_core(files * (1 if quick else 4), folder, rounds)  # many, so that fixed costs count little
        rows += two_processes(files * (2 if quick else 8), folder, rounds // 2 + 1)
    hours = f"{HOURS} h are {HOURS * 3600 / SECONDS * seconds / 60:.1f} min on one core"
    rows.append(Row(1, "FSDKaggle2018, training and test sound, projected", hours))
    return rows


def per_core(files: Sequence[str], folder: Path, rounds: int) -> tuple[list[Row], float]:
    """CPU time per clip of the three ways in turn, each in one thread of its own process; and ours in seconds."""
    times = cpu_times({"ours": store_of, "torchaudio": torchaudio_way, "librosa": librosa_way}, rounds, files, folder)
    each = {way: median(times, way) / len(files) for way in times}
    rows = []
    for peer, goal in (("torchaudio", 3.0), ("librosa", 0.0)):
        ratio = quotient(times, peer, "ours")
        what = f"WAV to features, CPU time per 5 s clip; peer: soundfile, {peer}, log, np.save"
        cells = (f"{each['ours'] * 1e3:.2f} ms", f"{each[peer] * 1e3:.2f} ms", f"{ratio:.2f}x")
        rows.append(Row(1, what, *cells, "at least 3x" if goal else "", ratio >= goal if goal else None))
    return rows, each["ours"]


def two_processes(files: Sequence[str], folder: Path, rounds: int) -> list[Row]:
    """Wall time of one process for all files against two for half of them each, both started before; and the same for
    copying memory, whose bandwidth processes share, as a measure of the machine."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:

        def run(work: Callable[..., None], *parts: Sequence[str]) -> None:
            jobs = [pool.submit(work, part, folder, f"store{i}") for i, part in enumerate(parts)]
            for job in jobs:
                job.result()

        half = len(files) // 2
        run(make_store_of, files[:2], files[2:4])  # start both
        pieces: dict[str, Work] = {}
        for name, work in (("store", make_store_of), ("copy", copy_memory)):
            pieces[f"one {name}"] = partial(run, work, files)
            pieces[f"two {name}"] = partial(run, work, files[:half], files[half:])
        times = by_turns(pieces, rounds)
    rows = []
    for name, what, goal in (
        ("store", "the same, wall time per clip, half of the clips in each of two running processes", 1.8),
        ("copy", f"copying {COPIED >> 20} MiB of memory, half of the copies in each of these processes", 0.0),
    ):
        ratio = quotient(times, f"one {name}", f"two {name}")
        here, there = (f"{median(times, f'{n} {name}') / len(files) * 1e3:.2f} ms" for n in ("two", "one"))
        cells = (f"{what}; peer: all in one", here, there, f"{ratio:.2f}x")
        rows.append(Row(1, *cells, f"at least {goal}x" if goal else "", ratio >= goal if goal else None))
    return rows


def store_of(files: Sequence[str], folder: Path, name: str = "store") -> Store:
    """As `train_fold.py` does it: decode, log-mel, statistics, packed file, checksums, open. One thread."""
    torch.set_num_threads(1)
    shutil.rmtree(folder / name, ignore_errors=True)
    with redirect_stdout(io.StringIO()):
        return open_features(CFG, clip_table(files), folder / name, workers=1)


def make_store_of(files: Sequence[str], folder: Path, name: str) -> None:
    """In a worker, which returns nothing."""
    store_of(files, folder, name)


def copy_memory(files: Sequence[str], folder: Path, name: str) -> None:
    """In a worker: one copy per file, larger than a cache."""
    source = np.ones(COPIED, np.uint8)
    target = np.empty_like(source)
    for _ in files:
        np.copyto(target, source)


def torchaudio_way(files: Sequence[str], folder: Path) -> None:
    from torchaudio.transforms import MelSpectrogram

    to_mel = MelSpectrogram(RATE, CFG.n_fft, hop_length=CFG.hop_length, n_mels=CFG.n_mels, f_max=CFG.f_max)
    for file in files:
        wave, _ = soundfile.read(file, dtype="float32")
        with torch.inference_mode():
            log_mel = torch.log(to_mel(torch.from_numpy(wave)) + CFG.log_floor)
        np.save(folder / Path(file).with_suffix(".npy").name, log_mel.numpy())


def librosa_way(files: Sequence[str], folder: Path) -> None:
    from librosa.feature import melspectrogram

    for file in files:
        wave, rate = soundfile.read(file, dtype="float32")
        mel = melspectrogram(y=wave, sr=rate, n_fft=CFG.n_fft, hop_length=CFG.hop_length, n_mels=CFG.n_mels)
        np.save(folder / Path(file).with_suffix(".npy").name, np.log(mel + CFG.log_floor))
