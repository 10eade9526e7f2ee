"""The table of training clips -> a fold for each: stratified, grouped, the same on every machine, written once."""

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from configs.files import atomic
from configs.schema import FoldConfig
from console.errors import UserError, list_some
from console.output import say, warn
from input.competition import read_table


def load_folds(cfg: FoldConfig, train: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """fname, label, verified, group, fold for every training clip; assigned and written by the first call.

    The file name is a hash of the settings and of the table, so another competition or seed gets another file. Raises
    UserError if the file has other clips than the table, the group column does not exist, or there are fewer groups
    than folds.
    """
    table = train[["fname", "label", "verified"]].reset_index(drop=True)
    table["group"] = _groups(cfg, train)
    file = folder / f"folds-{_key(cfg, table)}.csv"
    if not file.exists():
        if (n_groups := table["group"].nunique()) < cfg.n_folds:
            raise UserError(
                f"folds.n_folds: {n_groups} groups of clips cannot fill {cfg.n_folds} folds: use fewer folds"
            )
        _write(table.assign(fold=assign_folds(table, cfg.n_folds, cfg.seed)), file)
        say(f"folds: {len(table)} clips in {cfg.n_folds} folds -> {file}")
    table["fold"] = _read_folds(file, table, cfg.n_folds)
    _warn_of_gaps(table, cfg.n_folds)
    return table


def fold_number(text: str) -> int | None:
    """The fold number in a text, None if it is not a whole number in plain digits."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def parse_folds(text: str, n_folds: int, option: str = "--fold") -> list[int]:
    """'3' -> [3], '0..2' -> [0, 1, 2], '0,2,4' -> [0, 2, 4]. Raises UserError on anything else."""
    folds: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        begin, end = fold_number(first), fold_number(last if dots else first)
        if begin is None or end is None:
            raise UserError(f"{option} {text}: write 3, 0..4 or 0,2,4")
        if not begin <= end < n_folds:
            raise UserError(f"{option} {text}: folds go from 0 to {n_folds - 1} (folds.n_folds={n_folds})")
        folds |= set(range(begin, end + 1))
    return sorted(folds)


def fold_hash(folds: pd.DataFrame) -> str:
    """Twelve hex digits: a hash of fname, label, verified and fold, independent of the order of the rows."""
    columns = (folds[name] for name in ("fname", "label", "verified", "fold"))
    lines = sorted(
        f"{fname},{label},{verified:d},{fold}" for fname, label, verified, fold in zip(*columns, strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def assign_folds(table: pd.DataFrame, n_folds: int, seed: int) -> np.ndarray:
    """A fold (clips,) for each row of a table with fname, label, verified and group.

    Groups stay together and are placed largest first: each goes to the fold with the fewest clips in its label x
    verified cells, then with the fewest clips. Single clips come last and balance the rest: without groups every cell
    is within one clip of n / n_folds. Ties are decided by a hash of seed and name, so neither the order of the rows nor
    the machine matters.
    """
    cell_of = pd.factorize(table["label"] + "\0" + table["verified"].astype(str), sort=True)[0]
    members: dict[str, list[int]] = {}
    for row, group in enumerate(table["group"]):
        members.setdefault(group, []).append(row)
    cells = np.zeros((n_folds, cell_of.max() + 1), dtype=np.int64)
    fold = np.empty(len(table), dtype=np.int64)
    names = table["fname"].to_numpy()
    for rows in sorted(members.values(), key=lambda rows: (-len(rows), _tie(seed, min(names[rows])))):
        count = Counter(cell_of[rows].tolist())
        fill = cells[:, list(count)] @ list(count.values())
        total = cells.sum(axis=1)
        best = min(range(n_folds), key=lambda k: (fill[k], total[k], _tie(seed, f"{min(names[rows])}/{k}")))
        fold[rows] = best
        for cell, n in count.items():
            cells[best, cell] += n
    return fold


def _tie(seed: int, text: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=8).digest()


def _write(folds: pd.DataFrame, file: Path) -> None:
    with atomic(file) as part:  # two processes may write the same bytes at once
        folds.to_csv(part, index=False, lineterminator="\n")


def _read_folds(file: Path, table: pd.DataFrame, n_folds: int) -> np.ndarray:
    """The fold column of the file, whose other columns must equal the table."""
    written = read_table(file, (*table.columns, "fold"))
    same = written[list(table.columns)].equals(table.astype(str))
    if not same or not written["fold"].isin([str(k) for k in range(n_folds)]).all():
        raise UserError(f"{file}: has other clips than the competition: delete it, then run the same command")
    return written["fold"].to_numpy(dtype=np.int64)


def _groups(cfg: FoldConfig, train: pd.DataFrame) -> list[str]:
    """The group of every clip; a clip without one is a group of its own."""
    own = [f"clip {fname}" for fname in train["fname"]]
    column = cfg.group_column
    default = FoldConfig.group_column
    if column is None:
        if default in train and (shared := train[default][train[default].ne("")].duplicated(keep=False).sum()):
            warn(
                f"grouping is off, but {shared} clips share a {default} with another clip: clips from one "
                f"recording will be in training and validation, and the out-of-fold score will be too high"
            )
        return own
    if column not in train:
        if column != default:
            there = ", ".join(map(str, train.columns))
            raise UserError(f"folds.group_column: the training table has no column {column!r}: use one of {there}")
        say(f"folds: the competition has no column {column}: clips are not grouped")
        return own
    has_none = train[column].isna() | (train[column] == "")
    return [single if none else str(value) for value, none, single in zip(train[column], has_none, own, strict=True)]


def _key(cfg: FoldConfig, table: pd.DataFrame) -> str:
    digest = hashlib.sha256(json.dumps(asdict(cfg), sort_keys=True).encode())
    digest.update(table.to_csv(index=False).encode())
    return digest.hexdigest()[:12]


def _warn_of_gaps(folds: pd.DataFrame, n_folds: int) -> None:
    """The model of a fold never learns a class whose clips are all in that fold."""
    spread = folds.groupby("label")["fold"].nunique()
    if alone := sorted(spread[spread < 2].index):
        warn(f"classes with all clips in one fold, whose model cannot learn them: {list_some(alone)}")
    short = folds["label"].value_counts()
    if few := sorted(short[short < n_folds].index):
        warn(f"classes with fewer clips than folds: {list_some(few)}")


def group_numbers(train: pd.DataFrame, column: str | None) -> np.ndarray:
    """The group number of each clip, (clips,); a clip without one is a group of its own, as in `load_folds`."""
    if column is None or column not in train:
        return np.arange(len(train))
    named = train[column].where(train[column] != "", "clip " + train["fname"])
    return np.asarray(pd.factorize(named)[0])
