"""The stack for several labels per clip ends at the least penalised loss, and finds labels that go together."""

import numpy as np

from blending.apply import floored_logit, sigmoid
from blending.log_linear import cross_entropy
from blending.multi_label import _fit_corrections, fit_multi_label_stack

STEP = 1e-5


def test_corrections_end_where_their_penalised_loss_is_flat() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((80, 3)) < 0.4
    logits, weight, penalty = rng.normal(size=(80, 3)) + truth, rng.uniform(0.5, 2, 80), 20.0
    matrix, offsets = _fit_corrections(logits, truth, weight, penalty)
    mean, spread = logits.mean(axis=0), logits.std(axis=0)
    x = (logits - mean) / spread

    def loss(at: np.ndarray) -> float:
        scaled, shift = at[:9].reshape(3, 3), at[9:]
        mixed = logits + x @ scaled + shift
        prior = penalty * (scaled**2).sum() + 1e-3 * (shift**2).sum()
        return cross_entropy(mixed, truth, weight, "multi_label") * weight.sum() + prior / 2

    at = np.concatenate([(matrix * spread[:, None]).ravel(), offsets + mean @ matrix])
    slope = [(loss(at + one) - loss(at - one)) / (2 * STEP) for one in STEP * np.eye(len(at))]
    np.testing.assert_allclose(slope, 0, atol=0.02)  # of a loss that is some 100
    assert loss(at) < loss(np.zeros(12)) - 1


def test_a_label_that_goes_with_another_supports_it() -> None:
    rng = np.random.default_rng(1)
    first = rng.random(4000) < 0.3
    truth = np.stack([first, first ^ (rng.random(4000) < 0.02), rng.random(4000) < 0.3], axis=1)
    logits = rng.normal(size=(4000, 3)) - 1 + np.array([3.0, 0.0, 0.0]) * truth  # only the first label is heard
    stack = sigmoid(logits)[None]
    coefficients, offsets = fit_multi_label_stack(stack, truth, np.ones(4000), np.arange(4000) % 4)
    mixed = floored_logit(stack[0]) @ coefficients[0] + offsets
    assert abs(coefficients[0, 0, 1]) > 5 * abs(coefficients[0, 0, 2])
    assert mixed[truth[:, 1], 1].mean() > mixed[~truth[:, 1], 1].mean() + 0.5
