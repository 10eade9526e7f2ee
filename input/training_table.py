"""The training tables as one: names, labels, what is verified, own folds, groups, and the files of the sounds."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from configs.competition import LABEL_SEPARATOR, CompetitionConfig, TableFile
from console.errors import UserError, count, list_some
from console.output import say, warn
from input.labels import Labels, check_single, in_one_form, split_cell
from input.layout import Layout
from input.names import nfc, respell
from input.sound_files import fill_pattern, list_sounds
from input.tables import check_names, chosen_rows, likely_column, no_clips, read_table, time_columns

OURS = ("fname", "label", "verified", "path", "weight", "fold", "file")  # columns of ours
TRUE, FALSE = {"1", "true", "yes", "1.0"}, {"0", "false", "no", "0.0"}


@dataclass(frozen=True)
class TrainingTable:
    """table: fname, verified, file (relative), perhaps weight and fold, then all other columns as text. The labels are
    parallel to its rows."""

    place: Path  # how errors name it
    table: pd.DataFrame
    labels: list[Labels]
    secondary: list[Labels]


def read_training_table(layout: Layout) -> TrainingTable:
    """All training tables, or the folders of classes, with the columns of the details. Raises UserError on bad names,
    columns, labels, folds or weights."""
    cfg, place = layout.config, layout.folder / layout.config.train[0].file if layout.config.train else layout.folder
    if cfg.audio.class_folders:
        table = _class_folder_table(layout.folder, cfg.audio.class_folders)
        return TrainingTable(
            place, table.drop(columns="label"), [(label,) for label in table["label"]], [()] * len(table)
        )
    parts = [_read_part(layout, one) for one in cfg.train]
    table = pd.concat([part.table for part in parts], ignore_index=True) if len(parts) > 1 else parts[0].table
    if len(parts) > 1:
        check_names(layout.folder, table["fname"], with_folder=True)
        table = table.fillna(dict.fromkeys(table.columns.difference(["verified", "weight"]), ""))
    labels = in_one_form(place, [one for part in parts for one in part.labels])
    for details in cfg.details:
        table = _add_details(table, layout.folder / details.file, details, cfg)
    table = _with_folds(place, table, cfg)
    _check_group(layout, table)
    return TrainingTable(place, _one_spelling(table), labels, [one for part in parts for one in part.secondary])


def _read_part(layout: Layout, file: TableFile) -> TrainingTable:
    cfg, columns, path = layout.config, layout.config.columns, layout.folder / file.file
    optional = {columns.verified} if columns.verified == "manually_verified" else set()
    keys = {column: f"columns.{key}" for key, column in vars(columns).items() if column and key != "group"}
    raw = read_table(path, tuple(one for one in keys if one not in optional), file.separator, file.encoding, keys)
    raw = chosen_rows(path, raw, file.where)
    if (parts := time_columns(raw)) and ("columns.name" in layout.guesses or raw[columns.name].duplicated().any()):
        raise no_clips(path, parts)
    check_names(path, raw[columns.name], cfg.audio.names_with_folder)
    labels = _labels_of(path, raw, cfg)
    table = _named_fname(raw, columns.name)
    keep = [name for name in table if name not in (*OURS, columns.label, columns.verified) and name != columns.weight]
    table = table[["fname", *keep]].copy()
    table["verified"] = _verified(path, raw, file, columns.verified)
    if columns.weight or any(one.weight != 1 for one in cfg.train):
        table["weight"] = file.weight * _numbers(path, raw, columns.weight)
    if columns.fold:
        table["fold"] = raw[columns.fold].to_numpy()
    table["file"] = _files(path, raw, file.audio or cfg.audio.train, columns.name)
    secondary: list[Labels] = [()] * len(raw)
    if columns.secondary_labels:
        secondary = [split_cell(cell, cfg.label_separator) for cell in raw[columns.secondary_labels]]
    return TrainingTable(path, table, labels, secondary)


def _named_fname(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """With the column of names as fname, in place of another one of that header."""
    return table if name == "fname" else table.drop(columns="fname", errors="ignore").rename(columns={name: "fname"})


def _labels_of(path: Path, raw: pd.DataFrame, cfg: CompetitionConfig) -> list[Labels]:
    columns = cfg.columns
    if columns.label is None:
        if lacking := sorted(set(cfg.classes) - set(raw.columns)) or not cfg.classes:
            names = list_some(lacking) if isinstance(lacking, list) else "no class is known"
            raise UserError(
                f"{path}: no column of labels, nor one per class: {names}; in competition.yaml: "
                f"columns: {{label: COLUMN}}"
            )
        given = {name: _flags(path, raw[name], name) for name in cfg.classes}
        return [tuple(name for name in cfg.classes if given[name][row]) for row in range(len(raw))]
    cells = raw[columns.label]
    if cfg.task == "single_label":
        check_single(path, raw[columns.name], cells, _joins(cfg))
        return [(cell.strip(),) for cell in cells]
    nothing = {"", *cfg.no_label}
    return [tuple(label for label in split_cell(cell, cfg.label_separator) if label not in nothing) for cell in cells]


def _joins(cfg: CompetitionConfig) -> str:
    """What joins the labels of a clip in a submission; '' for one label."""
    given = cfg.submission
    several = given.kind == "top_labels" and (given.top_labels or 1) > 1
    return (" " if given.separator is None else given.separator) if several else ""


def _verified(path: Path, raw: pd.DataFrame, file: TableFile, column: str | None) -> "pd.Series | bool":
    if file.verified is not None:
        return file.verified
    if column is None:
        return True
    if column not in raw:
        say(f"{path.name}: no column {column}, so all labels count as verified")
        return True
    return pd.Series(_flags(path, raw[column], column), index=raw.index)


def _flags(path: Path, values: pd.Series, column: str) -> list[bool]:
    plain = values.str.strip().str.lower()
    if strange := sorted(set(values[~plain.isin(TRUE | FALSE)])):
        raise UserError(f"{path}: {column} must be 0 or 1, found {list_some(map(repr, strange))}")
    return plain.isin(TRUE).tolist()


def _numbers(path: Path, raw: pd.DataFrame, column: str | None) -> "pd.Series | float":
    if column is None:
        return 1.0
    found = pd.to_numeric(raw[column], errors="coerce")
    if strange := sorted(set(raw[column][~found.between(0, 1)])):
        line = "in competition.yaml: columns: {weight: null}"
        raise UserError(f"{path}: {column} must be a number from 0 to 1, found {list_some(map(repr, strange))}; {line}")
    return found.astype(float)


def _files(path: Path, raw: pd.DataFrame, pattern: str, name: str) -> pd.Series:
    table = raw.assign(**{alias: raw[name] for alias in ("fname", "name") if alias not in raw})
    try:
        return fill_pattern(pattern, table)
    except KeyError as error:
        wrong, columns = str(error.args[0]), ", ".join(map(str, raw.columns))
        likely = likely_column(wrong, raw.columns)
        right = pattern.replace(f"{{{wrong}}}", f"{{{likely or 'COLUMN'}}}")
        raise UserError(
            f"{path}: the pattern {pattern} needs a column {error}; it has {columns}"
            f"{f'; did you mean {likely}?' if likely else ';'} correct it in competition.yaml: audio: "
            f"{{train: '{right}'}}, or the table's own audio: '{right}'"
        ) from None


def _class_folder_table(folder: Path, place: str) -> pd.DataFrame:
    base = folder / place
    rows = [
        (f"{inner.name}/{name}", inner.name, True, f"{place}/{inner.name}/{name}".removeprefix("./"))
        for inner in sorted(base.iterdir())
        if inner.is_dir()
        for name in list_sounds(inner)
    ]
    if not rows:
        raise UserError(f"{base}: has no folders of sounds: in competition.yaml: audio: {{class_folders: FOLDER}}")
    return pd.DataFrame(rows, columns=["fname", "label", "verified", "file"])


def _with_folds(place: Path, table: pd.DataFrame, cfg: CompetitionConfig) -> pd.DataFrame:
    """The table's own folds, numbered from 0 in their order."""
    if cfg.columns.fold is None:
        return table
    text = table["fold"].str.strip()
    if strange := sorted(set(table["fold"][~text.str.fullmatch("[0-9]{1,9}")])):
        line = "in competition.yaml: columns: {fold: null}"
        raise UserError(
            f"{place}: {cfg.columns.fold} must be a whole number, found {list_some(map(repr, strange))}; {line}"
        )
    numbers = text.astype(int)
    order = {number: i for i, number in enumerate(sorted(set(numbers)))}
    if len(order) < 2:
        raise UserError(
            f"{place}: every clip is in one fold; in competition.yaml: columns: {{fold: null}} makes new ones"
        )
    return table.assign(fold=numbers.map(order))


