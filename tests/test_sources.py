"""Crops from several stores: the right clip in the right place, each version as often as another."""

import numpy as np
import pytest
import torch

from features.batches import Batches, Sources
from tests.conftest import MakeStore


def constant(make_store: MakeStore, values: list[float], n_frames: int = 6) -> Batches:
    """One clip per value, which is all that it holds."""
    return Batches(make_store([np.full((n_frames, 2), value) for value in values]))


def test_one_store_alone_is_as_its_batches(make_store: MakeStore) -> None:
    rng = np.random.default_rng(0)
    batches = Batches(make_store([rng.normal(0, 1, (n, 3)) for n in (5, 9, 14)]))
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    rows = np.array([2, 0, 1, 2])
    assert torch.equal(Sources([[batches]]).crop(rows, 7, one), batches.crop(rows, 7, other))
    assert one.random() == other.random()  # not a draw more


def test_rows_run_on_from_part_to_part(make_store: MakeStore) -> None:
    sources = Sources([[constant(make_store, [1, 2, 3])], [constant(make_store, [40, 50])]])
    x = sources.crop(np.array([4, 0, 3, 2, 2, 1]), 4, np.random.default_rng(0))
    assert x.shape == (6, 1, 2, 4)
    assert x[:, 0, 0, 0].tolist() == [50, 1, 40, 3, 3, 2]
    assert torch.equal(x, x[:, :, :1, :1].expand(x.shape))


def test_every_version_of_a_clip_has_the_same_chance(make_store: MakeStore) -> None:
    """Clip i is i, 10 + i or 20 + i; the second part has no copies. 3,000 draws: 6 standard deviations are 155."""
    versions = [constant(make_store, [base, base + 1], n_frames=n) for base, n in ((0, 9), (10, 7), (20, 5))]
    sources = Sources([versions, [constant(make_store, [100])]])
    rows = np.tile([1, 2, 0], 3000)
    x = sources.crop(rows, 3, np.random.default_rng(0))[:, 0, 0, 0].numpy()
    assert (x[rows == 2] == 100).all()
    for row in (0, 1):
        values, counts = np.unique(x[rows == row], return_counts=True)
        assert values.tolist() == [row, 10 + row, 20 + row]
        assert (abs(counts - 1000) < 155).all()


def test_a_seed_fixes_the_crops(make_store: MakeStore) -> None:
    rng = np.random.default_rng(0)
    versions = [Batches(make_store([rng.normal(0, 1, (n, 3)) for n in lengths])) for lengths in ((8, 9), (12, 4))]
    rows = np.array([0, 1, 1, 0, 1])
    one, again, other = (Sources([versions]).crop(rows, 5, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_a_copy_of_other_clips_is_an_error(make_store: MakeStore) -> None:
    with pytest.raises(ValueError, match="a copy has other clips than its original"):
        Sources([[constant(make_store, [1, 2]), constant(make_store, [1])]])
