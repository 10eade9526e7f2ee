"""Log-linear pooling: logit of the blend = sum of weight x logit of each model + an offset per class, by cross-entropy.

For one label per clip the logits are log-probabilities, and softmax makes the blend; for several they are log-odds, and
a sigmoid does. The weights take each model's temperature in; the offsets take in the step from the class shares that
the models were trained on to those of the rows they are fitted to. Source: C. Genest and J. Zidek, "Combining
probability distributions", Statistical Science 1986; T. Heskes, "Selecting weighting factors in logarithmic opinion
pools", 1997.

The floor under the logarithm (blending.floored_log) and the form itself were chosen on the real predictions of
FSDKaggle2018 by nested scores on their verified rows, which may make those scores too high by some 0.002; the rest is
fitted inside the nested folds.
"""

from dataclasses import dataclass

import numpy as np

from blending.apply import floored_log, floored_logit, sigmoid, softmax
from configs.competition import Task

SPREADS = (0.15, 0.3, 0.6, 1.2)  # one label: standard deviations of the offsets' prior that are tried, nats
CLASS_SPREADS = (0.0, 0.03, 0.06, 0.1)  # several: those of a class's weights around the common ones; 0: none of its own
WEIGHT_SPREAD: dict[Task, float] = {"single_label": 0.3, "multi_label": 0.1}  # of the weights' prior around equal ones
WIDE = 30.0  # spread of the offsets for several labels: hardly a prior, as many systems' values are no probabilities
ITERATIONS, CLOSE = 50, 1e-7  # Newton's steps at most, and the step at which it ends


@dataclass(frozen=True)
class Pool:
    """A fitted pool."""

    weights: np.ndarray  # (models,), none below 0
    offsets: np.ndarray  # (classes,)
    spread: float  # of SPREADS, or of CLASS_SPREADS for several labels
    class_weights: np.ndarray | None = None  # (models, classes), for several labels where they pay


def fit_log_linear(
    stack: np.ndarray, truth: np.ndarray, weight: np.ndarray, fold: np.ndarray, task: Task, spread: float | None = None
) -> Pool:
    """stack (models, clips, classes), truth (clips, classes) bool, weight and fold (clips,).

    Without a spread, the one with the least cross-entropy on folds left out is taken: for one label per clip of the
    offsets, for several of the weights of a class.
    """
    logits = floored_log(stack) if task == "single_label" else floored_logit(stack)
    if spread is None:
        spread = _choose_spread(logits, truth, weight, fold, task)
    if task == "single_label":
        return Pool(*_fit(logits, truth, weight, task, spread), spread)
    weights, offsets = _fit(logits, truth, weight, task, WIDE)
    return _with_class_weights(logits, truth, weight, Pool(weights, offsets, 0.0), spread)


