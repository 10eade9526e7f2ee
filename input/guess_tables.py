"""Which tables a folder has, and which of their columns are what."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from configs.competition import ColumnNames
from console.errors import UserError
from input.guesses import (
    FOLDS,
    GROUPS,
    LABELS,
    SECONDARY,
    TEST_FOLDERS,
    TRAIN,
    TRAIN_FOLDERS,
    VERIFIED,
    WEIGHTS,
    Guesses,
    pick,
)
from input.names import is_sound
from input.sample import NAMES
from input.sound_files import list_files
from input.tables import no_clips, no_column, time_columns
from input.zips import is_dropping, is_file


def tables_of(folder: Path) -> list[str]:
    """The CSV files of the folder and of the folders in it, relative, sorted, those of the folder itself first."""
    found = [file for pattern in ("*.csv", "*.tsv", "*/*.csv") for file in folder.glob(pattern)]
    found = [file for file in found if is_file(file) and not is_dropping(file.name)]
    return sorted((str(file.relative_to(folder)) for file in found), key=lambda name: (name.count("/"), name))


def guess_sample(it: Guesses, there: Sequence[str]) -> None:
    found = [name for name in there if "sample" in name.lower() and "sub" in name.lower()] or [
        name for name in there if Path(name).stem.lower() == "submission"
    ]
    if found:
        it.top("sample_submission", {"file": found[0]}, "by its name")


def _taken(it: Guesses) -> set[str]:
    """Files that another key names already."""
    some = [it.table("sample_submission"), it.table("test")]
    return {table.file for table in some if table is not None}


def guess_train(it: Guesses, there: Sequence[str]) -> pd.DataFrame | None:
    """The first training table, read; None for folders of classes."""
    if "train" in it.values or it.value("audio", "class_folders"):
        given = it.table("train")
        return it.read(given) if given else None
    free = [name for name in there if name not in _taken(it)]
    likely = [name for wanted in TRAIN for name in free if Path(name).name.lower() == wanted]
    likely += [name for name in free if "train" in Path(name).stem.lower()]
    likely += [name for name in free if "test" not in Path(name).stem.lower()]
    unreadable: list[UserError] = []
    for name in dict.fromkeys(likely):
        try:
            table = it.read({"file": name})
        except UserError as error:  # perhaps another file
            if Path(name).name.lower() in TRAIN:
                raise
            unreadable.append(error)
            continue
        if time_columns(table) and not it.given("columns", "name"):
            continue
        named = it.value("columns", "name") in table or _name_column(table) or _stem_column(it.folder, table)
        if named and (it.value("columns", "label") in table or pick(table, LABELS) or _class_columns(it, table)):
            it.top("train", [{"file": name}], "it has names and labels")
            _guess_noisy(it, name, free)
            return table
    place = _class_folders(it.folder)
    check_no_parts(it, free, place)
    if place is not None:
        it.put("audio", "class_folders", place, "a folder of sounds per class")
        it.top("train", [], "the folders are the labels")
        return None
    if unreadable:
        raise unreadable[0]
    raise UserError(
        f"{it.folder}: no table of training clips with their labels, and no folder per class: name it in "
        f"competition.yaml: train: FILE, columns: {{name: COLUMN, label: COLUMN}}"
    )


def check_no_parts(it: Guesses, there: Sequence[str], class_folders: str | None = None) -> None:
    """Raises UserError where one of these tables lists parts of recordings. class_folders: what would do instead."""
    for name in there:
        try:
            parts = time_columns(it.read({"file": name}))
        except UserError:
            continue
        if parts and not it.given("columns", "name"):
            instead = f"; or leave it out: audio: {{class_folders: {class_folders}}}" if class_folders else ""
            raise UserError(f"{no_clips(it.folder / name, parts)}{instead}")


def _guess_noisy(it: Guesses, name: str, free: Sequence[str]) -> None:
    noisy = name.replace("curated", "noisy")
    if noisy != name and noisy in free:
        it.found["train"] = [{"file": name, "verified": True}, {"file": noisy, "verified": False}]


def _class_folders(folder: Path) -> str | None:
    for place in TRAIN_FOLDERS:
        inner = folder / place if place else folder
        if inner.is_dir():
            classes = [one for one in sorted(inner.iterdir()) if one.is_dir() and any(map(is_sound, list_files(one)))]
            if len(classes) > 1 and not {one.name for one in classes} & {*TRAIN_FOLDERS, *TEST_FOLDERS}:
                return place or "."
    return None


def _name_column(table: pd.DataFrame) -> str | None:
    """By its header, but a column whose values have the extensions of sounds wins."""
    sounds = [str(c) for c in table if len(table) and table[c].head(50).map(is_sound).mean() > 0.9]
    return pick(table[sounds], NAMES) or (sounds[0] if sounds else pick(table, NAMES))


def _stem_column(folder: Path, table: pd.DataFrame) -> str | None:
    """The column of names without extension, under any header: most of its values are sounds in a folder."""
    places = (folder, *(one for one in sorted(folder.iterdir()) if one.is_dir()))
    there = {Path(one).stem for place in places for one in list_files(place) if is_sound(one)}
    return next(
        (str(c) for c in table if len(table) and table[c].is_unique and table[c].isin(there).mean() > 0.5), None
    )


def _class_columns(it: Guesses, table: pd.DataFrame) -> list[str]:
    """The columns of 0 and 1, one per class, where there are several."""
    found = [str(c) for c in table if len(table) and table[c].str.strip().isin(["0", "1", "0.0", "1.0"]).all()]
    return [c for c in found if c not in (*VERIFIED, *FOLDS, *WEIGHTS)] if len(found) > 2 else []


def guess_columns(it: Guesses, train: pd.DataFrame) -> None:
    name = it.value("columns", "name") or _name_column(train) or _stem_column(it.folder, train)
    table = it.table("train")
    assert table is not None  # it was read
    if name is None:
        raise UserError(
            f"{it.folder / table.file}: no column of names of sounds; it has {', '.join(map(str, train.columns))}; in "
            f"competition.yaml: columns: {{name: COLUMN}}"
        )
    if name not in train:  # told before its files are looked for
        raise no_column(it.folder / table.file, [name], train.columns, {name: "columns.name"})
    if {"{", "}"} & set(name or ""):
        raise UserError(f"{it.folder}: the column of names is {name!r}: rename it: patterns of paths have such braces")
    it.put("columns", "name", name, "a column of file names")
    label = pick(train.drop(columns=[name], errors="ignore"), LABELS)
    if label is None and (classes := _class_columns(it, train)) and not it.given("columns", "label"):
        it.put("columns", "label", None, "a column of 0 and 1 per class")
        it.top("classes", classes, "the columns of 0 and 1")
        it.top("task", "multi_label", "a column per class")
    else:
        it.put("columns", "label", label or ColumnNames.label, "by its name")
    for key, names in (("fold", FOLDS), ("verified", VERIFIED), ("secondary_labels", SECONDARY), ("weight", WEIGHTS)):
        it.put("columns", key, pick(train, names), "by its name")
    _guess_group(it, train)


def _guess_group(it: Guesses, table: pd.DataFrame) -> None:
    name = it.value("columns", "name")
    group = pick(table.drop(columns=[name], errors="ignore"), GROUPS)
    if group is not None and table[group].duplicated().any():
        it.put("columns", "group", group, "clips that share it stay in one fold")


def guess_details(it: Guesses, there: Sequence[str], train: pd.DataFrame) -> None:
    """Tables with names of the training clips and columns that these lack."""
    used = _taken(it) | {one["file"] for one in it.values.get("train", it.found.get("train", []))}
    name, details = it.value("columns", "name"), []
    if "details" in it.values or name not in train:
        return
    names = set(train[name])
    for file in there:
        if file in used or "test" in Path(file).stem.lower():
            continue
        try:
            table = it.read({"file": file})
        except UserError:
            continue  # some other file
        if name in table and set(table.columns) - set(train.columns) and names & set(table[name]):
            if table[name].duplicated().any():
                continue
            details.append({"file": file})
            if it.value("columns", "group") is None:
                _guess_group(it, table)
    it.top("details", details, "tables with the names of training clips")


def guess_test(it: Guesses, there: Sequence[str]) -> None:
    if "test" in it.values or it.table("sample_submission") is not None:
        return
    name = it.value("columns", "name")
    for file in there:
        if "test" in Path(file).stem.lower() and "train" not in Path(file).stem.lower():
            table = it.read({"file": file})
            if name in table:
                it.top("test", {"file": file}, "it has names of clips")
                return
