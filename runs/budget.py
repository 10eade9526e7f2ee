"""How long predictions take by a forecast, and which fold models to leave out so that they end in time."""

import math
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from console.errors import count, list_some
from console.output import say, warn

if TYPE_CHECKING:
    import pandas as pd

RESERVE = 0.1  # share of the time left that no prediction is planned into: a forecast may be 10 % too low


class Deadline:
    """The end of a budget of seconds that begins now. now: the clock."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.now, self.end = now, now() + seconds

    def left(self) -> float:
        """Seconds; negative afterwards."""
        return self.end - self.now()

    def part(self, share: float) -> "Deadline":
        """The end of a share of the time that is left."""
        return Deadline(self.left() * share, self.now)


@dataclass(frozen=True)
class Forecast:
    """What the predictions of some experiments take on this machine, in seconds."""

    folds: Mapping[str, int]  # experiment -> its folds that are yet to predict
    fold: Mapping[str, float]  # experiment -> seconds of one of its folds
    hears: Mapping[str, Hashable]  # experiment -> what its folds are given, a key of `features`
    features: Mapping[Hashable, float]  # the seconds that these take, once for all experiments that hear the same
    devices: int = 1  # folds at once

    def seconds(self, kept: Mapping[str, int] | None = None) -> float:
        """Of all, or where an experiment predicts with so many folds."""
        folds = self.folds if kept is None else kept
        heard = {self.hears[name] for name, n in folds.items() if n}
        busy = [0.0] * self.devices
        for name, n in folds.items():
            for _ in range(n):  # each fold goes to the device that is free first
                busy[busy.index(min(busy))] += self.fold[name]
        return sum(self.features[key] for key in heard) + max(busy)


@dataclass(frozen=True)
class Needs:
    """How much a blend needs its experiments."""

    weights: Mapping[str, float]  # experiment -> its weight; 0: not at all
    all_of_them: bool  # the blend has no meaning without one that has a weight
    worths: Mapping[str, float] = field(default_factory=dict)  # experiment -> nested score lost without it, where known
    metric: str = ""  # its title, of the nested score


def choose_folds(forecast: Forecast, needs: Needs, seconds: float) -> dict[str, int]:
    """How many folds of each experiment fit into the seconds; more where even the least does not fit.

    The answer of an experiment is the mean of its fold models, so the formula of a blend holds for any number of them.
    If the blend has a meaning without them, experiments that are worth nothing are left out first. Then a fold is left
    out where that adds the least variance per second saved: the variance of a mean of n goes with 1/n, and that of a
    blend with the square of the weights. Where one fold of each takes too long, the experiments that are worth most and
    fit remain, by their weights where a worth is not known.
    """
    weights, fold = needs.weights, {name: max(each, 1e-9) for name, each in forecast.fold.items()}
    kept = {name: n if weights[name] else 0 for name, n in forecast.folds.items()}
    kept = dict(forecast.folds) if forecast.seconds() <= seconds else kept
    kept = kept if needs.all_of_them else _without_worthless(forecast, needs, kept, seconds)

    def loss(name: str) -> float:
        return weights[name] ** 2 * (1 / (kept[name] - 1) - 1 / kept[name]) / fold[name]

    while forecast.seconds(kept) > seconds and (several := [name for name, n in kept.items() if n > 1]):
        kept[min(several, key=loss)] -= 1
    if forecast.seconds(kept) <= seconds or needs.all_of_them:
        return kept
    remain = _experiments_that_fit(forecast, needs, kept, seconds)
    weights = {name: weight if name in remain or not forecast.folds[name] else 0.0 for name, weight in weights.items()}
    return choose_folds(forecast, Needs(weights, True), seconds)


def _without_worthless(forecast: Forecast, needs: Needs, kept: Mapping[str, int], seconds: float) -> dict[str, int]:
    """`kept`, as far as they take too long without the experiments that predict and are worth nothing: first the one of
    the least worth per second saved, of equals the slowest. One of the blend remains."""
    found = dict(kept)

    def saved(name: str) -> float:
        return max(forecast.seconds(found) - forecast.seconds(found | {name: 0}), 1e-9)

    while forecast.seconds(found) > seconds:
        remain = [name for name, n in found.items() if needs.weights[name] and (n or not forecast.folds[name])]
        worthless = [name for name in remain if found[name] and needs.worths.get(name, 1.0) <= 0]
        if not worthless or len(remain) == 1:
            break
        found[min(worthless, key=lambda name: (needs.worths[name] / saved(name), -saved(name)))] = 0
    return found


def _experiments_that_fit(forecast: Forecast, needs: Needs, kept: Mapping[str, int], seconds: float) -> Collection[str]:
    """Of the experiments that are kept and predict, those of the most worth that fit with one fold each, looked for
    among the 12 with the most worth per second; where none fits, the first of these unless others have their answers
    already. The weight counts where the worth of one is not known."""
    weights, slow = needs.weights, [name for name, n in kept.items() if n]
    worths = needs.worths if all(name in needs.worths for name in slow) else weights
    slow = sorted(slow, key=lambda name: -worths[name] / max(forecast.fold[name], 1e-9))[:12]
    sets = [some for n in range(1, len(slow) + 1) for some in combinations(slow, n)]
    fitting = [some for some in sets if forecast.seconds(dict.fromkeys(some, 1)) <= seconds]
    others = any(weight and not forecast.folds[name] for name, weight in weights.items())
    least = () if others else tuple(slow[:1])
    return max(fitting, key=lambda some: sum(worths[name] for name in some), default=least)


@dataclass(frozen=True)
class Budget:
    """The time that new predictions may take, for a blend."""

    end: Deadline
    needs: Needs


@dataclass(frozen=True)
class Plan:
    """What a budget has room for."""

    kept: Mapping[str, int]  # experiment -> folds that predict
    share: float = 1.0  # of the clips
    end: Deadline | None = None  # of all predictions
    dropped: tuple[str, ...] = ()  # experiments that the blend is to do without

    def first(self, clips: "pd.DataFrame") -> "pd.DataFrame":
        """The clips that there is time for."""
        return clips[: math.ceil(self.share * len(clips))]


def make_plan(forecast: Forecast, needs: Needs, end: Deadline) -> Plan:
    """Choose what fits into the time left but for RESERVE, and say so."""
    seconds = max(end.left() * (1 - RESERVE), 0.0)
    kept = choose_folds(forecast, needs, seconds)
    dropped = tuple(name for name, n in kept.items() if needs.weights[name] and forecast.folds[name] and not n)
    tell_choice(forecast, kept, needs, seconds)
    takes = forecast.seconds(kept)
    share = 1.0 if takes <= seconds else seconds / takes
    return Plan(kept, share, end.part(1 - RESERVE / 3), dropped)  # the rest of the time is for blending and writing


def warn_of_lateness(not_reached: Mapping[str, Sequence[str]]) -> None:
    """Name the clips that no fold of an experiment reached. not_reached: experiment -> clips."""
    for name, fnames in not_reached.items():
        warn(f"{name}: out of time: clips not reached, which get its class prior: {list_some(fnames)}")


def class_prior(folders: Sequence[Path]) -> np.ndarray:
    """(classes,) the mean of what these fold models answer for a clip without sound."""
    return np.mean([_prior(folder / "model.safetensors") for folder in folders], axis=0)


def _prior(weights: Path) -> np.ndarray:
    """(classes,) of one fold model; nothing else of the file is read."""
    with safe_open(weights, "np") as tensors:
        return np.asarray(tensors.get_tensor("prior"))


def tell_forecast(forecast: Forecast) -> None:
    """A line for each experiment and one for all."""
    for name, n in forecast.folds.items():
        what = f"{count(n, 'fold')} of {duration(forecast.fold[name])}" if n else "nothing to predict"
        say(f"forecast: {name}: {what}")
    if heard := sum(forecast.features.values()):
        say(f"forecast: log-mel and embeddings of the test clips: {duration(heard)}")
    say(f"forecast: {duration(forecast.seconds())} in all on this machine")


def tell_choice(forecast: Forecast, kept: Mapping[str, int], needs: Needs, seconds: float) -> None:
    """Which folds a budget of so many seconds leaves out, and what that saves and costs."""
    for name, n in kept.items():
        if left_out := forecast.folds[name] - n:
            saved = duration(left_out * forecast.fold[name])
            rest = f"the mean of {count(n, 'fold model')} remains" if n else _cost(name, needs)
            say(f"budget: {name}: {left_out} of {count(forecast.folds[name], 'fold')} left out, saves {saved}: {rest}")
    if (takes := forecast.seconds(kept)) > seconds:
        least = f"budget: the least that the blend needs takes {duration(takes)}, there are {duration(seconds)}"
        warn(f"{least}: not all clips are reached")


def _cost(name: str, needs: Needs) -> str:
    """What the blend loses without an experiment, in words."""
    if (worth := needs.worths.get(name)) is None:
        return f"its weight was {needs.weights[name] / sum(needs.weights.values()):.0%} of the blend"
    size = f"{abs(worth):.4f}"
    change = "the same" if float(size) == 0 else f"{size} {'worse' if worth > 0 else 'better'}"
    return f"without it the blend's nested {needs.metric} is {change}"


def duration(seconds: float) -> str:
    """'8.5 s', '75 s', '12 min', '3 h 05 min'."""
    if seconds < 300:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
