"""The search space: a YAML file of config keys and ranges, all checked against the schema before any work."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.load import Setting, load_config
from configs.schema import Config, to_dict
from configs.strict_yaml import read_yaml
from console.errors import UserError

EXAMPLE = "train.lr: {log: [1.0e-4, 1.0e-2]}"
KINDS = {
    "uniform": "{uniform: [low, high]}",
    "log": "{log: [low, high]}, above 0",
    "int": "{int: [low, high]}, with an optional step as third number",
    "choice": "{choice: [one, other]}",
}
EXCLUDED = {  # keys and sections that cannot be searched, and why
    "name": "it names the study",
    "folds": "scores on other folds cannot be compared",
    "train.seed": "the best of many seeds is luck",
    "train.keep": "the best of many epochs has a higher score by chance",
    "input.skip_unreadable": "scores on other clips cannot be compared",
    "input.corrections": "corrections are read only once",
    "pseudo": "a search never uses test clips",
}


@dataclass(frozen=True)
class Range:
    """The allowed values of a key: numbers from low to high, both included, or choices."""

    key: str
    kind: str  # one of KINDS
    place: str  # file and line, for errors
    low: float = 0.0
    high: float = 0.0
    step: int = 1  # of kind 'int'
    choices: tuple[Any, ...] = ()  # of kind 'choice'

    def setting(self, value: Any) -> Setting:
        return Setting(self.key, value, self.place)

    def labels(self) -> tuple[Any, ...]:
        """The choices as scalars, since Optuna takes no lists: a list becomes its JSON text."""
        return tuple(json.dumps(c) if isinstance(c, list) else c for c in self.choices)

    def value(self, label: Any) -> Any:
        """The config's value for a number within the range, or for one of the labels."""
        return self.choices[self.labels().index(label)] if self.kind == "choice" else label

    def about(self) -> str:
        """The range as written in the file."""
        numbers = [self.low, self.high, self.step][: 3 if self.step > 1 else 2]
        return json.dumps({self.kind: list(self.choices) if self.kind == "choice" else numbers})


def load_space(file: Path, config: Path | None, overrides: Sequence[str]) -> tuple[Range, ...]:
    """The ranges of a file, in its order.

    Both ends of a range and every choice are checked on the base config, see `load_config`. Raises UserError with file
    and line on a key that does not exist or cannot be searched, a kind that does not exist or does not fit the key, and
    a value out of bounds.
    """
    values, places = read_yaml(file, "search space", EXAMPLE)
    if not values:
        raise UserError(f"{file}: nothing to search: name a key and its range, like '{EXAMPLE}'")
    base = load_config(config, overrides)
    ranges = []
    for key, given in values.items():
        place = places[(str(key),)]
        _check_key(str(key), given, base, place)
        ranges.append(_fitted(_range(str(key), given, place), config, overrides))
    return tuple(ranges)


def value_of(cfg: Config, key: str) -> Any:
    """The value of a key like 'train.lr', a tuple as a list."""
    node: Any = to_dict(cfg)
    for part in key.split("."):
        node = node[part]
    return list(node) if isinstance(node, tuple) else node


def _check_key(key: str, given: Any, base: Config, place: str) -> None:
    section, dot, _ = key.partition(".")
    if isinstance(to_dict(base).get(key), dict):
        inner = next(iter(given)) if isinstance(given, dict) and given else "key"
        raise UserError(f"{place}: '{key}' is a section: write its keys in full, like '{key}.{inner}: ...'")
    for name in (key, section) if dot else (key,):
        if name in EXCLUDED:
            raise UserError(f"{place}: '{key}' cannot be searched: {EXCLUDED[name]}")


def _range(key: str, given: Any, place: str) -> Range:
    """The range as written. Raises UserError if it is not a range."""
    kind, values = next(iter(given.items())) if isinstance(given, dict) and len(given) == 1 else ("", None)
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"has no kind '{kind}', did you mean '{near[0]}'?" if near else f"must be {' or '.join(KINDS.values())}"
        raise UserError(f"{place}: '{key}' {hint}")
    malformed = UserError(f"{place}: '{key}' must be {KINDS[kind]}, with low below high")
    if not isinstance(values, list):
        raise malformed
    if kind == "choice":
        if len(values) < 2:
            raise UserError(f"{place}: '{key}' has no choice: give two values or more")
        return Range(key, kind, place, choices=tuple(values))
    numbers = [_number(value) for value in values]
    if None in numbers or len(numbers) not in ((2, 3) if kind == "int" else (2,)):
        raise malformed
    low, high, *step = (number for number in numbers if number is not None)
    if not low < high or (kind == "log" and low <= 0):
        raise malformed
    if kind != "int":
        return Range(key, kind, place, low, high)
    if any(number != int(number) for number in (low, high, *step)) or (step and step[0] < 1):
        raise UserError(f"{place}: '{key}': int needs whole numbers, and a step of 1 or more")
    if step and (high - low) % step[0]:
        raise UserError(
            f"{place}: '{key}': steps of {step[0]:g} do not lead from {low:g} to {high:g}: change high or the step"
        )
    return Range(key, kind, place, int(low), int(high), int(step[0]) if step else 1)


def _number(value: Any) -> float | None:
    """The number, also of the text 1e-4, which YAML takes for no number; None for .inf, .nan and all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if abs(number) < float("inf") else None


def _fitted(one: Range, config: Path | None, overrides: Sequence[str]) -> Range:
    """The range with its choices as in the config. Raises UserError if it does not fit the key."""
    # also the second value of an int range: 17 may be invalid between 16 and 48
    tried = one.choices or (one.low, *((one.low + one.step,) if one.kind == "int" else ()), one.high)
    parsed = [value_of(load_config(config, overrides, [one.setting(value)]), one.key) for value in tried]
    where = f"{one.place}: '{one.key}'"
    if one.kind == "choice":
        if len({json.dumps(value) for value in parsed}) < len(parsed):
            raise UserError(f"{where}: a choice appears twice: remove one")
        return replace(one, choices=tuple(parsed))
    if any(isinstance(value, bool) for value in parsed):
        raise UserError(f"{where} is true or false: write {{choice: [false, true]}}")
    if one.kind != "int" and any(isinstance(value, int) for value in parsed):
        raise UserError(f"{where} is a whole number: write {KINDS['int']}")
    if one.kind != "int" and one.key.startswith("features."):
        raise UserError(f"{where}: each value needs other features: write {KINDS['choice']}")
    return one
