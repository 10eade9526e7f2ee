"""The contract between stages: a folder that holds one trained fold, whole or not at all.

config.json, classes.txt, model.safetensors, oof.npz, test.npz, scores.json, metrics.csv and manifest.json, which names
them with their sha256 and says what they were made from. Probabilities are keyed by fname.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from configs import cluster_job, files
from configs.competition import Task
from configs.files import lock, read_steady, swap, write
from configs.forms import from_json, read_json, to_json
from configs.schema import Config, differences, from_dict, to_dict
from configs.user_code import is_user_code
from console.errors import UserError, list_some
from folds.assign import fold_number
from metrics.metric import find_metric
from runs.predictions import Predictions, load_predictions, save_predictions
from runs.provenance import check_files, file_sha256

FILES = ("config.json", "classes.txt", "model.safetensors", "oof.npz", "test.npz", "scores.json", "metrics.csv")
TRAINED = ("config.json", "classes.txt", "model.safetensors")  # what prediction needs of them, with the manifest
RENAME_OR_RETRAIN = "choose a name=NEW, or train it again with --force"
RETRAIN = "train that fold with --force"
CHECKPOINT = "last.ckpt"  # the last whole epoch of an unfinished fold
LEASE = 120  # seconds; NFS 4 frees the locks of a lost machine after 90
BEGUN = "begun.json"  # what it is made from; gone once it has its name


@dataclass(frozen=True, kw_only=True)
class SoundHash:
    """Hashes of the names and sizes of sound files, see `input.competition.sound_hash`."""

    train: str | None = None  # of the training clips; None in a run of an older version
    test: str | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a fold is made from: begun.json, and the first part of manifest.json."""

    n_folds: int
    task: Task = "single_label"
    metric: str = "map@3"
    fold_hash: str  # of the table of training clips with their folds
    feature_hash: str | None = None
    sound_hash: SoundHash = SoundHash()
    targets_hash: str | None = None  # of secondary labels and weights; None where there are none
    corrections_hash: str | None = None  # None where no label is corrected
    pseudo_runs: dict[str, str] | None = None  # experiment -> id of the run that labelled test clips; None without
    teacher_run: str | None = None  # id of the run whose probabilities joined the labels; None without
    code: dict[str, str] = field(default_factory=dict)  # the user's own files, and a frozen network's -> sha256
    metric_code: dict[str, str] = field(default_factory=dict)  # the files of one's own metric -> sha256; older: none
    skipped: dict[str, str] = field(default_factory=dict)  # training clips that were left out -> reason
    test_faults: dict[str, str] = field(default_factory=dict)  # test clips -> what is wrong with them


@dataclass(frozen=True, kw_only=True)
class Manifest(Origin):
    """manifest.json: what a finished fold is, what it was made from and with, and what it holds."""

    experiment: str
    fold: int
    files: dict[str, str] = field(default_factory=dict)  # sha256 of FILES
    config_hash: str | None = None
    seed: int | None = None
    device: str | None = None
    precision: str | None = None
    seconds: float | None = None  # of training, since it went on for the last time
    git_revision: str | None = None
    versions: dict[str, str | None] = field(default_factory=dict)  # of the libraries


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
    manifest: Manifest

    @property
    def experiment(self) -> str:
        return self.manifest.experiment

    @property
    def fold(self) -> int:
        return self.manifest.fold


@dataclass(frozen=True)
class Trained:
    """What prediction needs of a finished run folder; the weights are in `weights`. `id` as that of `Run`."""

    folder: Path
    id: str
    config: Config
    classes: tuple[str, ...]
    manifest: Manifest

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"


@contextmanager
def unfinished(final: Path, config: Config, origin: Origin, restart: bool) -> Iterator[Path]:
    """The folder <final>.partial, held by this process alone; restart empties it.

    origin: what the fold is made from. A folder without a finished epoch holds nothing worth keeping and is begun
    again. Raises UserError where another process holds it, or it was begun with other settings or from other data.
    """
    partial = partial_of(final)
    with _alone(final):
        if restart or not (partial / CHECKPOINT).exists():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _write_json(partial / "config.json", to_dict(config))
            _write_json(partial / BEGUN, to_json(origin))
        check_same_settings(partial / "config.json", config, f"{partial} was begun")
        check_same_data(read_json(partial / BEGUN, Origin, RENAME_OR_RETRAIN), origin, f"{partial} was begun")
        yield partial


