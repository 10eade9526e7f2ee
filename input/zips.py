"""Unpack the zips of a competition where they lie, trusting no path in them."""

import contextlib
import lzma
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from configs.files import atomic
from console.errors import UserError
from console.output import progress, say
from input.names import is_sound

SOUNDS = re.compile(r"(audio|(train|test)(_(audio|curated|noisy))?)")  # folders of sounds in other competitions
UTF8 = 0x800  # flag of zip members with a UTF-8 name
BROKEN = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, RuntimeError, ValueError, IndexError)


def is_file(entry: "Path | os.DirEntry[str]") -> bool:
    """False also on errors: a link to itself, or into a folder without read permission."""
    try:
        return entry.is_file()
    except OSError:
        return False


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
    """If audio_train.zip, or a zip of sounds alone, has its clips without a folder, they go to one of its name."""
    bare = all("/" not in name for name in names)
    last = archive.stem.split(".")[-1]
    of_sound = last.startswith("audio_") or (SOUNDS.fullmatch(last) and all(map(is_sound, names)))
    return PurePosixPath(archive.stem if bare and of_sound else "")


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
