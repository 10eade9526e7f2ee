"""Fit a blend: matrices of out-of-fold probabilities in, a Blend out."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from blending.apply import SCORES_TOO, Blend, Model, apply_blend, arithmetic, centred_log
from blending.greedy import bagged_greedy_weights
from blending.log_linear import cross_entropy, fit_log_linear, fit_platt, fit_temperature
from blending.metric_greedy import bagged_metric_weights
from blending.multi_label import fit_multi_label_stack, reference_quantiles
from configs.competition import Task
from metrics.metric import Metric, find_metric

MAP_AT_3 = find_metric("map@3")
SEED = 0  # of bags and of Optuna's sampler: the same rows give the same blend
TRIALS = 100  # of Optuna
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2)  # of the stack's logistic regression (scikit-learn's C), tried


@dataclass(frozen=True)
class FitRows:
    """Rows to fit a blend to. stack (models, clips, classes); truth (clips, classes) bool; weight and fold (clips,)."""

    stack: np.ndarray
    truth: np.ndarray
    weight: np.ndarray
    fold: np.ndarray
    task: Task = "single_label"
    metric: Metric = MAP_AT_3
    usable: tuple[bool, ...] | None = None  # per model, whether all its values are probabilities; None: all are

    @property
    def label(self) -> np.ndarray:
        """(clips,) class indices, for one label per clip."""
        return np.asarray(self.truth.argmax(axis=1))

    def at(self, rows: np.ndarray) -> "FitRows":
        """Those where `rows` (bool or indices) says so and the weight is above 0."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        index = index[self.weight[index] > 0]
        return replace(
            self,
            stack=self.stack[:, index],
            truth=self.truth[index],
            weight=self.weight[index],
            fold=self.fold[index],
        )

    def gain(self, probs: np.ndarray) -> float:
        """The weighted metric of a blend (clips, classes), higher for a better one."""
        sign = 1 if self.metric.higher_is_better else -1
        if self.metric.per_clip is not None:
            return sign * float(self.metric.per_clip(probs, self.truth) @ self.weight / self.weight.sum())
        if self.metric.resample is None or (self.weight == self.weight[0]).all():
            return self.metric.gain(probs, self.truth)
        return sign * float(self.metric.resample(probs, self.truth, self.weight[None])[0])


def fit_blend(method: str, rows: FitRows, names: Sequence[str], spread: float | None = None) -> Blend:
    """A blend without the classes and ids that it comes from, its numbers rounded as they are written.

    Every row has a weight above 0. spread: of `fit_log_linear`, where it was chosen before.
    Raises ValueError on a method that METHODS does not name.
    """
    counts = np.array(rows.usable) if rows.usable and method not in SCORES_TOO else np.ones(len(names), dtype=bool)
    rows = rows if counts.all() else replace(rows, stack=rows.stack[counts])
    weights, models, offsets, spread = _fitted(method, rows, spread)
    fitted = iter(replace(m, weight=_plain(w)) for m, w in zip(models, weights, strict=True))
    weighted = {name: next(fitted) if one else Model(0.0) for name, one in zip(names, counts, strict=True)}
    blend = Blend(
        method, weighted, None if offsets is None else _plain(offsets), spread, task=rows.task, metric=rows.metric.name
    )
    if rows.metric.fit_thresholds is None:
        return blend
    probs = apply_blend(blend, dict(zip(np.array(names)[counts].tolist(), rows.stack, strict=True)))
    return replace(blend, thresholds=_plain(rows.metric.fit_thresholds(probs, rows.truth), 9))


