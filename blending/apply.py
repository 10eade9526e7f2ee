"""How a fitted blend is applied to probabilities: numbers in a weights.json, matrices in and out, numpy alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from blending.methods import METHODS
from configs.competition import Task
from configs.forms import read_json, to_json
from console.errors import UserError
from runs.predictions import geometric, softmax

FLOOR = 1e-3  # under a fitted logarithm: a confident 1e-20 is no evidence worth 46 nats
KNOTS = 41  # quantiles that stand for the distribution of a model's values in a class
SCORES_TOO = ("single", "rank")  # methods that compare values only, so that they need not be probabilities


@dataclass(frozen=True)
class Model:
    """A model of a blend."""

    weight: float
    ids: tuple[str, ...] = ()  # of the runs that its predictions were read from, one a fold
    temperature: float | None = None  # of the method 'temperature'
    coefficients: list[list[float]] | None = None  # of the method 'stack': (classes in, classes out)
    # nested score of the blend less that without this model, for a loss the reverse: above 0 where the blend is worse
    # without. See `with_worths`. None: not measured
    worth: float | None = None
    # for several labels per clip:
    offset: float | None = None  # of the method 'temperature', added to every logit
    class_weights: list[float] | None = None  # (classes,) of 'log_linear', in place of `weight` where it pays
    quantiles: list[list[float]] | None = None  # of 'rank': (classes or 1, knots) values at even shares of the clips


@dataclass(frozen=True)
class Blend:
    """weights.json: how a blend is computed, and what it was made from."""

    method: str  # one of METHODS
    models: dict[str, Model]
    offsets: list[float] | None = None  # (classes,) of the methods 'log_linear' and 'stack'
    offset_spread: float | None = None  # of the offsets' prior in 'log_linear', nats
    asked: str | None = None  # the method that was asked for: AUTO, or `method`; None in one of an older version
    decide: str | None = None  # the rows that judged, one of DECIDE
    unverified_weight: float | None = None  # of unverified rows in the fit; None for the default
    by_default: bool = False  # nobody chose it: a later submission may make another one
    classes: tuple[str, ...] = ()  # in the order of the columns
    truth: str | None = None  # hash of the labels and folds that it was fitted to
    task: Task = "single_label"
    metric: str = "map@3"  # a name for `metrics.metric.find_metric`
    thresholds: list[float] | None = None  # (classes,), moved to 0.5; of a metric that counts decisions, such as F1

    @property
    def used(self) -> dict[str, Model]:
        """The models that count. All of them where every weight is 0, as a pool of models that know nothing may be."""
        return {name: model for name, model in self.models.items() if model.weight > 0} or self.models


def read_blend(file: Path, remedy: str = "make it again with ensemble.py --force") -> Blend:
    """A weights.json. Raises UserError where it is damaged, or `apply_blend` would not compute a blend from it."""
    blend = read_json(file, Blend, remedy)
    if fault := _fault(blend):
        raise UserError(f"{file}: {fault}: {remedy}")
    return blend


def _fault(blend: Blend) -> str:
    """What keeps `apply_blend` from its work; '' for nothing."""
    n, weights = len(blend.classes), [model.weight for model in blend.models.values()]
    if not (n and weights):
        return "it has no classes or no models"
    if blend.method not in METHODS:
        return f"no blending method {blend.method!r}"
    if min(weights) < 0 or (blend.method not in ("log_linear", "stack") and max(weights) == 0):
        return "its weights are below 0, or all 0"
    if blend.method in ("log_linear", "stack") and len(blend.offsets or ()) != n:
        return f"offsets: {n} numbers expected, one for each class"
    if blend.thresholds and len(blend.thresholds) != n:
        return f"thresholds: {n} numbers expected, one for each class"
    for name, model in blend.used.items():
        if blend.method == "temperature" and (model.temperature or 0) <= 0:
            return f"the temperature of {name} is not above 0"
        if blend.method == "stack" and [len(row) for row in model.coefficients or ()] != [n] * n:
            return f"the coefficients of {name}: {n} x {n} numbers expected"
        if blend.method == "log_linear" and len(model.class_weights or [0.0] * n) != n:
            return f"the class weights of {name}: {n} numbers expected"
        if fault := _quantile_fault(model.quantiles, n) if blend.method == "rank" else "":
            return f"the quantiles of {name}: {fault}"
    return ""


def _quantile_fault(quantiles: list[list[float]] | None, n_classes: int) -> str:
    if quantiles is None:
        return ""
    if len(quantiles) not in (1, n_classes) or {len(row) for row in quantiles} != {KNOTS}:
        return f"{n_classes} x {KNOTS} numbers expected"
    return "" if all(a <= b for row in quantiles for a, b in pairwise(row)) else "they must not fall"


def write_blend(file: Path, blend: Blend) -> None:
    """The inverse of `read_blend`: a line for each entry and for each model: 41 offsets do not take 41 lines."""
    values = to_json(blend)
    for name in ("task", "metric"):  # as in older files, where they have their defaults
        if values[name] == getattr(Blend, name):
            del values[name]
    models = ",\n".join(f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in values.pop("models").items())
    lines = [f' "{key}": {json.dumps(value)}' for key, value in values.items()]
    file.write_text("{\n" + ",\n".join([*lines, f' "models": {{\n{models}\n }}']) + "\n}\n")


def apply_blend(blend: Blend, probs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The blend (clips, classes) of each model's probabilities (clips, classes).

    The same call for out-of-fold rows, test rows and the Kaggle kernel; each row of the blend depends on that clip
    alone, so neither the order nor the number of the clips matters. Models that are not `used` may be absent. For one
    label per clip rows sum to 1.
    Raises KeyError where another model is absent, ValueError on a method that this version does not know.
    """
    stack = np.stack([probs[name] for name in blend.used])
    weights = np.array([model.weight for model in blend.used.values()])
    if blend.method in ("single", "arithmetic", "greedy", "weights"):
        found = arithmetic(stack, weights)
    elif blend.method == "rank" and all(model.quantiles is None for model in blend.used.values()):
        found = rank_mean(stack, weights)
    elif blend.task == "single_label":
        found = _apply_softmax(blend, stack, weights)
    else:
        found = _apply_sigmoid(blend, stack, weights)
    return found if blend.thresholds is None else move_thresholds(found, np.array(blend.thresholds))


