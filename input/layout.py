"""Find the parts of a competition's folder: as competition.yaml or --as describes it, by its shape, or by guesses."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.competition import AudioFiles, CompetitionConfig, TableFile
from configs.description import FILE_NAME, Given, complete, find_description, read_description, ready_descriptions
from console.errors import UserError, list_some
from input.guess import guess
from input.names import likely_files
from input.recognise import recognise
from input.sound_files import sound_folder
from input.zips import is_file, unpack_zips

NO_DESCRIPTION = Given({}, {}, Path(FILE_NAME))
PART = re.compile("train|test|valid|eval|meta|audio|curated|noisy|clean")  # in the name of a part of a competition
NO_DESCRIPTION_SOURCE = "its files"


@dataclass(frozen=True)
class Layout:
    """A competition's folder and what it is understood as."""

    folder: Path
    config: CompetitionConfig  # complete; names only tables that are there, and those that are missing but needed
    source: str  # who says so: 'esc50', 'competition.yaml', 'guessed from its files'
    guesses: dict[str, str]  # key such as columns.group -> why
    unpack_fault: str = ""  # why a zip could not be unpacked; it matters only if files are missing

    @property
    def train_audio(self) -> list[Path]:
        """The folders that the training sounds lie in."""
        audio = self.config.audio
        if audio.class_folders:
            return [self.folder / audio.class_folders]
        patterns = dict.fromkeys(one.audio or audio.train for one in self.config.train)
        return [self.folder / sound_folder(pattern) for pattern in patterns]

    @property
    def test_audio(self) -> Path | None:
        """The folder of the test sounds; None without a test set."""
        return self.folder / sound_folder(self.config.audio.test) if self.has_test else None

    @property
    def has_test(self) -> bool:
        table = self.config.sample_submission or self.config.test
        return table is not None or lists_test_folder(self.folder, self.config)

    @property
    def tables(self) -> tuple[Path, ...]:
        """All tables that it names."""
        cfg = self.config
        named = [*cfg.train, *(one for one in (cfg.sample_submission, cfg.test) if one is not None), *cfg.details]
        return tuple(self.folder / table.file for table in named)

    def missing(self, sound: bool) -> list[str]:
        """Needed parts that do not exist, relative to the folder."""
        lost = [str(table.relative_to(self.folder)) for table in self.tables if not is_file(table)]
        if not sound or (lost and self.source not in ready_descriptions()):  # without its tables, folders are guesses
            return lost
        places = [*self.train_audio, *([self.test_audio] if self.test_audio else [])]
        return lost + [str(place.relative_to(self.folder)) for place in dict.fromkeys(places) if not place.is_dir()]


def lists_test_folder(folder: Path, cfg: CompetitionConfig) -> bool:
    """Whether the test clips are the sounds of a folder, which no table names."""
    given = cfg.audio.test != AudioFiles.test and cfg.sample_submission is None and cfg.test is None
    return given and cfg.audio.test.partition("{")[2].partition("}")[0] == "name"


def find_layout(folder: Path, sound: bool = True, described_by: str | None = None) -> Layout:
    """The layout of a competition's folder, after unpacking its zips.

    sound=False needs no audio, and does not unpack if the tables exist. Raises UserError if the folder does not exist,
    is not a competition, or has no needed part.
    """
    if not folder.is_dir():
        remedy = "set the competition's folder with --input DIR, or run python -m input.download"
        raise UserError(f"{folder}: no such folder: {remedy}")
    if not sound:
        try:
            layout = understand(folder, described_by)
        except UserError:
            pass  # perhaps the tables are in a zip
        else:
            if not layout.missing(sound):
                return layout
    fault = ""
    try:
        unpack_zips(folder)
    except UserError as error:
        fault = str(error)
    start = f"{fault}{'; ' if fault else ''}"
    try:
        layout = understand(folder, described_by)
    except UserError as error:
        raise UserError(f"{start}{_instead(folder, described_by) or error}") from None
    if missing := layout.missing(sound):
        inner = _instead(folder, described_by) if layout.source == NO_DESCRIPTION_SOURCE else ""
        raise UserError(start + (inner or f"{folder}: missing {_with_likely(folder, missing)}; {_remedy(layout)}"))
    return replace(layout, unpack_fault=fault)


def _with_likely(folder: Path, missing: list[str]) -> str:
    likely = likely_files(missing, [entry.name for entry in folder.iterdir()])
    return list_some(f"{name} (found {list_some(likely[name])})" if name in likely else name for name in missing)


def describe_command(folder: Path, described_by: str | None = None) -> str:
    named = f" --as {shlex.quote(described_by)}" if described_by else ""
    return f"python -m input.describe {shlex.quote(str(folder))}{named}"


