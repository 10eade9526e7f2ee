"""How a fitted blend is applied to probabilities: numbers in a weights.json, matrices in and out, numpy alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blending.methods import METHODS
from configs.forms import read_json, to_json
from console.errors import UserError
from runs.predictions import geometric, softmax

FLOOR = 1e-3  # under a fitted logarithm: a confident 1e-20 is no evidence worth 46 nats


@dataclass(frozen=True)
class Model:
    """A model of a blend."""

    weight: float
    ids: tuple[str, ...] = ()  # of the runs that its predictions were read from, one a fold
    temperature: float | None = None  # of the method 'temperature'
    coefficients: list[list[float]] | None = None  # of the method 'stack': (classes in, classes out)


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
    for name, model in blend.models.items():
        if blend.method == "temperature" and (model.temperature or 0) <= 0:
            return f"the temperature of {name} is not above 0"
        if blend.method == "stack" and [len(row) for row in model.coefficients or ()] != [n] * n:
            return f"the coefficients of {name}: {n} x {n} numbers expected"
    return ""


def write_blend(file: Path, blend: Blend) -> None:
    """The inverse of `read_blend`: a line for each entry and for each model: 41 offsets do not take 41 lines."""
    values = to_json(blend)
    models = ",\n".join(f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in values.pop("models").items())
    lines = [f' "{key}": {json.dumps(value)}' for key, value in values.items()]
    file.write_text("{\n" + ",\n".join([*lines, f' "models": {{\n{models}\n }}']) + "\n}\n")


def apply_blend(blend: Blend, probs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The blend (clips, classes) of each model's probabilities (clips, classes).

    The same call for out-of-fold rows, test rows and the Kaggle kernel; each row of the blend depends on that clip
    alone, so neither the order nor the number of the clips matters. Models that are not `used` may be absent. Rows sum
    to 1.
    Raises KeyError where another model is absent, ValueError on a method that this version does not know.
    """
    models = blend.used
    stack = np.stack([probs[name] for name in models])
    weights = np.array([model.weight for model in models.values()])
    method, offsets = blend.method, np.array(blend.offsets, dtype=np.float64)
    if method in ("single", "arithmetic", "greedy", "weights"):
        return arithmetic(stack, weights)
    if method == "geometric":
        return geometric(stack, weights)
    if method == "rank":
        return rank_mean(stack, weights)
    if method == "temperature":
        scaled = [sharpen(one, model.temperature or 1) for one, model in zip(stack, models.values(), strict=True)]
        return arithmetic(np.stack(scaled), weights)
    if method == "log_linear":
        return softmax(np.tensordot(weights, floored_log(stack), axes=1) + offsets)
    if method == "stack":
        logits = np.tile(offsets, (stack.shape[1], 1))
        for one, model in zip(stack, models.values(), strict=True):
            logits += centred_log(one) @ np.array(model.coefficients)
        return softmax(logits)
    raise ValueError(f"no blending method {method!r}")


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