def _apply_softmax(blend: Blend, stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Methods on log-probabilities for one label per clip; arguments as in `arithmetic`."""
    models, offsets = blend.used.values(), np.array(blend.offsets, dtype=np.float64)
    if blend.method == "geometric":
        return geometric(stack, weights)
    if blend.method == "rank":
        return quantile_mean(stack, weights, [model.quantiles or [] for model in models])
    if blend.method == "temperature":
        scaled = [sharpen(one, model.temperature or 1) for one, model in zip(stack, models, strict=True)]
        return arithmetic(np.stack(scaled), weights)
    if blend.method == "log_linear":
        return softmax(np.tensordot(weights, floored_log(stack), axes=1) + offsets)
    if blend.method == "stack":
        logits = np.tile(offsets, (stack.shape[1], 1))
        for one, model in zip(stack, models, strict=True):
            logits += centred_log(one) @ np.array(model.coefficients)
        return softmax(logits)
    raise ValueError(f"no blending method {blend.method!r}")


def _apply_sigmoid(blend: Blend, stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Methods on logits for several labels per clip; arguments as in `arithmetic`."""
    models, offsets = blend.used.values(), np.array(blend.offsets or 0.0, dtype=np.float64)
    if blend.method == "geometric":
        return sigmoid(np.tensordot(weights, floored_logit(stack), axes=1))
    if blend.method == "rank":
        return quantile_mean(stack, weights, [model.quantiles or [] for model in models])
    if blend.method == "temperature":
        scaled = [
            sigmoid(floored_logit(one) / (model.temperature or 1) + (model.offset or 0))
            for one, model in zip(stack, models, strict=True)
        ]
        return arithmetic(np.stack(scaled), weights)
    if blend.method not in ("log_linear", "stack"):
        raise ValueError(f"no blending method {blend.method!r}")
    logits = np.tile(offsets, (stack.shape[1], 1))
    for one, model in zip(stack, models, strict=True):
        own = floored_logit(one)
        if blend.method == "stack":
            logits += own @ np.array(model.coefficients)
        else:
            logits += own * np.array(model.class_weights or model.weight)
    return sigmoid(logits)


def arithmetic(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean. stack (models, clips, classes), weights (models,) that sum to 1 -> (clips, classes)."""
    return np.tensordot(weights, stack, axes=1)


def rank_mean(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of how many classes of the clip each class beats, scaled to sum 1; a tie counts half.

    Arguments as in `arithmetic`. Ranks are taken within a clip (J.-C. de Borda, 1784), not within a class over clips,
    so that a clip's blend does not depend on which other clips are there.
    """
    total = np.zeros(stack.shape[1:])
    for one, weight in zip(stack, weights, strict=True):
        for i in range(0, len(one), 1000):  # (1000, classes, classes) at a time
            part = one[i : i + 1000]
            beats = (part[:, :, None] > part[:, None, :]).sum(axis=2)
            level = (part[:, :, None] == part[:, None, :]).sum(axis=2) - 1
            total[i : i + 1000] += weight * (beats + level / 2)
    return np.asarray(total / total.sum(axis=1, keepdims=True))


def quantile_mean(stack: np.ndarray, weights: np.ndarray, quantiles: Sequence[list[list[float]]]) -> np.ndarray:
    """Weighted mean (clips, classes) of the share of out-of-fold values of the class that each value exceeds.

    quantiles: per model (classes, KNOTS) values, or (1, KNOTS) for all classes. The reference is the out-of-fold
    distribution and not the other clips, so that a clip's blend does not depend on which other clips there are. Shares
    are interpolated between the knots and approach 0 and 1 beyond them: no two values become equal.
    """
    total = np.zeros(stack.shape[1:])
    for one, weight, knots in zip(stack, weights, quantiles, strict=True):
        for c in range(one.shape[1]):
            total[:, c] += weight * _share_below(one[:, c].astype(np.float64), np.array(knots[c % len(knots)]))
    return total


def _share_below(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """(clips,) shares of a distribution, given by its values at even shares, that lie below each value."""
    share = (np.arange(len(knots)) + 0.5) / len(knots)
    at, first = np.unique(knots, return_index=True)
    last = len(knots) - 1 - np.unique(knots[::-1], return_index=True)[1]
    found = np.interp(values, at, (share[first] + share[last]) / 2)
    width = max(float(knots[-1] - knots[0]), 1e-9)
    above, below = (values - knots[-1]) / width, (knots[0] - values) / width
    found = np.where(above > 0, 1 - (1 - share[-1]) * np.exp(-np.minimum(above, 30)), found)
    return np.asarray(np.where(below > 0, share[0] * np.exp(-np.minimum(below, 30)), found))


def quantiles_of(values: np.ndarray) -> np.ndarray:
    """(classes, KNOTS) values at even shares of each column. values (clips, classes)."""
    shares = (np.arange(KNOTS) + 0.5) / KNOTS
    return np.asarray(np.quantile(values.astype(np.float64), shares, axis=0).T)


def move_thresholds(probs: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Each class's threshold moved to 0.5, in proportion on both sides. probs (clips, classes), thresholds (classes,);
    a threshold at 1 or above leaves all values below 0.5."""
    low = 0.5 * probs / np.maximum(thresholds, 1e-12)
    high = 0.5 + 0.5 * (probs - thresholds) / np.maximum(1 - thresholds, 1e-12)
    return np.asarray(np.where(probs >= thresholds, high, np.minimum(low, np.nextafter(0.5, 0))))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -700, 700))))


def floored_logit(probs: np.ndarray) -> np.ndarray:
    """log((p + FLOOR) / (1 - p + FLOOR)) in float64."""
    exact = probs.astype(np.float64)
    return np.asarray(np.log((exact + FLOOR) / (1 - exact + FLOOR)))


def sharpen(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Rows p^(1 / temperature), scaled to sum 1; below 1 sharpens, above 1 flattens.

    Source: C. Guo et al., "On calibration of modern neural networks", 2017.
    """
    return softmax(floored_log(probs) / temperature)


def floored_log(probs: np.ndarray) -> np.ndarray:
    """log(p + FLOOR) in float64, which keeps the order of small probabilities."""
    return np.asarray(np.log(probs.astype(np.float64) + FLOOR))


def centred_log(probs: np.ndarray) -> np.ndarray:
    """`floored_log` with a mean of 0 in every row: features of the stack. probs (clips, classes)."""
    logs = floored_log(probs)
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))
