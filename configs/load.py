"""YAML file + key=value overrides -> Config. A typo fails here and names the file, the line and the key."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from configs import schema
from configs.errors import UserError
from configs.schema import Config


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The defaults, changed by the YAML file, changed by 'train.epochs=3' strings.

    The experiment is named after the file unless `name` is given. Raises UserError on an unknown key, a value of the
    wrong type or out of bounds, a missing or malformed file.
    """
    values: dict[str, Any] = {}
    places: dict[tuple[str, ...], str] = {}
    if path is not None:
        values, places = _read_yaml(path)
        values.setdefault("name", path.stem)
    for override in overrides:
        _override(values, places, override)
    try:
        return _adapter().validate_python(values)
    except ValidationError as error:
        raise UserError(_explain(error, places, path)) from None


def _adapter() -> TypeAdapter[Config]:
    return TypeAdapter(_forbid_unknown(Config))


def _forbid_unknown(kind: type) -> Any:
    """Tells pydantic to refuse keys that the dataclasses do not have."""
    for part in vars(schema).values():
        if isinstance(part, type) and part.__name__.endswith("Config"):
            part.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    return kind


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot read the config: {error.strerror}") from None
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: a config is a mapping of keys to values, like 'train: {{epochs: 3}}'")
    places: dict[tuple[str, ...], str] = {}
    _collect_places(tree, (), path, places)
    return values, places


def _collect_places(node: Any, at: tuple[str, ...], path: Path, places: dict[tuple[str, ...], str]) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*at, str(key.value))
        if here in places:
            raise UserError(f"{path}:{key.start_mark.line + 1}: key '{'.'.join(here)}' stands twice")
        places[here] = f"{path}:{key.start_mark.line + 1}"
        _collect_places(value, here, path, places)


def _override(values: dict[str, Any], places: dict[tuple[str, ...], str], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r}: an override is written key=value, like train.epochs=3")
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            break
    if isinstance(node, dict):
        try:
            node[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"command line: {override!r}: the value is not YAML") from None
    for depth in range(1, len(parents) + 2):
        places[tuple(key.split(".")[:depth])] = "command line"


def _explain(error: ValidationError, places: dict[tuple[str, ...], str], path: Path | None) -> str:
    first = error.errors()[0]
    loc = tuple(str(part) for part in first["loc"])
    while loc and loc not in places and loc[:-1] in places:
        loc = loc[:-1]  # pydantic appends the name of a union's branch
    where = places.get(loc, str(path or "command line"))
    key = ".".join(loc)
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _known_keys()
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or difflib.get_close_matches(loc[-1], known, n=1)
        hint = f", did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"
        return f"{where}: unknown key '{key}'{hint}"
    fact = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{where}: {key}{'.' if key else ''}{fact}"
    return f"{where}: '{key}' is {first['input']!r}: {fact[0].lower()}{fact[1:]}"


def _known_keys() -> list[str]:
    keys = []
    for key, value in schema.to_dict(Config()).items():
        keys += [key, *(f"{key}.{inner}" for inner in value)] if isinstance(value, dict) else [key]
    return keys
