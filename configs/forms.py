"""JSON files of ours, read with their form checked: what a full disk or a hand left in them is told by name."""

import json
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from console.errors import UserError

LARGEST = sys.float_info.max


def read_json(file: Path, hint: Any, remedy: str) -> Any:
    """The values in a JSON file. Raises UserError where it cannot be read or they are not of the type `hint`, see
    `misfit`."""
    try:
        values = json.loads(file.read_bytes())  # bytes: a byte order mark does no harm
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot read ({error}): {remedy}") from None
    if fault := misfit(values, hint):
        raise UserError(f"{file}: {fault}: {remedy}")
    return values


def misfit(value: Any, hint: Any, key: str = "it") -> str:
    """'' where a value, as json.load gives it, has the type `hint`, else the key and what is wrong there.

    hint: str, bool, int, float (finite; a whole number too), None, Any, Literal, a union, list[T], tuple[T, ...] or
    tuple[T, U] (both of a list), dict[str, T], dict, a TypedDict (more keys are allowed).
    """
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return "" if any(not misfit(value, part) for part in parts) else _told(value, key)
    if kind is Literal:
        return "" if any(value == part and type(value) is type(part) for part in parts) else _told(value, key)
    if is_typeddict(kind):
        return _misfit_of_keys(value, kind, key)
    if kind in (list, tuple) and isinstance(value, list | tuple):
        hints = parts if kind is tuple and ... not in parts else (*parts[:1],) * len(value)
        if len(hints) != len(value):
            return f"{key} has {len(value)} entries"
        found = (misfit(one, part, f"{key}[{i}]") for i, (one, part) in enumerate(zip(value, hints, strict=True)))
        return next(filter(None, found), "")
    if kind is dict and isinstance(value, dict) and parts:
        return next(filter(None, (misfit(one, parts[1], f"{key}.{name}") for name, one in value.items())), "")
    return "" if _is_plain(value, kind) else _told(value, key)


def _misfit_of_keys(value: Any, kind: Any, key: str) -> str:
    if not isinstance(value, dict):
        return _told(value, key)
    if lacking := sorted(kind.__required_keys__ - set(value)):
        return f"{key} lacks {lacking[0]}"
    hints = get_type_hints(kind)
    return next(filter(None, (misfit(value[name], hints[name], name) for name in hints if name in value)), "")


def _is_plain(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if isinstance(value, bool):  # to Python it is a number
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and -LARGEST <= value <= LARGEST  # not of NaN
    return isinstance(value, NoneType if kind is None else kind)


def _told(value: Any, key: str) -> str:
    text = repr(value)
    return f"{key} is {text if len(text) < 40 else text[:37] + '...'}"
