"""The sound file of every clip: found by name, and all that are missing in one error."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from console.errors import UserError, list_some
from console.output import say, warn
from input.names import is_sound, likely_files, match_files
from input.zips import is_dropping, is_file


def fill_pattern(pattern: str, table: pd.DataFrame) -> pd.Series:
    """The path of every row: audio/fold{fold}/{name}.wav with the row's values. Raises KeyError of a missing column."""
    found = pd.Series("", index=table.index, dtype=object)
    for i, part in enumerate(re.split(r"\{([^{}]+)\}", pattern)):  # a header may have any other letter: {file.name}
        found = found + (table[part] if i % 2 else part)
    return found


def sound_folder(pattern: str) -> str:
    """What all paths of a pattern lie in: audio for audio/fold{fold}/{name}, '' for the competition's own folder."""
    return pattern.partition("{")[0].rpartition("/")[0]


def locate(files: pd.Series, folder: Path) -> pd.Series:
    """The path of every file, a relative path within `folder`; None if it is missing. Each folder is listed once."""
    by_folder: dict[str, set[str]] = defaultdict(set)
    for file in set(files):
        at, _, name = file.rpartition("/")
        by_folder[at].add(name)
    found: dict[str, str] = {}
    others: dict[Path, list[str]] = {}
    for at, names in sorted(by_folder.items()):
        place = folder / at if at else folder
        match = match_files(names, list_files(place)) if place.is_dir() else {}
        found |= {f"{at}/{name}" if at else name: str(place / file) for name, file in match.items()}
        if odd := [f"{file} for {name}" for name, file in sorted(match.items()) if name != file]:
            others[place] = odd
    for place, odd in others.items():
        say(f"{place}: matched despite another Unicode form or extension case: {list_some(odd, 3)}")
    return pd.Series([found.get(file) for file in files], index=files.index, dtype=object)  # as text, None would be NaN


def list_files(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(folder) if is_file(entry) and not is_dropping(entry.name)}
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}") from None


def list_sounds(folder: Path) -> list[str]:
    """The sound files of a folder, sorted."""
    return sorted(name for name in list_files(folder) if is_sound(name))


def sounds_under(paths: Iterable[str | Path]) -> list[str]:
    """The files among the paths, and the sound files of the folders and of their inner folders, sorted; each once.

    Raises UserError where a path does not exist, or a folder holds no sound.
    """
    found: dict[str, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inner = [Path(at) for at, _, _ in os.walk(path)]
            sounds = sorted(str(folder / name) for folder in inner for name in list_sounds(folder))
            if not sounds:
                raise UserError(f"{path}: no sound files in this folder")
        elif not path.exists():
            raise UserError(f"{path}: does not exist")
        else:
            sounds = [str(path)]
        found |= dict.fromkeys(sounds)
    return list(found)


def check_files(folder: Path, parts: Sequence[tuple[pd.Series, pd.Series]], skip: bool, unpack_fault: str = "") -> None:
    """parts: files within `folder`, and their paths. Raises UserError if any are missing, unless skipped. Files of a
    similar name are always reported, because the clip exists under another name."""
    missing: list[str] = []
    misnamed: list[str] = []
    for files, paths in parts:
        by_folder: dict[str, list[str]] = defaultdict(list)
        for file in files[paths.isna()]:
            by_folder[str(PurePosixPath(file).parent)].append(file)
        used = set(paths.dropna())
        for at, lost in by_folder.items():
            place = folder / at
            unused = {n for n in list_files(place) if str(place / n) not in used} if place.is_dir() else set()
            likely = likely_files([file.rpartition("/")[2] for file in lost], unused)
            missing += lost
            misnamed += [
                f"{file} (found {list_some(likely[name])})"
                for file in lost
                if (name := file.rpartition("/")[2]) in likely
            ]
    message = f"{folder}: missing files: {list_some(misnamed or missing)}"
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
