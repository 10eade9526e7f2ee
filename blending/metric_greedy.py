"""Greedy ensemble selection on any metric, bagged. For MAP@3 of one label per clip `blending.greedy` is faster.

Source: R. Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
"""

from collections.abc import Callable

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
    if metric.within == "class":  # a class's clips side by side, as such a metric reads them
        stack = np.stack([np.asfortranarray(one) for one in stack])
    gain = _gain(metric, truth, weight)
    total = np.zeros_like(stack[0])
    path, scores = list[int](), list[float]()
    blend = np.empty_like(total)
    for step in range(steps):
        found = [gain(np.divide(np.add(total, one, out=blend), step + 1, out=blend)) for one in stack]
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


def _gain(metric: Metric, truth: np.ndarray, weight: np.ndarray) -> Callable[[np.ndarray], float]:
    """What gives the gain of a blend: weighted, unless all weights are equal or the metric cannot."""
    sign = 1 if metric.higher_is_better else -1
    if (weight == weight[0]).all() or (metric.per_clip is None and metric.resample is None):
        score = metric.scorer(truth)
        return lambda probs: sign * score(probs)
    return lambda probs: sign * float(resampled(metric, probs, truth, weight[None])[0])
