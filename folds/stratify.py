"""Which fold each clip goes to: stratified, groups kept whole, the same on every machine."""

import hashlib
from collections import Counter

import numpy as np
import pandas as pd

PASSES = 20  # over all groups, to make the folds more even
SIZE = 16  # what the number of clips counts beside a label


def assign_folds(table: pd.DataFrame, n_folds: int, seed: int) -> np.ndarray:
    """A fold (clips,) for each row of a table with fname, label, verified and group, one label per clip.

    Groups stay together and are placed largest first: each goes to the fold with the fewest clips in its label x
    verified cells, then with the fewest clips. Single clips come last and balance the rest: without groups every cell
    is within one clip of n / n_folds. Ties are decided by a hash of seed and name, so neither the order of the rows nor
    the machine matters.
    """
    cell_of = pd.factorize(table["label"] + "\0" + table["verified"].astype(str), sort=True)[0]
    cells = np.zeros((n_folds, cell_of.max() + 1), dtype=np.int64)
    fold = np.empty(len(table), dtype=np.int64)
    names = table["fname"].to_numpy()
    members = _members(table["group"])
    for rows in sorted(members, key=lambda rows: (-len(rows), _tie(seed, min(names[rows])))):
        count = Counter(cell_of[rows].tolist())
        fill = cells[:, list(count)] @ list(count.values())
        total = cells.sum(axis=1)
        best = min(range(n_folds), key=lambda k: (fill[k], total[k], _tie(seed, f"{min(names[rows])}/{k}")))
        fold[rows] = best
        for cell, n in count.items():
            cells[best, cell] += n
    return fold


def assign_label_folds(table: pd.DataFrame, labels: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """A fold (clips,) for each row of a table with fname, verified and group, any number of labels per clip.

    labels (clips, classes) bool. Iterative stratification of label x verified cells: the groups of the rarest cell that
    is left come first, the one with most of its clips before the others. Each goes to the fold that lacks most clips of
    this cell, then of all cells of the group, then clips. Groups without labels fill the folds at the end. Last, where
    groups have several clips, they move as long as that makes the folds more even. Ties as in `assign_folds`. Source:
    K. Sechidis, G. Tsoumakas and I. Vlahavas, "On the stratification of multi-label data", 2011, here with groups in
    place of single clips.
    """
    members = _members(table["group"])
    verified = table["verified"].to_numpy(dtype=bool)[:, None]
    cells = np.concatenate([labels & verified, labels & ~verified], axis=1)
    cells = np.column_stack([cells[:, cells.any(axis=0)], np.ones(len(table), bool)])  # the last: clips
    count = np.stack([cells[rows].sum(axis=0) for rows in members])  # (groups, cells)
    names = [min(table["fname"].to_numpy()[rows]) for rows in members]
    ties = [_tie(seed, name) for name in names]
    lacks = np.tile(count.sum(axis=0), (n_folds, 1))  # n_folds times the clips that each fold lacks of its share
    left, fold_of = count.sum(axis=0), np.full(len(members), -1)
    while (fold_of < 0).any():
        rarest = min(np.flatnonzero(left), key=lambda cell: (cell == len(left) - 1, left[cell]))
        todo = np.flatnonzero((fold_of < 0) & (count[:, rarest] > 0))
        for i in sorted(todo, key=lambda i: (-count[i, rarest], -count[i, -1], ties[i])):
            all_cells, own = lacks @ count[i], lacks[:, rarest]
            best = max(
                range(n_folds), key=lambda k: (own[k], all_cells[k], lacks[k, -1], _tie(seed, f"{names[i]}/{k}"))
            )
            fold_of[i] = best
            lacks[best] -= n_folds * count[i]
            left -= count[i]
    if len(members) < len(table):
        improve(fold_of, count, lacks, sorted(range(len(members)), key=lambda i: (-count[i, -1], ties[i])))
    fold = np.empty(len(table), dtype=np.int64)
    for rows, k in zip(members, fold_of, strict=True):
        fold[rows] = k
    return fold


def improve(fold_of: np.ndarray, count: np.ndarray, lacks: np.ndarray, order: list[int]) -> None:
    """Move groups, and update `fold_of` and `lacks`, as long as that makes the cells more even.

    count (groups, cells), the last cell all clips; lacks (folds, cells). Uneven is the sum of the squares of what each
    fold lacks of a cell, divided by the clips of the cell; in whole numbers, so that every machine finds the same.
    """
    n_folds, n_clips = len(lacks), count.sum(axis=0)
    weight = (1 << 20) // n_clips
    for _ in range(PASSES):
        moved = False
        for i in order:
            here, step = fold_of[i], n_folds * count[i]
            # to k: (lacks_k - step)^2 - lacks_k^2 + (lacks_here + step)^2 - lacks_here^2, times the weights
            change = 2 * ((lacks[here] - lacks + step) @ (step * weight))
            change[here] = 0
            if change.min() < 0:
                fold_of[i] = best = int(change.argmin())
                lacks[here] += step
                lacks[best] -= step
                moved = True
        if not moved:
            return


def _members(group: pd.Series) -> list[list[int]]:
    """The row numbers of each group."""
    members: dict[str, list[int]] = {}
    for row, name in enumerate(group):
        members.setdefault(name, []).append(row)
    return list(members.values())


def _tie(seed: int, text: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=8).digest()
