"""Greedy ensemble selection on MAP@3, incremental and bagged.

Source: R. Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
"""

import numpy as np

GAINS = np.array([1.0, 1 / 2, 1 / 3, 0.0])  # average precision at the true class's place


def greedy_path(
    stack: np.ndarray, truth: np.ndarray, weight: np.ndarray, steps: int = 50
) -> tuple[list[int], list[float]]:
    """The model added at each step and the weighted MAP@3 of the blend after it.

    stack (models, clips, classes), truth (clips,), weight (clips,). Each step adds the model that lifts the sum of
    those taken most, with replacement; of equal ones the first. The running sum is kept as each class's lead over the
    true one, so that a candidate costs one addition and one comparison: no blend is computed twice.
    """
    leads, needed = _leads(stack, truth)
    total = np.zeros_like(needed)
    share = weight / weight.sum()
    place = np.empty(total.shape, dtype=bool)
    trial = np.empty_like(total)
    path, scores = list[int](), list[float]()
    for _ in range(steps):
        found = []
        for lead in leads:
            np.greater_equal(np.add(total, lead, out=trial), needed, out=place)
            above = place.view(np.uint8).sum(axis=0, dtype=np.uint16)
            found.append(float(GAINS[np.minimum(above, 3)] @ share))
        pick = int(np.argmax(found))
        total += leads[pick]
        path.append(pick)
        scores.append(found[pick])
    return path, scores


def greedy_weights(stack: np.ndarray, truth: np.ndarray, weight: np.ndarray, steps: int = 50) -> np.ndarray:
    """Weights (models,) that sum to 1: the best prefix of `greedy_path`, the shortest of equals."""
    path, scores = greedy_path(stack, truth, weight, steps)
    return np.bincount(path[: int(np.argmax(scores)) + 1], minlength=len(stack)) / (int(np.argmax(scores)) + 1)


def bagged_greedy_weights(
    stack: np.ndarray,
    truth: np.ndarray,
    weight: np.ndarray,
    rng: np.random.Generator,
    bags: int = 20,
    steps: int = 30,
) -> np.ndarray:
    """Mean weights (models,) of `greedy_weights` over bags, each on a random half of the models and a bootstrap
    sample of the rows; arguments as in `greedy_path`."""
    n_models, n_clips = stack.shape[:2]
    total = np.zeros(n_models)
    for _ in range(bags):
        members = np.sort(rng.permutation(n_models)[: max(2, -(-n_models // 2))])
        rows = rng.integers(n_clips, size=n_clips)
        total[members] += greedy_weights(stack[np.ix_(members, rows)], truth[rows], weight[rows], steps)
    return total / bags


def _leads(stack: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every class's lead over the true one, (models, classes, clips), and the lead that ranks it above, (classes,
    clips): any above 0, from 0 on for a lower class index (the tie rule of `metrics.ranks`)."""
    n_clips, n_classes = stack.shape[1:]
    own = stack[:, np.arange(n_clips), truth].astype(np.float64)
    leads = np.ascontiguousarray(stack.transpose(0, 2, 1), dtype=np.float64) - own[:, None, :]
    index = np.arange(n_classes)[:, None]
    above_zero = np.nextafter(0.0, 1.0)
    needed = np.where(index < truth, 0.0, np.where(index == truth, np.inf, above_zero))
    return leads, needed
