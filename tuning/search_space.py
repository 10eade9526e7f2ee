"""What a search may change: a YAML file of config keys and ranges, each checked against the schema before any work."""

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
    "int": "{int: [low, high]} with a step as a third number or without",
    "choice": "{choice: [one, other]}",
}
REFUSED = {  # keys and sections that no search may change, and why
    "name": "it names the study",
    "folds": "scores on other folds cannot be compared",
    "train.seed": "the best of many seeds is luck",
    "train.keep": "the best of many epochs scores higher by the choice alone",
    "input.skip_unreadable": "scores on other clips cannot be compared",
    "input.corrections": "they are read once",
    "pseudo": "a search never touches test clips",
}


@dataclass(frozen=True)
class Range:
    """What one key may be. low and high, both included, and step: of all kinds but 'choice', which has choices."""

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
        """The choices as plain scalars, which is all that Optuna takes: a list as its JSON text."""
        return tuple(json.dumps(c) if isinstance(c, list) else c for c in self.choices)

    def value(self, label: Any) -> Any:
        """The config's value for a number within the range, or for one of the labels."""
        return self.choices[self.labels().index(label)] if self.kind == "choice" else label

    def about(self) -> str:
        """The range as the file has it."""
        numbers = [self.low, self.high, self.step][: 3 if self.step > 1 else 2]
        return json.dumps({self.kind: list(self.choices) if self.kind == "choice" else numbers})


def load_space(file: Path, config: Path | None, overrides: Sequence[str]) -> tuple[Range, ...]:
    """The ranges of a file, in its order.

    Both ends of a range and every choice are tried alone on the base config, which config and overrides make as in
    `load_config`. Raises UserError, with file and line, on a key that does not exist or may not be searched, a kind
    that does not exist or does not suit the key, and a value out of bounds.
    """
    values, places = read_yaml(file, "search space", EXAMPLE)
    if not values:
        raise UserError(f"{file}: nothing to search: name a key and its range, like '{EXAMPLE}'")
    base = load_config(config, overrides)
    ranges = []
    for key, given in values.items():
        place = places[(str(key),)]
        _check_key(str(key), given, base, place)
        ranges.append(_suited(_range(str(key), given, place), config, overrides))
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
    """The range as it was written. Raises UserError where that is no range."""
    if not isinstance(given, dict) or len(given) != 1 or next(iter(given)) not in KINDS:
        written = str(next(iter(given))) if isinstance(given, dict) and len(given) == 1 else ""
        near = difflib.get_close_matches(written, KINDS, n=1)
        hint = f"has no kind '{written}', did you mean '{near[0]}'?" if near else f"wants {' or '.join(KINDS.values())}"
        raise UserError(f"{place}: '{key}' {hint}")
    ((kind, values),) = given.items()
    wanted = UserError(f"{place}: '{key}' is not written {KINDS[kind]}, low below high")
    if not isinstance(values, list):
        raise wanted
    if kind == "choice":
        if len(values) < 2:
            raise UserError(f"{place}: '{key}' offers no choice: give two values or more")
        return Range(key, kind, place, choices=tuple(values))
    numbers = [_number(value) for value in values]
    if None in numbers or len(numbers) not in ((2, 3) if kind == "int" else (2,)):
        raise wanted
    low, high, *step = (number for number in numbers if number is not None)
    if not low < high or (kind == "log" and low <= 0):
        raise wanted
    if kind != "int":
        return Range(key, kind, place, low, high)
    if any(number != int(number) for number in (low, high, *step)) or (step and step[0] < 1):
        raise UserError(f"{place}: '{key}': int wants whole numbers, and a step of 1 or more")
    if step and (high - low) % step[0]:
        raise UserError(f"{place}: '{key}': no whole number of steps of {step[0]:g} leads from {low:g} to {high:g}")
    return Range(key, kind, place, int(low), int(high), int(step[0]) if step else 1)


def _number(value: Any) -> float | None:
    """YAML reads 1e-4, without a point, as text; .inf and .nan are no ends of a range."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if abs(number) < float("inf") else None


def _suited(r: Range, config: Path | None, overrides: Sequence[str]) -> Range:
    """The range with its choices as the config holds them. Raises UserError where it does not suit the key."""
    # the second value of an int range too: 16 and 48 may be allowed where 17 is not
    tried = r.choices if r.kind == "choice" else (r.low, *((r.low + r.step,) if r.kind == "int" else ()), r.high)
    held = [value_of(load_config(config, overrides, [r.setting(value)]), r.key) for value in tried]
    if r.kind == "choice":
        if len({json.dumps(value) for value in held}) < len(held):
            raise UserError(f"{r.place}: '{r.key}': a choice stands twice")
        return Range(r.key, r.kind, r.place, choices=tuple(held))
    if any(isinstance(value, bool) for value in held):
        raise UserError(f"{r.place}: '{r.key}' is true or false: write {{choice: [false, true]}}")
    if r.kind != "int" and any(isinstance(value, int) for value in held):
        raise UserError(f"{r.place}: '{r.key}' is a whole number: write {KINDS['int']}")
    if r.kind != "int" and r.key.startswith("features."):
        raise UserError(f"{r.place}: '{r.key}': every value has features made anew: write {KINDS['choice']}")
    return r
