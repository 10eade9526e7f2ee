"""From the store to the network: crops and windows of many clips at once, gathered on the device that trains."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from features.store import Store


class Batches:
    """The store's frames on a device, or mapped from disk if they do not fit. No call waits for a GPU.

    `crop` and `at` return (batch, 1, n_mels, n_frames) float32 on `device`. Short clips are padded with the log-mel of
    silence, or with padding "repeat" by repeating the clip on both sides; a clip without frames is always silence.
    """

    def __init__(
        self, store: Store, device: torch.device | str = "cpu", padding: Literal["silence", "repeat"] = "silence"
    ) -> None:
        self.store, self.padding = store, padding
        self.device = torch.device(device)
        frames = torch.from_numpy(store.frames)
        self._home = self.device if self._fits(frames) else torch.device("cpu")
        self._frames = frames.to(self._home)

    def crop(self, rows: np.ndarray, n_frames: int, rng: np.random.Generator) -> Tensor:
        """One random crop of every clip in rows; a shorter clip is placed at random within its padding."""
        room = self.store.length[rows] - n_frames  # negative: frames of padding
        draw = rng.integers(0, np.abs(room) + 1)
        return self.at(rows, np.where(room >= 0, draw, -draw), n_frames)

    def at(self, rows: np.ndarray, first: np.ndarray, n_frames: int) -> Tensor:
        """n_frames of each clip from its frame `first` on, which may be negative."""
        end = self.store.length[rows]
        frame = self._to_home(first)[:, None] + torch.arange(n_frames, device=self._home)  # (batch, n_frames)
        # Checked on the host, so that batches without padding skip the rest.
        padded = bool((first < 0).any() or (first + n_frames > end).any())
        if padded and self.padding == "repeat":
            frame %= self._to_home(np.maximum(end, 1))[:, None]
            padded = bool((end == 0).any())
        flat = (self._to_home(self.store.start[rows])[:, None] + frame).clamp_(0, max(len(self._frames) - 1, 0))
        x = torch.empty(len(rows), 1, self._frames.shape[1], n_frames, device=self._home)
        if len(self._frames):  # a store may only have unreadable clips
            clips = self._frames.index_select(0, flat.flatten()).view(len(rows), n_frames, -1)
            x[:, 0].copy_(clips.transpose(1, 2))  # transposes and converts in one pass
        if padded:
            inside = (frame >= 0) & (frame < self._to_home(end)[:, None])
            x.masked_fill_(~inside[:, None, None], self.store.silence)
        return x.to(self.device, non_blocking=True)

    def _fits(self, frames: Tensor) -> bool:
        if self.device.type != "cuda":
            return True
        free, total = torch.cuda.mem_get_info(self.device)
        return free - frames.nbytes > total // 2  # keep half of the card for the network, for any number of stores

    def _to_home(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._home, non_blocking=True)


def draw_length(shortest: int, longest: int, rng: np.random.Generator) -> int:
    """The crop length of a batch in frames, from shortest to longest; no draw if they are equal."""
    return shortest if shortest == longest else int(rng.integers(shortest, longest + 1))


def windows(length: np.ndarray, n_frames: int, overlap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced windows that cover every clip: (clip, first frame) of each, both (n_windows,).

    A clip of up to n_frames + 1 frames has one window (5.000 s are 501 frames, the last centred on the end), centred
    if it is shorter; a longer one has the minimum number, the first at its start, the last at its end. The next window
    overlaps at least the share `overlap` and starts at least one frame later. Without overlap a clip of
    k * n_frames + 1 frames skips one frame; the neighbouring frames overlap its sound.
    """
    step = max(1, int(n_frames * (1 - overlap) + 1e-6))  # maximum distance of windows; 1e-6: 0.9 of 500 is 450
    spare = 0 if overlap else 1  # the frame that may be skipped
    count = 1 + np.where(length > n_frames + 1, -(-(length - spare - n_frames) // step), 0)
    clip = np.repeat(np.arange(len(length)), count)
    nth = np.arange(len(clip)) - np.repeat(np.cumsum(count) - count, count)
    room = (length - n_frames)[clip]
    spread = nth * room / np.maximum(count[clip] - 1, 1)
    first = np.where(room < 0, room // 2, np.where(count[clip] == 1, 0, np.round(spread)))
    return clip, first.astype(np.int64)


class Sources:
    """Several sets of clips with consecutive row numbers. Each part has the Batches of the clips and of their copies
    (at other speeds, for example), row for row.

    All stores have the same settings except the speed. Raises ValueError if a copy has other clips.
    """

    def __init__(self, parts: Sequence[Sequence[Batches]]) -> None:
        for versions in parts:
            if any(copy.store.fnames != versions[0].store.fnames for copy in versions):
                raise ValueError("a copy has other clips than its original")
        self.parts = [tuple(versions) for versions in parts]
        self.first = np.cumsum([0, *(len(versions[0].store.fnames) for versions in self.parts)])

    def crop(self, rows: np.ndarray, n_frames: int, rng: np.random.Generator) -> Tensor:
        """As `Batches.crop`, of the clip or one of its copies with equal chance. No draw with a single store."""
        original = self.parts[0][0]
        if len(self.parts) == len(self.parts[0]) == 1:
            return original.crop(rows, n_frames, rng)
        draw = rng.random(len(rows))
        x = torch.empty(len(rows), 1, original.store.frames.shape[1], n_frames, device=original.device)
        for first, end, versions in zip(self.first, self.first[1:], self.parts, strict=False):
            version = np.where((first <= rows) & (rows < end), (draw * len(versions)).astype(np.int64), -1)
            for i, batches in enumerate(versions):
                if len(mine := np.flatnonzero(version == i)):
                    where = torch.from_numpy(mine).to(x.device, non_blocking=True)
                    x[where] = batches.crop(rows[mine] - first, n_frames, rng)
        return x
