"""What a folder says of itself: every key of competition.yaml that nobody gave, found out from tables and folders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from configs.competition import ColumnNames, TableFile
from console.errors import UserError
from input.labels import find_label_separator
from input.names import is_sound
from input.sample import NAMES
from input.sound_files import list_files
from input.tables import read_table
from input.zips import is_dropping, is_file

LABELS = (
    "label",
    "labels",
    "category",
    "class",
    "primary_label",
    "tags",
    "tag",
    "classes",
    "target",
    "species",
    "species_id",
)
FOLDS = ("fold", "folds")
VERIFIED = ("manually_verified", "verified")
SECONDARY = ("secondary_labels",)
WEIGHTS = ("weight",)
GROUPS = (
    "freesound_id",
    "recorder",
    "recording",
    "recording_id",
    "src_file",
    "fsID",
    "speaker",
    "author",
    "artist",
    "site",
)
TRAIN = (
    "train_curated.csv",
    "train.csv",
    "train_metadata.csv",
    "train_labels.csv",
    "labels.csv",
    "metadata.csv",
    "meta.csv",
)
TRAIN_FOLDERS = ("audio_train", "train_audio", "train", "audio", "wav", "wavs", "clips", "sounds", "data", "")
TEST_FOLDERS = ("audio_test", "test_audio", "test", "audio", "wav", "wavs", "clips", "sounds", "data", "")
FSDKAGGLE2019 = {"Accelerating_and_revving_and_vroom", "Bathtub_(filling_or_washing)"}  # in no other class list


@dataclass
class Guesses:
    """found: values as competition.yaml has them; why: of each guessed key, such as columns.group, the reason."""

    folder: Path
    values: dict[str, Any]  # that were given: never guessed
    found: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def given(self, section: str, key: str) -> bool:
        return key in self.values.get(section, {})

    def value(self, section: str, key: str) -> Any:
        """Given or found."""
        return self.values.get(section, {}).get(key, self.found.get(section, {}).get(key))

    def put(self, section: str, key: str, value: Any, why: str) -> None:
        if not self.given(section, key):
            self.found.setdefault(section, {})[key] = value
            self.why[f"{section}.{key}"] = why

    def top(self, key: str, value: Any, why: str) -> None:
        if key not in self.values:
            self.found[key] = value
            self.why[key] = why

    def table(self, key: str) -> TableFile | None:
        value = self.values[key] if key in self.values else self.found.get(key)
        value = value[0] if isinstance(value, list) and value else value
        return TableFile(**value) if value else None

    def read(self, table: TableFile | dict[str, Any]) -> pd.DataFrame:
        table = TableFile(**table) if isinstance(table, dict) else table
        return read_table(self.folder / table.file, (), table.separator, table.encoding)


def guess(folder: Path, values: dict[str, Any]) -> Guesses:
    """Everything that `values` does not say. Raises UserError where the folder shows no training clips."""
    it = Guesses(folder, values)
    there = tables_of(folder)
    _guess_sample(it, there)
    train = _guess_train(it, there)
    if train is not None:
        _guess_columns(it, train)
        _guess_details(it, there, train)
    _guess_test(it, there)
    _guess_audio(it, train)
    _guess_task(it, train)
    return it


def tables_of(folder: Path) -> list[str]:
    """The CSV files of the folder and of the folders in it, relative, sorted, those of the folder itself first."""
    found = [file for pattern in ("*.csv", "*.tsv", "*/*.csv") for file in folder.glob(pattern)]
    found = [file for file in found if is_file(file) and not is_dropping(file.name)]
    return sorted((str(file.relative_to(folder)) for file in found), key=lambda name: (name.count("/"), name))


def _guess_sample(it: Guesses, there: Sequence[str]) -> None:
    found = [name for name in there if "sample" in name.lower() and "sub" in name.lower()] or [
        name for name in there if Path(name).stem.lower() == "submission"
    ]
    if found:
        it.top("sample_submission", {"file": found[0]}, "by its name")


def _taken(it: Guesses) -> set[str]:
    """Files that another key names already."""
    some = [it.table("sample_submission"), it.table("test")]
    return {table.file for table in some if table is not None}


def _guess_train(it: Guesses, there: Sequence[str]) -> pd.DataFrame | None:
    """The first training table, read; None for folders of classes."""
    if "train" in it.values or it.value("audio", "class_folders"):
        given = it.table("train")
        return it.read(given) if given else None
    free = [name for name in there if name not in _taken(it)]
    likely = [name for wanted in TRAIN for name in free if Path(name).name.lower() == wanted]
    likely += [name for name in free if "train" in Path(name).stem.lower()]
    likely += [name for name in free if "test" not in Path(name).stem.lower()]
    for name in dict.fromkeys(likely):
        table = it.read({"file": name})
        if _name_column(table) and (_pick(table, LABELS) or _class_columns(it, table)):
            it.top("train", [{"file": name}], "it has names and labels")
            _guess_noisy(it, name, free)
            return table
    if (place := _class_folders(it.folder)) is not None:
        it.put("audio", "class_folders", place, "a folder of sounds per class")
        it.top("train", [], "the folders are the labels")
        return None
    raise UserError(
        f"{it.folder}: no table of training clips with their labels, and no folder per class: name it in "
        f"competition.yaml: train: FILE, columns: {{name: COLUMN, label: COLUMN}}"
    )


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


def _pick(table: pd.DataFrame, names: Sequence[str]) -> str | None:
    lower = {str(column).lower(): str(column) for column in reversed(table.columns)}
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)


def _name_column(table: pd.DataFrame) -> str | None:
    """By its header, but a column whose values have the extensions of sounds wins."""
    sounds = [str(c) for c in table if len(table) and table[c].head(50).map(is_sound).mean() > 0.9]
    return _pick(table[sounds], NAMES) or (sounds[0] if sounds else _pick(table, NAMES))


def _class_columns(it: Guesses, table: pd.DataFrame) -> list[str]:
    """The columns of 0 and 1, one per class, where there are several."""
    found = [str(c) for c in table if len(table) and table[c].str.strip().isin(["0", "1", "0.0", "1.0"]).all()]
    return [c for c in found if c not in (*VERIFIED, *FOLDS, *WEIGHTS)] if len(found) > 2 else []


def _guess_columns(it: Guesses, train: pd.DataFrame) -> None:
    name = it.value("columns", "name") or _name_column(train)
    it.put("columns", "name", name, "a column of file names")
    label = _pick(train.drop(columns=[name], errors="ignore"), LABELS)
    if label is None and (classes := _class_columns(it, train)) and not it.given("columns", "label"):
        it.put("columns", "label", None, "a column of 0 and 1 per class")
        it.top("classes", classes, "the columns of 0 and 1")
        it.top("task", "multi_label", "a column per class")
    else:
        it.put("columns", "label", label or ColumnNames.label, "by its name")
    for key, names in (("fold", FOLDS), ("verified", VERIFIED), ("secondary_labels", SECONDARY), ("weight", WEIGHTS)):
        it.put("columns", key, _pick(train, names), "by its name")
    _guess_group(it, train)


def _guess_group(it: Guesses, table: pd.DataFrame) -> None:
    name = it.value("columns", "name")
    group = _pick(table.drop(columns=[name], errors="ignore"), GROUPS)
    if group is not None and table[group].duplicated().any():
        it.put("columns", "group", group, "clips that share it stay in one fold")


def _guess_details(it: Guesses, there: Sequence[str], train: pd.DataFrame) -> None:
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


def _guess_test(it: Guesses, there: Sequence[str]) -> None:
    if it.table("sample_submission") is not None:
        return
    name = it.value("columns", "name")
    for file in there:
        if "test" in Path(file).stem.lower() and "train" not in Path(file).stem.lower():
            table = it.read({"file": file})
            if name in table:
                it.top("test", {"file": file}, "it has names of clips")
                return


def _guess_audio(it: Guesses, train: pd.DataFrame | None) -> None:
    """Where the sounds lie: of all patterns the one with which most of some names exist."""
    name = it.value("columns", "name")
    if train is not None and name in train:
        names = train[name].head(1000)
        if any("/" in one for one in names):
            it.put("audio", "names_with_folder", True, "names have a folder")
        for table in it.values.get("train", it.found.get("train", [])):
            rows = it.read(table)
            places = (Path(table["file"]).stem, *TRAIN_FOLDERS, *_other_folders(it.folder))
            pattern = _best_pattern(it, rows, places) if name in rows else None
            if len(it.values.get("train", it.found.get("train", []))) > 1 and "audio" not in table and pattern:
                table["audio"] = pattern
            if pattern and not it.value("audio", "train"):
                it.put("audio", "train", pattern, "its files are there")
        if not it.value("audio", "train"):
            it.put("audio", "train", f"audio_train/{{{name}}}", "the usual folder: there is no sound")
    elif it.value("audio", "class_folders"):
        it.put("audio", "names_with_folder", True, "names have the folder of their class")
    if (test := it.table("sample_submission") or it.table("test")) is not None:
        rows = it.read(test)
        first = next((c for c in rows if str(c).lower() in NAMES), rows.columns[0])
        rows = rows.rename(columns={first: "name"}) if it.table("sample_submission") else rows
        key = "name" if it.table("sample_submission") else name
        if key in rows:
            found = _best_pattern(it, rows, (Path(test.file).stem, *TEST_FOLDERS, *_other_folders(it.folder)), key)
            it.put(
                "audio",
                "test",
                found or f"audio_test/{{{key}}}",
                "its files are there" if found else "the usual folder",
            )
    else:
        for place in ("audio_test", "test_audio", "test"):
            if not it.values.get("test", True) or not (it.folder / place).is_dir():
                continue
            if any(map(is_sound, list_files(it.folder / place))):
                it.put("audio", "test", f"{place}/{{name}}", "a folder of sounds without a table")
                return


def _other_folders(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))


def _best_pattern(it: Guesses, rows: pd.DataFrame, places: Sequence[str], key: str | None = None) -> str | None:
    key = key or it.value("columns", "name")
    some = rows.iloc[:: max(1, len(rows) // 20)]
    fold, label = it.value("columns", "fold"), it.value("columns", "label")
    most, best = 0, None
    for pattern in _patterns(it.folder, places, key, fold if fold in rows else None, label if label in rows else None):
        hits = sum((it.folder / pattern.format_map(row)).is_file() for row in some.to_dict("records"))
        if hits > most:
            most, best = hits, pattern
        if most == len(some):
            break
    return best


def _patterns(folder: Path, places: Sequence[str], key: str, fold: str | None, label: str | None) -> Iterator[str]:
    inner = ["", *([f"fold{{{fold}}}/", f"{{{fold}}}/"] if fold else []), *([f"{{{label}}}/"] if label else [])]
    for place in dict.fromkeys(places):
        if (folder / place).is_dir():
            start = f"{place}/" if place else ""
            for between in inner:
                yield f"{start}{between}{{{key}}}"
            endings = {Path(one).suffix for one in list_files(folder / place) if is_sound(one)}
            for ending in sorted(endings) or [".wav", ".ogg", ".flac", ".mp3"]:
                for between in inner:
                    yield f"{start}{between}{{{key}}}{ending}"


def _guess_task(it: Guesses, train: pd.DataFrame | None) -> None:
    """Label separator, task, metric and the form of a submission."""
    columns: list[str] = []
    if (sample := it.table("sample_submission")) is not None:
        columns = list(map(str, it.read(sample).columns))
        name = next((one for one in (*columns[:1], *columns) if one.lower() in NAMES), columns[0])
        columns.remove(name)
    many = len(columns) > 1
    label = it.value("columns", "label")
    cells = train[label] if train is not None and label in train else pd.Series([], dtype=object)
    separator = find_label_separator(cells, columns if many else ())
    it.top("label_separator", separator, "its parts are labels too" if separator else "a cell is one label")
    several = separator is not None or it.values.get("label_separator") is not None
    several |= bool(it.value("columns", "secondary_labels")) or (many and bool(cells.str.strip().eq("").any()))
    task = it.values.get("task") or it.found.get("task") or ("multi_label" if several else "single_label")
    it.top("task", task, "cells with several labels or none" if task == "multi_label" else "one label a cell")
    kind = "probabilities" if many or (sample is None and task == "multi_label") else "top_labels"
    it.put("submission", "kind", kind, "as the sample submission" if sample else "as usual for the task")
    _guess_form(it, sample, columns)
    _guess_metric(it, columns)


def _guess_form(it: Guesses, sample: TableFile | None, columns: list[str]) -> None:
    if it.value("submission", "kind") != "top_labels":
        return
    words = it.read(sample)[columns[0]].head(50).str.split() if sample and columns else pd.Series([], dtype=object)
    counts = set(words.map(len)) - {0}
    default = 3 if sample is not None and not columns else 1
    it.put("submission", "top_labels", counts.pop() if len(counts) == 1 else default, "as the sample submission")


def _guess_metric(it: Guesses, columns: list[str]) -> None:
    task = it.values.get("task", it.found.get("task"))
    if it.value("submission", "kind") == "top_labels":
        k = it.value("submission", "top_labels") or 1
        it.top("metric", f"map@{k}" if k > 1 or task == "multi_label" else "accuracy", "as usual for such a submission")
    elif set(columns) >= FSDKAGGLE2019:
        it.top("metric", "lwlrap", "the classes are those of FSDKaggle2019")
    else:
        it.top("metric", "macro_roc_auc" if task == "multi_label" else "log_loss", "usual for probabilities")
