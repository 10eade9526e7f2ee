"""Greedy ensemble selection on MAP@3, incremental and bagged.

Source: R. Caruana et al., "Ensemble selection from libraries of models", ICML 2004.

Exact in every order of summation: a blend is compared class by class with its true class, in sums that always grow in
the order of the path, and a score is a sum of whole numbers.
"""

from dataclasses import dataclass

import numpy as np

from metrics.map_at_3 import count_true, ranks

SIXTHS = np.array([6.0, 3.0, 2.0, 0.0])  # 6 x average precision at the true class's place
ROUNDING = 2.0**-36  # of the largest lead, at every step: more than the sums of a path of up to 2**15 steps lose


def greedy_path(
    stack: np.ndarray, truth: np.ndarray, weight: np.ndarray, steps: int = 50
) -> tuple[list[int], list[float]]:
    """The model added at each step and the weighted MAP@3 of the blend after it.

    stack (models, clips, classes), truth (clips,), weight (clips,). Each step adds the model that lifts the sum of
    those taken most, with replacement; of equal ones the first. The running sum is kept as each class's lead over the
    true one. A sum of n models is moved little by one more: only those few pairs of clip and class are tried with
    every model that some model could turn.
    """
    leads, needed = _leads(stack, truth)
    low, high = leads.min(axis=0), leads.max(axis=0)
    peak = ROUNDING * np.maximum(-low, high)
    low, high = low - peak, high + peak
    worth = _whole_numbers(weight)
    total = np.zeros_like(needed)
    path, scores = list[int](), list[float]()
    counted, due = 0, 1  # steps of the path in `total`; step at which the open pairs are chosen again
    for step in range(steps):
        if step == 0:
            found = np.array([SIXTHS[np.minimum(ranks(probs, truth), 3)] @ worth for probs in stack])
        else:
            if step == due:
                for pick in path[counted:]:
                    total += leads[pick]
                counted, due = step, step + max(1, step // 6)
                pairs = _open_pairs(total, low, high, needed, due - step, worth)
                tried = leads[:, pairs.index]
                sums, least = total[pairs.index], needed[pairs.index]
                blends = np.empty_like(tried)
            else:
                sums += tried[path[-1]]
            found = pairs.score(np.add(tried, sums, out=blends) >= least)
        path.append(int(np.argmax(found)))
        scores.append(float(found[path[-1]] / (SIXTHS[0] * worth.sum())))
    return path, scores


@dataclass(frozen=True)
class OpenPairs:
    """The pairs of clip and class of which some model may change the order within the next steps.

    index: of the pairs, (clip, class) flattened, sorted. starts: where each clip's begin. above: how many classes are
    above the true one for sure, worth: what the clip counts, both per clip with an open pair. settled: what all other
    clips score.
    """

    index: np.ndarray
    starts: np.ndarray
    above: np.ndarray
    worth: np.ndarray
    settled: float

    def score(self, above: np.ndarray) -> np.ndarray:
        """(models,) sums over all clips of 6 x average precision x worth; above (models, pairs): the class leads."""
        if not len(self.index):
            return np.full(len(above), self.settled)
        place = np.add.reduceat(above.view(np.uint8), self.starts, axis=1, dtype=np.uint16) + self.above
        return np.asarray(SIXTHS[np.minimum(place, 3)] @ self.worth + self.settled)


def _open_pairs(
    total: np.ndarray, low: np.ndarray, high: np.ndarray, needed: np.ndarray, steps: int, worth: np.ndarray
) -> OpenPairs:
    """What `steps` more models, whose leads lie between `low` and `high`, may change."""
    n_classes = len(total) // len(worth)
    bound = np.multiply(low, steps)
    above = np.add(bound, total, out=bound) >= needed
    np.multiply(high, steps, out=bound)
    below = np.add(bound, total, out=bound) < needed
    sure = count_true(above.reshape(-1, n_classes))
    is_open = ~(above | below).reshape(-1, n_classes) & (sure < 3)[:, None]
    count = count_true(is_open)
    clips = np.flatnonzero(count)
    settled = np.where(count == 0, SIXTHS[np.minimum(sure, 3)], 0.0)
    return OpenPairs(
        index=np.flatnonzero(is_open),
        starts=np.cumsum(count[clips]) - count[clips],
        above=sure[clips].astype(np.uint16),
        worth=worth[clips],
        settled=float(settled @ worth),
    )


def greedy_weights(stack: np.ndarray, truth: np.ndarray, weight: np.ndarray, steps: int = 50) -> np.ndarray:
    """Weights (models,) that sum to 1: the best prefix of `greedy_path`, the shortest of equals."""
    path, scores = greedy_path(stack, truth, weight, steps)
    return best_prefix(path, scores, len(stack))


def best_prefix(path: list[int], scores: list[float], n_models: int) -> np.ndarray:
    """Weights (models,) that sum to 1: the share of each model in the best prefix of a path, the shortest of equals."""
    length = int(np.argmax(scores)) + 1
    return np.asarray(np.bincount(path[:length], minlength=n_models) / length)


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
        times = np.bincount(rng.integers(n_clips, size=n_clips), minlength=n_clips)
        rows = np.flatnonzero(times)  # a row drawn twice counts twice
        drawn = stack[np.ix_(members, rows)]
        total[members] += greedy_weights(drawn, truth[rows], weight[rows] * times[rows], steps)
    return total / bags


def _whole_numbers(weight: np.ndarray) -> np.ndarray:
    """The weights times a power of two, rounded: sixths of them add up below 2**53, so that float64 sums are exact."""
    return np.asarray(np.round(weight * 2.0 ** (50 - np.ceil(np.log2(weight.sum())))))


def _leads(stack: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every class's lead over the true one, (models, clips x classes), and the lead that ranks it above, (clips x
    classes,): any above 0, from 0 on for a lower class index (the tie rule of `metrics.ranks`)."""
    n_models, n_clips, n_classes = stack.shape
    leads = stack.astype(np.float64)
    leads -= leads[:, np.arange(n_clips), truth, None]  # in place: memory takes longer to get than to fill
    index, true = np.arange(n_classes), truth[:, None]
    needed = np.where(index < true, 0.0, np.where(index == true, np.inf, np.nextafter(0.0, 1.0)))
    return leads.reshape(n_models, -1), needed.reshape(-1)
