"""Augmentation: masks that show the fill, mixup on paper, and randomness that is an argument."""

from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import AugmentConfig
from features.augment import Augment, mixup

FILL = torch.tensor([-100.0, -200.0, -300.0, -400.0, -500.0, -600.0])  # one per mel, unlike anything in a batch


class Drawn:
    """A generator that draws what the test says."""

    def __init__(self, lam: list[float], order: list[int]) -> None:
        self.lam, self.order = np.array(lam), np.array(order)

    def beta(self, a: float, b: float, n: int) -> np.ndarray:
        assert a == b and n == len(self.lam)
        return self.lam

    def permutation(self, n: int) -> np.ndarray:
        assert n == len(self.order)
        return self.order


def batch(n: int = 8, n_mels: int = 6, n_frames: int = 20, seed: int = 0) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, n_mels, n_frames, generator=draw)
    y = torch.nn.functional.one_hot(torch.arange(n) % 3, 3).float()
    return x, y, torch.linspace(0.1, 1, n)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# mixup


def test_mixup_by_hand():
    """lambda 0.25 for clip 0, mixed with clip 1; 1 for clip 1, which stays."""
    x = torch.tensor([[8.0, 4.0], [0.0, 12.0]]).view(2, 1, 1, 2)
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    w = torch.tensor([1.0, 0.2])
    generator: Any = Drawn([0.25, 1.0], [1, 0])
    mixed_x, mixed_y, mixed_w = mixup(x, y, w, 0.4, generator)
    assert mixed_x.flatten().tolist() == [2.0, 10.0, 0.0, 12.0]
    assert mixed_y.tolist() == [[0.25, 0.75], [0.0, 1.0]]
    assert mixed_w.tolist() == pytest.approx([0.25 * 1.0 + 0.75 * 0.2, 0.2])


def test_mixup_mixes_labels_as_it_mixes_sound():
    """If every frame of a clip is its one-hot label, the mixed sound still is."""
    _, y, w = batch(n_mels=3)
    x = y.view(8, 1, 3, 1).expand(8, 1, 3, 20)
    mixed_x, mixed_y, _ = mixup(x, y, w, 1.0, rng())
    assert torch.allclose(mixed_x[:, 0, :, 0], mixed_y) and not torch.equal(mixed_y, y)
    assert torch.allclose(mixed_y.sum(1), torch.ones(8))
    assert (mixed_y >= 0).all()


def test_lambda_is_drawn_per_clip_from_beta():
    """Beta(0.4, 0.4) has mean 1/2 and variance 1 / (4 (2 * 0.4 + 1)) = 0.139."""
    n = 4000
    x, y = torch.zeros(n, 1, 1, 1), torch.eye(n)
    _, mixed, _ = mixup(x, y, torch.ones(n), 0.4, rng())
    lam = mixed.diagonal().numpy()
    lam = lam[lam < 1]  # a clip mixed with itself shows no lambda
    assert lam.mean() == pytest.approx(0.5, abs=0.02)
    assert lam.var() == pytest.approx(0.139, abs=0.01)


def test_a_batch_of_one_is_mixed_with_itself():
    x, y, w = batch(1)
    mixed = mixup(x, y, w, 0.4, rng())
    assert all(torch.allclose(one, other) for one, other in zip(mixed, (x, y, w), strict=True))


# Masks


def masked(x: torch.Tensor) -> torch.Tensor:
    """(batch, n_mels, n_frames): where the fill shows, each mel its own."""
    return x[:, 0] == FILL.view(1, -1, 1)


def test_time_masks_show_the_fill_over_all_mels():
    x, y, w = batch(200)
    found, same_y, same_w = Augment(FILL, time_masks=1, time_mask_frames=5)(x, y, w, rng())
    where = masked(found)
    assert torch.equal(where.all(1), where.any(1)), "a masked frame is masked in every mel"
    assert torch.equal(found[:, 0][~where], x[:, 0][~where]), "all else is untouched"
    assert same_y is y and same_w is w
    widths = where[:, 0].sum(1)
    assert set(widths.tolist()) == {0, 1, 2, 3, 4, 5}
    edges = where[:, 0].float().diff(dim=1).abs().sum(1)
    assert (edges <= 2).all(), "one mask is one piece"
    assert where[:, 0].any(0).all(), "and may lie anywhere, the ends included"


