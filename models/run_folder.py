"""The contract between stages: a folder that holds one trained fold, whole or not at all.

config.json, classes.txt, model.safetensors, oof.npz, test.npz, scores.json, metrics.csv and manifest.json, which names
them with their sha256 and says what they were made from. Probabilities are keyed by fname.
"""

import fcntl
import hashlib
import json
import os
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
NEEDED = {"experiment", "fold", "n_folds", "fold_hash", "skipped", "test_faults", "files"}  # of a manifest
MADE_FROM = {  # facts that a run must share with who asks for it; the last two are absent where they are not used
    "fold_hash": "folds",
    "sound_hash": "sound files",
    "corrections_hash": "corrections",
    "pseudo_runs": "pseudo-labels (a run that they come from changed)",
}
ANEW = "choose a name=NEW, or train it again with --force"
CHECKPOINT = "last.ckpt"  # the last whole epoch of an unfinished fold


@dataclass(frozen=True)
class Predictions:
    """probs (clips, classes) float32, row i for fnames[i]. size: (clips,) int64, the bytes of the sound files that they
    were predicted from, -1 of a missing one; None where that is not told."""

    fnames: tuple[str, ...]
    probs: np.ndarray
    size: np.ndarray | None = None

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


def mean_of_folds(probs: Sequence[np.ndarray]) -> np.ndarray:
    """An experiment's test probabilities (clips, classes) float32 from those of its fold models."""
    return np.mean(probs, axis=0).astype(np.float32)


@dataclass(frozen=True)
class Trained:
    """What prediction needs of a finished run folder; the weights are in `weights`. `id` as that of `Run`."""

    folder: Path
    id: str
    config: Config
    classes: tuple[str, ...]
    manifest: dict[str, Any]

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"


def save_predictions(file: Path, predictions: Predictions) -> None:
    """fname, probs and what is told of size in one .npz, the same bytes for the same values."""
    told: dict[str, Any] = {} if predictions.size is None else {"size": predictions.size}
    with file.open("wb") as out:
        np.savez(out, fname=np.array(predictions.fnames, dtype=str), probs=predictions.probs.astype(np.float32), **told)


def replace_predictions(file: Path, predictions: Predictions) -> None:
    """As `save_predictions` in a folder that is in use: the file is there whole or not at all."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    save_predictions(part, predictions)
    part.replace(file)


def load_predictions(file: Path) -> Predictions:
    """The inverse of `save_predictions`. Raises UserError where the file is damaged."""
    try:
        with np.load(file) as data:
            fnames, probs = tuple(data["fname"].tolist()), data["probs"]
            if probs.ndim != 2 or len(probs) != len(fnames):
                raise ValueError(f"{len(fnames)} names for probabilities of shape {probs.shape}")
            return Predictions(fnames, probs, data.get("size"))
    except Exception as error:  # a damaged npz fails as OSError, ValueError, KeyError or BadZipFile
        raise UserError(f"{file}: cannot read the predictions: {error}") from None


def kept_answers(folder: Path, run_id: str, store_key: str) -> Path:
    """Where a run's answers to clips that it was not trained beside are kept, in work/predictions."""
    return folder / f"{run_id}-{store_key}.npz"


@contextmanager
def unfinished(final: Path, config: Config, facts: dict[str, Any], restart: bool) -> Iterator[Path]:
    """The folder <final>.partial, held by this process alone; restart empties it.

    facts: what the fold is made from, fold_hash and sound_hash among them. A folder without a finished epoch holds
    nothing worth keeping and is begun anew. Raises UserError where another process holds it, or where it was begun with
    other settings or from other data.
    """
    partial = partial_of(final)
    with _lock(final):
        if restart or not (partial / CHECKPOINT).exists():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _write_json(partial / "config.json", to_dict(config))
            _write_json(partial / "begun.json", facts)
        refuse_other_settings(partial / "config.json", config, f"{partial} was begun")
        refuse_other_data(_read_json(partial / "begun.json"), facts, f"{partial} was begun")
        yield partial


def is_begun(final: Path, config: Config) -> bool:
    """Whether an epoch of a fold with these settings lies beside its place."""
    partial = partial_of(final)
    try:
        return (partial / CHECKPOINT).exists() and from_dict(_read_json(partial / "config.json")) == config
    except (UserError, ValueError, TypeError):
        return False


def recover(final: Path) -> None:
    """Let a fold take its name that was killed when it was whole but for that."""
    if (partial_of(final) / "manifest.json").exists():
        with _lock(final):
            if (partial_of(final) / "manifest.json").exists():  # another process may just have finished it
                _publish(partial_of(final), final)


def partial_of(final: Path) -> Path:
    """Where a fold lies while it is unfinished."""
    return final.with_name(final.name + ".partial")


