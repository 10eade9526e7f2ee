"""techniques.yaml -> recipes, each a set of runs, and the comparisons between them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.load import load_config
from configs.schema import Config
from configs.strict_yaml import read_yaml
from console.errors import UserError, list_some

PLAIN, GOOD = "plain", "good"
CONDITIONS = ("clean", "noisy")
FIXED = ("name", "folds.", "train.seed")  # equal in each pair of runs; no technique may set it
ALLOWED = {"set", "conditions", "against", "note"}  # keys of a technique
Settings = dict[str, Any]  # 'train.epochs' -> 15


@dataclass(frozen=True)
class Recipe:
    """What runs on each of its conditions, folds and seeds."""

    name: str
    settings: Settings
    conditions: tuple[str, ...]
    predicts_with: str | None = None  # the recipe whose weights predict; None: train

    @property
    def votes(self) -> tuple[str, ...]:
        """The recipes whose runs give pseudo-labels."""
        return tuple(self.settings.get("pseudo.runs", ()))

    @property
    def needs(self) -> tuple[str, ...]:
        """Recipes whose run of the same condition, fold and seed must be finished first."""
        return (self.predicts_with,) if self.predicts_with else self.votes


@dataclass(frozen=True)
class Comparison:
    """A technique: the recipe with it and the recipe without it, on the conditions of both."""

    name: str
    on: str
    off: str
    conditions: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Plan:
    recipes: dict[str, Recipe] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)

    def add(self, name: str, own: Settings, against: str, conditions: tuple[str, ...]) -> None:
        """The recipe `against` with `own` over it."""
        off = self.recipes[against]
        trains = any(not key.startswith("predict.") for key in own) or off.predicts_with
        self.recipes[name] = Recipe(name, off.settings | own, conditions, None if trains else against)

    def needed(self, names: set[str]) -> list[Recipe]:
        """The recipes of these comparisons and those that they need, in an order in which they can be run."""
        names_needed = {r for c in self.comparisons if c.name in names for r in (c.on, c.off)}
        for name in reversed(self.recipes):  # a recipe needs earlier ones only
            names_needed |= set(self.recipes[name].needs) if name in names_needed else set()
        return [recipe for name, recipe in self.recipes.items() if name in names_needed]


def read_plan(file: Path) -> Plan:
    """The recipes and comparisons of a techniques.yaml, every setting checked by `load_config`.

    Raises UserError that names the file and the technique.
    """
    values = _read(file)
    plan = Plan({PLAIN: Recipe(PLAIN, dict(_flat(values["base"])), CONDITIONS)})
    techniques: dict[str, Any] = values["techniques"]
    for name, about in techniques.items():
        where = f"{file}: {name}"
        own, against, on = _parts(about, where)
        if against not in plan.recipes or name in plan.recipes:
            fact = f"against {against!r}, which is not defined above" if name not in plan.recipes else "appears twice"
            raise UserError(f"{where}: {fact}: known are {list_some(plan.recipes)}")
        plan.add(name, own, against, on)
        if unknown := [need for need in plan.recipes[name].needs if need not in plan.recipes]:
            raise UserError(f"{where}: needs {list_some(unknown)}, which is not defined above")
        plan.comparisons.append(Comparison(name, name, against, on, str(about.get("note", ""))))
    if GOOD in values:
        _add_good(plan, values[GOOD], techniques, file)
    for recipe in plan.recipes.values():
        _check(recipe, plan, file)
    return plan


def config_of(recipe: Recipe, seed: int, name: str, voters: dict[str, str]) -> Config:
    """The config of a run. voters: recipe -> name of its experiment, for pseudo-labels. Raises UserError."""
    settings = recipe.settings | {"train.seed": seed, "name": name}
    if recipe.votes:
        settings["pseudo.runs"] = [voters[vote] for vote in recipe.votes]
    return load_config(overrides=[f"{key}={json.dumps(value)}" for key, value in settings.items()])


def _read(file: Path) -> dict[str, Any]:
    values, _ = read_yaml(file, "plan", "techniques: {mixup: {set: {augment.mixup_alpha: 0.4}}}")
    for key in ("base", "techniques"):
        if not isinstance(values.get(key), dict):
            raise UserError(f"{file}: {key}: expected a mapping")
    if strange := sorted(set(map(str, values)) - {"base", "techniques", GOOD}):
        raise UserError(f"{file}: unknown key {list_some(strange)}: known are base, good, techniques")
    return values


def _parts(about: Any, where: str) -> tuple[Settings, str, tuple[str, ...]]:
    """The settings of a technique, the recipe it is compared with, and its conditions."""
    if not isinstance(about, dict) or not isinstance(about.get("set"), dict) or set(about) - ALLOWED:
        raise UserError(f"{where}: expected 'set' (a mapping), and optionally conditions, against and note")
    if fixed := [key for key in about["set"] if str(key).startswith(FIXED)]:
        raise UserError(f"{where}: sets {list_some(fixed)}, which must be equal in all runs: remove it")
    return about["set"], about.get("against", PLAIN), _conditions(about, where)


def _conditions(about: dict[str, Any], where: str) -> tuple[str, ...]:
    found = about.get("conditions", [CONDITIONS[0]])
    if not isinstance(found, list) or not found or set(found) - set(CONDITIONS):
        raise UserError(f"{where}: conditions is {found!r}: expected a list of {' and '.join(CONDITIONS)}")
    return tuple(found)


def _add_good(plan: Plan, about: Any, techniques: dict[str, Any], file: Path) -> None:
    where = f"{file}: {GOOD}"
    names = about.get("of", ()) if isinstance(about, dict) else ()
    if not names or (unknown := sorted(set(names) - set(techniques))):
        raise UserError(f"{where}: 'of' must list techniques: unknown are {list_some(unknown if names else ())}")
    on = _conditions(about, where)
    plan.add(GOOD, {k: v for name in names for k, v in techniques[name]["set"].items()}, PLAIN, on)
    plan.comparisons.append(Comparison(GOOD, GOOD, PLAIN, on, "all at once: " + ", ".join(names)))
    for left in names:
        rest = {k: v for name in names if name != left for k, v in techniques[name]["set"].items()}
        plan.add(f"{GOOD}-without-{left}", rest, PLAIN, on)
        plan.comparisons.append(Comparison(f"{left} in {GOOD}", GOOD, f"{GOOD}-without-{left}", on))


def _check(recipe: Recipe, plan: Plan, file: Path) -> None:
    """Raises UserError if a setting is not in the schema, or a needed recipe lacks one of the conditions."""
    try:
        config_of(recipe, 0, "check", dict.fromkeys(recipe.votes, "voter"))
    except UserError as error:
        raise UserError(f"{file}: {recipe.name}: {str(error).removeprefix('command line: ')}") from None
    others = {c.off for c in plan.comparisons if c.on == recipe.name} | set(recipe.needs)
    for other in others:
        if lacking := sorted(set(recipe.conditions) - set(plan.recipes[other].conditions)):
            raise UserError(f"{file}: {recipe.name}: {other} does not run on {list_some(lacking)}: add this condition")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
