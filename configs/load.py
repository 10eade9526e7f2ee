"""YAML file + key=value overrides -> Config. A typo fails here and names the file, the line and the key."""

import copy
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from configs.checkpoint import PRETRAINED, checkpoint_of, fetched_as
from configs.schema import EMBEDDING, PACKAGE, Config
from configs.strict_yaml import Places, YamlFault, build, parse_yaml, place_of, read_yaml
from console.errors import UserError, count, list_some
from console.options import expand_home

FIXED = ("fixed_mean", "fixed_std")
FILE_KEYS = (("input", "corrections"), ("model", "weights"))  # keys whose value is a path
USUAL_NAMES = {  # of our keys in other tools, where spelling alone does not find ours
    "train.lr": ("learning_rate", "learningrate", "max_lr"),
    "train.batch_size": ("bs", "batch", "train_batch_size"),
    "train.epochs": ("num_epochs", "n_epochs", "max_epochs", "nepochs", "epoch"),
    "train.weight_decay": ("wd", "l2", "decay"),
    "train.precision": ("amp", "fp16", "bf16", "mixed_precision"),
    "features.sample_rate": ("sr", "samplerate", "sampling_rate"),
    "features.hop_length": ("hop", "hop_size"),
    "features.n_mels": ("mels", "num_mels", "mel_bins", "num_mel_bins", "nmels"),
    "features.f_min": ("fmin",),
    "features.f_max": ("fmax",),
    "folds.n_folds": ("num_folds", "n_splits", "kfold", "nfolds"),
    "model.name": ("arch", "architecture", "backbone", "encoder", "network"),
    "augment.mixup_alpha": ("mixup",),
}


class Setting(NamedTuple):
    """A value for a key like 'train.epochs', and the place that error messages name."""

    key: str
    value: Any
    place: str


def load_config(path: Path | None = None, overrides: Sequence[str] = (), settings: Sequence[Setting] = ()) -> Config:
    """The only experiment of a file, see `load_configs`. Raises UserError as that does, and if there are several."""
    first, *more = load_configs(path, overrides, settings)
    if more:
        raise UserError(
            f"{path}: has {count(1 + len(more), 'experiment')}, expected one: use a file with one experiment"
        )
    return first


def load_configs(
    path: Path | None = None, overrides: Sequence[str] = (), settings: Sequence[Setting] = ()
) -> list[Config]:
    """The defaults, changed by the YAML file, changed by 'train.epochs=3' strings, changed by settings.

    An experiment is named after the file unless `name` is given. A file with the key `experiments`, a mapping of names
    to their own settings, has several, which share the other settings. The key `base`, of a file or of one of its
    experiments, names a file of one experiment, relative to this one: its settings come instead of the defaults, except
    its name. A section `checkpoint` describes published weights, see configs/checkpoint.py. Raises UserError on an
    unknown key, a value of the wrong type or out of bounds, a missing or malformed file.
    """
    return [cfg for cfg, _ in _placed(path, overrides, settings)]


def _placed(
    path: Path | None, overrides: Sequence[str], settings: Sequence[Setting] = ()
) -> list[tuple[Config, Places]]:
    """The experiments, and where each of their settings was given."""
    values: dict[str, Any] = {}
    places: Places = {}
    if path is not None:
        values, places = read_yaml(path)
        values.setdefault("name", unicodedata.normalize("NFC", path.stem))  # macOS writes é as two characters
    changes = [*map(_parse, overrides), *settings]
    if "experiments" not in values:
        return [_build(values, changes, places, path)]
    return [_build(own, changes, at, path) for own, at in _experiments(values, overrides, places, path)]


def check_files(path: Path | None, overrides: Sequence[str], to_train: Mapping[str, bool] | None = None) -> None:
    """Raises UserError that names the place of a setting whose file is not there, before anything is done with it.

    to_train: the experiments that count, and whether they have folds to train; else their weights may be gone. None:
    all have.
    """
    for cfg, places in _placed(path, overrides):
        trains = True if to_train is None else to_train.get(cfg.name)
        for section, key in FILE_KEYS if trains is not None else ():
            value = getattr(getattr(cfg, section), key)
            unused = key == "weights" and not trains
            if value is None or unused or value.startswith(PACKAGE) or Path(value).is_file():
                continue
            fact = "is a folder, expected a file" if Path(value).is_dir() else "no such file"
            name = fetched_as(Path(value).name) if key == "weights" else None
            remedy = f"python -m models.fetch {name}" if name else "bring it, or correct the path"
            where = "" if Path(value).is_absolute() else f" in {Path.cwd()}"
            place = place_of((section, key), places, path)
            raise UserError(f"{place}: {section}.{key}: {value}: {fact}{where}: {remedy}")


def chosen(experiments: list[Config], names: str) -> list[Config]:
    """The experiments whose names 'a,b' lists. Raises UserError on a name that is not among them."""
    known = {cfg.name: cfg for cfg in experiments}
    selected = names.split(",")
    if unknown := [name for name in selected if name not in known]:
        raise UserError(f"--only: no experiment {list_some(unknown)} in the file: use {list_some(known)}")
    return [known[name] for name in selected]


