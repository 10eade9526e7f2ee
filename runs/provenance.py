"""What a result was made with: code, library versions and the checksums of files."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from console.errors import UserError, list_some

CODE = Path(__file__).parents[1]
REVISION = "AUDIO_TAGGING_KIT_REVISION"  # set by the driver of a cluster


def library_versions() -> dict[str, str | None]:
    """Python and the libraries that results depend on; None for one that is not installed."""
    names = ("torch", "torchaudio", "timm", "pytorch-lightning", "numpy", "pandas", "soundfile")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def git_revision(folder: Path) -> str | None:
    """The commit of the code in `folder`, with '-dirty' where it was changed since; None where that is not the top of a
    repository: one that it was unpacked in is somebody else's. On a node of a cluster: that of the driver's code."""
    here = ask_git(folder, "describe", "--always", "--abbrev=40", "--dirty").strip()
    return here or os.environ.get(REVISION) or None


def provenance_for_jobs() -> dict[str, str]:
    """Environment of jobs on a cluster, where the code travels without its repository."""
    return {REVISION: git_revision(CODE) or ""}


def ask_git(folder: Path, *command: str, message: str = "") -> str:
    """What git says of the repository whose top is `folder`, given `message`; '' where there is none, or no git."""
    here = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}  # a hook names another one
    here["GIT_CEILING_DIRECTORIES"] = str(folder.resolve().parent)
    try:
        asked = subprocess.run(
            ["git", "-C", folder, *command], input=os.fsencode(message), capture_output=True, env=here
        )
    except OSError:
        return ""
    return os.fsdecode(asked.stdout) if asked.returncode == 0 else ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_files(folder: Path, sha256: Mapping[str, str], names: Sequence[str]) -> None:
    """Raises UserError that lists the files whose bytes are not those of their sha256, by name."""
    if changed := [name for name in names if file_sha256(folder / name) != sha256[name]]:
        raise UserError(
            f"{folder}: files changed since the run was finished: {list_some(changed)}; train it again with --force"
        )


def file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
