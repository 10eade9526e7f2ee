"""Models that know nothing: their out-of-fold score is no better than that of their own rows in another order."""

import numpy as np

from blending.bootstrap import INTERVAL, Judge

SHUFFLES = 20


def at_chance(judge: Judge, stack: np.ndarray) -> list[int]:
    """Which models score no better than chance: the interval of their gain reaches down to it.

    stack (models, clips, classes) of the clips of `judge`. Chance is the mean gain of SHUFFLES orders of the clips, so
    that a model that knows no more than how frequent each class is counts as chance. None where that is true of all.
    """
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(judge.truth)) for _ in range(SHUFFLES)]
    low = np.nanpercentile(judge.drawn(list(stack)), INTERVAL[0], axis=1)
    chance = [float(np.mean([judge.gain(one[order]) for order in orders])) for one in stack]
    found = [i for i, (score, bar) in enumerate(zip(low, chance, strict=True)) if score <= bar]
    return found if len(found) < len(stack) else []
