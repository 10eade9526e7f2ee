"""The derivatives that Newton's method uses, against differences of the loss; and where its steps end."""

import numpy as np
import pytest

from blending.apply import sigmoid, softmax
from blending.log_linear import (
    WEIGHT_SPREAD,
    WIDE,
    Pool,
    _derivatives,
    _fit,
    _with_class_weights,
    cross_entropy,
    pooled,
)
from configs.competition import Task

MODELS, CLIPS, CLASSES = 3, 40, 4
STEP = 1e-5


def made(task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (models, clips, classes), truth and weights of the clips."""
    rng = np.random.default_rng(0)
    truth = np.eye(CLASSES, dtype=bool)[np.arange(CLIPS) % CLASSES]
    if task == "multi_label":
        truth = rng.random((CLIPS, CLASSES)) < 0.3
    return rng.normal(size=(MODELS, CLIPS, CLASSES)) + truth, truth, rng.uniform(0.2, 2, CLIPS)


def gradient(of, at: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Central differences of a function of a vector, one of its values or more: (len(at), ...)."""
    return np.array([(of(at + one) - of(at - one)) / (2 * STEP) for one in STEP * np.eye(len(at))])


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_derivatives_of_the_cross_entropy_are_its_differences(task: Task) -> None:
    logits, truth, weight = made(task)
    flat = logits.reshape(MODELS, -1)
    at = np.array([0.5, 0.2, 0.9, 0.3, -0.2, 0.1, 0.4])  # weights, then offsets

    def mixed(at: np.ndarray) -> np.ndarray:
        return (at[:MODELS] @ flat).reshape(CLIPS, CLASSES) + at[MODELS:]

    def slopes(at: np.ndarray) -> np.ndarray:
        probs = softmax(mixed(at)) if task == "single_label" else sigmoid(mixed(at))
        return np.concatenate(_derivatives(flat, probs, truth, weight, task)[0])

    loss = lambda at: cross_entropy(mixed(at), truth, weight, task) * weight.sum()  # noqa: E731
    np.testing.assert_allclose(slopes(at), gradient(loss, at), rtol=1e-6, atol=1e-6)
    probs = softmax(mixed(at)) if task == "single_label" else sigmoid(mixed(at))
    within, cross, offsets = _derivatives(flat, probs, truth, weight, task)[1]
    np.testing.assert_allclose(np.block([[within, cross], [cross.T, offsets]]), gradient(slopes, at), atol=1e-6)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_fit_ends_where_the_penalised_loss_is_flat_or_a_weight_is_held_at_zero(task: Task) -> None:
    logits, truth, weight = made(task)
    logits[2], weight = -logits[0], 20 * weight  # the last would get a weight below 0
    weights, offsets = _fit(logits, truth, weight, task, 0.6)

    def loss(at: np.ndarray) -> float:
        mixed = np.tensordot(at[:MODELS], logits, axes=1) + at[MODELS:]
        off, shift = (at[:MODELS] - 1 / MODELS) / WEIGHT_SPREAD[task], at[MODELS:] / 0.6
        return cross_entropy(mixed, truth, weight, task) * weight.sum() + (off @ off + shift @ shift) / 2

    slope = gradient(loss, np.concatenate([weights, offsets]))
    held = np.append(weights == 0, np.zeros(CLASSES, bool))
    np.testing.assert_allclose(slope[~held], 0, atol=1e-3)
    assert held.sum() == 1 and (slope[held] > 0).all()


def test_the_weights_of_each_class_end_where_their_penalised_loss_is_flat() -> None:
    logits, truth, weight = made("multi_label")
    common = Pool(np.array([0.4, 0.3, 0.2]), np.zeros(CLASSES), 0.0)
    found = _with_class_weights(logits, truth, weight, common, 0.1)
    assert found.class_weights is not None and np.ptp(found.class_weights, axis=1).min() > 1e-3

    def loss(at: np.ndarray) -> float:
        matrix = at.reshape(MODELS + 1, CLASSES)
        mixed = pooled(Pool(common.weights, matrix[-1], 0.1, matrix[:-1]), logits)
        off = (matrix[:-1] - common.weights[:, None]) / 0.1
        prior = (off**2).sum() + (matrix[-1] ** 2).sum() / WIDE**2
        return cross_entropy(mixed, truth, weight, "multi_label") * weight.sum() + prior / 2

    at = np.concatenate([found.class_weights, found.offsets[None]]).ravel()
    np.testing.assert_allclose(gradient(loss, at), 0, atol=1e-4)
