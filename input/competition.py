"""The competition as a table of training clips and a table of test clips, checked before any work starts."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from configs.competition import SubmissionForm, Task
from configs.text import UTF16, is_utf16
from console.errors import UserError, list_some
from console.output import say, warn
from input.layout import find_layout, is_dropping, is_file
from input.names import likely_files, match_files, nfc, respell

SUBMISSION = ["fname", "label"]  # the columns that we write
UNSCORED = "None"  # published label of test clips that are not scored


@dataclass(frozen=True)
class Competition:
    """classes: sorted labels. train: fname, label, verified, path and the optional columns. test: fname, path,
    in the order of the submission. `path` is None for a clip whose file is missing."""

    folder: Path
    classes: tuple[str, ...]
    train: pd.DataFrame
    test: pd.DataFrame
    targets: np.ndarray  # (training clips, classes) float32: 1 label, 0 none; 0 to 1 secondary label; NaN not known
    task: Task = "single_label"
    metric: str = "map@3"
    form: SubmissionForm = field(default_factory=SubmissionForm)


def load_competition(folder: Path, skip_missing: bool = False, sound: bool = True) -> Competition:
    """Read and check the tables and the presence of every file.

    sound=False skips the audio (every path is None): blending only needs the tables. skip_missing keeps clips whose
    file is missing (path None) instead of raising. Raises UserError that lists all cases of the first fault found:
    another submission format, missing columns, empty, duplicate or path-like fnames, bad labels, fewer than three
    classes, missing files.
    """
    layout = find_layout(folder, sound)
    test_list = layout.sample_submission or layout.test_table
    assert test_list is not None  # find_layout checks it
    listed = read_sample(test_list) if layout.sample_submission else read_names(test_list)
    train = _read_train(layout.train_csv, layout.train_details)
    test = listed[["fname"]].copy()
    classes = tuple(sorted(set(train["label"])))
    if len(classes) < 3:
        raise UserError(f"{layout.train_csv}: has {len(classes)} classes, but a submission needs three per clip")
    train["path"] = _locate(train["fname"], layout.train_audio) if sound else None
    test["path"] = _locate(test["fname"], layout.test_audio) if sound else None
    if sound:
        _check_files([(layout.train_audio, train), (layout.test_audio, test)], skip_missing, layout.unpack_fault)
    if layout.unpack_fault:
        warn(f"skipped: {layout.unpack_fault}")
    if layout.sample_submission and "label" in listed:
        _compare_labels(layout.sample_submission, listed["label"], classes)
    return Competition(folder, classes, train, test, one_hot(train["label"], classes))


def one_hot(labels: Iterable[str], classes: tuple[str, ...]) -> np.ndarray:
    """(clips, classes) float32 with a 1 at the label of each clip."""
    index = {name: i for i, name in enumerate(classes)}
    return np.eye(len(classes), dtype=np.float32)[[index[label] for label in labels]]


def locate_test(competition: Competition) -> Competition:
    """The competition, loaded without sound, with the paths of the existing test files; nothing is unpacked."""
    audio = find_layout(competition.folder, sound=False).test_audio
    if not audio.is_dir():
        return competition
    return replace(competition, test=competition.test.assign(path=_locate(competition.test["fname"], audio)))


def read_test_clips(table: Path, audio: Path, skip_missing: bool = False) -> pd.DataFrame:
    """The clips to predict, fname and path, in the order of a sample submission. The Kaggle kernel needs no more.

    With skip_missing the path of a missing file is None. Raises UserError as `load_competition`.
    """
    test = read_sample(table)[["fname"]].copy()
    test["path"] = _locate(test["fname"], audio)
    _check_files([(audio, test)], skip_missing)
    return test


def read_truth(path: Path, classes: tuple[str, ...], fnames: Sequence[str] = ()) -> pd.DataFrame:
    """Published test labels: fname, label, usage ('Public', 'Private', or 'scored' where the table has no usage).

    fnames: of the test clips; names and labels get the Unicode form of fnames and `classes`. Unscored clips (label
    None or usage Ignored) are dropped. Raises UserError on an unreadable table, on labels that no training clip has,
    and if no clip is scored.
    """
    table = read_names(path, ("label",))
    table = table.assign(fname=respell(table["fname"], fnames), label=respell(table["label"], classes))
    if "usage" not in table:
        table["usage"] = "scored"
    table = table[(table["label"] != UNSCORED) & (table["usage"] != "Ignored")]
    if unknown := sorted(set(table["label"]) - set(classes)):
        raise UserError(f"{path}: labels that no training clip has: {list_some(unknown)}")
    if table.empty:
        raise UserError(f"{path}: no clip is scored: every label is {UNSCORED} or every usage Ignored")
    return table[["fname", "label", "usage"]].reset_index(drop=True)


def read_table(path: Path, needed: tuple[str, ...]) -> pd.DataFrame:
    """A CSV with every value as text ('None' stays a word). Raises UserError if a needed column is missing."""
    try:
        with path.open("rb") as file:
            if is_utf16(file.read(2)):
                raise ValueError(UTF16)
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        remedy = ": save it as UTF-8" if isinstance(error, UnicodeError) else ""
        raise UserError(f"{path}: cannot read the table: {' '.join(str(error).split())}{remedy}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas makes an index of fields without a header
        raise UserError(f"{path}: rows have more fields than the header {', '.join(map(str, table.columns))}")
    if double := [column for column in needed if f"{column}.1" in table]:  # pandas' name for the second
        raise UserError(f"{path}: the header has {list_some(double)} twice: keep one column of that name")
    if missing := [column for column in needed if column not in table]:
        raise UserError(f"{path}: missing column {list_some(missing)}; it has {', '.join(map(str, table.columns))}")
    return table


def read_names(path: Path, needed: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table with one row per clip, keyed by a bare file name, every value as text.

    Raises UserError if a needed column is missing, there are no rows, or an fname appears twice or is a path.
    """
    return _check_names(path, read_table(path, ("fname", *needed)))


