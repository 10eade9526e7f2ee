"""Training crops from several stores as if they were one: copies of the same clips, and clips from elsewhere."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from features.batches import Batches


class Sources:
    """Row numbers run on from one part to the next. Each part is the Batches of one set of clips: the clips themselves
    first, then copies of them (played at other speeds, say), row for row.

    All stores have the same settings but for their speed. Raises ValueError where a copy holds other clips.
    """

    def __init__(self, parts: Sequence[Sequence[Batches]]) -> None:
        for versions in parts:
            if any(copy.store.fnames != versions[0].store.fnames for copy in versions):
                raise ValueError("a copy does not hold the clips that it is a copy of")
        self.parts = [tuple(versions) for versions in parts]
        self.first = np.cumsum([0, *(len(versions[0].store.fnames) for versions in self.parts)])

    def crop(self, rows: np.ndarray, n_frames: int, rng: np.random.Generator) -> Tensor:
        """As `Batches.crop`, of the clip or of one of its copies, each as likely. One store alone costs no draw."""
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
