"""Point 1: from compressed sound to float16 store, against the decoder alone; and from WAV against a fixed time."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

from benchmarks.extraction import store_of
from benchmarks.measure import Row, cpu_times, median, quotient
from benchmarks.synthetic import RATE, SECONDS
from input.audio import read_wave

FORMATS = {"Ogg Vorbis": ("OGG", "VORBIS"), "MP3": ("MP3", "MPEG_LAYER_III"), "FLAC": ("FLAC", "PCM_16")}
MOST, WAV_MS = 1.3, 1.2  # times the decoder's own time; CPU time of a clip


def measure(quick: bool) -> list[Row]:
    n, rounds = (16, 3) if quick else (128, 7)
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows = [row for kind in FORMATS for row in of_format(kind, folder, n, rounds)]
        return [*rows, of_wav(folder, n, rounds)]


def of_format(kind: str, folder: Path, n: int, rounds: int) -> list[Row]:
    """CPU time per clip, each way in one thread of its own process."""
    files = write_sound(folder / kind, *FORMATS[kind], n)
    ways: dict[str, Callable[..., object]] = {"store": partial(make_store, folder=folder)}
    ways |= {"read": read_all, "bare": decode_all}
    times = cpu_times(ways, rounds, files)
    each = {way: f"{median(times, way) / n * 1e3:.2f} ms" for way in ways}
    found = []
    for way, what, goal in (("store", "to float16 store", MOST), ("read", "to a checked wave", None)):
        ratio = quotient(times, way, "bare")
        what = f"{kind} {what}, CPU time per {SECONDS:g} s clip; peer: soundfile.read to float32 alone"
        cells = (each[way], each["bare"], f"{ratio:.2f}x", f"at most {goal}x" if goal else "")
        found.append(Row(1, what, *cells, ratio <= goal if goal else None))
    return found


def of_wav(folder: Path, n: int, rounds: int) -> Row:
    files = write_sound(folder / "WAV", "WAV", "PCM_16", n)
    times = cpu_times({"store": partial(make_store, folder=folder), "read": read_all}, rounds, files)
    took, least, read = (
        1e3 * each / n for each in (median(times, "store"), min(times["store"]), median(times, "read"))
    )
    what = f"WAV to float16 store, CPU time per {SECONDS:g} s clip; the fastest round; reading alone"
    cells = (f"{took:.2f} ms; {least:.2f} ms; {read:.2f} ms", "", "", f"at most {WAV_MS} ms")
    return Row(1, what, *cells, took <= WAV_MS)


def make_store(files: Sequence[str], folder: Path) -> None:
    """In a worker, which returns nothing."""
    store_of(files, folder)


def read_all(files: Sequence[str]) -> None:
    for file in files:
        read_wave(file, RATE, keep_int16=True)


def decode_all(files: Sequence[str]) -> None:
    for file in files:
        soundfile.read(file, dtype="float32")


def write_sound(folder: Path, form: str, subtype: str, n: int) -> list[str]:
    """n mono files of 5 s, each of the same sound: gliding harmonics in noise that falls with frequency, as in usual
    sound; white noise would cost a decoder more than usual sound does."""
    folder.mkdir()
    t = np.arange(int(SECONDS * RATE)) / RATE
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(len(t)))
    noise = np.fft.irfft(spectrum / np.sqrt(1 + np.arange(len(spectrum))))
    glides = [0.2 / k * np.sin(2 * np.pi * k * (220 * t + 20 * t**2)) for k in range(1, 9)]
    wave = np.sum(glides, axis=0) + 5 * noise
    wave = 0.5 * wave / np.abs(wave).max()
    files = [str(folder / f"{i:04d}.{form.lower()}") for i in range(n)]
    soundfile.write(files[0], wave, RATE, format=form, subtype=subtype)
    for file in files[1:]:
        Path(file).hardlink_to(files[0])
    return files