def read_sample(path: Path) -> pd.DataFrame:
    """A sample submission: fname of the test clips in their order, maybe a label.

    Raises UserError as `read_names`, and if the competition expects another format than we write.
    """
    table = read_table(path, ())
    columns = list(map(str, table.columns))
    if columns not in (SUBMISSION, SUBMISSION[:1]):
        others = [column for column in columns if column != "fname"]
        scores = "fname" in columns and "label" not in columns and len(others) > 1
        expected = f"a number for each of {len(others)} classes" if scores else "other columns"
        raise UserError(
            f"{path}: the competition expects {expected} ({list_some(columns, 4)}), but this version only writes "
            f"{','.join(SUBMISSION)} with three labels per clip"
        )
    return _check_names(path, table)


def _check_names(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    names = table["fname"]
    if table.empty:
        raise UserError(f"{path}: has no rows")
    if strange := [n for n in names if n in ("", ".", "..") or "/" in n or "\\" in n]:
        raise UserError(f"{path}: fname must be a file name without a path: {list_some(map(repr, strange))}")
    if duplicate := sorted(set(names[names.duplicated()])):
        raise UserError(f"{path}: fname appears more than once: {list_some(duplicate)}")
    composed = names.map(nfc)
    if duplicate := sorted(set(composed[composed.duplicated()])):
        raise UserError(f"{path}: fname appears more than once, in two Unicode forms: {list_some(duplicate)}")
    return table


def _read_train(path: Path, details: Path | None) -> pd.DataFrame:
    train = read_names(path, ("label",))
    bare = train["label"].str.strip()
    several = bare.str.contains(r"[\s,;|]", regex=True)
    nothing = bare.isin(["", UNSCORED]) | (bare != train["label"])
    for bad, fact in (
        (several, "several labels in one cell, but this version trains on one label per clip"),
        (nothing, "a label must be one word"),
    ):
        if bad.any():
            clips = [f"{fname} ({label!r})" for fname, label in train.loc[bad, SUBMISSION].itertuples(index=False)]
            raise UserError(f"{path}: {fact}: {list_some(clips)}")
    train["label"] = _in_one_form(path, train["label"])
    if "manually_verified" not in train:
        say(f"{path.name}: no column manually_verified, so all labels count as verified")
        train["manually_verified"] = "1"
    flags = train["manually_verified"]
    if strange := sorted(set(flags) - {"0", "1"}):
        raise UserError(f"{path}: manually_verified must be 0 or 1, found {list_some(map(repr, strange))}")
    train["verified"] = flags == "1"
    train = train.drop(columns="manually_verified")
    train = train if details is None else _add_details(train, details)
    others = [column for column in train if column not in (*SUBMISSION, "verified")]
    return train.assign(**{str(column): train[column].map(nfc) for column in others})  # one spelling for each group


def _in_one_form(path: Path, labels: pd.Series) -> pd.Series:
    """Merge labels that only differ in their Unicode form into one class."""
    composed = {label: nfc(label) for label in set(labels)}
    forms = Counter(composed.values())
    if double := sorted(label for label, n in forms.items() if n > 1):
        warn(f"{path}: labels in two Unicode forms count as one class: {list_some(double)}")
    return labels.map({label: one if forms[one] > 1 else label for label, one in composed.items()})


def _add_details(train: pd.DataFrame, details: Path) -> pd.DataFrame:
    """Add the columns of the table published later, joined by fname."""
    extra = read_names(details)
    extra["fname"] = respell(extra["fname"], train["fname"])
    columns = ["fname", *(c for c in extra if c not in train and c not in ("manually_verified", "path"))]
    merged = train.merge(extra[columns], on="fname", how="left", validate="one_to_one")
    if lacking := sorted(set(train["fname"]) - set(extra["fname"])):
        warn(f"{details.name}: no row for {list_some(lacking)}")
    return merged.fillna(dict.fromkeys(columns, ""))


def _locate(names: pd.Series, folder: Path) -> pd.Series:
    """The path of every clip, None if its file is missing; one directory listing instead of a look-up per clip."""
    found = match_files(set(names), _list_files(folder))
    if others := [f"{file} for {name}" for name, file in sorted(found.items()) if name != file]:
        say(f"{folder}: matched despite another Unicode form or extension case: {list_some(others, 3)}")
    paths = [str(folder / found[name]) if name in found else None for name in names]
    return pd.Series(paths, index=names.index, dtype=object)  # as text, None would become NaN


def _list_files(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(folder) if is_file(entry) and not is_dropping(entry.name)}
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}") from None


