"""The competition as one table of training clips and one of test clips, checked before any work starts."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from configs.console import say, warn
from configs.errors import UserError, list_some
from input.layout import find_layout

UNSCORED = "None"  # the label of a test clip that does not count, as published


@dataclass(frozen=True)
class Competition:
    """classes: sorted labels. train: fname, label, verified, path and the optional columns. test: fname, path,
    in the order of the submission. `path` is None for a clip whose file is missing."""

    folder: Path
    classes: tuple[str, ...]
    train: pd.DataFrame
    test: pd.DataFrame


def load_competition(folder: Path, skip_missing: bool = False, sound: bool = True) -> Competition:
    """Read and check the tables and the presence of every file.

    sound=False does without the audio (every path is None): blending needs the tables only. skip_missing
    keeps clips whose file is missing (path None) instead of stopping. Raises UserError with every offender
    of the first kind found: absent columns, empty or duplicate or path-like fnames, odd labels, fewer than three
    classes, missing files.
    """
    layout = find_layout(folder, sound)
    train = _read_train(layout.train_csv, layout.train_details)
    test_list = layout.sample_submission or layout.test_table
    assert test_list is not None  # find_layout saw to it
    test = read_names(test_list)[["fname"]].copy()
    classes = tuple(sorted(set(train["label"])))
    if len(classes) < 3:
        raise UserError(f"{layout.train_csv}: has {len(classes)} classes, but a submission names three of them a clip")
    train["path"] = _locate(train["fname"], layout.train_audio) if sound else None
    test["path"] = _locate(test["fname"], layout.test_audio) if sound else None
    if sound and not skip_missing:
        _refuse_missing((layout.train_audio, train), (layout.test_audio, test))
    if layout.sample_submission:
        _compare_labels(layout.sample_submission, classes)
    return Competition(folder, classes, train, test)


def locate_test(competition: Competition) -> Competition:
    """One that was loaded without sound, with the paths of the test clips that are there; nothing is unpacked."""
    audio = find_layout(competition.folder, sound=False).test_audio
    if not audio.is_dir():
        return competition
    return replace(competition, test=competition.test.assign(path=_locate(competition.test["fname"], audio)))


def read_test_clips(table: Path, audio: Path, skip_missing: bool = False) -> pd.DataFrame:
    """The clips to predict, fname and path, in the order of a sample submission: what a kernel needs of a competition.

    The path of a missing file is None with skip_missing. Raises UserError as `load_competition`.
    """
    test = read_names(table)[["fname"]].copy()
    test["path"] = _locate(test["fname"], audio)
    if not skip_missing:
        _refuse_missing((audio, test))
    return test


def read_truth(path: Path, classes: tuple[str, ...]) -> pd.DataFrame:
    """Published test labels: fname, label, usage ('Public', 'Private', or 'scored' where the table has no usage).

    Clips that do not count (label None or usage Ignored) are left out. Raises UserError on an unreadable table, on
    labels that no training clip has, and where no clip counts.
    """
    table = read_names(path, ("label",))
    if "usage" not in table:
        table["usage"] = "scored"
    table = table[(table["label"] != UNSCORED) & (table["usage"] != "Ignored")]
    if unknown := sorted(set(table["label"]) - set(classes)):
        raise UserError(f"{path}: labels that no training clip has: {list_some(unknown)}")
    if table.empty:
        raise UserError(f"{path}: no clip of it counts: every label is {UNSCORED} or its usage Ignored")
    return table[["fname", "label", "usage"]].reset_index(drop=True)


def read_table(path: Path, needed: tuple[str, ...]) -> pd.DataFrame:
    """A CSV with every value as text ('None' stays a word). Raises UserError where a needed column is absent."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{path}: cannot read the table: {' '.join(str(error).split())}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas makes row names of what the header does not name
        raise UserError(f"{path}: its rows have more fields than its header {', '.join(map(str, table.columns))}")
    if twice := [column for column in needed if f"{column}.1" in table]:  # as pandas calls the second
        raise UserError(f"{path}: its header has {list_some(twice)} twice: leave one column of that name")
    if lacking := [column for column in needed if column not in table]:
        raise UserError(f"{path}: lacks the column {list_some(lacking)}; it has {', '.join(map(str, table.columns))}")
    return table


