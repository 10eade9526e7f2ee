"""Which file of a competition's folder is what: Kaggle's layout, its zips, or Zenodo's release of FSDKaggle2018."""

import shutil
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from configs.console import progress, say
from configs.errors import UserError, list_some

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


def find_layout(folder: Path, sound: bool = True) -> Layout:
    """The layout of a competition's folder, whose zips are unpacked first; sound=False does without the audio.

    Raises UserError where the folder is missing, is no competition, or lacks a needed part.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: give the competition's folder with --input DIR")
    if sound:
        unpack_zips(folder)
    if (folder / f"{ZENODO}.meta").is_dir():
        meta = folder / f"{ZENODO}.meta"
        layout = Layout(
            train_csv=meta / "train_post_competition.csv",
            train_audio=folder / f"{ZENODO}.audio_train",
            test_audio=folder / f"{ZENODO}.audio_test",
            test_table=meta / "test_post_competition_scoring_clips.csv",
        )
    else:
        details = folder / "train_post_competition.csv"
        layout = Layout(
            train_csv=folder / "train.csv",
            train_audio=folder / "audio_train",
            test_audio=folder / "audio_test",
            sample_submission=folder / "sample_submission.csv",
            train_details=details if details.exists() else None,
        )
    parts = [layout.train_csv, layout.sample_submission, layout.test_table]
    parts += [layout.train_audio, layout.test_audio] if sound else []
    if lacking := [part.name for part in parts if part is not None and not part.exists()]:
        raise UserError(
            f"{folder}: lacks {list_some(lacking)}; Kaggle's layout is train.csv, audio_train/, audio_test/, "
            f"sample_submission.csv, or {ZENODO}.meta/, {ZENODO}.audio_train/, {ZENODO}.audio_test/"
        )
    return layout


def unpack_zips(folder: Path) -> None:
    """Unpack every zip of the folder there, zips inside of zips too; members that lie there already are left alone.

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
            targets = {m: _safe_target(archive, folder, prefix / m.filename, m) for m in members}
            todo = [m for m, t in targets.items() if not (t.exists() and t.stat().st_size == m.file_size)]
            if not todo:
                return
            say(f"unpacking {archive.name}: {len(todo)} files")
            with progress(f"unpacking {archive.name}", len(todo), "files") as advance:
                for member in todo:
                    _extract(source, member, targets[member])
                    advance(1)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive}: not a whole zip ({error}): download it again") from None
    except OSError as error:
        raise UserError(f"{archive}: cannot unpack beside it: {error}") from None


def _missing_prefix(archive: Path, members: list[zipfile.ZipInfo]) -> PurePosixPath:
    """audio_train.zip may hold its clips bare: then they go to audio_train/."""
    bare = any("/" not in m.filename for m in members)
    return PurePosixPath(archive.stem if bare and archive.stem.split(".")[-1].startswith("audio_") else "")


def _safe_target(archive: Path, folder: Path, name: PurePosixPath, member: zipfile.ZipInfo) -> Path:
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts or "\\" in member.filename or is_link:
        raise UserError(f"{archive}: member {member.filename!r} would leave the folder: nothing was unpacked")
    return folder / name


def _extract(source: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with source.open(member) as packed, part.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)
    part.replace(target)  # a file is there whole or not at all
