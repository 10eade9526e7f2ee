"""The incremental selection equals the plain one, and does what the paper says."""

import numpy as np
import pytest

from models.greedy import bagged_greedy_weights, greedy_path, greedy_weights
from models.metrics import average_precision_at_3


def plain_path(stack: np.ndarray, truth: np.ndarray, weight: np.ndarray, steps: int) -> tuple[list[int], list[float]]:
    """The same by recomputing every blend from its counts."""
    counts = np.zeros(len(stack))
    path, scores = [], []
    for _ in range(steps):
        found = []
        for m in range(len(stack)):
            trial = counts + (np.arange(len(stack)) == m)
            gains = average_precision_at_3(np.tensordot(trial, stack.astype(np.float64), axes=1), truth)
            found.append(float(gains @ weight / weight.sum()))
        best = int(np.argmax(found))
        counts[best] += 1
        path.append(best)
        scores.append(found[best])
    return path, scores


@pytest.mark.parametrize("tied", [False, True])
def test_equals_the_plain_version(tied: bool) -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(6, size=200)
    stack = rng.dirichlet(np.ones(6), size=(5, 200)) + 0.2 * np.eye(6)[truth]
    if tied:  # multiples of 1/8: many exact ties, and sums without rounding
        stack = np.round(stack * 8) / 8
    weight = rng.choice([0.25, 1.0], size=200)
    path, scores = greedy_path(stack.astype(np.float32), truth, weight, 25)
    plain = plain_path(stack.astype(np.float32), truth, weight, 25)
    assert path == plain[0]
    assert np.allclose(scores, plain[1], atol=1e-12)


def test_by_hand() -> None:
    # model 0 has the first clip right and the second at the third place: (1 + 1/3) / 2; model 1 alike with clips
    # swapped; together both are right
    right, wrong = [0.8, 0.2, 0.0, 0.0], [0.3, 0.4, 0.3 + 1e-3, 0.0]
    stack = np.array([[right, wrong], [wrong, right]])
    path, scores = greedy_path(stack, np.array([0, 0]), np.ones(2), 2)
    assert path == [0, 1]
    assert scores == pytest.approx([2 / 3, 1.0])
    assert greedy_weights(stack, np.array([0, 0]), np.ones(2), 2).tolist() == [0.5, 0.5]


def test_bagged_weights_are_a_distribution_and_find_the_good_model() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(5, size=300)
    stack = rng.dirichlet(np.ones(5), size=(4, 300))
    stack[2] += 2 * np.eye(5)[truth]
    weights = bagged_greedy_weights(stack, truth, np.ones(300), np.random.default_rng(0), bags=10, steps=10)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert weights.argmax() == 2


def test_identical_models_change_nothing() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(5, size=100)
    one = rng.dirichlet(np.ones(5), size=100)
    weights = bagged_greedy_weights(np.stack([one] * 3), truth, np.ones(100), np.random.default_rng(0))
    assert weights.sum() == pytest.approx(1)
    assert np.allclose(np.tensordot(weights, np.stack([one] * 3), axes=1), one)
