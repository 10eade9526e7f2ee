"""The search space: a YAML file of config keys and ranges, all checked against the schema before any work."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.load import Setting, load_config, read_yaml
from configs.schema import Config, to_dict
from console.errors import UserError

EXAMPLE = "train.lr: {log: [1.0e-4, 1.0e-2]}"
KINDS = {
    "uniform": "{uniform: [low, high]}",
    "log": "{log: [low, high]}, above 0",
    "int": "{int: [low, high]}, with an optional step as third number",
    "choice": "{choice: [one, other]}",
}
REFUSED = {  # keys and sections that cannot be searched, and why
    "name": "it names the study",
    "folds": "scores on other folds cannot be compared",
    "train.seed": "the best of many seeds is luck",
    "train.keep": "the best of many epochs has a higher score by chance",
    "input.skip_unreadable": "scores on other clips cannot be compared",
    "input.corrections": "they are read only once",
    "pseudo": "a search never uses test clips",
}


@dataclass(frozen=True)
class Range:
    """The allowed values of a key: low to high, both included, in steps; or, for 'choice', the choices."""

    key: str
    kind: str
    place: str
    low: float = 0.0
    high: float = 0.0
    step: int = 1
    choices: tuple[Any, ...] = ()

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
    for refused in (key, section) if dot else (key,):
        if refused in REFUSED:
            raise UserError(f"{place}: '{key}' cannot be searched: {REFUSED[refused]}")


def _range(key: str, given: Any, place: str) -> Range:
    """The range as written. Raises UserError if it is no range."""
    if not isinstance(given, dict) or len(given) != 1 or next(iter(given)) not in KINDS:
        written = str(next(iter(given))) if isinstance(given, dict) and len(given) == 1 else ""
        near = difflib.get_close_matches(written, KINDS, n=1)
        hint = (
            f"has no kind '{written}', did you mean '{near[0]}'?" if near else f"must be {' or '.join(KINDS.values())}"
        )
        raise UserError(f"{place}: '{key}' {hint}")
    ((kind, values),) = given.items()
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
    """YAML reads 1e-4, without a point, as text; .inf and .nan are not ends of a range."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if abs(number) < float("inf") else None


def _fitted(r: Range, config: Path | None, overrides: Sequence[str]) -> Range:
    """The range with its choices as in the config. Raises UserError if it does not fit the key."""
    # also the second value of an int range: 17 may be invalid between 16 and 48
    tried = r.choices if r.kind == "choice" else (r.low, *((r.low + r.step,) if r.kind == "int" else ()), r.high)
    parsed = [value_of(load_config(config, overrides, [r.setting(value)]), r.key) for value in tried]
    if r.kind == "choice":
        if len({json.dumps(value) for value in parsed}) < len(parsed):
            raise UserError(f"{r.place}: '{r.key}': a choice appears twice: remove one")
        return Range(r.key, r.kind, r.place, choices=tuple(parsed))
    if any(isinstance(value, bool) for value in parsed):
        raise UserError(f"{r.place}: '{r.key}' is true or false: write {{choice: [false, true]}}")
    if r.kind != "int" and any(isinstance(value, int) for value in parsed):
        raise UserError(f"{r.place}: '{r.key}' is a whole number: write {KINDS['int']}")
    if r.kind != "int" and r.key.startswith("features."):
        raise UserError(f"{r.place}: '{r.key}': each value needs other features: write {KINDS['choice']}")
    return r
