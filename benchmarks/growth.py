"""Point 8: how time, disk and memory grow with the number of clips. Each size runs in its own process."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Row, in_child


def measure(quick: bool) -> list[Row]:
    smallest = 16 if quick else 256
    sizes = [smallest, 4 * smallest, 16 * smallest]
    with TemporaryDirectory() as name:
        folder = Path(name)
        in_child(make_files, folder)
        extraction = [in_child(extract, folder, n) for n in sizes]
    epochs = [in_child(epoch, n)[0] for n in sizes]
    seconds = [found[0] for found, _ in extraction]
    mebibytes = [found[1] / 2**20 for found, _ in extraction]
    memory = [peak for _, peak in extraction]
    rows = []
    for i, times in ((1, 4), (2, 16)):
        for what, values, unit, most in (
            ("extraction time in one process", seconds, "s", times * 1.25),
            ("size of the store", mebibytes, "MiB", times * 1.01),
            ("peak memory of extraction", memory, "MiB", 1.1),
            ("time of a training epoch, ResNetish10 of width 8", epochs, "s", times * 1.25),
        ):
            ratio = values[i] / values[0]
            cells = (f"{values[i]:.4g} {unit}", f"{values[0]:.4g} {unit}", f"{ratio:.2f}x")
            title = f"{times} x {sizes[0]} clips, {what}; peer: {sizes[0]} clips"
            rows.append(Row(8, title, *cells, f"at most {most:g}x", ratio <= most))
    return rows


def make_files(folder: Path) -> None:
    from benchmarks.synthetic import write_clips

    write_clips(folder / "wav", 32)


def extract(folder: Path, n: int) -> tuple[float, int]:
    """Seconds to extract n clips (the same files repeatedly) in this process, and bytes of their frames."""
    from benchmarks.extraction import store_of

    files = sorted(map(str, (folder / "wav").iterdir()))
    store_of(files[:2], folder, "first")
    start = time.perf_counter()
    store = store_of([files[i % len(files)] for i in range(n)], folder)
    return time.perf_counter() - start, store.frames.nbytes


def epoch(n: int) -> float:
    """Seconds of an epoch of n clips in the whole loop of `train_fold.py`."""
    from benchmarks.loop import CPU, make_tagger, seconds_in_loop

    tagger = make_tagger("resnetish10", width=8)
    return n * seconds_in_loop(tagger, 32, 16, n // 16, CPU, "fp32") / 16
