"""Pack what trains experiments on Kaggle: one folder for a private dataset, with a manifest of every file.

code/: the kit and the user's own modules. experiments.yaml. files/: weights and corrections, by the names that the
experiments have for them. runs/: finished runs that they learn from. wheels/: packages that Kaggle lacks.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.files import new_folder
from configs.forms import to_json
from configs.paths import Paths
from configs.schema import Config, to_dict
from console.errors import UserError, list_some
from console.output import say
from submission import bundle

PACKAGES = (*bundle.PACKAGES, "training")
VERB = "train_fold.py"
EXPERIMENTS = "experiments.yaml"
DESCRIPTION = "description.yaml"


@dataclass(frozen=True)
class Job:
    """The part of kit_manifest.json that says what to train."""

    job: str  # 12 hex digits of all below but the code: a later run may go on from an earlier one with the same
    competition: str
    folds: str  # as --fold names them
    git_revision: str | None = None
    described_by: str | None = None  # as --as names it
    internet: bool = False
    fold_hashes: dict[str, str] = field(default_factory=dict)  # of each experiment, where its clips are known here


def bundle_training(
    paths: Paths,
    experiments: list[Config],
    folds: str,
    owner: str,
    slug: str,
    competition: str,
    wheels: Sequence[Path] = (),
) -> tuple[Path, Job]:
    """Write <work>/kaggle/<slug>/dataset/, whole or not at all; the folder, and what it says.

    Raises UserError on folds that there are not, a logger that Kaggle has no use for, or a file, run or module that is
    missing or could not be found by the same name on Kaggle.
    """
    from runs.provenance import git_revision

    check_loggers(experiments)
    metadata = bundle.dataset_metadata(owner, slug)
    described_by = _description(paths)
    hashes, metric = _known_here(paths, experiments, folds)
    taught = [cfg for name in learned_from(experiments) for cfg in _configs_of(paths, name)]
    final = paths.work / "kaggle" / slug / "dataset"
    with new_folder(final) as partial:
        _write_experiments(partial / EXPERIMENTS, experiments)
        _copy_code(partial / "code", [*experiments, *taught], metric)
        for cfg in [*experiments, *taught]:
            _copy_files(cfg, paths, partial / "files")
        for name in learned_from(experiments):
            _copy_runs(paths, name, partial / "runs" / name)
        if isinstance(described_by, Path):
            shutil.copyfile(described_by, partial / DESCRIPTION)
        bundle.bring_wheels(wheels, "torch", partial, None)
        told: dict[str, Any] = {"competition": competition, "folds": folds, "fold_hashes": hashes}
        told["described_by"] = DESCRIPTION if isinstance(described_by, Path) else described_by
        told["internet"] = any(cfg.model.pretrained for cfg in experiments)
        job = Job(_digest(partial, told), git_revision=git_revision(bundle.ROOT), **told)
        size = bundle.write_manifest(partial, to_json(job))
        (partial / bundle.METADATA).write_text(json.dumps(metadata, indent=1))
    say(f"{metadata['id']}: to train {list_some(cfg.name for cfg in experiments)}, {size / 1e6:.1f} MB -> {final}")
    return final, job


def check_loggers(experiments: Sequence[Config]) -> None:
    """Raises UserError on a logger that writes elsewhere than into the run folder, which alone comes back."""
    for cfg in experiments:
        if away := [name for name in cfg.train.loggers if name not in ("csv", "tensorboard")]:
            raise UserError(
                f"{cfg.name}: train.logger={cfg.train.logger}: {away[0]} is reached by no kernel: "
                f"use train.logger=csv,tensorboard"
            )


def _digest(folder: Path, told: dict[str, Any]) -> str:
    """Of what the training depends on; code and wheels may be repaired between two runs of it."""
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        if (place := file.relative_to(folder)).parts[0] not in ("code", "wheels"):
            digest.update(str(place).encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _description(paths: Paths) -> Path | str | None:
    """The file that describes the competition, or the name of a ready description; None: it is recognised."""
    from configs.description import FILE_NAME, find_description, ready_descriptions

    if paths.described_by is not None:
        found = find_description(paths.described_by, paths.input)
        return paths.described_by if paths.described_by in ready_descriptions() else found[0]
    own = paths.input / FILE_NAME
    return own if own.is_file() else None


def _known_here(paths: Paths, experiments: list[Config], folds: str) -> tuple[dict[str, str], str]:
    """The hash of each experiment's table of folds, which must be the same on Kaggle, and the metric. Empty where the
    competition was not downloaded. Raises UserError on folds that an experiment does not have."""
    from folds.assign import fold_hash, folds_of, load_folds, parse_folds
    from input.competition import load_competition

    if not paths.input.is_dir():
        parse_folds(folds, None)
        say(f"{paths.input}: not here: its clips and folds are checked on Kaggle alone")
        return {}, ""
    competition = load_competition(paths.input, sound=False, described_by=paths.described_by)
    for cfg in experiments:
        folds_of(folds, cfg.folds, competition)
    hashes = {cfg.name: fold_hash(load_folds(cfg.folds, competition, paths.folds)) for cfg in experiments}
    return hashes, competition.metric


def _write_experiments(file: Path, experiments: list[Config]) -> None:
    """Every setting of every experiment, so that they are the same whatever file and overrides they came from."""
    import yaml

    from configs.load import load_configs

    settings = {cfg.name: json.loads(json.dumps(to_dict(cfg))) for cfg in experiments}
    named = {name: {key: value for key, value in one.items() if key != "name"} for name, one in settings.items()}
    file.write_text(yaml.safe_dump({"experiments": named}, sort_keys=False, allow_unicode=True), encoding="utf-8")
    assert load_configs(file) == experiments


def learned_from(experiments: Sequence[Config]) -> list[str]:
    """Experiments that teach these or label test clips for them, and are not among those before them."""
    found: list[str] = []
    for i, cfg in enumerate(experiments):
        named = [*cfg.pseudo.runs, *([cfg.train.teacher] if cfg.train.teacher else [])]
        found += [name for name in named if name not in {one.name for one in experiments[:i]}]
    return list(dict.fromkeys(found))


def _configs_of(paths: Paths, name: str) -> list[Config]:
    from runs.run_folder import finished_folds, read_trained

    if not (folds := finished_folds(paths.runs / name)):
        raise UserError(f"{paths.runs / name}: no finished fold, but an experiment learns from it: train it first")
    return [read_trained(folder).config for folder in folds]


def _copy_runs(paths: Paths, name: str, target: Path) -> None:
    from runs.run_folder import FILES, finished_folds

    for folder in finished_folds(paths.runs / name):
        (target / folder.name).mkdir(parents=True)
        for file in (*FILES, "manifest.json"):
            shutil.copyfile(folder / file, target / folder.name / file)


def _copy_code(target: Path, configs: Sequence[Config], metric: str) -> None:
    """The kit's modules and YAML files, and the user's own code. That of an installed package is brought by --wheel."""
    from configs.user_code import is_installed, metric_files, user_files

    bundle.copy_code(target, PACKAGES)
    for file in [Path(VERB), *(file.relative_to(bundle.ROOT) for file in (bundle.ROOT / "configs").glob("*/*.yaml"))]:
        bundle.copy_into(bundle.ROOT / file, target / file)
    for name in ("submission.kernel_train", VERB.removesuffix(".py")):
        bundle.check_code(target, name)
    own = {place: file for cfg in configs for place, file in user_files(cfg).items()} | metric_files(metric)
    for place, source in own.items():
        if not is_installed(source):
            bundle.copy_into(source, target / place)


def _copy_files(cfg: Config, paths: Paths, target: Path) -> None:
    """The files that a config names, below `target` by the same relative path. A run's weights bring its manifest, by
    which training knows what they have learned from; those of a package are copied with it."""
    from models.published_names import PACKAGE

    frozen = cfg.model.frozen if cfg.model.frozen_is_file else None
    for key, name in (
        ("input.corrections", cfg.input.corrections),
        ("model.weights", cfg.model.weights),
        ("model.name", frozen),
    ):
        if name is None:
            continue
        if name.startswith(PACKAGE):
            _copy_package(name.removeprefix(PACKAGE), target.parent / "code")
            continue
        _copy_file(f"{key}={name}", Path(name), target)
        if key == "model.weights":
            _copy_origin(Path(name), paths, target)


def _copy_file(what: str, file: Path, target: Path) -> None:
    if not file.is_file():
        raise UserError(f"{what}: no such file")
    if file.is_absolute() or ".." in file.parts:
        raise UserError(
            f"{what}: has no such name on Kaggle: put it below the current folder and name it from there, like "
            f"input/weights/{file.name}"
        )
    bundle.copy_into(file, target / file)


def _copy_origin(weights: Path, paths: Paths, target: Path) -> None:
    """The manifest of a run beside its weights. Raises UserError for a copy of a run's weights that lies elsewhere."""
    from runs.provenance import file_sha256

    if (origin := weights.with_name("manifest.json")).is_file():
        shutil.copyfile(origin, target / origin)
        return
    digest = file_sha256(weights)
    for manifest in sorted(paths.runs.glob("*/fold*/manifest.json")):
        if json.loads(manifest.read_bytes()).get("files", {}).get("model.safetensors") == digest:
            named = manifest.with_name("model.safetensors")
            raise UserError(f"model.weights={weights}: are those of a run: name them {named}, so that this is known")


def _copy_package(module: str, code: Path) -> None:
    """The folder of an installed package, whose weights alone are read."""
    from importlib.util import find_spec

    from models.published_names import PACKAGE, weights_file

    weights_file(f"{PACKAGE}{module}")  # raises where there are none
    top = module.partition(".")[0]
    spec = find_spec(top)
    assert spec is not None and spec.submodule_search_locations
    shutil.copytree(
        spec.submodule_search_locations[0], code / top, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
    )