def read_names(path: Path, needed: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table with one row per clip, keyed by a bare file name, every value as text.

    Raises UserError where a needed column or any row is absent, and on an fname that stands twice or is a path.
    """
    table = read_table(path, ("fname", *needed))
    names = table["fname"]
    if table.empty:
        raise UserError(f"{path}: has no rows")
    if strange := [n for n in names if n in ("", ".", "..") or "/" in n or "\\" in n]:
        raise UserError(f"{path}: fname must be a bare file name, but these are not: {list_some(map(repr, strange))}")
    if duplicate := sorted(set(names[names.duplicated()])):
        raise UserError(f"{path}: fname stands more than once: {list_some(duplicate)}")
    return table


def _read_train(path: Path, details: Path | None) -> pd.DataFrame:
    train = read_names(path, ("label",))
    bad = train["label"].isin(["", UNSCORED]) | train["label"].str.contains(r"\s", regex=True)
    if bad.any():
        rows = train[bad]
        shown = [f"{fname} ({label!r})" for fname, label in zip(rows["fname"], rows["label"], strict=True)]
        raise UserError(f"{path}: a label must be one word, but these are not: {list_some(shown)}")
    if "manually_verified" not in train:
        say(f"{path.name} has no column manually_verified: every label counts as verified")
        train["manually_verified"] = "1"
    flags = train["manually_verified"]
    if strange := sorted(set(flags) - {"0", "1"}):
        raise UserError(f"{path}: manually_verified must be 0 or 1, found {list_some(map(repr, strange))}")
    train["verified"] = flags == "1"
    train = train.drop(columns="manually_verified")
    return train if details is None else _add_details(train, details)


def _add_details(train: pd.DataFrame, details: Path) -> pd.DataFrame:
    """Columns of the table published later that train.csv lacks, joined by fname."""
    extra = read_names(details)
    columns = ["fname", *(c for c in extra if c not in train and c not in ("manually_verified", "path"))]
    merged = train.merge(extra[columns], on="fname", how="left", validate="one_to_one")
    if lacking := sorted(set(train["fname"]) - set(extra["fname"])):
        warn(f"{details.name} does not name {list_some(lacking)}")
    return merged.fillna(dict.fromkeys(columns, ""))


def _locate(names: pd.Series, folder: Path) -> pd.Series:
    """The path of every clip, None where there is no such file; one directory listing instead of a look-up each."""
    try:
        there = {entry.name for entry in os.scandir(folder) if entry.is_file()}
    except OSError as error:
        raise UserError(f"{folder}: cannot list it: {error.strerror}") from None
    paths = [str(folder / name) if name in there else None for name in names]
    return pd.Series(paths, index=names.index, dtype=object)  # as text, None would become NaN


def _refuse_missing(*parts: tuple[Path, pd.DataFrame]) -> None:
    missing = [f"{folder.name}/{fname}" for folder, clips in parts for fname in clips["fname"][clips["path"].isna()]]
    if missing:
        remedy = "complete the download, or go without them with input.skip_unreadable=true"
        raise UserError(f"{parts[0][0].parent}: files are missing: {list_some(missing)}; {remedy}")


def _compare_labels(sample: Path, classes: tuple[str, ...]) -> None:
    """The sample submission's labels are placeholders, but a strange one hints at a wrong folder."""
    table = read_table(sample, ("fname",))
    if "label" not in table:
        return
    known = {c.lower() for c in classes}  # the real one spells Hi-Hat where the classes say Hi-hat
    words = {word for text in set(table["label"]) for word in str(text).split()}
    if strange := sorted(w for w in words if w.lower() not in known):
        warn(f"{sample}: names labels that no training clip has: {list_some(strange)}")
