"""The competition as one table of training clips and one of test clips, checked before any work starts."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from configs.console import say, warn
from configs.errors import UserError, list_some
from configs.text import UTF16, is_utf16
from input.layout import find_layout, is_dropping, is_file
from input.names import likely_files, match_files, nfc, respell

SUBMISSION = ["fname", "label"]  # the columns that models.submission writes
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
    of the first kind found: a submission that is none of ours, absent columns, empty or duplicate or path-like fnames,
    odd labels, fewer than three classes, missing files.
    """
    layout = find_layout(folder, sound)
    test_list = layout.sample_submission or layout.test_table
    assert test_list is not None  # find_layout saw to it
    listed = read_sample(test_list) if layout.sample_submission else read_names(test_list)
    train = _read_train(layout.train_csv, layout.train_details)
    test = listed[["fname"]].copy()
    classes = tuple(sorted(set(train["label"])))
    if len(classes) < 3:
        raise UserError(f"{layout.train_csv}: has {len(classes)} classes, but a submission names three of them a clip")
    train["path"] = _locate(train["fname"], layout.train_audio) if sound else None
    test["path"] = _locate(test["fname"], layout.test_audio) if sound else None
    if sound:
        _check_files([(layout.train_audio, train), (layout.test_audio, test)], skip_missing, layout.unpack_fault)
    if layout.unpack_fault:
        warn(f"left aside: {layout.unpack_fault}")
    if layout.sample_submission and "label" in listed:
        _compare_labels(layout.sample_submission, listed["label"], classes)
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
    test = read_sample(table)[["fname"]].copy()
    test["path"] = _locate(test["fname"], audio)
    _check_files([(audio, test)], skip_missing)
    return test


def read_truth(path: Path, classes: tuple[str, ...], fnames: Sequence[str] = ()) -> pd.DataFrame:
    """Published test labels: fname, label, usage ('Public', 'Private', or 'scored' where the table has no usage).

    fnames: of the test clips; names and labels are spelled as there and in `classes`. Clips that do not count (label
    None or usage Ignored) are left out. Raises UserError on an unreadable table, on labels that no training clip has,
    and where no clip counts.
    """
    table = read_names(path, ("label",))
    table = table.assign(fname=respell(table["fname"], fnames), label=respell(table["label"], classes))
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
        with path.open("rb") as file:
            if is_utf16(file.read(2)):
                raise ValueError(UTF16)
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        remedy = ": save it as UTF-8" if isinstance(error, UnicodeError) else ""
        raise UserError(f"{path}: cannot read the table: {' '.join(str(error).split())}{remedy}") from None
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
    return _check_names(path, read_table(path, ("fname", *needed)))


def read_sample(path: Path) -> pd.DataFrame:
    """A sample submission: fname of the test clips in their order, maybe a label.

    Raises UserError as `read_names`, and where it asks for another submission than we write.
    """
    table = read_table(path, ())
    columns = list(map(str, table.columns))
    if columns not in (SUBMISSION, SUBMISSION[:1]):
        others = [column for column in columns if column != "fname"]
        scores = "fname" in columns and "label" not in columns and len(others) > 1
        wanted = f"a number for each of {len(others)} classes" if scores else "other columns"
        raise UserError(
            f"{path}: the competition wants {wanted} ({list_some(columns, 4)}), but this version can only write "
            f"{','.join(SUBMISSION)} with three labels a clip"
        )
    return _check_names(path, table)


