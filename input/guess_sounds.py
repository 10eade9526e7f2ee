"""Where a folder's sounds lie: of all patterns the one with which most of some names exist."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from input.guesses import TEST_FOLDERS, TRAIN_FOLDERS, Guesses
from input.names import is_sound
from input.sample import NAMES
from input.sound_files import fill_pattern, list_files

NO_SOUND = "the usual folder: there is no sound"


def guess_sounds(it: Guesses, train: pd.DataFrame | None) -> None:
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
            it.put("audio", "train", f"audio_train/{{{name}}}", NO_SOUND)
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
        hits = sum((it.folder / file).is_file() for file in fill_pattern(pattern, some))
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
