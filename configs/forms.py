"""Our JSON files as frozen dataclasses, checked as they are read: errors name the key of a damaged or edited value."""

import json
import sys
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from console.errors import UserError

T = TypeVar("T")
LARGEST = sys.float_info.max
ROOT = "it"  # how errors call the whole value


def read_json(file: Path, kind: type[T], remedy: str) -> T:
    """A JSON file by `from_json`. Raises UserError if it cannot be read or is not of that kind."""
    try:
        values = json.loads(file.read_bytes())  # bytes: a byte order mark does no harm
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot read ({error}): {remedy}") from None
    try:
        return from_json(kind, values)
    except ValueError as error:
        raise UserError(f"{file}: {error}: {remedy}") from None


def from_json(kind: type[T], value: Any, key: str = ROOT) -> T:
    """A value, as json.load gives it, as one of `kind`. Raises ValueError with the key and what is wrong there.

    kind: str, bool, int, float (finite; a whole number too), None, Any, Literal, a union, list[T], tuple[T, ...] or
    tuple[T, U] (both from a list), dict[str, T], dict, a dataclass (unknown keys are ignored).
    """
    found: T = _fit(value, kind, key)
    return found


def to_json(thing: Any) -> dict[str, Any]:
    """The inverse of `from_json` for a dataclass: its fields, without those that are None."""
    return asdict(thing, dict_factory=lambda items: {key: value for key, value in items if value is not None})


def _fit(value: Any, hint: Any, key: str) -> Any:
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        for part in parts:
            with suppress(ValueError):
                return _fit(value, part, key)
    elif kind is Literal:
        if any(value == part and type(value) is type(part) for part in parts):
            return value
    elif is_dataclass(kind):
        return _fit_fields(value, kind, key)
    elif kind in (list, tuple) and isinstance(value, list | tuple):
        hints = parts if kind is tuple and ... not in parts else (*parts[:1],) * len(value)
        if len(hints) != len(value):
            raise ValueError(f"{key} has {len(value)} entries instead of {len(hints)}")
        return kind(_fit(one, part, f"{key}[{i}]") for i, (one, part) in enumerate(zip(value, hints, strict=True)))
    elif kind is dict and isinstance(value, dict) and parts:
        return {name: _fit(one, parts[1], _join(key, name)) for name, one in value.items()}
    elif _is_plain(value, kind):
        return value
    text = repr(value)
    raise ValueError(f"{key} is {text if len(text) < 40 else text[:37] + '...'}")


def _fit_fields(value: Any, kind: Any, key: str) -> Any:
    if not isinstance(value, dict):
        return _fit(value, dict, key)
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if lacking := [name for name in needed if name not in value]:
        raise ValueError(f"{key} lacks {lacking[0]}")
    hints = get_type_hints(kind)
    return kind(**{name: _fit(value[name], hints[name], _join(key, name)) for name in hints if name in value})


def _join(key: str, name: str) -> str:
    return name if key == ROOT else f"{key}.{name}"


def _is_plain(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if isinstance(value, bool):  # Python counts it as an int
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and -LARGEST <= value <= LARGEST  # false for NaN
    return isinstance(value, NoneType if kind is None else kind)
