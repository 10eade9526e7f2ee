"""YAML files -> frozen dataclasses. A typo fails here and names the file, the line and the likely key."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from configs.text import read_text
from console.errors import UserError

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
MOST_VALUES = 10_000  # in a YAML file, every alias counted: a few lines with aliases can expand to billions of values
Places = dict[tuple[str, ...], str]  # where a key was given: 'file.yaml:3' or 'command line'


class YamlFault(Exception):
    """Why settings cannot be read from a YAML text."""


def build(
    kind: type[T], values: dict[str, Any], places: Places, path: Path | None, usual: Mapping[str, Sequence[str]]
) -> T:
    """The dataclass of the values. usual: names that other tools have for our keys, for the hint of an unknown key.

    Raises UserError on an unknown key, or a value of the wrong type or out of bounds.
    """
    try:
        # pydantic takes no config for a dataclass itself, but passes it down from a tuple
        (built,) = TypeAdapter(tuple[kind], config=STRICT).validate_python((values,))  # type: ignore[valid-type]
    except ValidationError as error:
        raise UserError(_explain(error, places, path, known_keys(kind), usual)) from None
    _check_no_booleans(values, built, (), places, path)
    return built


def read_yaml(path: Path, what: str = "config", example: str = "train: {epochs: 3}") -> tuple[dict[str, Any], Places]:
    """The mapping in a YAML file, and the places of its keys. Raises UserError if it cannot be read, is no mapping, or
    has a key twice."""
    try:
        tree, values = parse_yaml(read_text(path, what))
    except YamlFault as error:
        raise UserError(f"{path}: invalid YAML: {error}") from None
    if values is None:  # comments only
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: a {what} must be a mapping of keys to values, like '{example}'")
    places: Places = {}
    _collect_places(tree, (), path, places)
    return values, places


def parse_yaml(text: str) -> tuple[Any, Any]:
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
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            if isinstance(item, yaml.MappingNode):
                _collect_places(item, (*at, str(i)), path, places)
    if not isinstance(node, yaml.MappingNode) or len(at) > 5:  # our keys are less deep
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


def known_keys(kind: type) -> list[str]:
    """The keys of a dataclass and, as section.key, of its sections; those of a list's entries once."""
    keys = []
    for name, hint in get_type_hints(kind).items():
        section = next((part for part in (hint, *get_args(hint)) if is_dataclass(part)), None)
        keys += [name, *(f"{name}.{one.name}" for one in fields(section))] if section else [name]
    return keys


def _explain(
    error: ValidationError,
    places: Places,
    path: Path | None,
    known: Sequence[str],
    usual: Mapping[str, Sequence[str]],
) -> str:
    first = error.errors()[0]
    loc = tuple(str(part) for part in first["loc"][1:])  # without the index in the tuple
    fact = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # raised by the schema: it starts with the key within its section
        loc, fact = (*loc, *fact.partition(" ")[0].split(".")), fact.partition(" ")[2]
    key = ".".join(loc)
    where = place_of(loc, places, path)
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        key = ".".join(part for part in loc if not part.isdigit())  # of an entry of a list: without its number
        near = [name for name in known if len(loc) == 1 and name.rpartition(".")[2] == key]  # lr without its section
        near = near or [name for name, others in usual.items() if loc[-1].lower() in others]
        near = near or difflib.get_close_matches(key.lower(), known, n=1)
        near = near or difflib.get_close_matches(loc[-1], known, n=1)
        hint = f", did you mean '{near[0]}'?" if near else f"; known keys: {', '.join(known)}"
        return f"{where}: unknown key '{key}'{hint}"
    if first["type"] == "tuple_type":  # YAML and the command line have lists
        return f"{where}: '{key}' is {first['input']!r}: expected a list in [brackets]"
    if first["type"] == "value_error":
        return f"{where}: {key} {fact}"
    return f"{where}: '{key}' is {first['input']!r}: {fact[0].lower()}{fact[1:]}"


def place_of(loc: tuple[str, ...], places: Places, path: Path | None) -> str:
    """Where the key was given, else its list, else a key inside it, else one of its section: f_min may fail because of
    f_max."""
    inside = (where for at, where in places.items() if at[: len(loc)] == loc)
    section = (where for at, where in places.items() if len(loc) > 1 and at[:1] == loc[:1])
    return (
        places.get(loc)
        or next(inside, None)
        or places.get(loc[:-1])
        or next(section, None)
        or str(path or "command line")
    )


def _check_no_booleans(
    given: dict[str, Any], part: Any, at: tuple[str, ...], places: Places, path: Path | None
) -> None:
    """pydantic reads true as 1, but `epochs: yes` is a mistake."""
    for key, value in given.items():
        here, got = (*at, key), part[key] if isinstance(part, Mapping) else getattr(part, key)
        if isinstance(value, dict):
            _check_no_booleans(value, got, here, places, path)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for i, item in enumerate(value):
                _check_no_booleans(item, got[i], (*here, str(i)), places, path)
        elif (isinstance(value, bool) and not isinstance(got, bool)) or _has_booleans(value):
            raise UserError(f"{place_of(here, places, path)}: '{'.'.join(here)}' is {value!r}: expected a number")


def _has_booleans(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, bool) for item in value)
