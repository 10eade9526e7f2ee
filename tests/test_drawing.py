"""Rows of an epoch: in batches of nearly equal size, and every class equally often."""

import numpy as np
import pytest

from training.fold_data import RowBatches, balanced


@pytest.mark.parametrize(("n_rows", "n"), [(65, 2), (64, 1), (7, 3), (1, 1)])
def test_row_batches_are_nearly_equal_and_hold_every_row_once(n_rows: int, n: int) -> None:
    batches = list(RowBatches(np.arange(n_rows), n))
    assert len(batches) == len(RowBatches(np.arange(n_rows), n)) == n
    assert np.concatenate(batches).tolist() == list(range(n_rows))
    sizes = [len(b) for b in batches]
    assert max(sizes) - min(sizes) <= 1


def test_balanced_by_hand() -> None:
    """Seven clips, three classes of 4, 2 and 1: two draws each and one more for one of them."""
    rows, labels = np.array([10, 11, 12, 13, 20, 21, 30]), np.array([0, 0, 0, 0, 4, 4, 2])
    drawn = balanced(rows, labels, np.random.default_rng(0))
    assert len(drawn) == 7
    per_class = np.unique(drawn // 10, return_counts=True)[1]
    assert sorted(per_class) == [2, 2, 3]
    assert set(drawn) >= {20, 21, 30}


@pytest.mark.parametrize("seed", range(5))
def test_classes_and_rows_within_them_are_drawn_evenly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(6), rng.integers(1, 60, 6))
    rows = rng.permutation(1000)[: len(labels)]
    drawn = balanced(rows, labels, rng)
    label_of = dict(zip(rows.tolist(), labels.tolist(), strict=True))
    per_class = np.bincount([label_of[row] for row in drawn])
    assert len(drawn) == len(rows) and per_class.max() - per_class.min() <= 1
    for c in range(6):
        per_row = [int((drawn == row).sum()) for row in rows[labels == c]]
        assert max(per_row) - min(per_row) <= 1


def test_chance_is_the_callers() -> None:
    rows, labels = np.arange(50), np.arange(50) % 3
    one, again, other = (balanced(rows, labels, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.tolist() == again.tolist() != other.tolist()
    assert (np.diff(labels[one]) != 0).sum() > 20  # shuffled: not one class after the other


def test_few_rows_of_many_classes() -> None:
    drawn = balanced(np.array([5, 6, 7]), np.array([0, 1, 2]), np.random.default_rng(0))
    assert sorted(drawn) == [5, 6, 7]
