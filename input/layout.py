"""Which file of a competition's folder is what: Kaggle's layout, its zips, or Zenodo's release of FSDKaggle2018."""

import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from configs.console import progress, say
from configs.errors import UserError, list_some
from configs.files import atomic

ZENODO = "FSDKaggle2018"


@dataclass(frozen=True)
class Layout:
    """Where the parts of a competition lie. What is optional and absent is None."""

    train_csv: Path
    train_audio: Path
    test_audio: Path
    sample_submission: Path | None = None  # names and orders the test clips
    test_table: Path | None = None  # names them where there is no sample submission
    train_details: Path | None = None  # adds columns such as freesound_id

    def lacking(self, sound: bool) -> list[str]:
        """Names of the needed parts that are not there."""
        tables = [t for t in (self.train_csv, self.sample_submission, self.test_table) if t is not None]
        folders = [self.train_audio, self.test_audio] if sound else []
        return [t.name for t in tables if not t.is_file()] + [f.name for f in folders if not f.is_dir()]


def find_layout(folder: Path, sound: bool = True) -> Layout:
    """The layout of a competition's folder, whose zips are unpacked first.

    sound=False does without the audio, and without unpacking where the tables lie there already. Raises UserError where
    the folder is missing, is no competition, or lacks a needed part.
    """
    if not folder.is_dir():
        remedy = "give the competition's folder with --input DIR, or fetch it with python -m input.download"
        raise UserError(f"{folder}: no such folder: {remedy}")
    if sound or _name_parts(folder).lacking(sound):
        unpack_zips(folder)
    layout = _name_parts(folder)
    if lacking := layout.lacking(sound):
        raise UserError(
            f"{folder}: lacks {list_some(lacking)}; Kaggle's layout is train.csv, audio_train/, audio_test/, "
            f"sample_submission.csv, Zenodo's {ZENODO}.meta/, {ZENODO}.audio_train/, {ZENODO}.audio_test/"
        )
    return layout


def _name_parts(folder: Path) -> Layout:
    """Kaggle's layout where train.csv lies there; Zenodo's tables may still add to it."""
    meta = folder / f"{ZENODO}.meta"
    if meta.is_dir() and not (folder / "train.csv").exists():
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
        train_details=next((table for table in details if table.exists()), None),
    )


def unpack_zips(folder: Path) -> None:
    """Unpack every zip of the folder there, zips inside of zips too; what lies there already is left alone.

    Raises UserError on a broken zip and on a member whose path would leave the folder.
    """
    done: set[Path] = set()
    while todo := sorted(set(folder.glob("*.zip")) - done):
        for archive in todo:
            done.add(archive)
            _unpack(archive, folder)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as source:
            members = [m for m in source.infolist() if not m.is_dir() and "__MACOSX" not in m.filename]
            prefix = _missing_prefix(archive, members)
            targets = [(m, _safe_target(archive, folder, prefix / m.filename, m)) for m in members]
            todo = [(member, target) for member, target in targets if not target.exists()]
            if not todo:
                return
            say(f"unpacking {archive.name}: {len(todo)} files")
            with progress(f"unpacking {archive.name}", len(todo), "files") as advance:
                for member, target in todo:
                    _extract(source, member, target)
                    advance(1)
    except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:  # RuntimeError: encrypted, or deflate64
        raise UserError(f"{archive}: cannot unpack ({error}): download it again, or unpack it by hand") from None
    except OSError as error:
        raise UserError(f"{archive}: cannot unpack beside it: {error}") from None


def _missing_prefix(archive: Path, members: list[zipfile.ZipInfo]) -> PurePosixPath:
    """audio_train.zip may hold its clips bare: then they go to audio_train/."""
    bare = all("/" not in m.filename for m in members)
    return PurePosixPath(archive.stem if bare and archive.stem.split(".")[-1].startswith("audio_") else "")


def _safe_target(archive: Path, folder: Path, name: PurePosixPath, member: zipfile.ZipInfo) -> Path:
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts or "\\" in member.filename or is_link:
        raise UserError(f"{archive}: member {member.filename!r} would leave the folder: nothing was unpacked")
    return folder / name


def _extract(source: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """A file is there whole or not at all, even if two processes unpack the same zip."""
    with source.open(member) as packed, atomic(target) as part, part.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)