@contextmanager
def _lock(final: Path) -> Iterator[None]:
    """A killed process leaves no lock behind, only an empty file. Raises UserError where another process holds it."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with final.with_name(f".{final.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{final}: another process is training this fold: wait for it, or stop it") from None
        yield


def refuse_other_settings(file: Path, config: Config, fact: str) -> None:
    """Raises UserError that names the first settings in which a config.json differs from `config`."""
    values = _read_json(file)
    try:
        there = from_dict(values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{fact} with settings that this version cannot read ({error}): {ANEW}") from None
    if changed := differences(there, config):
        raise UserError(f"{fact} with other settings ({list_some(changed, 3)}): {ANEW}")


def refuse_other_data(there: dict[str, Any], facts: dict[str, Any], fact: str) -> None:
    """Raises UserError where a run learned from other folds, sound files or labels than `facts` name.

    Test sound counts where it was given pseudo-labels; elsewhere it can be predicted again.
    """
    for key, what in MADE_FROM.items():
        one, other = there.get(key), facts.get(key)
        if key == "sound_hash" and one and other and "pseudo_runs" not in {*there, *facts}:
            one, other = one.get("train"), other.get("train")
        if one != other:
            raise UserError(f"{fact} from other {what}: {ANEW}")


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

    facts go into the manifest: experiment, fold, n_folds, fold_hash, skipped, test_faults and whatever else the run was
    made from. An older folder of that name goes only when the new one is whole.
    """
    (partial / "classes.txt").write_text("\n".join(classes) + "\n")
    save_predictions(partial / "oof.npz", oof)
    save_predictions(partial / "test.npz", test)
    _write_json(partial / "config.json", to_dict(config))
    _write_json(partial / "scores.json", scores)
    _write_json(partial / "manifest.json", {**facts, "files": {name: file_sha256(partial / name) for name in FILES}})
    _publish(partial, final)


def _publish(partial: Path, final: Path) -> None:
    """A folder with a manifest is whole: it takes the name `final`, and an older one of that name goes."""
    for file in partial.iterdir():
        if file.is_file() and file.name not in (*FILES, "manifest.json") and not file.name.startswith("events."):
            file.unlink()
    old = final.with_name(final.name + ".old")
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
    partial.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def read_run(folder: Path) -> Run:
    """A finished run folder, its small files checked against the manifest.

    Raises UserError where it is unfinished, damaged or written by another version of the kit.
    """
    small = [name for name in FILES if name != "model.safetensors"]
    trained = _read_checked(folder, small)
    scores = _read_json(folder / "scores.json")
    oof, test = load_predictions(folder / "oof.npz"), load_predictions(folder / "test.npz")
    return Run(folder, trained.id, trained.config, trained.classes, oof, test, scores, trained.manifest)


def read_trained(folder: Path) -> Trained:
    """The trained part of a run folder, weights included in the check; stored predictions need not be there.

    Raises UserError where it is unfinished, damaged or written by another version of the kit.
    """
    return _read_checked(folder, TRAINED)


def _read_checked(folder: Path, names: Sequence[str]) -> Trained:
    """The trained part, once the named files are those of the manifest."""
    try:
        raw = (folder / "manifest.json").read_bytes()
        manifest = json.loads(raw)
        if lacking := sorted(NEEDED - set(manifest)):
            raise ValueError(f"its manifest lacks {list_some(lacking)}")
        fold, n_folds = manifest["fold"], manifest["n_folds"]
        if not (type(fold) is type(n_folds) is int and 0 <= fold < n_folds):
            raise ValueError(f"its manifest has fold {fold!r} of {n_folds!r}")
        check_files(folder, manifest, names)
        config = from_dict(_read_json(folder / "config.json"))
        classes = tuple((folder / "classes.txt").read_text().split())
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: not a finished run of this kit ({error}): train that fold with --force") from None
    return Trained(folder, hashlib.sha256(raw).hexdigest()[:12], config, classes, manifest)


def check_files(folder: Path, manifest: dict[str, Any], names: Sequence[str]) -> None:
    """Raises UserError that lists the files whose bytes are not those that the manifest names."""
    if changed := [name for name in names if file_sha256(folder / name) != manifest["files"][name]]:
        raise UserError(
            f"{folder}: files changed since the run was finished: {list_some(changed)}; train it again with --force"
        )


def _write_json(file: Path, values: dict[str, Any]) -> None:
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(values, indent=1, sort_keys=True))
    part.replace(file)  # there whole or not at all


def _read_json(file: Path) -> dict[str, Any]:
    """Raises UserError where the file is absent or damaged."""
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot read ({error}): {ANEW}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: holds no settings: {ANEW}")
    return values


def file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
