"""The incremental selection equals the plain one, and does what the paper says."""

from fractions import Fraction

import numpy as np
import pytest

from blending.greedy import bagged_greedy_weights, greedy_path, greedy_weights
from metrics.map_at_3 import ranks


def plain_path(stack: np.ndarray, truth: np.ndarray, weight: np.ndarray, steps: int) -> tuple[list[int], list[float]]:
    """The same by recomputing every blend from its counts. A score is a fraction, so that equal ones are equal."""
    counts = np.zeros(len(stack))
    path, scores = [], []
    for _ in range(steps):
        found = []
        for m in range(len(stack)):
            trial = counts + (np.arange(len(stack)) == m)
            place = ranks(np.tensordot(trial, stack.astype(np.float64), axes=1), truth)
            share = [Fraction(float(weight[place == k].sum())) for k in range(3)]
            found.append(sum(s / (k + 1) for k, s in enumerate(share)) / Fraction(float(weight.sum())))
        best = found.index(max(found))
        counts[best] += 1
        path.append(best)
        scores.append(float(found[best]))
    return path, scores


KINDS = ["smooth", "tied", "zeros", "faint", "alike", "one model"]


def made(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """stack (5 or 1, 200, 6) float32 and truth, all sums of the tied kinds without rounding."""
    truth = rng.integers(6, size=200)
    stack = rng.dirichlet(np.ones(6), size=(5, 200)) + rng.choice([0.0, 0.2, 0.6]) * np.eye(6)[truth]
    if kind == "tied":  # multiples of 1/8
        stack = np.round(stack * 8) / 8
    elif kind == "zeros":  # few classes are named at all, and most clips by few models: leads of 0 in long rows
        stack = np.round(stack * 4) / 4 * (rng.random((5, 200, 1)) < 0.3)
    elif kind == "faint":  # powers of two from 1 to 2**-30: a late model turns what many have left a hair apart
        stack = 2.0 ** -rng.integers(0, 31, stack.shape)
    elif kind == "alike":
        stack[1], stack[3] = stack[0], stack[2]
    elif kind == "one model":
        stack = stack[:1]
    return stack.astype(np.float32), truth


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_plain_version(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stack, truth = made(kind, rng)
    weight = rng.choice([0.25, 1.0], size=200)
    path, scores = greedy_path(stack, truth, weight, 25)
    plain = plain_path(stack, truth, weight, 25)
    assert path == plain[0]
    assert np.allclose(scores, plain[1], rtol=0, atol=1e-12)


def test_a_model_that_turns_settled_clips_at_once_is_not_missed() -> None:
    """Fifty steps of small leads, and the bounds of what one loud model could do must hold at every one of them."""
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=300)
    stack = rng.dirichlet(np.ones(4), size=(6, 300)) * np.array([1e-3, 1e-3, 1, 1e-2, 30, 1e3])[:, None, None]
    stack[5] *= rng.random((300, 1)) < 0.1  # loud, and rarely heard
    stack += 0.3 * np.eye(4)[truth] * stack.max(axis=2, keepdims=True)
    path, scores = greedy_path(stack, truth, np.ones(300), 50)
    plain = plain_path(stack, truth, np.ones(300), 50)
    assert path == plain[0]
    assert np.allclose(scores, plain[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("total", [1e-9, 1.0, 3e7])
def test_the_size_of_the_weights_does_not_matter(total: float) -> None:
    rng = np.random.default_rng(4)
    stack, truth = made("smooth", rng)
    weight = rng.random(200)
    expected = greedy_path(stack, truth, weight, 10)
    path, scores = greedy_path(stack, truth, weight * total, 10)
    assert path == expected[0]
    assert scores == pytest.approx(expected[1], abs=1e-12)


def test_a_row_drawn_twice_counts_twice() -> None:
    """The bags of the paper, row by row."""
    rng = np.random.default_rng(5)
    stack, truth = made("tied", rng)
    weight = rng.choice([0.25, 1.0], size=200)
    found = bagged_greedy_weights(stack, truth, weight, np.random.default_rng(1), bags=3, steps=8)
    draws, expected = np.random.default_rng(1), np.zeros(5)
    for _ in range(3):
        members, rows = np.sort(draws.permutation(5)[:3]), draws.integers(200, size=200)
        expected[members] += greedy_weights(stack[members][:, rows], truth[rows], weight[rows], 8)
    assert np.array_equal(found, expected / 3)


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
