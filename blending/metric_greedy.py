"""Greedy ensemble selection on any metric, bagged. For MAP@3 of one label per clip `blending.greedy` is faster.

Source: R. Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
"""

import numpy as np

from blending.greedy import best_prefix
from metrics.metric import Metric
from metrics.resampling import resampled


def metric_greedy_path(
    metric: Metric, stack: np.ndarray, truth: np.ndarray, weight: np.ndarray, steps: int = 50
) -> tuple[list[int], list[float]]:
    """The model added at each step and the weighted score of the mean of those taken, higher for a better one.

    stack (models, clips, classes), truth (clips, classes) bool, weight (clips,). Each step adds the model that improves
    the metric most, with replacement; of equal ones the first.
    """
    total = np.zeros(stack.shape[1:], stack.dtype)
    path, scores = list[int](), list[float]()
    blend = np.empty_like(total)
    for step in range(steps):
        found = [
            _gain(metric, np.divide(np.add(total, one, out=blend), step + 1, out=blend), truth, weight) for one in stack
        ]
        path.append(int(np.argmax(found)))
        scores.append(found[path[-1]])
        total += stack[path[-1]]
    return path, scores


def bagged_metric_weights(
    metric: Metric,
    stack: np.ndarray,
    truth: np.ndarray,
    weight: np.ndarray,
    rng: np.random.Generator,
    bags: int = 10,
    steps: int = 15,
) -> np.ndarray:
    """Mean weights (models,) of the best prefixes of `metric_greedy_path` over bags, each on a random half of the
    models and a bootstrap sample of the rows."""
    n_models, n_clips = stack.shape[:2]
    total = np.zeros(n_models)
    for _ in range(bags):
        members = np.sort(rng.permutation(n_models)[: max(2, -(-n_models // 2))])
        rows = np.sort(rng.integers(n_clips, size=n_clips))
        path, scores = metric_greedy_path(metric, stack[members][:, rows], truth[rows], weight[rows], steps)
        total[members] += best_prefix(path, scores, len(members))
    return total / bags


def _gain(metric: Metric, probs: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    if (weight == weight[0]).all() or (metric.per_clip is None and metric.resample is None):
        return metric.gain(probs, truth)
    found = float(resampled(metric, probs, truth, weight[None])[0])
    return found if metric.higher_is_better else -found
