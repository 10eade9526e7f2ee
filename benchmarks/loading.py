"""Point 2: random crops of 5 s from the packed store, against a Dataset of one .npy per clip."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import Row, Work, by_turns, median, quotient
from benchmarks.synthetic import make_store
from features.batches import Batches
from features.store import Store

BATCH = 64
N_FRAMES = 500


class ClipFiles(Dataset[torch.Tensor]):
    """What tutorials do: (1, n_mels, N_FRAMES) cut at random from the file of one clip."""

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.n = folder, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> torch.Tensor:
        log_mel = np.load(self.folder / f"{i}.npy")
        first = np.random.randint(log_mel.shape[1] - N_FRAMES + 1)  # noqa: NPY002  as tutorials do
        return torch.from_numpy(log_mel[None, :, first : first + N_FRAMES])


def measure(quick: bool) -> list[Row]:
    n, rounds = (4 * BATCH, 3) if quick else (16 * BATCH, 7)
    store = make_store(n, 2 * N_FRAMES)
    with TemporaryDirectory() as folder:
        write_files(store, Path(folder))
        files = ClipFiles(Path(folder), n)
        plain = DataLoader(files, BATCH, shuffle=True)
        workers = DataLoader(files, BATCH, shuffle=True, num_workers=2, persistent_workers=True)
        ways: dict[str, Work] = {
            "ours": lambda: crops(store),
            "DataLoader": lambda: sum(len(x) for x in plain),
            "DataLoader, 2 workers": lambda: sum(len(x) for x in workers),
        }
        times = by_turns(ways, rounds)
    rows = []
    for peer in list(ways)[1:]:
        ratio = quotient(times, peer, "ours")
        here, there = (f"{n / median(times, way):,.0f}/s" for way in ("ours", peer))
        what = f"random crops of 64 x 500, batches of {BATCH}; peer: a .npy per clip, {peer}"
        rows.append(Row(2, what, here, there, f"{ratio:.1f}x", "at least 5x", ratio >= 5))
    return rows


def write_files(store: Store, folder: Path) -> None:
    for i, (first, length) in enumerate(zip(store.start, store.length, strict=True)):
        np.save(folder / f"{i}.npy", store.frames[first : first + length].T.astype(np.float32))


def crops(store: Store) -> None:
    """An epoch of crops in random order, as LitTagger takes them."""
    rng = np.random.default_rng(0)
    batches = Batches(store)
    for rows in np.array_split(rng.permutation(len(store.fnames)), len(store.fnames) // BATCH):
        batches.crop(rows, N_FRAMES, rng)
