"""Fits for several labels per clip, whose probabilities are sigmoids: the stack, and what the ranks refer to."""

import numpy as np

from blending.apply import floored_logit, quantiles_of, sigmoid
from blending.log_linear import cross_entropy, fit_log_linear
from metrics.metric import Within

PENALTIES = (300.0, 1000.0, 3000.0, 10_000.0)  # of the stack's logistic regressions, tried
ITERATIONS, CLOSE = 200, 1e-4  # steps at most, and the largest step at which they end


def reference_quantiles(stack: np.ndarray, within: Within) -> list[np.ndarray]:
    """What the method 'rank' compares with: per model the quantiles of each class over clips, (classes, knots), for a
    metric that compares clips within a class, or of all values, (1, knots), for one that compares all of them."""
    return [quantiles_of(one if within == "class" else one.reshape(-1, 1)) for one in stack]


def fit_multi_label_stack(
    stack: np.ndarray, truth: np.ndarray, weight: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (models, classes in, classes out) on the models' logits, and offsets (classes,).

    A logistic regression per class, on the logits that the log-linear pool gives to all classes: labels that go
    together support each other. It corrects the pool's own logit, so that a large penalty leaves the pool as it is. The
    penalty is chosen by cross-entropy on one fold left out.
    """
    pool = fit_log_linear(stack, truth, weight, fold, "multi_label", spread=0.0)
    logits = np.tensordot(pool.weights, floored_logit(stack), axes=1) + pool.offsets
    judged = fold == fold.max()
    losses = [0.0 for _ in PENALTIES]
    for i, penalty in enumerate(PENALTIES if not judged.all() else []):
        matrix, offsets = _fit_corrections(logits[~judged], truth[~judged], weight[~judged], penalty)
        corrected = logits[judged] + logits[judged] @ matrix + offsets
        losses[i] = cross_entropy(corrected, truth[judged], weight[judged], "multi_label")
    matrix, offsets = _fit_corrections(logits, truth, weight, PENALTIES[int(np.argmin(losses))])
    whole = np.eye(len(matrix)) + matrix
    return pool.weights[:, None, None] * whole, pool.offsets @ whole + offsets


def _fit_corrections(
    logits: np.ndarray, truth: np.ndarray, weight: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (classes, classes) and offsets (classes,) that are added to the logits, by L2-penalised cross-entropy.

    Steps against a bound of the curvature that all iterations share, so that each costs two products of matrices.
    Source: D. Boehning and B. Lindsay, "Monotonicity of quadratic-approximation algorithms", 1988.
    """
    mean, spread = logits.mean(axis=0), np.maximum(logits.std(axis=0), 1e-9)
    x = np.column_stack([(logits - mean) / spread, np.ones(len(logits))])
    size, vectors = np.linalg.eigh((x.T * weight) @ x)
    found = np.zeros((x.shape[1], logits.shape[1]))
    penalties = np.append(np.full(logits.shape[1], penalty), 1e-3)[:, None]
    for _ in range(ITERATIONS):
        probs = sigmoid(logits + x @ found)
        slope = x.T @ ((probs - truth) * weight[:, None]) + penalties * found
        bound = (probs * (1 - probs)).mean(axis=0) * 2  # of each class: the step stays short of what overshoots
        step = vectors @ ((vectors.T @ slope) / (size[:, None] * bound + penalty))
        found -= step
        if np.abs(step).max() < CLOSE:
            break
    matrix = found[:-1] / spread[:, None]
    return matrix, found[-1] - mean @ matrix
