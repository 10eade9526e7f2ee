"""Which rows an epoch trains on, and in what batches."""

from collections.abc import Iterator

import numpy as np


class RowBatches:
    """Row numbers in n batches of nearly equal size: a last batch of one would upset batch normalisation.

    A class of its own, because Lightning takes a list for several loaders side by side.
    """

    def __init__(self, rows: np.ndarray, n: int) -> None:
        self.batches = np.array_split(rows, n)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def balanced(rows: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many draws as rows, in random order: every class among `labels` (rows,) equally often, to one draw.

    Within a class every row is drawn equally often, again to one draw; chance decides who gets the odd draws.
    """
    classes = rng.permutation(np.unique(labels))
    draws = len(rows) // len(classes) + (np.arange(len(classes)) < len(rows) % len(classes))
    drawn = [
        np.resize(rng.permutation(rows[labels == c]), n) for c, n in zip(classes, draws, strict=True)
    ]  # goes round
    return rng.permutation(np.concatenate(drawn))
