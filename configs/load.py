"""YAML file + key=value overrides -> Config. A typo fails here and names the file, the line and the key."""

import copy
import difflib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from configs import schema
from configs.schema import Config
from configs.text import read_text
from console.errors import UserError
from console.options import expand_home

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
MOST_VALUES = 10_000  # in a YAML file, every alias counted: a few lines with aliases can expand to billions of values
FILE_KEYS = (("input", "corrections"), ("model", "weights"))  # keys whose value is a path
Places = dict[tuple[str, ...], str]  # where a key was given: 'file.yaml:3' or 'command line'


class YamlFault(Exception):
    """Why settings cannot be read from a YAML text."""


class Setting(NamedTuple):
    """A value for a key like 'train.epochs', and the place that error messages name."""

    key: str
    value: Any
    place: str


def load_config(path: Path | None = None, overrides: Sequence[str] = (), settings: Sequence[Setting] = ()) -> Config:
    """The only experiment of a file, see `load_configs`. Raises UserError as that does, and if there are several."""
    first, *more = load_configs(path, overrides, settings)
    if more:
        raise UserError(f"{path}: has {1 + len(more)} experiments, expected one: use a file with one experiment")
    return first


def load_configs(
    path: Path | None = None, overrides: Sequence[str] = (), settings: Sequence[Setting] = ()
) -> list[Config]:
    """The defaults, changed by the YAML file, changed by 'train.epochs=3' strings, changed by settings.

    An experiment is named after the file unless `name` is given. A file with the key `experiments`, a mapping of names
    to their own settings, has several, which share the other settings. Raises UserError on an unknown key, a value of
    the wrong type or out of bounds, a missing or malformed file.
    """
    values: dict[str, Any] = {}
    places: Places = {}
    if path is not None:
        values, places = read_yaml(path)
        values.setdefault("name", unicodedata.normalize("NFC", path.stem))  # macOS writes é as two characters
    changes = [*map(_parse, overrides), *settings]
    if "experiments" not in values:
        return [_build(values, changes, places, path)]
    return [_build(own, changes, at, path) for own, at in _experiments(values, overrides, places, path)]


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


def _build(values: dict[str, Any], changes: Sequence[Setting], places: Places, path: Path | None) -> Config:
    for setting in changes:
        _set(values, places, setting)
    try:
        # pydantic takes no config for a dataclass itself, but passes it down from a tuple
        (cfg,) = TypeAdapter(tuple[Config], config=STRICT).validate_python((values,))
    except ValidationError as error:
        raise UserError(_explain(error, places, path)) from None
    _check_no_booleans(values, cfg, (), places, path)
    return _with_home(cfg, places, path)


def _with_home(cfg: Config, places: Places, path: Path | None) -> Config:
    """Expand a leading ~ in paths."""
    for section, key in FILE_KEYS:
        part = getattr(cfg, section)
        if (value := getattr(part, key)) is not None and value.startswith("~"):
            try:
                part = replace(part, **{key: str(expand_home(value))})
            except UserError as error:
                raise UserError(f"{_place((section, key), places, path)}: {section}.{key}: {error}") from None
            cfg = replace(cfg, **{section: part})
    return cfg


def read_yaml(path: Path, what: str = "config", example: str = "train: {epochs: 3}") -> tuple[dict[str, Any], Places]:
    """The mapping in a YAML file, and the places of its keys. Raises UserError if it cannot be read, is no mapping, or
    has a key twice."""
    try:
        tree, values = _parse_yaml(read_text(path, what))
    except YamlFault as error:
        raise UserError(f"{path}: invalid YAML: {error}") from None
    if values is None:  # comments only
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: a {what} must be a mapping of keys to values, like '{example}'")
    places: Places = {}
    _collect_places(tree, (), path, places)
    return values, places


