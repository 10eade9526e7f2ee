"""The table of training clips -> a fold for each: stratified, grouped, the same on every machine, written once."""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from configs.files import atomic
from configs.schema import FoldConfig
from console.errors import UserError, count, list_some
from console.output import say, warn
from folds.stratify import assign_folds, assign_label_folds
from input.competition import Competition, read_table


def load_folds(cfg: FoldConfig, competition: Competition, folder: Path) -> pd.DataFrame:
    """fname, label, verified, group, fold for every training clip, in their order: the folds of the competition's table
    where it has a column `fold`, else assigned and written by the first call.

    The file name is a hash of the settings and of the table, so another competition or seed gets another file. Raises
    UserError if the file has other clips than the table, the group column does not exist, there are fewer groups than
    folds, or the competition's own folds split a group.
    """
    train = competition.train
    table = train[["fname", "label", "verified"]].reset_index(drop=True)
    table["group"] = _groups(cfg, competition)
    n_folds = n_folds_of(cfg, competition)
    if "fold" in train:
        table["fold"] = train["fold"].to_numpy(dtype=np.int64)
        _check_own_folds(cfg, competition, table)
        say(f"folds: the competition's own {n_folds}; folds.n_folds={cfg.n_folds} is not used")
    else:
        table["fold"] = _assigned(cfg, competition, table, folder)
    _warn_of_gaps(table, competition, n_folds)
    return table


def n_folds_of(cfg: FoldConfig, competition: Competition) -> int:
    """The number of folds: the competition's own where its table has a column `fold`, else that of the settings.

    Raises UserError where its own folds are not numbered from 0 on, or there is only one.
    """
    if "fold" not in competition.train:
        return cfg.n_folds
    found = sorted(set(competition.train["fold"].tolist()))
    if len(found) < 2 or found != list(range(len(found))):
        raise UserError(
            f"{competition.folder}: the training table's folds are {', '.join(map(str, found))}: at least "
            f"two, numbered from 0 without gaps, are expected"
        )
    return len(found)


def grouping_column(cfg: FoldConfig, competition: Competition) -> str | None:
    """The column whose values keep clips in one fold: that of the settings where they name one, else the competition's;
    None: no groups."""
    if cfg.group_column is None or cfg.group_column != FoldConfig.group_column:
        return cfg.group_column
    return competition.group_column or cfg.group_column