def _check_files(parts: Sequence[tuple[Path, pd.DataFrame]], skip: bool, unpack_fault: str = "") -> None:
    """Raises UserError if files are missing, unless skipped. Files of a similar name are always reported, because the
    clip exists under another name."""
    missing, misnamed = [], []
    for folder, clips in parts:
        lost = clips["fname"][clips["path"].isna()]
        unused = _list_files(folder) - {Path(path).name for path in clips["path"].dropna()} if len(lost) else set()
        likely = likely_files(lost, unused)
        missing += [f"{folder.name}/{fname}" for fname in lost]
        misnamed += [f"{folder.name}/{fname} (found {list_some(files)})" for fname, files in likely.items()]
    message = f"{parts[0][0].parent}: missing files: {list_some(misnamed or missing)}"
    if misnamed:
        message += "; use the exact file name as fname, with its extension, or rename the file"
    if unpack_fault:
        message += f"; {unpack_fault}"
    elif not misnamed:
        message += "; complete the download, or skip them with input.skip_unreadable=true"
    if missing and (unpack_fault or not skip):  # the broken zip may contain them
        raise UserError(message)
    if misnamed:
        warn(message)


def _compare_labels(sample: Path, labels: pd.Series, classes: tuple[str, ...]) -> None:
    """Labels in the sample submission are placeholders, but an unknown one suggests a wrong folder."""
    known = {nfc(c).lower() for c in classes}  # the real one spells Hi-Hat where the classes say Hi-hat
    words = {word for text in set(labels) for word in str(text).split()}
    if strange := sorted(w for w in words if nfc(w).lower() not in known):
        warn(f"{sample}: labels that no training clip has: {list_some(strange)}")


def sound_hash(clips: "pd.DataFrame") -> str:
    """Twelve hex digits: a hash of name and size of every file (fname, path). Unlike the key of a store it does not
    change when files are copied, so that runs fit every copy."""
    lines = [f"{fname}\0{size}\n" for fname, size in zip(clips["fname"], sound_sizes(clips), strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def sound_sizes(clips: "pd.DataFrame") -> np.ndarray:
    """(clips,) int64: the bytes of every file (path), -1 where it is missing."""
    paths = clips["path"] if "path" in clips else [None] * len(clips)
    found = [os.stat(path).st_size if isinstance(path, str) else -1 for path in paths]  # noqa: PTH116  20,000 times
    return np.array(found, np.int64)