def test_frequency_masks_show_the_fill_over_all_frames():
    x, y, w = batch(200)
    found, _, _ = Augment(FILL, freq_masks=1, freq_mask_mels=2)(x, y, w, rng())
    where = masked(found)
    assert torch.equal(where.all(2), where.any(2))
    assert torch.equal(found[:, 0][~where], x[:, 0][~where])
    assert set(where[:, :, 0].sum(1).tolist()) == {0, 1, 2}
    assert where[:, :, 0].any(0).all()


def test_several_masks_of_both_kinds():
    x, y, w = batch(300, n_frames=40)
    found, _, _ = Augment(FILL, time_masks=2, time_mask_frames=4, freq_masks=2, freq_mask_mels=1)(x, y, w, rng())
    where = masked(found)
    frames, mels = where.all(1).sum(1), where.all(2).sum(1)
    assert frames.max() == 8 and mels.max() == 2
    pieces = (where.all(1).float().diff(dim=1) > 0).sum(1) + where.all(1)[:, 0]
    assert pieces.max() == 2


@pytest.mark.parametrize("n_frames", [1, 3])
def test_a_mask_wider_than_the_crop(n_frames):
    x, y, w = batch(50, n_frames=n_frames)
    found, _, _ = Augment(FILL, time_masks=1, time_mask_frames=100)(x, y, w, rng())
    assert set(masked(found)[:, 0].sum(1).tolist()) == set(range(n_frames + 1))


def test_a_mask_of_no_width_changes_nothing():
    x, y, w = batch()
    found, _, _ = Augment(FILL, time_masks=2, time_mask_frames=0, freq_masks=2, freq_mask_mels=0)(x, y, w, rng())
    assert torch.equal(found, x)


def test_masks_come_after_mixup():
    """Or the fill of one clip would shine through another."""
    x, y, w = batch(100)
    augment = Augment(FILL, mixup_alpha=1.0, time_masks=1, time_mask_frames=10, gain=1.0)
    found, _, _ = augment(x, y, w, rng())
    assert masked(found).any() and (found[:, 0][~masked(found)] > -50).all()


# Gain


def test_gain_is_one_offset_per_clip():
    x, y, w = batch(2000, n_frames=3)
    found, _, _ = Augment(FILL, gain=0.5)(x, y, w, rng())
    offset = (found - x).flatten(1)
    assert torch.allclose(offset, offset[:, :1].expand_as(offset), atol=1e-5)
    assert offset.mean() == pytest.approx(0, abs=0.05) and offset[:, 0].std() == pytest.approx(0.5, abs=0.05)


# Everything


ALL = {"mixup_alpha": 0.4, "time_masks": 2, "time_mask_frames": 5, "freq_masks": 1, "freq_mask_mels": 2, "gain": 0.3}


def test_switched_off_it_hands_back_what_it_got():
    x, y, w = batch()
    assert all(one is other for one, other in zip(Augment(FILL)(x, y, w, rng()), (x, y, w), strict=True))


def test_the_same_seed_gives_the_same_bytes():
    one, other = (Augment(FILL, **ALL)(*batch(), rng(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    different = Augment(FILL, **ALL)(*batch(), rng(4))
    assert not torch.equal(one[0], different[0]) and not torch.equal(one[1], different[1])


def test_torchs_own_generator_has_no_say():
    torch.manual_seed(1)
    one = Augment(FILL, **ALL)(*batch(), rng(3))[0]
    torch.manual_seed(2)
    assert torch.equal(Augment(FILL, **ALL)(*batch(), rng(3))[0], one)


def test_the_batch_is_left_as_it_was():
    given = batch()
    Augment(FILL, **ALL)(*given, rng())
    assert all(torch.equal(a, b) for a, b in zip(given, batch(), strict=True))


def test_shapes_and_types_stay():
    x, y, w = batch()
    found = Augment(FILL, **ALL)(x, y, w, rng())
    assert [(v.shape, v.dtype) for v in found] == [(v.shape, v.dtype) for v in (x, y, w)]


def test_every_setting_of_the_config_arrives():
    augment = Augment.from_config(AugmentConfig(**ALL), FILL)
    assert {name: getattr(augment, name) for name in ALL} == ALL
    assert torch.equal(augment(*batch(), rng(3))[0], Augment(FILL, **ALL)(*batch(), rng(3))[0])
