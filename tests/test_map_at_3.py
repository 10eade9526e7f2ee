"""MAP@3 on paper, against a slow loop, and its errors."""

import numpy as np
import pytest

from metrics.log_loss import log_loss
from metrics.map_at_3 import average_precision_at_3, map_at_3, ranks
from metrics.resampling import standard_error
from metrics.scores import accuracy, oof_columns, scores


def slow_map_at_3(probs: np.ndarray, truth: np.ndarray) -> float:
    """The definition, clip by clip: sort by falling probability, then by class."""
    total = 0.0
    for row, true in zip(probs, truth, strict=True):
        order = sorted(range(len(row)), key=lambda c: (-row[c], c))
        if true in order[:3]:
            total += 1 / (order.index(true) + 1)
    return total / len(truth)


def test_map_at_3_on_paper() -> None:
    probs = np.array(
        [
            [0.5, 0.2, 0.2, 0.1],  # true 0: first, 1
            [0.5, 0.2, 0.2, 0.1],  # true 1: ties with 2 and comes before it, second, 1/2
            [0.5, 0.2, 0.2, 0.1],  # true 2: third, 1/3
            [0.5, 0.2, 0.2, 0.1],  # true 3: fourth, 0
            [0.25, 0.25, 0.25, 0.25],  # true 3: behind three ties, 0
            [0.25, 0.25, 0.25, 0.25],  # true 1: behind one tie, 1/2
        ]
    )
    truth = np.array([0, 1, 2, 3, 3, 1])
    assert ranks(probs, truth).tolist() == [0, 1, 2, 3, 3, 1]
    np.testing.assert_allclose(average_precision_at_3(probs, truth), [1, 1 / 2, 1 / 3, 0, 0, 1 / 2])
    assert map_at_3(probs, truth) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 2) / 6)
    assert accuracy(probs, truth) == pytest.approx(1 / 6)


@pytest.mark.parametrize("n_classes", [1, 2, 255, 256, 257, 600])
def test_ranks_of_many_classes(n_classes: int) -> None:
    """All below, all above, all tied: n - 1, 0 and the class's own index."""
    probs = np.stack([np.ones(n_classes), np.zeros(n_classes), np.full(n_classes, 0.5)])
    truth = np.full(3, n_classes - 1)
    probs[0, -1], probs[1, -1] = 0, 1
    found = ranks(probs, truth)
    assert found.dtype == np.int64 and found.tolist() == [n_classes - 1, 0, n_classes - 1]
    assert ranks(probs, truth * 0)[2] == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_ranks_of_any_number_in_any_layout(dtype: type) -> None:
    rng = np.random.default_rng(0)
    probs, truth = rng.integers(0, 9, (30, 8)).astype(dtype), rng.integers(0, 4, 30)
    expected = [
        sorted(range(4), key=lambda c: (-row[c], c)).index(t) for row, t in zip(probs[:, ::2], truth, strict=True)
    ]
    for layout in (probs[:, ::2], np.asfortranarray(probs[:, ::2]), probs[:, ::2].copy()):
        assert ranks(layout, truth).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_map_at_3_equals_the_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_classes = int(rng.integers(3, 8))
    probs = rng.integers(0, 4, (50, n_classes)) / 4  # few values: many ties
    truth = rng.integers(0, n_classes, 50)
    assert map_at_3(probs, truth) == pytest.approx(slow_map_at_3(probs, truth), abs=1e-12)


def test_infinite_scores_are_ranked() -> None:
    assert ranks(np.array([[-np.inf, 0.0, -1.0]]), np.array([2])).tolist() == [1]


@pytest.mark.parametrize("bad", [[[0.1, np.nan, 0.2]], [[np.inf, np.nan, -np.inf]]])
def test_nan_raises(bad: list[list[float]]) -> None:
    probs, truth = np.array(bad), np.array([0])
    with pytest.raises(ValueError, match="a NaN among the probabilities of 1 clip"):
        map_at_3(probs, truth)


def test_shapes_that_do_not_match_raise() -> None:
    for probs, truth in [(np.ones((3, 4)), np.zeros(2, int)), (np.ones(3), np.zeros(3, int))]:
        with pytest.raises(ValueError, match="do not match"):
            map_at_3(probs, truth)
    for score in (map_at_3, accuracy):
        with pytest.raises(ValueError, match="of no clips"):
            score(np.ones((0, 4)), np.zeros(0, int))


def test_verified_score_counts_verified_clips_only() -> None:
    probs = np.eye(3)
    truth = np.array([0, 0, 2])  # the second clip: class 0 ties with class 2 and comes before it, rank 1
    found = scores(probs, truth, np.array([False, True, True]))
    assert found == {
        "map3": pytest.approx((1 + 0.5 + 1) / 3),
        "accuracy": pytest.approx(2 / 3),
        "map3_verified": pytest.approx(0.75),
    }
    plain = [scores(probs, truth, np.full(3, verified)) for verified in (False, True)]  # it would be map3 again
    assert plain[0] == plain[1] and "map3_verified" not in plain[0]
    assert list(oof_columns(plain)) == ["OOF"] and list(oof_columns([found, *plain])) == ["OOF", "OOF verified"]


def test_log_loss_by_hand() -> None:
    probs = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    assert log_loss(probs, np.array([1, 1])) == pytest.approx(np.log(4) / 2)
    assert log_loss(probs, np.array([0, 0])) == pytest.approx((np.log(2) + 7 * np.log(10)) / 2), "no infinity"


def test_standard_error_by_hand() -> None:
    """Four clips off their mean by a half: 0.577 / 2. In two groups whose sums are 1 and -1: sqrt(2 * 2) / 4."""
    gains = np.array([1.0, 1.0, 0.0, 0.0])
    assert standard_error(gains, np.arange(4)) == pytest.approx(gains.std(ddof=1) / 2) == pytest.approx(0.288675)
    assert standard_error(gains, np.array(["a", "a", "b", "b"])) == pytest.approx(0.5)
    assert standard_error(gains, np.array([7, 8, 7, 8])) == pytest.approx(0)