def group_column(cfg: CompetitionConfig) -> str | None:
    """Its name in the training table."""
    return "fname" if cfg.columns.group == cfg.columns.name else cfg.columns.group


def _check_group(layout: Layout, table: pd.DataFrame) -> None:
    """Raises UserError where the group is no column, or the table's own folds share a group."""
    cfg, group = layout.config, group_column(layout.config)
    if group is None:
        return
    if group not in table:
        there = [cfg.columns.name, *(name for name in table.columns if name not in OURS)]
        likely = likely_column(group, there)
        raise UserError(
            f"{layout.folder}: the training tables have no column {group}: they have {', '.join(there)}"
            f"{f'; did you mean {likely}?' if likely else ';'} correct it in competition.yaml: columns: "
            f"{{group: {likely or 'null'}}}"
        )
    if cfg.columns.fold:
        known = table[table[group] != ""]
        shared = known.groupby(group)["fold"].nunique()
        if leaks := sorted(map(str, shared[shared > 1].index)):
            fact = f"{layout.folder}: clips of one {group} are in several folds: {list_some(leaks)}"
            if {"columns.fold", "columns.group"} & set(layout.guesses):
                raise UserError(
                    f"{fact}; in competition.yaml: columns: {{fold: null}} makes folds that keep them together, "
                    f"columns: {{group: null}} ignores it"
                )
            warn(f"{fact}, as the data set has it: the out-of-fold score is a little too high")