def is_begun(final: Path, config: Config) -> bool:
    """Whether an epoch of a fold with these settings lies in its .partial folder."""
    partial = partial_of(final)
    try:
        return (partial / CHECKPOINT).exists() and from_dict(_read_json(partial / "config.json")) == config
    except (UserError, ValueError, TypeError):
        return False


def recover(final: Path) -> None:
    """Let a fold take its name that was killed when it was whole but for that, or give an older one its name back."""
    files.recover(final)
    partial = partial_of(final)
    if (partial / "manifest.json").exists():
        with _alone(final):
            if (partial / BEGUN).exists() or not final.exists():
                _publish(partial, final)
            else:  # it was replaced, and the process killed before it had removed it
                shutil.rmtree(partial)


def partial_of(final: Path) -> Path:
    """Where a fold lies while it is unfinished."""
    return final.with_name(final.name + ".partial")


def _alone(final: Path) -> AbstractContextManager[None]:
    busy = f"{final}: another process is training this fold: wait for it, or stop it"
    return lock(final, busy, patience=LEASE if cluster_job.begun > 1 else 0)


def check_same_settings(file: Path, config: Config, fact: str) -> None:
    """Raises UserError that names the first settings in which a config.json differs from `config`."""
    values = _read_json(file)
    try:
        there = from_dict(values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{fact} with settings that this version cannot read ({error}): {RENAME_OR_RETRAIN}") from None
    if changed := differences(there, config):
        raise UserError(f"{fact} with other settings ({list_some(changed, 3)}): {RENAME_OR_RETRAIN}")


def check_same_data(there: Origin, now: Origin, fact: str) -> None:
    """Raises UserError where a run learned for another task, or from other folds, sound files, labels or code than
    `now` names.

    Test sound counts where it was given pseudo-labels; elsewhere it can be predicted again.
    """
    pseudo = there.pseudo_runs is not None or now.pseudo_runs is not None
    heard = [origin.sound_hash if pseudo else origin.sound_hash.train for origin in (there, now)]
    same = {
        "labels (one, or several a clip)": there.task == now.task,
        "folds": there.fold_hash == now.fold_hash,
        "sound files": heard[0] == heard[1],
        "secondary labels or weights": there.targets_hash == now.targets_hash,
        "corrections": there.corrections_hash == now.corrections_hash,
        "pseudo-labels (a run that they come from changed)": there.pseudo_runs == now.pseudo_runs,
        "labels of a teacher (its run changed)": there.teacher_run == now.teacher_run,
    }
    if other := [what for what, is_same in same.items() if not is_same]:
        raise UserError(f"{fact} from other {other[0]}: {RENAME_OR_RETRAIN}")
    if changed := sorted(name for name in {*there.code, *now.code} if there.code.get(name) != now.code.get(name)):
        raise UserError(f"{fact} from other code of {list_some(changed)}: {RENAME_OR_RETRAIN}")
    scored_alike = there.metric != now.metric or not there.metric_code or there.metric_code == now.metric_code
    if not scored_alike:
        raise UserError(f"{fact} with another version of the metric {now.metric}: {RENAME_OR_RETRAIN}")


def finish_run(
    partial: Path,
    final: Path,
    config: Config,
    classes: tuple[str, ...],
    oof: Predictions,
    test: Predictions,
    scores: dict[str, float],
    manifest: Manifest,
) -> None:
    """Complete `partial`, which holds model.safetensors and metrics.csv, and let it take the name `final`.

    The files' hashes are added to the manifest. An older folder of that name goes only when the new one is whole.
    """
    write(partial / "classes.txt", "\n".join(classes) + "\n")
    save_predictions(partial / "oof.npz", oof)
    save_predictions(partial / "test.npz", test)
    _write_json(partial / "config.json", to_dict(config))
    _write_json(partial / "scores.json", scores)
    hashes = {name: file_sha256(partial / name) for name in FILES}
    _write_json(partial / "manifest.json", to_json(replace(manifest, files=hashes)))
    _publish(partial, final)


def _publish(partial: Path, final: Path) -> None:
    """A folder with a manifest is whole: it takes the name `final`, and an older one of that name goes."""
    for file in partial.iterdir():
        if file.is_file() and file.name not in (*FILES, "manifest.json", BEGUN) and not file.name.startswith("events."):
            file.unlink()
    swap(partial, final)
    (final / BEGUN).unlink(missing_ok=True)  # last: it tells a new folder from a replaced one, see `recover`


def finished_folds(experiment: Path) -> list[Path]:
    """The folders of an experiment's finished folds, in order of their numbers."""
    for left in experiment.glob("fold*.old"):
        files.recover(left.with_suffix(""))
    found = {fold_number(folder.name[4:]): folder for folder in experiment.glob("fold*")}
    return [found[k] for k in sorted(k for k in found if k is not None)]


def read_run(folder: Path) -> Run:
    """A finished run folder, its small files checked against the manifest.

    Raises UserError where it is unfinished, damaged or written by another version of the kit.
    """
    return read_steady(folder, lambda: _read_run(folder))


def _read_run(folder: Path) -> Run:
    trained = _read_checked(folder, [name for name in FILES if name != "model.safetensors"])
    scores = read_json(folder / "scores.json", dict[str, float], RETRAIN)
    oof, test = load_predictions(folder / "oof.npz"), load_predictions(folder / "test.npz")
    for name, one in (("oof", oof), ("test", test)):
        if one.probs.shape[1] != len(trained.classes):
            raise UserError(
                f"{folder / name}.npz: {one.probs.shape[1]} columns, {len(trained.classes)} classes: {RETRAIN}"
            )
    if (key := _score_key(trained.manifest, scores)) not in scores:
        raise UserError(f"{folder / 'scores.json'}: lacks {key or 'a score'}: {RETRAIN}")
    return Run(folder, trained.id, trained.config, trained.classes, oof, test, scores, trained.manifest)


def _score_key(manifest: Manifest, scores: Mapping[str, float]) -> str:
    """The key that scores.json must have. The user's own metric has any: its code does not run to read a folder."""
    if is_user_code(manifest.metric):
        return next(iter(scores), "")
    return find_metric(manifest.metric, manifest.task).key


def read_trained(folder: Path) -> Trained:
    """The trained part of a run folder, weights included in the check; stored predictions need not be there.

    Raises UserError where it is unfinished, damaged or written by another version of the kit.
    """
    return read_steady(folder, lambda: _read_checked(folder, TRAINED))


def _read_checked(folder: Path, names: Sequence[str]) -> Trained:
    """The trained part, once the named files are those of the manifest."""
    try:
        raw = (folder / "manifest.json").read_bytes()
        manifest = from_json(Manifest, json.loads(raw))
        check_files(folder, manifest.files, names)
        config = from_dict(_read_json(folder / "config.json"))
        lines = (folder / "classes.txt").read_text(encoding="utf-8-sig").split("\n")
        classes = tuple(line.strip() for line in lines if line.strip())
        if not 0 <= manifest.fold < manifest.n_folds <= 10_000:
            raise ValueError(f"fold {manifest.fold} of {manifest.n_folds} in its manifest")
    except UserError:
        raise
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise UserError(f"{folder}: not a finished run of this kit ({error}): {RETRAIN}") from None
    return Trained(folder, hashlib.sha256(raw).hexdigest()[:12], config, classes, manifest)


def _write_json(file: Path, values: dict[str, Any]) -> None:
    write(file, json.dumps(values, indent=1, sort_keys=True))


def _read_json(file: Path) -> dict[str, Any]:
    """Raises UserError where the file is absent or damaged."""
    return dict(read_json(file, dict, RENAME_OR_RETRAIN))