def fit_temperature(probs: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """The temperature of `blending.sharpen` with the least cross-entropy, between 0.05 and 20. truth (clips, classes)
    bool with one label per clip."""
    from scipy.optimize import minimize_scalar

    logs = floored_log(probs)
    found = minimize_scalar(
        lambda log_t: cross_entropy(logs / np.exp(log_t), truth, weight), bounds=np.log((0.05, 20)), method="bounded"
    )
    return float(np.exp(found.x))


def fit_platt(probs: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Temperature, between 0.05 and 20, and offset of a model for several labels per clip, common to all classes.

    Source: J. Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    flat = floored_logit(probs).reshape(1, -1, 1)
    cells = np.repeat(weight, truth.shape[1])
    slope, offset = _fit(flat, truth.reshape(-1, 1), cells, "multi_label", WIDE, weight_spread=WIDE)
    return 1 / float(np.clip(slope[0], 0.05, 20)), float(offset[0])


def cross_entropy(logits: np.ndarray, truth: np.ndarray, weight: np.ndarray, task: Task = "single_label") -> float:
    """Weighted mean over clips, nats. logits (clips, classes); for one label they need not be normalised."""
    if task == "multi_label":
        return float(weight @ (np.logaddexp(0, logits) - logits * truth).sum(axis=1) / weight.sum())
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float(weight @ (total - logits[np.arange(len(truth)), truth.argmax(axis=1)]) / weight.sum())


def _choose_spread(logits: np.ndarray, truth: np.ndarray, weight: np.ndarray, fold: np.ndarray, task: Task) -> float:
    folds, spreads = np.unique(fold), SPREADS if task == "single_label" else CLASS_SPREADS
    if len(folds) < 2:
        return SPREADS[1] if task == "single_label" else 0.0
    losses = np.zeros(len(spreads))
    for k in folds:
        fitting, judged = fold != k, fold == k
        data = (logits[:, fitting], truth[fitting], weight[fitting])
        start = None if task == "single_label" else _fit(*data, task, WIDE)
        for i, spread in enumerate(spreads):
            if task == "single_label":
                start = _fit(*data, task, spread, start)
                pool = Pool(*start, spread)
            else:
                assert start is not None
                pool = _with_class_weights(*data, Pool(*start, 0.0), spread)
            losses[i] += cross_entropy(pooled(pool, logits[:, judged]), truth[judged], weight[judged], task) * (
                weight[judged].sum()
            )
    return spreads[int(np.argmin(losses))]


def pooled(pool: Pool, logits: np.ndarray) -> np.ndarray:
    """(clips, classes) logits of the pool from those of the models, (models, clips, classes)."""
    if pool.class_weights is None:
        return np.asarray(np.tensordot(pool.weights, logits, axes=1) + pool.offsets)
    return np.asarray(np.einsum("mc,mic->ic", pool.class_weights, logits) + pool.offsets)


def _fit(
    logits: np.ndarray,
    truth: np.ndarray,
    weight: np.ndarray,
    task: Task,
    spread: float,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    weight_spread: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The most probable weights, held at 0 or above, and offsets under normal priors, by Newton's method.

    The problem is convex. Each step minimises the quadratic model under the bounds: the offsets are eliminated, and the
    weights solve a non-negative least-squares problem. A step that does not lower the loss is halved.
    """
    n_models, _, n_classes = logits.shape
    flat = np.ascontiguousarray(logits).reshape(n_models, -1)
    weight_precision, precision = (weight_spread or WEIGHT_SPREAD[task]) ** -2, spread**-2
    weights, offsets = start or (np.full(n_models, 1 / n_models), np.zeros(n_classes))

    def loss(weights: np.ndarray, offsets: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = (weights @ flat).reshape(-1, n_classes) + offsets
        off = weights - 1 / n_models
        prior = weight_precision * (off @ off) + precision * (offsets @ offsets)
        return cross_entropy(mixed, truth, weight, task) * weight.sum() + prior / 2, mixed

    value, mixed = loss(weights, offsets)
    for _ in range(ITERATIONS):
        probs = softmax(mixed) if task == "single_label" else sigmoid(mixed)
        slopes, curvature = _derivatives(flat, probs, truth, weight, task)
        slopes[0][:] += weight_precision * (weights - 1 / n_models)
        slopes[1][:] += precision * offsets
        step = _bounded_step(weights, slopes, curvature, (weight_precision, precision))
        share = 1.0
        while True:
            tried = weights + share * step[0], offsets + share * step[1]
            better, next_mixed = loss(*tried)
            if better <= value or share < 1e-6:
                break
            share /= 2
        weights, offsets, value, mixed = *tried, better, next_mixed
        if max(np.abs(step[0]).max(), np.abs(step[1]).max()) < CLOSE:
            break
    return np.maximum(weights, 0), offsets


def _derivatives(
    flat: np.ndarray, probs: np.ndarray, truth: np.ndarray, weight: np.ndarray, task: Task
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """First derivatives of the weighted cross-entropy by weights (models,) and offsets (classes,), and second ones:
    (models, models), (models, classes) and (classes, classes). flat (models, clips x classes)."""
    n_models, n_classes = len(flat), probs.shape[1]
    rest = (probs - truth) * weight[:, None]
    spread = probs * weight[:, None] if task == "single_label" else probs * (1 - probs) * weight[:, None]
    scaled = flat * spread.ravel()
    within, cross = scaled @ flat.T, scaled.reshape(n_models, -1, n_classes)
    offsets = np.diag(spread.sum(axis=0))
    mixed = cross.sum(axis=1)
    if task == "single_label":
        mean = np.einsum("mic,ic->mi", flat.reshape(n_models, -1, n_classes), probs)  # of each clip, under the blend
        within = within - (mean * weight) @ mean.T
        mixed = mixed - mean @ spread
        offsets -= probs.T @ spread
    return (flat @ rest.ravel(), rest.sum(axis=0)), (within, mixed, offsets)


def _bounded_step(
    weights: np.ndarray,
    slopes: tuple[np.ndarray, np.ndarray],
    curvature: tuple[np.ndarray, np.ndarray, np.ndarray],
    precisions: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Steps of the weights and offsets to the least value of the quadratic model with no weight below 0."""
    from scipy.optimize import nnls

    within, mixed, offsets = curvature
    within, offsets = within + precisions[0] * np.eye(len(within)), offsets + precisions[1] * np.eye(len(offsets))
    solved = np.linalg.solve(offsets, np.column_stack([mixed.T, slopes[1]]))
    reduced = within - mixed @ solved[:, :-1]
    slope = slopes[0] - mixed @ solved[:, -1]
    lower = np.linalg.cholesky(reduced)
    found = nnls(lower.T, lower.T @ weights - np.linalg.solve(lower, slope))[0] - weights
    return found, -(solved[:, -1] + solved[:, :-1] @ found)


def _with_class_weights(logits: np.ndarray, truth: np.ndarray, weight: np.ndarray, pool: Pool, spread: float) -> Pool:
    """The pool with weights of each class, shrunk towards the common ones by a normal prior of that spread."""
    if spread == 0:
        return pool
    n_models, n_clips, n_classes = logits.shape
    x = (
        np.concatenate([logits, np.ones((1, n_clips, n_classes))]).transpose(2, 0, 1).copy()
    )  # (classes, models + 1, clips)
    precision = np.append(np.full(n_models, spread**-2), WIDE**-2)
    found = centre = np.column_stack([np.tile(pool.weights, (n_classes, 1)), pool.offsets])
    centre = np.where(np.arange(n_models + 1) < n_models, centre, 0)
    for _ in range(ITERATIONS):
        probs = sigmoid(np.einsum("cm,cmi->ci", found, x))
        slope = np.einsum("cmi,ci->cm", x, (probs - truth.T) * weight) + precision * (found - centre)
        curvature = (x * (probs * (1 - probs) * weight)[:, None]) @ x.transpose(0, 2, 1) + np.diag(precision)
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        found = found - step
        if np.abs(step).max() < 1e-5:
            break
    return Pool(pool.weights, found[:, -1], spread, found[:, :-1].T)