def fold_number(text: str) -> int | None:
    """The fold number in a text, None if it is not a whole number in plain digits."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def parse_folds(text: str, n_folds: int | None, option: str = "--fold", own: bool = False) -> list[int]:
    """'3' -> [3], '0..2' -> [0, 1, 2], '0,2,4' -> [0, 2, 4]. Raises UserError on anything else.

    n_folds: None if it is not known yet, to check the text alone; own: whether the competition gives its own folds.
    """
    folds: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        begin, end = fold_number(first), fold_number(last if dots else first)
        if begin is None or end is None or begin > end:
            raise UserError(f"{option} {text}: write 3, 0..4 or 0,2,4")
        if n_folds is None:
            continue
        if end >= n_folds:
            source = "the competition's own" if own else f"folds.n_folds={n_folds}"
            raise UserError(f"{option} {text}: folds go from 0 to {n_folds - 1} ({source})")
        folds |= set(range(begin, end + 1))
    return sorted(folds)


def folds_of(text: str, cfg: FoldConfig, competition: Competition, option: str = "--fold") -> list[int]:
    """`parse_folds` with the number of folds that an experiment has in this competition."""
    return parse_folds(text, n_folds_of(cfg, competition), option, own="fold" in competition.train)


def fold_hash(folds: pd.DataFrame) -> str:
    """Twelve hex digits: a hash of fname, label, verified and fold, independent of the order of the rows."""
    columns = (folds[name] for name in ("fname", "label", "verified", "fold"))
    lines = sorted(
        f"{fname},{label},{verified:d},{fold}" for fname, label, verified, fold in zip(*columns, strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


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


def _assigned(cfg: FoldConfig, competition: Competition, table: pd.DataFrame, folder: Path) -> np.ndarray:
    """(clips,) folds from the file, which is written where it is not there."""
    several = competition.task == "multi_label"
    file = folder / f"folds-{_key(cfg, table, several)}.csv"
    if not file.exists():
        if (n_groups := table["group"].nunique()) < cfg.n_folds:
            raise UserError(
                f"folds.n_folds: {count(n_groups, 'group')} of clips cannot fill {count(cfg.n_folds, 'fold')}: "
                f"use fewer folds"
            )
        fold = (
            assign_label_folds(table, competition.targets == 1, cfg.n_folds, cfg.seed)
            if several
            else assign_folds(table, cfg.n_folds, cfg.seed)
        )
        _write(table.assign(fold=fold), file)
        say(f"folds: {count(len(table), 'clip')} in {count(cfg.n_folds, 'fold')} -> {file}")
    return _read_folds(file, table, cfg.n_folds)


def _check_own_folds(cfg: FoldConfig, competition: Competition, table: pd.DataFrame) -> None:
    """Raises UserError where the competition's own folds split a group of a column that the settings name. Loading the
    competition has warned of its own column already: published folds may split a recording or two."""
    if (column := grouping_column(cfg, competition)) == competition.group_column:
        return
    spread = table.groupby("group")["fold"].nunique()
    if split := sorted(map(str, spread[spread > 1].index)):
        raise UserError(
            f"{competition.folder}: the training table's own folds split {count(len(split), 'group')} by "
            f"{column}, so that validation clips resemble training clips: "
            f"{list_some(split)}: leave out the column of folds, or accept it with folds.group_column=null"
        )


def _groups(cfg: FoldConfig, competition: Competition) -> list[str]:
    """The group of every clip; a clip without one is a group of its own."""
    train, column = competition.train, grouping_column(cfg, competition)
    own = [f"clip {fname}" for fname in train["fname"]]
    default = competition.group_column or FoldConfig.group_column
    if column is None:
        if default in train and (shared := _shared(train, str(default))):
            warn(
                f"grouping is off, but {shared} clips share a {default} with another clip: clips from one "
                f"recording will be in training and validation, and the out-of-fold score will be too high"
            )
        return own
    if column not in train:
        if column != default:
            there = ", ".join(map(str, train.columns))
            raise UserError(f"folds.group_column: the training table has no column {column!r}: use one of {there}")
        say("folds: clips are not grouped: no column is named by columns.group of competition.yaml")
        return own
    has_none = train[column].isna() | (train[column] == "")
    return [single if none else str(value) for value, none, single in zip(train[column], has_none, own, strict=True)]


def _shared(train: pd.DataFrame, column: str) -> int:
    """The number of clips that share a group with a clip which may be in another fold."""
    named = train[train[column].ne("") & train[column].notna()]
    if "fold" not in train:
        return int(named[column].duplicated(keep=False).sum())
    return int((named.groupby(column)["fold"].transform("nunique") > 1).sum())


def _key(cfg: FoldConfig, table: pd.DataFrame, several: bool) -> str:
    digest = hashlib.sha256(json.dumps(asdict(cfg), sort_keys=True).encode())
    digest.update(table.to_csv(index=False).encode())
    if several:
        digest.update(b"multi_label")
    return digest.hexdigest()[:12]


def _warn_of_gaps(folds: pd.DataFrame, competition: Competition, n_folds: int) -> None:
    """The model of a fold never learns a class whose clips are all in that fold."""
    labels = competition.targets == 1
    per_fold = np.stack([labels[folds["fold"].to_numpy() == k].sum(axis=0) for k in range(n_folds)])  # (folds, classes)
    n_clips = per_fold.sum(axis=0)
    classes = np.array(competition.classes, dtype=object)
    if alone := list(classes[(n_clips > 0) & ((per_fold > 0).sum(axis=0) == 1)]):
        warn(f"classes with all clips in one fold, whose model cannot learn them: {list_some(alone)}")
    if few := list(classes[(n_clips > 0) & (n_clips < n_folds)]):
        warn(f"classes with fewer clips than folds: {list_some(few)}")


def group_numbers(train: pd.DataFrame, column: str | None) -> np.ndarray:
    """The group number of each clip, (clips,); a clip without one is a group of its own, as in `load_folds`."""
    if column is None or column not in train:
        return np.arange(len(train))
    named = train[column].where(train[column] != "", "clip " + train["fname"])
    return np.asarray(pd.factorize(named)[0])
