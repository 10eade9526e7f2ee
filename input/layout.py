"""Find the parts of a competition's folder: Kaggle's layout, its zips, or Zenodo's release of FSDKaggle2018."""

import contextlib
import lzma
import os
import shutil
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from configs.files import atomic
from console.errors import UserError, list_some
from console.output import progress, say
from input.names import likely_files

ZENODO = "FSDKaggle2018"
UTF8 = 0x800  # flag of zip members with a UTF-8 name
BROKEN = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, RuntimeError, ValueError, IndexError)


@dataclass(frozen=True)
class Layout:
    """Paths of the parts of a competition. Missing optional parts are None."""

    train_csv: Path
    train_audio: Path
    test_audio: Path
    sample_submission: Path | None = None  # has the test clips in their order
    test_table: Path | None = None  # has the test clips if there is no sample submission
    train_details: Path | None = None  # adds columns such as freesound_id
    unpack_fault: str = ""  # why a zip could not be unpacked; it matters only if files are missing

    def missing(self, sound: bool) -> list[str]:
        """Names of needed parts that do not exist."""
        tables = [t for t in (self.train_csv, self.sample_submission, self.test_table) if t is not None]
        folders = [self.train_audio, self.test_audio] if sound else []
        return [t.name for t in tables if not is_file(t)] + [f.name for f in folders if not f.is_dir()]


def find_layout(folder: Path, sound: bool = True) -> Layout:
    """The layout of a competition's folder, after unpacking its zips.

    sound=False needs no audio, and does not unpack if the tables exist. Raises UserError if the folder does not exist,
    is not a competition, or has no needed part.
    """
    if not folder.is_dir():
        remedy = "set the competition's folder with --input DIR, or run python -m input.download"
        raise UserError(f"{folder}: no such folder: {remedy}")
    fault = ""
    if sound or _name_parts(folder).missing(sound):
        try:
            unpack_zips(folder)
        except UserError as error:
            fault = str(error)
    layout = _name_parts(folder)
    if missing := layout.missing(sound):
        likely = likely_files(missing, [entry.name for entry in folder.iterdir()])
        names = [f"{name} (found {list_some(likely[name])})" if name in likely else name for name in missing]
        raise UserError(
            f"{fault}{'; ' if fault else ''}{folder}: missing {list_some(names)}; Kaggle's layout is train.csv, "
            f"audio_train/, audio_test/, sample_submission.csv, "
            f"Zenodo's {ZENODO}.meta/, {ZENODO}.audio_train/, {ZENODO}.audio_test/"
        )
    return replace(layout, unpack_fault=fault)


def is_file(entry: "Path | os.DirEntry[str]") -> bool:
    """False also on errors: a link to itself, or into a folder without read permission."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _name_parts(folder: Path) -> Layout:
    """Kaggle's layout if there is a train.csv, maybe with Zenodo's additional table."""
    meta = folder / f"{ZENODO}.meta"
    if meta.is_dir() and not is_file(folder / "train.csv"):
        return Layout(
            train_csv=meta / "train_post_competition.csv",
            train_audio=folder / f"{ZENODO}.audio_train",
            test_audio=folder / f"{ZENODO}.audio_test",
            test_table=meta / "test_post_competition_scoring_clips.csv",
        )
    details = [place / "train_post_competition.csv" for place in (folder, meta)]
    return Layout(
        train_csv=folder / "train.csv",
        train_audio=folder / "audio_train",
        test_audio=folder / "audio_test",
        sample_submission=folder / "sample_submission.csv",
        train_details=next((table for table in details if is_file(table)), None),
    )


def unpack_zips(folder: Path) -> None:
    """Unpack every zip in the folder, also zips inside zips; existing files are kept.

    At the end raises UserError that names each broken zip with the reason, and each zip with a member whose path leaves
    the folder; nothing of the latter is unpacked.
    """
    done: set[Path] = set()
    faults: list[str] = []
    while todo := sorted(set(_zips(folder)) - done):
        for archive in todo:
            done.add(archive)
            try:
                _unpack(archive, folder)
            except UserError as error:
                faults.append(str(error))
    if faults:
        raise UserError("; ".join(faults))


def _zips(folder: Path) -> list[Path]:
    """Also broken links, so that they are reported, but no folders."""
    there = [f for f in folder.iterdir() if f.suffix.lower() == ".zip" and not is_dropping(f.name)]
    return [f for f in there if is_file(f) or f.is_symlink()]


def is_dropping(name: str) -> bool:
    """Whether macOS created this extra file (._a.wav, .DS_Store)."""
    return name.startswith("._") or name == ".DS_Store"


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as source:
            members = [(member, _name_of(member)) for member in source.infolist()]
            members = [(member, name) for member, name in members if name and not name.endswith("/")]
            members = [(m, name) for m, name in members if "__MACOSX" not in name and not is_dropping(_last(name))]
            prefix = _missing_prefix(archive, [name for _, name in members])
            targets = [(member, _safe_target(archive, folder, prefix, name, member)) for member, name in members]
            todo = [(member, target) for member, target in targets if not target.exists()]
            if not todo:
                return
            say(f"unpacking {archive.name}: {len(todo)} files")
            with progress(f"unpacking {archive.name}", len(todo), "files") as advance:
                for member, target in todo:
                    _extract(source, member, target)
                    advance(1)
    except UserError:
        raise
    except BROKEN as error:  # RuntimeError: encrypted, or deflate64; ValueError: an invalid name
        fact = " ".join(str(error).split())
        remedy = "download it again, unpack it by hand, or remove it"
        raise UserError(f"{archive}: cannot be unpacked ({fact}): {remedy}") from None
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked into its folder: {error}") from None


def _name_of(member: zipfile.ZipInfo) -> str:
    """Its path with slashes. The macOS Finder writes UTF-8 without its flag, which zipfile reads as code page 437; some
    Windows tools write backslashes."""
    name = member.filename
    if not member.flag_bits & UTF8:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _missing_prefix(archive: Path, names: list[str]) -> PurePosixPath:
    """If audio_train.zip has its clips without a folder, they go to audio_train/."""
    bare = all("/" not in name for name in names)
    return PurePosixPath(archive.stem if bare and archive.stem.split(".")[-1].startswith("audio_") else "")


def _safe_target(archive: Path, folder: Path, prefix: PurePosixPath, name: str, member: zipfile.ZipInfo) -> Path:
    path = prefix / name
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or is_link:
        raise UserError(f"{archive}: member {member.filename!r} would be outside of the folder: nothing was unpacked")
    return folder / path


def _extract(source: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write a file completely or not at all, even if two processes unpack the same zip."""
    with source.open(member) as packed, atomic(target) as part, part.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)