def _remedy(layout: Layout) -> str:
    how = describe_command(layout.folder)
    if layout.source in ("fsdkaggle2018", "fsdkaggle2018_zenodo"):
        return (
            "Kaggle's layout is train.csv, audio_train/, audio_test/, sample_submission.csv, Zenodo's "
            "FSDKaggle2018.meta/, FSDKaggle2018.audio_train/, FSDKaggle2018.audio_test/; another competition: "
            f"{how}"
        )
    if layout.source in (*ready_descriptions(), NO_DESCRIPTION_SOURCE):
        return f"understood by {layout.source}: complete the download, or describe it: {how}"
    return f"described by {layout.source}: correct the name there (train, audio, ...), or complete the download"


def understand(folder: Path, described_by: str | None = None) -> Layout:
    """What the folder is, as described or recognised; parts may be missing. Raises UserError on a bad description, and
    where nothing shows which are the training clips."""
    given, source = _given(folder, described_by)
    given = _with_files(folder, given)
    bare = Layout(folder, complete(given, {}), source, {})
    if bare.missing(sound=False):
        return bare
    guessed = guess(folder, given.values)
    return Layout(folder, complete(given, guessed.found), source, guessed.why)


def _given(folder: Path, described_by: str | None) -> tuple[Given, str]:
    if described_by is not None:
        several = [read_description(file) for file in find_description(described_by, folder)]
        fit = [one for one in several if not _lacks_train(folder, one)]
        chosen = (fit or several)[0]
        return chosen, chosen.path.stem if chosen.path in ready_descriptions().values() else str(chosen.path)
    if is_file(folder / FILE_NAME):
        return read_description(folder / FILE_NAME), FILE_NAME
    if (name := recognise(folder)) is not None:
        return read_description(ready_descriptions()[name]), name
    if (
        len(inner := competitions_in(folder, sound=True)) > 1
    ):  # else a table of one of them would be taken for that of all
        raise UserError(_holds(folder, inner))
    return NO_DESCRIPTION, NO_DESCRIPTION_SOURCE


def competitions_in(folder: Path, sound: bool) -> list[Path]:
    """The folders within it that have all tables, and with `sound` all folders, of a competition of their own: none of
    train, test and the like, which are parts of one."""
    tables = ("competition.yaml", "*.csv", "meta*/*.csv", "*.meta/*.csv")
    found = []
    for inner in sorted(one for one in folder.iterdir() if one.is_dir()):
        is_part = PART.search(inner.name.lower()) is not None
        if is_part or inner.name.startswith(".") or not any(any(inner.glob(one)) for one in tables):
            continue
        try:
            found += [] if understand(inner).missing(sound) else [inner]
        except UserError:
            continue
    return found


def _instead(folder: Path, described_by: str | None) -> str:
    """What to name instead of an undescribed folder that is none; empty where nothing in it looks like one."""
    if described_by is not None or is_file(folder / FILE_NAME):
        return ""
    inner = competitions_in(folder, sound=False)
    return _holds(folder, inner) if inner else ""


def _holds(folder: Path, inner: list[Path]) -> str:
    names = list_some(one.name for one in inner)
    return (
        f"{folder}: is no competition, but folders in it look like one ({names}): name the folder: --input {inner[0]}"
    )


def _lacks_train(folder: Path, given: Given) -> bool:
    tables = [TableFile(**one) for one in given.values.get("train", [])]
    return any(not one.optional and not list(folder.glob(one.file)) for one in tables)


def _with_files(folder: Path, given: Given) -> Given:
    """The files that patterns like meta/esc*.csv stand for; without optional tables that are not there."""
    values = dict(given.values)
    others: set[str] = set()
    for key in ("test", "sample_submission", "details", "train"):  # train last: meta/esc*.csv is not a test table
        if value := values.get(key):
            tables = _found(folder, value if isinstance(value, list) else [value], others)
            others |= {table["file"] for table in tables}
            values[key] = tables if isinstance(value, list) else next(iter(tables), None)
    return replace(given, values=values)


def _found(folder: Path, tables: list[dict[str, Any]], others: Iterable[str]) -> list[dict[str, Any]]:
    found = []
    for table in tables:
        files = [table["file"]]
        if "*" in table["file"]:
            files = sorted({str(file.relative_to(folder)) for file in folder.glob(table["file"])} - set(others))
            if len(files) > 1:
                raise UserError(f"{folder}: {table['file']} stands for {list_some(files)}: name one in {FILE_NAME}")
            files = files or [table["file"]]
        if not table.get("optional") or is_file(folder / files[0]):
            found.append(table | {"file": files[0]})
    return found
