"""Which file of a competition's folder is what: Kaggle's layout, its zips, or Zenodo's release of FSDKaggle2018."""

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
UTF8 = 0x800  # the flag of a zip's member whose name is UTF-8
BROKEN = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, RuntimeError, ValueError, IndexError)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a competition lie. What is optional and absent is None."""

    train_csv: Path
    train_audio: Path
    test_audio: Path
    sample_submission: Path | None = None  # names and orders the test clips
    test_table: Path | None = None  # names them where there is no sample submission
    train_details: Path | None = None  # adds columns such as freesound_id
    unpack_fault: str = ""  # why a zip could not be unpacked: it matters where something is missing

    def lacking(self, sound: bool) -> list[str]:
        """Names of the needed parts that are not there."""
        tables = [t for t in (self.train_csv, self.sample_submission, self.test_table) if t is not None]
        folders = [self.train_audio, self.test_audio] if sound else []
        return [t.name for t in tables if not is_file(t)] + [f.name for f in folders if not f.is_dir()]


def find_layout(folder: Path, sound: bool = True) -> Layout:
    """The layout of a competition's folder, whose zips are unpacked first.

    sound=False does without the audio, and without unpacking where the tables lie there already. Raises UserError where
    the folder is missing, is no competition, or lacks a needed part.
    """
    if not folder.is_dir():
        remedy = "give the competition's folder with --input DIR, or fetch it with python -m input.download"
        raise UserError(f"{folder}: no such folder: {remedy}")
    fault = ""
    if sound or _name_parts(folder).lacking(sound):
        try:
            unpack_zips(folder)
        except UserError as error:
            fault = str(error)
    layout = _name_parts(folder)
    if lacking := layout.lacking(sound):
        likely = likely_files(lacking, [entry.name for entry in folder.iterdir()])
        told = [f"{name} (there is {list_some(likely[name])})" if name in likely else name for name in lacking]
        raise UserError(
            f"{fault}{'; ' if fault else ''}{folder}: lacks {list_some(told)}; Kaggle's layout is train.csv, "
            f"audio_train/, audio_test/, sample_submission.csv, "
            f"Zenodo's {ZENODO}.meta/, {ZENODO}.audio_train/, {ZENODO}.audio_test/"
        )
    return replace(layout, unpack_fault=fault)


def is_file(entry: "Path | os.DirEntry[str]") -> bool:
    """False also where the system does not say: a link to itself, or one into a folder that we may not read."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _name_parts(folder: Path) -> Layout:
    """Kaggle's layout where train.csv lies there; Zenodo's tables may still add to it."""
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
    """Unpack every zip of the folder there, zips inside of zips too; what lies there already is left alone.

    Raises UserError at the end that names each zip which is broken, with the reason, or has a member whose path would
    leave the folder; nothing of the latter is unpacked.
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
    """A broken link is one of them, so that it is told; a folder of such a name is not."""
    there = [f for f in folder.iterdir() if f.suffix.lower() == ".zip" and not is_dropping(f.name)]
    return [f for f in there if is_file(f) or f.is_symlink()]


def is_dropping(name: str) -> bool:
    """What macOS leaves beside every file (._a.wav) and in every folder."""
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
    except BROKEN as error:  # RuntimeError: encrypted, or deflate64; ValueError: a name that no system takes
        fact = " ".join(str(error).split())
        raise UserError(
            f"{archive}: cannot unpack ({fact}): download it again, unpack it by hand, or remove it"
        ) from None
    except OSError as error:
        raise UserError(f"{archive}: cannot unpack beside it: {error}") from None


def _name_of(member: zipfile.ZipInfo) -> str:
    """Its path with slashes. The Finder writes UTF-8 without the flag that says so, which is read as code page 437;
    some Windows tools write backslashes."""
    name = member.filename
    if not member.flag_bits & UTF8:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _missing_prefix(archive: Path, names: list[str]) -> PurePosixPath:
    """audio_train.zip may hold its clips bare: then they go to audio_train/."""
    bare = all("/" not in name for name in names)
    return PurePosixPath(archive.stem if bare and archive.stem.split(".")[-1].startswith("audio_") else "")


def _safe_target(archive: Path, folder: Path, prefix: PurePosixPath, name: str, member: zipfile.ZipInfo) -> Path:
    path = prefix / name
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or is_link:
        raise UserError(f"{archive}: member {member.filename!r} would leave the folder: nothing was unpacked")
    return folder / path


def _extract(source: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """A file is there whole or not at all, even if two processes unpack the same zip."""
    with source.open(member) as packed, atomic(target) as part, part.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)