def _parse_yaml(text: str) -> tuple[Any, Any]:
    """The tree of nodes and the value. Raises YamlFault, also if aliases expand to too many values."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        waiting, seen = [tree], 0
        while waiting:
            node = waiting.pop()
            seen += 1
            if seen > MOST_VALUES:
                raise YamlFault(f"more than {MOST_VALUES:,} values, or an alias that contains itself")
            if isinstance(node, yaml.CollectionNode):  # of a mapping, pairs
                waiting += [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        return tree, yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: an impossible date
        raise YamlFault(" ".join(str(error).split())) from None


def _collect_places(node: Any, at: tuple[str, ...], path: Path, places: Places) -> None:
    if not isinstance(node, yaml.MappingNode) or len(at) > 4:  # our keys are less deep
        return
    merged: list[Any] = []  # by <<: the mapping's own keys take precedence
    for key, value in node.value:
        where = f"{path}:{key.start_mark.line + 1}"
        if key.tag == "tag:yaml.org,2002:merge":
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            continue
        if key.tag != "tag:yaml.org,2002:str":
            raise UserError(f"{where}: key {key.value!r} is not text in YAML: put it in quotes")
        here = (*at, key.value)
        if here in places:
            raise UserError(f"{where}: key '{'.'.join(here)}' appears twice: remove one")
        places[here] = where
        _collect_places(value, here, path, places)
    for inner in merged:
        beneath: Places = {}
        _collect_places(inner, at, path, beneath)
        places.update({here: where for here, where in beneath.items() if here not in places})


def _parse(override: str) -> Setting:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"command line: {override!r}: expected key=value, like train.epochs=3")
    try:
        return Setting(key, _parse_yaml(text)[1], "command line")
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


def _explain(error: ValidationError, places: Places, path: Path | None) -> str:
    first = error.errors()[0]
    loc = tuple(str(part) for part in first["loc"][1:])  # without the index in the tuple
    fact = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # raised by the schema: it starts with the key within its section
        loc, fact = (*loc, *fact.partition(" ")[0].split(".")), fact.partition(" ")[2]
    key = ".".join(loc)
    where = _place(loc, places, path)
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _known_keys()
        near = [name for name in known if len(loc) == 1 and name.rpartition(".")[2] == key]  # lr without its section
        near = near or [name for name, others in USUAL_NAMES.items() if loc[-1].lower() in others]
        near = near or difflib.get_close_matches(key.lower(), known, n=1)
        near = near or difflib.get_close_matches(loc[-1], known, n=1)
        hint = f", did you mean '{near[0]}'?" if near else f"; known keys: {', '.join(known)}"
        return f"{where}: unknown key '{key}'{hint}"
    if first["type"] == "tuple_type":  # YAML and the command line have lists
        return f"{where}: '{key}' is {first['input']!r}: expected a list in [brackets]"
    if first["type"] == "value_error":
        return f"{where}: {key} {fact}"
    return f"{where}: '{key}' is {first['input']!r}: {fact[0].lower()}{fact[1:]}"


def _place(loc: tuple[str, ...], places: Places, path: Path | None) -> str:
    """Where the key was given, else its list, else a key inside it, else one of its section: f_min may fail because of
    f_max."""
    inside = [where for at, where in places.items() if at[: len(loc)] == loc]
    section = [where for at, where in places.items() if len(loc) > 1 and at[:1] == loc[:1]]
    found = [places.get(loc), *inside[:1], places.get(loc[:-1]), *section[:1], str(path or "command line")]
    return next(where for where in found if where)


def _check_no_booleans(
    given: dict[str, Any], part: Any, at: tuple[str, ...], places: Places, path: Path | None
) -> None:
    """pydantic reads true as 1, but `epochs: yes` is a mistake."""
    for key, value in given.items():
        here, got = (*at, key), getattr(part, key)
        if isinstance(value, dict):
            _check_no_booleans(value, got, here, places, path)
        elif not isinstance(got, bool) and any(
            isinstance(v, bool) for v in (value if type(value) is list else [value])
        ):
            raise UserError(f"{_place(here, places, path)}: '{'.'.join(here)}' is {value!r}: expected a number")


def _known_keys() -> list[str]:
    keys = []
    for key, value in schema.to_dict(Config()).items():
        keys += [key, *(f"{key}.{inner}" for inner in value)] if isinstance(value, dict) else [key]
    return keys
