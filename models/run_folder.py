"""The contract between stages: a folder that holds one trained fold, whole or not at all.

config.json, classes.txt, model.safetensors, oof.npz, test.npz, scores.json, metrics.csv and manifest.json, which names
them with their sha256 and says what they were made from. Probabilities are keyed by fname.
"""

import fcntl
import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError, list_some
from configs.schema import Config, differences, from_dict, to_dict

FILES = ("config.json", "classes.txt", "model.safetensors", "oof.npz", "test.npz", "scores.json", "metrics.csv")
TRAINED = ("config.json", "classes.txt", "model.safetensors")  # what prediction needs of them, beside the manifest


@dataclass(frozen=True)
class Predictions:
    """probs (clips, classes) float32, row i for fnames[i]."""

    fnames: tuple[str, ...]
    probs: np.ndarray

    def of(self, fnames: Sequence[str], what: str) -> np.ndarray:
        """Rows in the order of `fnames`. Raises UserError that counts the clips without a prediction."""
        index = {name: i for i, name in enumerate(self.fnames)}
        if lacking := [name for name in fnames if name not in index]:
            raise UserError(f"{what}: clips without a prediction: {list_some(lacking)}")
        return self.probs[[index[name] for name in fnames]]


@dataclass(frozen=True)
class Run:
    """A finished run folder. `id` changes when anything in it does."""

    folder: Path
    id: str
    config: Config
    classes: tuple[str, ...]
    oof: Predictions
    test: Predictions
    scores: dict[str, float]
    manifest: dict[str, Any]

    @property
    def experiment(self) -> str:
        return str(self.manifest["experiment"])

    @property
    def fold(self) -> int:
        return int(self.manifest["fold"])


@dataclass(frozen=True)
class Trained:
    """What prediction needs of a finished run folder; the weights are in `weights`."""

    folder: Path
    config: Config
    classes: tuple[str, ...]
    manifest: dict[str, Any]

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"


def save_predictions(file: Path, predictions: Predictions) -> None:
    """fname and probs in one .npz, the same bytes for the same values."""
    with file.open("wb") as out:
        np.savez(out, fname=np.array(predictions.fnames, dtype=str), probs=predictions.probs.astype(np.float32))


def load_predictions(file: Path) -> Predictions:
    """The inverse of `save_predictions`. Raises UserError where the file is damaged."""
    try:
        with np.load(file) as data:
            return Predictions(tuple(data["fname"].tolist()), data["probs"])
    except Exception as error:  # a damaged npz fails as OSError, ValueError, KeyError or BadZipFile
        raise UserError(f"{file}: cannot read the predictions: {error}") from None


@contextmanager
def unfinished(final: Path, config: Config, restart: bool) -> Iterator[Path]:
    """The folder <final>.partial, held by this process alone; restart empties it.

    Raises UserError where another process holds it, or where it was begun with other settings.
    """
    partial = final.with_name(final.name + ".partial")
    final.parent.mkdir(parents=True, exist_ok=True)
    with final.with_name(f".{final.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{final}: another process is training this fold: wait for it, or stop it") from None
        if restart:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(exist_ok=True)
        begun = partial / "config.json"
        if begun.exists():
            refuse_other_settings(begun, config, f"{partial} was begun")
        else:
            begun.write_text(json.dumps(to_dict(config), indent=1))
        yield partial


def refuse_other_settings(file: Path, config: Config, fact: str) -> None:
    """Raises UserError that names the first settings in which a config.json differs from `config`."""
    try:
        there = from_dict(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot read ({error}): begin again with --force") from None
    if changed := differences(there, config):
        raise UserError(f"{fact} with other settings ({list_some(changed, 3)}): choose a name=NEW, or --force")


def surroundings(folder: Path) -> dict[str, Any]:
    """What a result may depend on besides config and data: code and library versions."""
    return {"git_revision": git_revision(folder), "versions": library_versions()}


def library_versions() -> dict[str, str | None]:
    """Python and the libraries that results depend on; None for one that is not installed."""
    names = ("torch", "torchaudio", "timm", "pytorch-lightning", "numpy", "pandas", "soundfile")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def git_revision(folder: Path) -> str | None:
    """The commit of the code in `folder`, with '-dirty' where it was changed since; None outside of git."""
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def finish_run(
    partial: Path,
    final: Path,
    config: Config,
    classes: tuple[str, ...],
    oof: Predictions,
    test: Predictions,
    scores: dict[str, float],
    facts: dict[str, Any],
) -> None:
    """Complete `partial`, which holds model.safetensors and metrics.csv, and let it take the name `final`.

    facts go into the manifest: experiment, fold, fold_hash and whatever else the run was made from.

    An older folder of that name goes only when the new one is whole.
    """
    (partial / "config.json").write_text(json.dumps(to_dict(config), indent=1))
    (partial / "classes.txt").write_text("\n".join(classes) + "\n")
    save_predictions(partial / "oof.npz", oof)
    save_predictions(partial / "test.npz", test)
    (partial / "scores.json").write_text(json.dumps(scores, indent=1))
    manifest = {**facts, "files": {name: file_sha256(partial / name) for name in FILES}}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
    for file in partial.iterdir():
        if file.is_file() and file.name not in (*FILES, "manifest.json") and not file.name.startswith("events."):
            file.unlink()
    if final.exists():
        old = final.with_name(final.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        partial.rename(final)
        shutil.rmtree(old)
    else:
        partial.rename(final)


def read_run(folder: Path) -> Run:
    """A finished run folder, its small files checked against the manifest.

    Raises UserError where it is unfinished, damaged or written by another version of the kit.
    """
    small = [name for name in FILES if name != "model.safetensors"]
    trained, run_id = _read_checked(folder, small)
    scores = json.loads((folder / "scores.json").read_text())
    oof, test = load_predictions(folder / "oof.npz"), load_predictions(folder / "test.npz")
    return Run(folder, run_id, trained.config, trained.classes, oof, test, scores, trained.manifest)


def read_trained(folder: Path) -> Trained:
    """The trained part of a run folder, weights included in the check; stored predictions need not be there.

    Raises UserError where it is unfinished, damaged or written by another version of the kit.
    """
    return _read_checked(folder, TRAINED)[0]


def _read_checked(folder: Path, names: Sequence[str]) -> tuple[Trained, str]:
    """The trained part, and the id of the run, once the named files are those of the manifest."""
    try:
        raw = (folder / "manifest.json").read_bytes()
        manifest = json.loads(raw)
        check_files(folder, manifest, names)
        config = from_dict(json.loads((folder / "config.json").read_text()))
        classes = tuple((folder / "classes.txt").read_text().split())
    except UserError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: not a finished run folder ({error}): train that fold again") from None
    return Trained(folder, config, classes, manifest), hashlib.sha256(raw).hexdigest()[:12]


def check_files(folder: Path, manifest: dict[str, Any], names: Sequence[str]) -> None:
    """Raises UserError that lists the files whose bytes are not those that the manifest names."""
    if changed := [name for name in names if file_sha256(folder / name) != manifest["files"][name]]:
        raise UserError(f"{folder}: files changed since the run was finished: {list_some(changed)}; train it again")


def file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
