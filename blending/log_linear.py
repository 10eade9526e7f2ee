"""Log-linear pooling: log blend = sum of weight x log-probability + an offset per class, fitted by cross-entropy.

The weights take each model's temperature in; the offsets take in the step from the class shares that the models were
trained on to those of the rows they are fitted to. Source: C. Genest and J. Zidek, "Combining probability
distributions", Statistical Science 1986; T. Heskes, "Selecting weighting factors in logarithmic opinion pools", 1997.

The floor under the logarithm (blending.floored_log) and the form itself were chosen on the real predictions of
FSDKaggle2018 by nested scores on their verified rows, which may flatter those scores by some 0.002; the rest is fitted
inside the nested folds.
"""

import numpy as np

from blending.apply import floored_log

SPREADS = (0.15, 0.3, 0.6, 1.2)  # standard deviations of the offsets' prior that are tried, nats
WEIGHT_SPREAD = 0.3  # standard deviation of the weights' prior around equal weights


def fit_log_linear(
    stack: np.ndarray, truth: np.ndarray, weight: np.ndarray, fold: np.ndarray, spread: float | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights (models,), none below 0, offsets (classes,) and the spread of the offsets' prior.

    stack (models, clips, classes), truth, weight and fold (clips,). Without a spread, the one of SPREADS with the least
    cross-entropy on folds left out is taken.
    """
    logs = floored_log(stack)
    if spread is None:
        spread = _choose_spread(logs, truth, weight, fold)
    pooled, offsets = _fit(logs, truth, weight, spread, None)
    return pooled, offsets, spread


def fit_temperature(probs: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """The temperature of `blending.sharpen` with the least cross-entropy, between 0.05 and 20."""
    from scipy.optimize import minimize_scalar

    logs = floored_log(probs)
    found = minimize_scalar(
        lambda log_t: cross_entropy(logs / np.exp(log_t), truth, weight), bounds=np.log((0.05, 20)), method="bounded"
    )
    return float(np.exp(found.x))


def cross_entropy(logits: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean over clips, nats. logits (clips, classes) need not be normalised."""
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float(weight @ (total - logits[np.arange(len(truth)), truth]) / weight.sum())


def _choose_spread(logs: np.ndarray, truth: np.ndarray, weight: np.ndarray, fold: np.ndarray) -> float:
    folds = np.unique(fold)
    if len(folds) < 2:
        return SPREADS[1]
    losses = np.zeros(len(SPREADS))
    for k in folds:
        fitting, judged = fold != k, fold == k
        start = None
        for i, spread in enumerate(SPREADS):
            start = _fit(logs[:, fitting], truth[fitting], weight[fitting], spread, start)
            logits = np.tensordot(start[0], logs[:, judged], axes=1) + start[1]
            losses[i] += cross_entropy(logits, truth[judged], weight[judged]) * weight[judged].sum()
    return SPREADS[int(np.argmin(losses))]


def _fit(
    logs: np.ndarray,
    truth: np.ndarray,
    weight: np.ndarray,
    spread: float,
    start: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The most probable weights and offsets under normal priors, by L-BFGS with the weights held at 0 or above."""
    from scipy.optimize import minimize

    n_models, n_clips, n_classes = logs.shape
    flat = np.ascontiguousarray(logs).reshape(n_models, -1)
    share = weight / weight.sum()
    tight = np.repeat([WEIGHT_SPREAD, spread], [n_models, n_classes]) ** -2 / weight.sum()
    centre = np.concatenate([np.full(n_models, 1 / n_models), np.zeros(n_classes)])
    true = (np.arange(n_clips), truth)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        logits = (x[:n_models] @ flat).reshape(n_clips, n_classes) + x[n_models:]
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[true]
        powers = np.exp(logits, out=logits)
        total = powers.sum(axis=1)
        gradient = powers * (share / total)[:, None]
        gradient[true] -= share
        off = x - centre
        slope = np.concatenate([flat @ gradient.ravel(), gradient.sum(axis=0)]) + tight * off
        return float(share @ (np.log(total) - own) + tight @ off**2 / 2), slope

    bounds = [(0, None)] * n_models + [(None, None)] * n_classes
    found = minimize(loss, np.concatenate(start) if start else centre, jac=True, method="L-BFGS-B", bounds=bounds)
    return found.x[:n_models], found.x[n_models:]