def _experiments(
    values: dict[str, Any], overrides: Sequence[str], places: Places, path: Path | None
) -> Iterator[tuple[dict[str, Any], Places]]:
    """The values and places of each experiment of a file: the shared settings, changed by its own."""
    own = values.pop("experiments")
    where = places.get(("experiments",), path)
    if not isinstance(own, dict) or not own:
        raise UserError(f"{where}: 'experiments' must map names to settings, like 'small: {{model: {{...}}}}'")
    if ("name",) in places or any(override.startswith("name=") for override in overrides):
        raise UserError(f"{where}: each experiment of this file has its own name: remove 'name'")
    for name, changes in own.items():
        at = ("experiments", str(name))
        if not isinstance(changes, dict | None):
            raise UserError(f"{places[at]}: 'experiments.{name}' is {changes!r}: expected settings")
        if changes and "name" in changes:
            raise UserError(f"{places[(*at, 'name')]}: 'experiments.{name}' already has a name: remove 'name'")
        inside = {key[2:]: place for key, place in places.items() if key[:2] == at and len(key) > 2}
        yield _merged(values, {**(changes or {}), "name": str(name)}), places | inside | {("name",): places[at]}


def _merged(values: Any, changes: Any) -> Any:
    """Nested mappings, `changes` over `values`; neither is modified."""
    if not (isinstance(values, dict) and isinstance(changes, dict)):
        return copy.deepcopy(changes)
    return copy.deepcopy(values) | {key: _merged(values.get(key), value) for key, value in changes.items()}


def _build(
    values: dict[str, Any], changes: Sequence[Setting], places: Places, path: Path | None
) -> tuple[Config, Places]:
    if path is not None:
        values, places = _with_base(values, places, path, ())
    for setting in changes:
        _set(values, places, setting)
    values, places = _with_front_end(values, places)
    return _with_home(build(Config, values, places, path, USUAL_NAMES), places, path), places


def _with_base(
    values: dict[str, Any], places: Places, path: Path, above: tuple[Path, ...]
) -> tuple[dict[str, Any], Places]:
    """The settings of the file that `base` names, changed by values, without `base` and `checkpoint`."""
    if "checkpoint" in values:
        checkpoint_of(values.pop("checkpoint"), places, path)
    if "base" not in values:
        return values, places
    where, base = place_of(("base",), places, path), values.pop("base")
    if not isinstance(base, str):
        raise UserError(f"{where}: 'base' is {base!r}: expected a file, like pretrained/mn10_as.yaml")
    file = path.parent / base
    if file in (above := (*above, path)):
        raise UserError(f"{where}: base {base} leads back to this file: remove one 'base'")
    under, at = read_yaml(file)
    if "experiments" in under:
        raise UserError(f"{where}: base {base} has several experiments: expected one")
    under.pop("name", None)
    under, at = _with_base(under, at, file, above)
    return _merged(under, values), at | places


def _with_front_end(values: dict[str, Any], places: Places) -> tuple[dict[str, Any], Places]:
    """For model.name=embedding:<file in configs/pretrained> that file's front end, network, weights and windows, with
    `values` over them: the config then says all, and prediction needs no YAML."""
    name = model.get("name") if isinstance(model := values.get("model"), dict) else None
    file = PRETRAINED / f"{str(name).removeprefix(EMBEDDING)}.yaml"
    if not str(name).startswith(EMBEDDING) or not file.exists():
        return values, places
    under, at = _with_base(*read_yaml(file), file, ())
    front: dict[str, Any] = {key: under[key] for key in ("features", "model", "predict") if key in under}
    front["train"] = {key: value for key, value in under["train"].items() if key in ("normalise", *FIXED)}
    own = _merged(values, {"model": {"name": EMBEDDING + under["model"]["name"]}})
    return _merged(front, own), at | places


def _with_home(cfg: Config, places: Places, path: Path | None) -> Config:
    """Expand a leading ~ in paths."""
    for section, key in FILE_KEYS:
        part = getattr(cfg, section)
        if (value := getattr(part, key)) is not None and value.startswith("~"):
            try:
                part = replace(part, **{key: str(expand_home(value))})
            except UserError as error:
                raise UserError(f"{place_of((section, key), places, path)}: {section}.{key}: {error}") from None
            cfg = replace(cfg, **{section: part})
    return cfg


def _parse(override: str) -> Setting:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"command line: {override!r}: expected key=value, like train.epochs=3")
    try:
        return Setting(key, parse_yaml(text)[1], "command line")
    except YamlFault:
        raise UserError(f"command line: {override!r}: the value is invalid YAML") from None


def _set(values: dict[str, Any], places: Places, setting: Setting) -> None:
    *parents, last = at = tuple(setting.key.split("."))
    node = values
    for depth, parent in enumerate(parents, start=1):
        if node.get(parent) is None:
            node[parent] = {}
        if not isinstance(node[parent], dict):
            where = places.get(at[:depth], setting.place)
            raise UserError(f"{where}: '{'.'.join(at[:depth])}' is {node[parent]!r}, which has no key {last!r}")
        node = node[parent]
    node[last] = copy.deepcopy(setting.value)  # several experiments may share the object
    places[at] = setting.place