def _check_names(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    names = table["fname"]
    if table.empty:
        raise UserError(f"{path}: has no rows")
    if strange := [n for n in names if n in ("", ".", "..") or "/" in n or "\\" in n]:
        raise UserError(f"{path}: fname must be a bare file name, but these are not: {list_some(map(repr, strange))}")
    if duplicate := sorted(set(names[names.duplicated()])):
        raise UserError(f"{path}: fname stands more than once: {list_some(duplicate)}")
    composed = names.map(nfc)
    if duplicate := sorted(set(composed[composed.duplicated()])):
        raise UserError(f"{path}: fname stands more than once, in two Unicode forms: {list_some(duplicate)}")
    return table


def _read_train(path: Path, details: Path | None) -> pd.DataFrame:
    train = read_names(path, ("label",))
    bare = train["label"].str.strip()
    several = bare.str.contains(r"[\s,;|]", regex=True)
    nothing = bare.isin(["", UNSCORED]) | (bare != train["label"])
    for bad, fact in (
        (several, "several labels in one cell, but this version trains one word a clip"),
        (nothing, "a label must be one word, but these are not"),
    ):
        if bad.any():
            shown = [f"{fname} ({label!r})" for fname, label in train.loc[bad, SUBMISSION].itertuples(index=False)]
            raise UserError(f"{path}: {fact}: {list_some(shown)}")
    train["label"] = _in_one_form(path, train["label"])
    if "manually_verified" not in train:
        say(f"{path.name} has no column manually_verified: every label counts as verified")
        train["manually_verified"] = "1"
    flags = train["manually_verified"]
    if strange := sorted(set(flags) - {"0", "1"}):
        raise UserError(f"{path}: manually_verified must be 0 or 1, found {list_some(map(repr, strange))}")
    train["verified"] = flags == "1"
    train = train.drop(columns="manually_verified")
    train = train if details is None else _add_details(train, details)
    others = [column for column in train if column not in (*SUBMISSION, "verified")]
    return train.assign(**{str(column): train[column].map(nfc) for column in others})  # one group, one spelling


def _in_one_form(path: Path, labels: pd.Series) -> pd.Series:
    """A label that is written in two Unicode forms is one class."""
    composed = {label: nfc(label) for label in set(labels)}
    forms = Counter(composed.values())
    if double := sorted(label for label, n in forms.items() if n > 1):
        warn(f"{path}: labels in two Unicode forms, taken as one class each: {list_some(double)}")
    return labels.map({label: one if forms[one] > 1 else label for label, one in composed.items()})


def _add_details(train: pd.DataFrame, details: Path) -> pd.DataFrame:
    """Columns of the table published later that train.csv lacks, joined by fname."""
    extra = read_names(details)
    extra["fname"] = respell(extra["fname"], train["fname"])
    columns = ["fname", *(c for c in extra if c not in train and c not in ("manually_verified", "path"))]
    merged = train.merge(extra[columns], on="fname", how="left", validate="one_to_one")
    if lacking := sorted(set(train["fname"]) - set(extra["fname"])):
        warn(f"{details.name} does not name {list_some(lacking)}")
    return merged.fillna(dict.fromkeys(columns, ""))


def _locate(names: pd.Series, folder: Path) -> pd.Series:
    """The path of every clip, None where there is no such file; one directory listing instead of a look-up each."""
    found = match_files(set(names), _list_files(folder))
    if others := [f"{file} for {name}" for name, file in sorted(found.items()) if name != file]:
        say(f"{folder}: names that differ in their Unicode form or the case of the extension: {list_some(others, 3)}")
    paths = [str(folder / found[name]) if name in found else None for name in names]
    return pd.Series(paths, index=names.index, dtype=object)  # as text, None would become NaN


def _list_files(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(folder) if is_file(entry) and not is_dropping(entry.name)}
    except OSError as error:
        raise UserError(f"{folder}: cannot list it: {error.strerror}") from None


def _check_files(parts: Sequence[tuple[Path, pd.DataFrame]], skip: bool, unpack_fault: str = "") -> None:
    """Raises UserError where files are missing, unless they may be. A file of a likely name is told in any case: its
    clip is there, and the table does not name it."""
    missing, misnamed = [], []
    for folder, clips in parts:
        lost = clips["fname"][clips["path"].isna()]
        unused = _list_files(folder) - {Path(path).name for path in clips["path"].dropna()} if len(lost) else set()
        likely = likely_files(lost, unused)
        missing += [f"{folder.name}/{fname}" for fname in lost]
        misnamed += [f"{folder.name}/{fname} (there is {list_some(files)})" for fname, files in likely.items()]
    told = f"{parts[0][0].parent}: files are missing: "
    if misnamed:
        told += f"{list_some(misnamed)}; write fname as the file is named, with its extension, or rename the file"
    else:
        told += list_some(missing)
    if unpack_fault:
        told += f"; {unpack_fault}"
    elif not misnamed:
        told += "; complete the download, or go without them with input.skip_unreadable=true"
    if missing and (unpack_fault or not skip):  # the broken zip may hold them
        raise UserError(told)
    if misnamed:
        warn(told)


def _compare_labels(sample: Path, labels: pd.Series, classes: tuple[str, ...]) -> None:
    """The sample submission's labels are placeholders, but a strange one hints at a wrong folder."""
    known = {nfc(c).lower() for c in classes}  # the real one spells Hi-Hat where the classes say Hi-hat
    words = {word for text in set(labels) for word in str(text).split()}
    if strange := sorted(w for w in words if nfc(w).lower() not in known):
        warn(f"{sample}: names labels that no training clip has: {list_some(strange)}")