def _one_spelling(table: pd.DataFrame) -> pd.DataFrame:
    """One Unicode form for each group."""
    others = [column for column in table if column not in OURS]
    return table.assign(**{str(column): table[column].map(nfc) for column in others})


def _add_details(table: pd.DataFrame, path: Path, details: TableFile, cfg: CompetitionConfig) -> pd.DataFrame:
    """Add the columns of another table, joined by name."""
    keys = {cfg.columns.name: "columns.name"}
    extra = read_table(path, tuple(keys), details.separator, details.encoding, keys)
    extra = chosen_rows(path, extra, details.where)
    check_names(path, extra[cfg.columns.name], cfg.audio.names_with_folder)
    extra = _named_fname(extra, cfg.columns.name)
    extra["fname"] = respell(extra["fname"], table["fname"])
    taken = (*table.columns, *OURS, cfg.columns.verified, cfg.columns.label)
    columns = ["fname", *(column for column in extra if column not in taken)]
    merged = table.merge(extra[columns], on="fname", how="left", validate="one_to_one")
    if lacking := sorted(set(table["fname"]) - set(extra["fname"])):
        warn(f"{path.name}: no row for {list_some(lacking)}")
    return merged.fillna(dict.fromkeys(columns, ""))


def find_classes(found: TrainingTable, cfg: CompetitionConfig, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The sorted classes: those given, else the columns of the sample submission, else the labels of the clips.

    Raises UserError on a label that is no class, a class without a clip, a class with '|', and too few classes.
    """
    labels = {label for some in found.labels for label in some}
    classes = tuple(cfg.classes or columns or labels)
    if double := sorted({name for name in classes if sum(nfc(name) == nfc(other) for other in classes) > 1}):
        raise UserError(f"{found.place}: classes that appear twice: {list_some(double)}")
    classes = tuple(sorted(respell(classes, labels)))
    if unknown := sorted(labels - set(classes)):
        where = "classes: of competition.yaml" if cfg.classes else "the sample submission"
        raise UserError(
            f"{found.place}: labels that are no class in {where}: {list_some(map(repr, unknown))}; "
            f"correct them, or set label_separator, or classes: [...]"
        )
    if empty := sorted(set(classes) - labels):
        raise UserError(
            f"{found.place}: classes without a training clip: {list_some(empty)}; in competition.yaml: "
            f"classes: [...] names those to learn"
        )
    if bad := [name for name in classes if LABEL_SEPARATOR in name]:
        raise UserError(
            f"{found.place}: classes must not contain {LABEL_SEPARATOR!r}: {list_some(bad)}; label_separator: '|'"
        )
    least = 2 if cfg.task == "single_label" else 1
    top = cfg.submission.top_labels or 1 if cfg.submission.kind == "top_labels" else 1
    if len(classes) < max(least, top):
        words = {1: "one", 2: "two", 3: "three"}
        need = f"a submission needs {words.get(top, top)} per clip" if top >= least else "two are needed"
        raise UserError(f"{found.place}: has {count(len(classes), 'class')}, but {need}")
    joins = _joins(cfg)
    if joins and (bad := [name for name in classes if joins in name]):
        raise UserError(
            f"{found.place}: a submission joins {count(top, 'label')} by {joins!r}, which is in "
            f"{list_some(map(repr, bad))}; in competition.yaml: submission: {{separator: ...}}"
        )
    return classes
