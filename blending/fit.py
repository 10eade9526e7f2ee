"""Fit a blend: matrices of out-of-fold probabilities in, a Blend out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from blending.apply import Blend, Model, arithmetic, centred_log
from blending.greedy import bagged_greedy_weights
from blending.log_linear import cross_entropy, fit_log_linear, fit_temperature
from metrics.map_at_3 import average_precision_at_3

SEED = 0  # of bags and of Optuna's sampler: the same rows give the same blend
TRIALS = 100  # of Optuna
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2)  # of the stack's logistic regression (scikit-learn's C), tried


@dataclass(frozen=True)
class FitRows:
    """Rows to fit a blend to. stack (models, clips, classes); truth, weight and fold (clips,)."""

    stack: np.ndarray
    truth: np.ndarray
    weight: np.ndarray
    fold: np.ndarray

    def at(self, rows: np.ndarray) -> "FitRows":
        """Those where `rows` (bool or indices) says so and the weight is above 0."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        index = index[self.weight[index] > 0]
        return FitRows(self.stack[:, index], self.truth[index], self.weight[index], self.fold[index])


def fit_blend(method: str, rows: FitRows, names: Sequence[str], spread: float | None = None) -> Blend:
    """A blend without the classes and ids that it comes from, its numbers rounded as they are written.

    Every row has a weight above 0. spread: of `fit_log_linear`, where it was chosen before.
    Raises ValueError on a method that METHODS does not name.
    """
    n = len(names)
    weights, offsets = np.full(n, 1 / n), None
    models = [Model(0.0) for _ in names]
    if method == "single":
        weights = np.eye(n)[int(np.argmax([_score(one, rows) for one in rows.stack]))]
    elif method == "temperature":
        models = [Model(0.0, temperature=_plain(fit_temperature(one, rows.truth, rows.weight))) for one in rows.stack]
    elif method == "greedy":
        weights = bagged_greedy_weights(rows.stack, rows.truth, rows.weight, np.random.default_rng(SEED))
    elif method == "weights":
        weights = optuna_weights(rows)
    elif method == "log_linear":
        weights, offsets, spread = fit_log_linear(rows.stack, rows.truth, rows.weight, rows.fold, spread)
    elif method == "stack":
        coefficients, offsets = fit_stack(rows)
        size = np.abs(coefficients).sum(axis=(1, 2))
        # how much the stack listens to each, if to any; the coefficients are what is applied
        weights = size / size.sum() if size.any() else weights
        models = [Model(0.0, coefficients=_plain(matrix, 4)) for matrix in coefficients]
    elif method not in ("arithmetic", "geometric", "rank"):
        raise ValueError(f"no blending method {method!r}")
    weighted = {name: replace(m, weight=_plain(w)) for name, m, w in zip(names, models, weights, strict=True)}
    return Blend(method, weighted, None if offsets is None else _plain(offsets), spread)


def optuna_weights(rows: FitRows) -> np.ndarray:
    """Weights (models,) that sum to 1, with the best weighted MAP@3 of TRIALS trials by Optuna's TPE sampler.

    MAP@3 is piecewise constant: its gradient is 0 almost everywhere, so SLSQP would stay at equal weights. The trials
    begin with equal weights and with each model alone; the first of equals is kept.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    keys = [str(i) for i in range(len(rows.stack))]

    def weights_of(params: dict[str, float]) -> np.ndarray:
        values = np.array([params[key] for key in keys]) + 1e-9
        return np.asarray(values / values.sum())

    def objective(trial: optuna.Trial) -> float:
        return _score(arithmetic(rows.stack, weights_of({k: trial.suggest_float(k, 0, 1) for k in keys})), rows)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=SEED))
    study.enqueue_trial(dict.fromkeys(keys, 1.0))
    for alone in keys:
        study.enqueue_trial({key: float(key == alone) for key in keys})
    study.optimize(objective, n_trials=TRIALS)
    return weights_of(study.best_params)


def fit_stack(rows: FitRows) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (models, classes in, classes out) on centred log-probabilities, and offsets (classes,).

    Multinomial logistic regression, its L2 penalty chosen by cross-entropy on one fold left out: more folds cost
    more than the choice among three is worth.
    """
    n_models, _, n_classes = rows.stack.shape
    features = np.concatenate([centred_log(one) for one in rows.stack], axis=1)
    judged = rows.fold == rows.fold.max()
    losses = [0.0 for _ in INVERSE_PENALTIES]
    for i, c in enumerate(INVERSE_PENALTIES if not judged.all() else []):
        fit = _logistic(features[~judged], rows.truth[~judged], rows.weight[~judged], c, n_classes)
        losses[i] = cross_entropy(features[judged] @ fit[0] + fit[1], rows.truth[judged], rows.weight[judged])
    best = INVERSE_PENALTIES[int(np.argmin(losses))]
    coefficients, offsets = _logistic(features, rows.truth, rows.weight, best, n_classes)
    return coefficients.reshape(n_models, n_classes, n_classes), offsets


def _logistic(
    features: np.ndarray, truth: np.ndarray, weight: np.ndarray, c: float, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(features, classes) and (classes,); a class that no row has gets the least offset and no coefficients."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, max_iter=300, tol=1e-3).fit(features, truth, sample_weight=weight)
    coefficients, offsets = np.zeros((features.shape[1], n_classes)), np.full(n_classes, model.intercept_.min() - 5.0)
    coefficients[:, model.classes_] = model.coef_.T
    offsets[model.classes_] = model.intercept_
    return coefficients, offsets


def _score(probs: np.ndarray, rows: FitRows) -> float:
    return float(average_precision_at_3(probs, rows.truth) @ rows.weight / rows.weight.sum())


def _plain(values: Any, digits: int = 6) -> Any:
    """Numbers as JSON takes them, rounded: what is written is what is applied."""
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()