def _fitted(
    method: str, rows: FitRows, spread: float | None
) -> tuple[np.ndarray, list[Model], np.ndarray | None, float | None]:
    """Weights (models,), what else each model has, offsets (classes,) and the spread; the last two may be None."""
    n, stack = len(rows.stack), rows.stack
    equal, models = np.full(n, 1 / n), [Model(0.0) for _ in stack]
    if method == "single":
        return np.eye(n)[int(np.argmax([rows.gain(one) for one in stack]))], models, None, spread
    if method == "rank" and rows.metric.within != "clip":
        found = reference_quantiles(stack, rows.metric.within)
        models = [Model(0.0, quantiles=_plain(one, 7)) for one in found]
    elif method == "temperature" and rows.task == "multi_label":
        scales = [fit_platt(one, rows.truth, rows.weight) for one in stack]
        models = [Model(0.0, temperature=_plain(t), offset=_plain(offset)) for t, offset in scales]
    elif method == "temperature":
        models = [Model(0.0, temperature=_plain(fit_temperature(one, rows.truth, rows.weight))) for one in stack]
    elif method == "greedy":
        return bagged_weights(rows), models, None, spread
    elif method == "weights":
        return optuna_weights(rows), models, None, spread
    elif method == "log_linear":
        pool = fit_log_linear(stack, rows.truth, rows.weight, rows.fold, rows.task, spread)
        if pool.class_weights is not None:
            models = [Model(0.0, class_weights=_plain(one, 4)) for one in pool.class_weights]
            return np.abs(pool.class_weights).mean(axis=1), models, pool.offsets, pool.spread
        return pool.weights, models, pool.offsets, pool.spread
    elif method == "stack":
        several = rows.task == "multi_label"
        fit = fit_multi_label_stack(stack, rows.truth, rows.weight, rows.fold) if several else fit_stack(rows)
        coefficients, offsets = fit
        size = np.abs(coefficients).sum(axis=(1, 2))
        # how much the stack depends on each, if on any; the coefficients are what is applied
        weights = size / size.sum() if size.any() else equal
        return weights, [Model(0.0, coefficients=_plain(matrix, 4)) for matrix in coefficients], offsets, spread
    elif method not in ("arithmetic", "geometric", "rank"):
        raise ValueError(f"no blending method {method!r}")
    return equal, models, None, spread


def bagged_weights(rows: FitRows) -> np.ndarray:
    """Weights (models,) of `bagged_greedy_weights` on the metric."""
    rng = np.random.default_rng(SEED)
    if rows.metric.key == MAP_AT_3.key and rows.task == "single_label":
        return bagged_greedy_weights(rows.stack, rows.label, rows.weight, rng)
    return bagged_metric_weights(rows.metric, rows.stack, rows.truth, rows.weight, rng)


def optuna_weights(rows: FitRows) -> np.ndarray:
    """Weights (models,) that sum to 1, with the best weighted metric of TRIALS trials by Optuna's TPE sampler.

    Metrics of ranks are piecewise constant: their gradient is 0 almost everywhere, so SLSQP would stay at equal
    weights. The trials begin with equal weights and with each model alone; the first of equals is kept.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    keys = [str(i) for i in range(len(rows.stack))]

    def weights_of(params: dict[str, float]) -> np.ndarray:
        values = np.array([params[key] for key in keys]) + 1e-9
        return np.asarray(values / values.sum())

    def objective(trial: optuna.Trial) -> float:
        return rows.gain(arithmetic(rows.stack, weights_of({k: trial.suggest_float(k, 0, 1) for k in keys})))

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
    features, label = np.concatenate([centred_log(one) for one in rows.stack], axis=1), rows.label
    judged = rows.fold == rows.fold.max()
    losses = [0.0 for _ in INVERSE_PENALTIES]
    for i, c in enumerate(INVERSE_PENALTIES if not judged.all() else []):
        fit = _logistic(features[~judged], label[~judged], rows.weight[~judged], c, n_classes)
        losses[i] = cross_entropy(features[judged] @ fit[0] + fit[1], rows.truth[judged], rows.weight[judged])
    best = INVERSE_PENALTIES[int(np.argmin(losses))]
    coefficients, offsets = _logistic(features, label, rows.weight, best, n_classes)
    return coefficients.reshape(n_models, n_classes, n_classes), offsets


def _logistic(
    features: np.ndarray, truth: np.ndarray, weight: np.ndarray, c: float, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(features, classes) and (classes,); a class that no row has gets the least offset and no coefficients."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():  # many classes and few clips are still classes: it is no regression
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        model = LogisticRegression(C=c, max_iter=300, tol=1e-3).fit(features, truth, sample_weight=weight)
    coefficients, offsets = np.zeros((features.shape[1], n_classes)), np.full(n_classes, model.intercept_.min() - 5.0)
    coefficients[:, model.classes_] = model.coef_.T
    offsets[model.classes_] = model.intercept_
    return coefficients, offsets


def _plain(values: Any, digits: int = 6) -> Any:
    """Numbers as JSON takes them, rounded: what is written is what is applied."""
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()
