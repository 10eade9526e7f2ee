"""How a fitted blend is applied to probabilities: numbers in a weights.json, matrices in and out, numpy alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from configs.forms import read_json
from console.errors import UserError
from runs.predictions import geometric, softmax

FLOOR = 1e-3  # under a fitted logarithm: a confident 1e-20 is no evidence worth 46 nats
MEANS = ("single", "arithmetic", "geometric", "rank", "temperature", "greedy", "weights")  # none without a weight
METHODS = {
    "single": "the best model alone",
    "arithmetic": "mean of the probabilities",
    "geometric": "geometric mean of the probabilities",
    "rank": "mean of each clip's class ranks (Borda count)",
    "temperature": "mean after scaling every model by its own temperature",
    "greedy": "greedy selection with replacement, bagged over models and rows",
    "weights": "continuous weights found by Optuna on MAP@3",
    "log_linear": "weighted sum of log-probabilities plus an offset per class, fitted by cross-entropy",
    "stack": "logistic regression on all log-probabilities",
}
AUTO = "auto"  # the simplest of METHODS within one standard error of the best nested score
DECIDE = ("verified", "all")  # which rows fit and judge a blend


class Model(TypedDict):
    """An entry of `models` in weights.json."""

    weight: float
    ids: list[str]
    temperature: NotRequired[float]
    coefficients: NotRequired[list[list[float]]]  # (classes in, classes out)


class Weights(TypedDict):
    """What of a weights.json is read again."""

    method: str
    models: dict[str, Model]
    classes: list[str]
    by_default: bool
    offsets: NotRequired[list[float]]


def read_weights(file: Path, remedy: str = "make it again with ensemble.py --force") -> Weights:
    """The content of a weights.json. Raises UserError where it is damaged, or a number in it is none that can be."""
    about: Weights = read_json(file, Weights, remedy)
    try:
        _check_weights(about)
    except ValueError as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}: {remedy}") from None
    return about


def _check_weights(about: Weights) -> None:
    """Raises ValueError where `apply_blend` would not compute a blend from this."""
    classes, models, method = about["classes"], about["models"], about["method"]
    if not (classes and models):
        raise ValueError("it has no classes or no models")
    if method not in (*MEANS, "log_linear", "stack"):
        raise ValueError(f"no blending method {method!r}")
    weights = [_numbers(model.get("weight"), (), f"the weight of {name}") for name, model in models.items()]
    if min(weights) < 0 or (method in MEANS and max(weights) == 0):
        raise ValueError("its weights are below 0, or all 0")
    if method in ("log_linear", "stack"):
        _numbers(about.get("offsets"), (len(classes),), "offsets")
    for name, model in models.items():
        if method == "temperature" and _numbers(model.get("temperature"), (), f"the temperature of {name}") <= 0:
            raise ValueError(f"the temperature of {name} is not above 0")
        if method == "stack":
            _numbers(model.get("coefficients"), (len(classes),) * 2, f"the coefficients of {name}")


def _numbers(values: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Raises ValueError where they are not so many finite numbers."""
    found = np.array(values)  # a ValueError where it is no rectangle
    if found.dtype.kind not in "fiu" or found.shape != shape or not np.isfinite(found).all():
        wanted = " x ".join(map(str, shape)) + " finite numbers" if shape else "a finite number"
        raise ValueError(f"{what}: {str(values)[:40]} instead of {wanted}")
    return found


def apply_blend(about: Mapping[str, Any], probs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The blend (clips, classes) that a weights.json describes, of each model's probabilities (clips, classes).

    The same call for out-of-fold rows, test rows and the Kaggle kernel; each row of the blend depends on that clip
    alone, so neither the order nor the number of the clips matters. A model of weight 0 may be absent, unless all are
    0, as a pool of models that know nothing may be. Rows sum to 1.
    Raises KeyError where another model is absent, ValueError on a method that this version does not know.
    """
    models = {name: model for name, model in about["models"].items() if model["weight"] > 0} or about["models"]
    stack = np.stack([probs[name] for name in models])
    weights = np.array([model["weight"] for model in models.values()])
    method = about["method"]
    if method in ("single", "arithmetic", "greedy", "weights"):
        return arithmetic(stack, weights)
    if method == "geometric":
        return geometric(stack, weights)
    if method == "rank":
        return rank_mean(stack, weights)
    if method == "temperature":
        temperatures = [model["temperature"] for model in models.values()]
        scaled = [sharpen(one, t) for one, t in zip(stack, temperatures, strict=True)]
        return arithmetic(np.stack(scaled), weights)
    if method == "log_linear":
        return softmax(np.tensordot(weights, floored_log(stack), axes=1) + np.array(about["offsets"]))
    if method == "stack":
        logits = np.tile(np.array(about["offsets"], dtype=np.float64), (stack.shape[1], 1))
        for one, model in zip(stack, models.values(), strict=True):
            logits += centred_log(one) @ np.array(model["coefficients"])
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
