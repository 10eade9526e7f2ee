"""The competition as a table of training clips and a table of test clips, checked before any work starts."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from configs.competition import ColumnNames, CompetitionConfig, SubmissionForm, Task
from console.errors import UserError, count, list_some
from console.output import say, warn
from input.guesses import LABELS
from input.labels import (
    NOTHING,
    find_label_separator,
    join_text,
    label_matrix,
    one_hot,
    spell,
    split_cell,
    split_text,
    targets_of,
)
from input.layout import Layout, describe_command, find_layout
from input.names import nfc, respell
from input.sample import NAMES, Sample, check_sample, form_without_sample, read_sample
from input.sound_files import check_files, fill_pattern, list_sounds, locate
from input.tables import check_names, chosen_rows, no_column, read_names, read_table
from input.training_table import find_classes, group_column, read_training_table

__all__ = ["Competition", "label_matrix", "load_competition", "one_hot", "read_names", "read_sample", "read_table"]


@dataclass(frozen=True)
class Competition:
    """classes: sorted labels. train: fname, label, verified, path and the optional columns weight (0 to 1), fold (from
    0) and any group columns; label is text, of several labels joined by '|'. test: fname, path, in the order of the
    submission, empty without a test set. `path` is None for a clip whose file is missing."""

    folder: Path
    classes: tuple[str, ...]
    train: pd.DataFrame
    test: pd.DataFrame
    targets: np.ndarray  # (training clips, classes) float32: 1 label, 0 none; 0 to 1 secondary label; NaN not known
    task: Task = "single_label"
    metric: str = "map@3"
    form: SubmissionForm = field(default_factory=SubmissionForm)
    group_column: str | None = None  # of train: its clips stay in one fold; None: as folds.group_column says
    test_pattern: str = "audio_test/{fname}"  # where the sound of a test clip lies, within the folder
    tables: tuple[Path, ...] = ()  # the files that all this was read from
    described_by: str | None = None  # as `Paths.described_by`


def load_competition(
    folder: Path, skip_missing: bool = False, sound: bool = True, described_by: str | None = None
) -> Competition:
    """Read and check the tables and the presence of every file; say in one line what was understood.

    described_by: a ready description or a file, as --as names it. sound=False skips the audio (every path is None):
    blending only needs the tables. skip_missing keeps clips whose file is missing (path None) instead of raising.
    Raises UserError that lists all cases of the first fault found: a bad description, missing columns, empty, duplicate
    or path-like names, bad labels, too few classes, classes and submission that differ, missing files.
    """
    layout = find_layout(folder, sound, described_by)
    cfg = layout.config
    found, sample = read_training_table(layout), _read_test(layout)
    columns = sample.form.columns if sample else ()
    classes = find_classes(found, cfg, columns)
    form = _form(layout, sample, classes)
    labels, secondary = spell(found.labels, classes), spell(found.secondary, classes)
    _say_unknown(found.place, secondary, classes)
    train = _in_order(found.table.assign(label=[join_text(some) for some in labels]))
    test = _test_table(layout, sample)
    pattern = cfg.audio.test.replace(f"{{{cfg.columns.name}}}", "{name}").replace("{fname}", "{name}")
    files = _fill(layout, pattern, test)
    train["path"] = locate(found.table["file"], folder) if sound else None
    test["path"] = locate(files, folder) if sound else None
    if sound:
        check_files(
            folder, [(found.table["file"], train["path"]), (files, test["path"])], skip_missing, layout.unpack_fault
        )
    if layout.unpack_fault:
        warn(f"skipped: {layout.unpack_fault}")
    assert cfg.task is not None and cfg.metric is not None  # `complete` fills them
    competition = Competition(
        folder,
        classes,
        train,
        test,
        targets_of(labels, classes, secondary, cfg.secondary_weight),
        cfg.task,
        cfg.metric,
        form,
        group_column(cfg),
        pattern,
        layout.tables,
        described_by,
    )
    say(summary(layout, competition, described_by))
    return competition


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """fname, label first; without the column of files."""
    others = [name for name in table if name not in ("fname", "label", "file", "verified")]
    return table[["fname", "label", "verified", *others]].copy()


def _read_test(layout: Layout) -> Sample | None:
    cfg = layout.config
    if (table := cfg.sample_submission) is None:
        return None
    path, with_folder = layout.folder / table.file, cfg.audio.names_with_folder
    return read_sample(path, cfg.submission, table.separator, table.encoding, with_folder)


def _form(layout: Layout, sample: Sample | None, classes: tuple[str, ...]) -> SubmissionForm:
    table = layout.config.sample_submission
    if sample is None or table is None:
        return form_without_sample(layout.config)
    return check_sample(layout.folder / table.file, sample, classes)


def _test_table(layout: Layout, sample: Sample | None) -> pd.DataFrame:
    """fname of the test clips: of the sample submission, of the test table, or all sounds of the test folder."""
    cfg, folder = layout.config, layout.folder
    if sample is not None:
        return pd.DataFrame({"fname": sample.fnames})
    if cfg.test is not None:
        keys = {cfg.columns.name: "columns.name"}
        table = read_table(folder / cfg.test.file, tuple(keys), cfg.test.separator, cfg.test.encoding, keys)
        table = chosen_rows(folder / cfg.test.file, table, cfg.test.where)
        check_names(folder / cfg.test.file, table[cfg.columns.name], cfg.audio.names_with_folder)
        return pd.DataFrame({"fname": table[cfg.columns.name]})
    audio = layout.test_audio
    return pd.DataFrame({"fname": list_sounds(audio) if audio and audio.is_dir() else []}, dtype=object)


def _fill(layout: Layout, pattern: str, test: pd.DataFrame) -> pd.Series:
    try:
        return fill_pattern(pattern, test.assign(name=test["fname"]))
    except KeyError as error:
        raise UserError(
            f"{layout.folder}: the pattern of the test sounds, {pattern}, needs {error}, but only the name is known; "
            f"correct it in competition.yaml: audio: {{test: 'folder/{{name}}'}}"
        ) from None


def _say_unknown(place: Path, secondary: Sequence[tuple[str, ...]], classes: tuple[str, ...]) -> None:
    known = set(classes)
    if unknown := {name for some in secondary for name in some} - known:
        say(f"{place}: secondary labels that are no class, left out: {list_some(sorted(unknown), 3)}")


def summary(layout: Layout, of: Competition, described_by: str | None = None) -> str:
    """One line: which competition this is, and what of it is a guess that matters."""
    facts = [
        of.task,
        of.metric,
        count(len(of.train), "training clip"),
        count(len(of.test), "test clip"),
        count(len(of.classes), "class"),
    ]
    facts += [f"{count(of.train['fold'].nunique(), 'fold')} of its own"] if "fold" in of.train else []
    facts += [f"grouped by {of.group_column}"] if of.group_column else []
    facts += [] if len(of.test) else ["no test set: the result is the cross-validated score"]
    matter = ("task", "metric", "label_separator", "columns.group", "columns.fold")
    guessed = [key for key in matter if key in layout.guesses and _has_value(layout, key)]
    how = describe_command(of.folder, described_by)
    note = f"; guessed: {', '.join(guessed)} ({how})" if guessed else ""
    return f"{of.folder}: {layout.source}: {', '.join(facts)}{note}"


def _has_value(layout: Layout, key: str) -> bool:
    section, _, name = key.rpartition(".")
    return getattr(getattr(layout.config, section) if section else layout.config, name) is not None


def locate_test(competition: Competition) -> Competition:
    """The competition, loaded without sound, with the paths of the existing test files; nothing is unpacked."""
    test = competition.test
    files = fill_pattern(competition.test_pattern, test.assign(name=test["fname"]))
    return replace(competition, test=test.assign(path=locate(files, competition.folder)))


def list_test(folder: Path, cfg: CompetitionConfig) -> pd.DataFrame:
    """fname of the test clips, in the order of the submission. Raises UserError as `load_competition`."""
    layout = Layout(folder, cfg, "", {})
    return _test_table(layout, _read_test(layout))


def read_test_clips(
    fnames: pd.Series, audio: Path, skip_missing: bool = False, pattern: str = "{name}"
) -> pd.DataFrame:
    """The clips to predict, fname and path. The Kaggle kernel needs no more.

    pattern: of a file within `audio`, from the name in the table. With skip_missing the path of a missing file is None.
    Raises UserError as `load_competition`.
    """
    test = pd.DataFrame({"fname": fnames})
    files = fill_pattern(pattern, test.assign(name=test["fname"]))
    in_parent = files.map(lambda file: f"{audio.name}/{file}")  # as errors name it
    test["path"] = locate(in_parent, audio.parent)
    check_files(audio.parent, [(in_parent, test["path"])], skip_missing)
    return test


def read_truth(
    path: Path, classes: tuple[str, ...], fnames: Sequence[str] = (), columns: ColumnNames | None = None
) -> pd.DataFrame:
    """Published test labels: fname, label (of several, joined by '|' as in `Competition.train`), usage ('Public',
    'Private', or 'scored' where the table has no usage). `label_matrix` makes a matrix of the labels.

    fnames: of the test clips; names and labels get the Unicode form of fnames and `classes`. columns: headers of name
    and label where they are not fname and label or labels. Unscored clips (label None or usage Ignored) are dropped.
    Raises UserError on an unreadable table, on labels that no training clip has, and if no clip is scored.
    """
    table = read_table(path, (), None)
    name, label = truth_columns(path, table, columns)
    check_names(path, table[name], with_folder=True)
    cells = table[label]
    usage = table["usage"] if "usage" in table else pd.Series("scored", index=table.index)
    scored = (cells != NOTHING) & (usage != "Ignored")
    separator = find_label_separator(cells[scored], classes)
    whole = {nfc(one) for one in classes}
    labels = [(cell,) if nfc(cell) in whole else split_cell(cell, separator) for cell in cells]
    labels = spell(labels, classes)
    table = pd.DataFrame({"fname": respell(table[name], fnames), "label": list(map(join_text, labels)), "usage": usage})
    table = table[scored]
    if unknown := sorted({one for text in table["label"] for one in split_text(text)} - set(classes)):
        raise UserError(f"{path}: labels that no training clip has: {list_some(unknown)}")
    if table.empty:
        raise UserError(f"{path}: no clip is scored: every label is {NOTHING} or every usage Ignored")
    return table.reset_index(drop=True)


def truth_columns(path: Path, table: pd.DataFrame, columns: ColumnNames | None) -> tuple[str, str]:
    """Headers of the names and labels. Raises UserError where there are none."""
    names = [columns.name] if columns else list(NAMES)
    labels = [columns.label] if columns and columns.label else list(LABELS)
    name = next((one for one in names if one in table), None)
    label = next((one for one in labels if one in table), None)
    for found, wanted in ((name, names[0]), (label, labels[0])):
        if found is None:
            raise no_column(path, [wanted], table.columns)
    assert name is not None and label is not None
    return name, label


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
