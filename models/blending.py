"""Blends of several models' probabilities: matrices in, matrices or weights out."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.metrics import average_precision_at_3, map_at_3

METHODS = ("arithmetic", "geometric", "greedy")
TINY = 1e-9  # under the logarithm; a float32 probability can be 0


def arithmetic(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean. stack (models, clips, classes), weights (models,) that sum to 1 -> (clips, classes)."""
    return np.tensordot(weights, stack, axes=1)


def geometric(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted geometric mean, each row scaled to sum 1; arguments as in `arithmetic`."""
    logs = np.tensordot(weights, np.log(np.maximum(stack, TINY)), axes=1)
    blend = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(blend / blend.sum(axis=1, keepdims=True))


def greedy_weights(stack: np.ndarray, truth: np.ndarray, steps: int = 50) -> np.ndarray:
    """Weights (models,) by greedy selection with replacement on MAP@3.

    Each step adds the model that lifts the arithmetic blend most; the best blend of all steps is kept, the shortest of
    equals. Ties take the first model. Source: R. Caruana et al., "Ensemble selection from libraries of models", 2004.
    """
    total = np.zeros(stack.shape[1:])
    counts = np.zeros(len(stack))
    best_score, best = -1.0, counts
    for _ in range(steps):
        found = [map_at_3(total + model, truth) for model in stack]  # the scale does not change the ranks
        pick = int(np.argmax(found))
        total += stack[pick]
        counts[pick] += 1
        if found[pick] > best_score:
            best_score, best = found[pick], counts.copy()
    return np.asarray(best / best.sum())


def fit_weights(method: str, stack: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights (models,) for a method of METHODS: equal ones, or fitted to stack (models, clips, classes) and truth."""
    if method == "greedy":
        return greedy_weights(stack, truth)
    return np.full(len(stack), 1 / len(stack))


def apply_blend(about: Mapping[str, Any], probs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The blend (clips, classes) that a weights.json describes, of each model's probabilities (clips, classes).

    The same call for out-of-fold rows, test rows and the Kaggle kernel. Raises KeyError where a model is absent.
    """
    stack = np.stack([probs[name] for name in about["models"]])
    weights = np.array([model["weight"] for model in about["models"].values()])
    return geometric(stack, weights) if about["method"] == "geometric" else arithmetic(stack, weights)


def standard_error(probs: np.ndarray, truth: np.ndarray) -> float:
    """Standard error of MAP@3 over clips; arguments as in `map_at_3`."""
    return float(average_precision_at_3(probs, truth).std(ddof=1) / np.sqrt(len(truth)))
