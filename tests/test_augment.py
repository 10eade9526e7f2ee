"""Augmentation: each kind on paper and by what it must keep, their order, and randomness that is an argument."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import AugmentConfig
from features.augment import Augment, concat_mix, erase, freq_shift, mixup, resized_crop, roll

FILL = torch.tensor([-100.0, -200.0, -300.0, -400.0, -500.0, -600.0])  # one per mel, unlike anything in a batch
ALL: dict[str, Any] = {
    "mixup_alpha": 0.4,
    "concat_mix": 0.5,
    "resized_crop": 0.3,
    "roll": True,
    "freq_shift": 2,
    "erasing": 0.5,
    "time_masks": 2,
    "time_mask_frames": 5,
    "freq_masks": 1,
    "freq_mask_mels": 2,
    "gain": 0.3,
}


class Drawn:
    """A generator that draws what the test says, in that order: ("beta", [0.25, 1.0]), ..."""

    def __init__(self, *draws: tuple[str, list[float]]) -> None:
        self.draws = list(draws)

    def __getattr__(self, kind: str) -> Any:
        def draw(*_: Any) -> np.ndarray:
            expected, values = self.draws.pop(0)
            assert kind == expected
            return np.array(values)

        return draw


def drawn(*draws: tuple[str, Any]) -> Any:
    return Drawn(*draws)


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
    mixed_x, mixed_y, mixed_w = mixup(x, y, w, 0.4, drawn(("beta", [0.25, 1.0]), ("permutation", [1, 0])))
    assert mixed_x.flatten().tolist() == [2.0, 10.0, 0.0, 12.0]
    assert mixed_w.tolist() == pytest.approx([0.25 * 1.0 + 0.75 * 0.2, 0.2])
    assert mixed_y.flatten().tolist() == pytest.approx([0.25 / 0.4, 0.75 * 0.2 / 0.4, 0, 1])


@pytest.mark.parametrize("mixing", [mixup, concat_mix])
def test_the_loss_of_a_mixture_is_the_mixture_of_weighted_losses(mixing):
    """Of any loss that is linear in the label, such as the cross-entropy of one prediction."""
    x, y, w = torch.eye(6).view(6, 1, 6, 1).expand(6, 1, 6, 50), torch.eye(6), torch.tensor([0, 0, 0.5, 1, 1, 2])
    mixed_x, mixed_y, mixed_w = mixing(x, y, w, 1.0, rng())
    share = mixed_x.mean(3)[:, 0]  # of each clip in each mixture
    loss = torch.rand(6)  # of each label
    torch.testing.assert_close(mixed_w * (mixed_y @ loss), share @ (w * loss))
    assert torch.allclose(mixed_y.sum(1), torch.ones(6))


def test_a_clip_of_weight_0_adds_its_sound_but_not_its_label():
    x, y, w = torch.eye(2).view(2, 1, 2, 1), torch.eye(2), torch.tensor([1.0, 0.0])
    _, mixed_y, mixed_w = mixup(x, y, w, 0.4, drawn(("beta", [0.25, 0.25]), ("permutation", [1, 0])))
    assert mixed_y.tolist() == [[1, 0], [1, 0]]
    assert mixed_w.tolist() == [0.25, 0.75]


def test_mixup_mixes_labels_as_it_mixes_sound():
    """If every frame of a clip is its one-hot label, the mixed sound still is."""
    _, y, _ = batch(n_mels=3)
    x = y.view(8, 1, 3, 1).expand(8, 1, 3, 20)
    mixed_x, mixed_y, _ = mixup(x, y, torch.full((8,), 0.5), 1.0, rng())
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


# Concatenation


def test_concat_mix_by_hand():
    """Clip 0 keeps one frame of four; clip 1 is not chosen; clip 2 keeps three. The circle is 0 <- 2 <- 1 <- 0."""
    x = torch.tensor([[1.0, 2, 3, 4], [10, 20, 30, 40], [100, 200, 300, 400]]).view(3, 1, 1, 4)
    draws = drawn(("random", [0.1, 0.7, 0.6]), ("integers", [1, 2, 3]), ("permutation", [0, 1, 2]))
    mixed_x, mixed_y, mixed_w = concat_mix(x, torch.eye(3), torch.tensor([1.0, 0.5, 0.2]), 0.7, draws)
    assert mixed_x.view(3, 4).tolist() == [[1, 200, 300, 400], [10, 20, 30, 40], [100, 200, 300, 40]]
    assert mixed_w.tolist() == pytest.approx([0.25 * 1 + 0.75 * 0.2, 0.5, 0.75 * 0.2 + 0.25 * 0.5])
    labels = [[0.25 / 0.4, 0, 0.15 / 0.4], [0, 1, 0], [0, 0.125 / 0.275, 0.15 / 0.275]]  # share times weight
    torch.testing.assert_close(mixed_y, torch.tensor(labels))


def test_labels_of_concat_mix_are_the_share_of_frames():
    """If every frame of a clip is its one-hot label, their mean is the label that comes out."""
    n, n_frames = 400, 21
    y = torch.eye(n)
    x = y.view(n, 1, n, 1).expand(n, 1, n, n_frames)
    mixed_x, mixed_y, mixed_w = concat_mix(x, y, torch.ones(n), 1.0, rng())
    assert torch.allclose(mixed_x.mean(3)[:, 0], mixed_y, atol=1e-6)
    assert torch.allclose(mixed_w, torch.ones(n))
    assert ((mixed_y > 0).sum(1) == 2).all() and ((mixed_y > 0).sum(0) == 2).all(), "nobody meets itself or is lost"
    own = (mixed_y.diagonal() * n_frames).round()
    assert set(own.tolist()) == set(range(1, n_frames)), "the cut is anywhere"


def test_frames_keep_their_place_in_concat_mix():
    x = torch.arange(30.0).expand(40, 1, 2, 30)
    y = torch.eye(40)
    assert torch.equal(concat_mix(x, y, torch.ones(40), 1.0, rng())[0], x)


def test_the_chance_of_concat_mix():
    n = 4000
    _, mixed, _ = concat_mix(torch.zeros(n, 1, 1, 5), torch.eye(n), torch.ones(n), 0.3, rng())
    assert (mixed.diagonal() < 1).float().mean() == pytest.approx(0.3, abs=0.03)


# What changes the sound of one clip


def test_roll_by_hand():
    x = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]).view(2, 1, 1, 4)
    found = roll(x, drawn(("integers", [[[[1]]], [[[3]]]])))
    assert found.view(2, 4).tolist() == [[4, 1, 2, 3], [6, 7, 8, 5]]


def test_roll_keeps_all_frames_and_their_circle():
    x, _, _ = batch(100, n_frames=7)
    found = roll(x, rng())
    shifts = []
    for one, turned in zip(x, found, strict=True):
        shifts += [k for k in range(7) if torch.equal(one.roll(k, dims=2), turned)]
    assert len(shifts) == 100 and set(shifts) == set(range(7))


def test_resized_crop_by_hand():
    """The middle half of three frames, and of two mels all but the last quarter."""
    x = torch.tensor([[0.0, 10, 20], [100, 110, 120]]).view(1, 1, 2, 3)
    draws = drawn(("uniform", [[0.75]]), ("uniform", [[-1.0]]), ("uniform", [[0.5]]), ("uniform", [[0.0]]))
    found = resized_crop(x, 0.5, draws)
    assert found.flatten().tolist() == pytest.approx([5, 10, 15, 80, 85, 90], abs=1e-4)


@pytest.mark.parametrize("most", [0.2, 0.9])
def test_resized_crop_stretches_a_part_of_both_sides(most):
    """Interpolation leaves a slope a slope: it tells where the part began and how long it was."""
    n, n_mels, n_frames = 2000, 6, 20
    frame = torch.arange(float(n_frames)).expand(n, 1, n_mels, n_frames)
    mel = torch.arange(float(n_mels)).view(1, 1, -1, 1).expand(n, 1, n_mels, n_frames)
    in_time, in_mel = resized_crop(frame, most, rng(5)), resized_crop(mel, most, rng(5))
    assert torch.allclose(in_time, in_time[:, :, :1], atol=1e-4) and torch.allclose(in_mel, in_mel[..., :1], atol=1e-4)
    slopes = []
    for line, size in ((in_time[:, 0, 0], n_frames), (in_mel[:, 0, :, 0], n_mels)):
        slope = line.diff(dim=1)
        assert torch.allclose(slope, slope[:, :1], atol=1e-4), "evenly"
        assert line.min() >= 0 and line.max() <= size - 1, "nothing from outside"
        assert line[:, 0].min() < 0.02 * size and line[:, -1].max() > 0.98 * (size - 1), "up to both ends"
        slopes.append(slope[:, 0])
        assert slopes[-1].min() == pytest.approx(1 - most, abs=0.02)
        assert slopes[-1].max() == pytest.approx(1, abs=0.02)
        assert slopes[-1].mean() == pytest.approx(1 - most / 2, abs=0.03)
    assert abs(np.corrcoef(torch.stack(slopes).numpy())[0, 1]) < 0.1, "each side on its own"


def test_resized_crop_of_a_constant_is_the_constant():
    x = torch.full((50, 1, 6, 20), -13.8)
    assert torch.allclose(resized_crop(x, 0.5, rng()), x, atol=1e-5)


def test_resized_crop_of_the_whole_is_the_identity():
    x, _, _ = batch()
    assert torch.allclose(resized_crop(x, 0.0, rng()), x, atol=1e-4)


def test_freq_shift_by_hand():
    x = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 4, 1).expand(3, 1, 4, 2)
    fill = torch.tensor([-1.0, -2, -3, -4]).view(1, 1, 4, 1)
    found = freq_shift(x, 2, fill, drawn(("integers", [[1], [-2], [0]])))
    assert torch.equal(found[..., 0], found[..., 1])
    assert found[:, 0, :, 0].tolist() == [[-1, 1, 2, 3], [3, 4, -3, -4], [1, 2, 3, 4]]


@pytest.mark.parametrize(("most", "reached"), [(1, 1), (2, 2), (5, 5), (6, 5), (100, 5)])
def test_freq_shift_goes_up_and_down_and_leaves_a_band(most, reached):
    x = torch.arange(6.0).view(1, 1, 6, 1).expand(500, 1, 6, 3)
    found, _, _ = Augment(FILL, freq_shift=most)(x, torch.eye(500), torch.ones(500), rng())
    where = masked(found)
    shift = torch.where(where, 0, torch.arange(6.0).view(1, 6, 1) - found[:, 0])
    shifts = [set(one[~hidden].tolist()) for one, hidden in zip(shift, where, strict=True)]
    assert all(len(one) == 1 for one in shifts), "all bands by as much"
    assert set.union(*shifts) == set(range(-reached, reached + 1))
    assert all(hidden[:, 0].sum() == abs(*one) for hidden, one in zip(where, shifts, strict=True))


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


def test_masks_come_last():
    """Or the fill of one clip would shine through another, and other bands would show it."""
    x, y, w = batch(100)
    others = {name: value for name, value in ALL.items() if name != "freq_shift"}
    found, _, _ = Augment(FILL, **others)(x, y, w, rng())
    assert masked(found).any() and (found[:, 0][~masked(found)] > -50).all()


def test_the_shift_comes_after_the_stretch():
    """Or other bands would show its fill."""
    x, y, w = batch(100)
    found, _, _ = Augment(FILL, resized_crop=0.5, freq_shift=2)(x, y, w, rng())
    assert masked(found).any() and (found[:, 0][~masked(found)] > -50).all()


@pytest.mark.parametrize("mixing", [{"mixup_alpha": 1.0}, {"concat_mix": 1.0}])
def test_clips_are_changed_separately_before_they_are_mixed(mixing):
    """Of equal clips, mixed and then turned, each would still hold the frames 0 to 9."""
    n, frames = 500, torch.arange(10.0)
    x = frames.expand(n, 1, 1, 10)
    found, _, _ = Augment(torch.zeros(1), roll=True, **mixing)(x, torch.eye(n), torch.ones(n), rng())
    whole = (found[:, 0, 0].sort(dim=1).values - frames).abs().amax(1) < 1e-3
    assert whole.float().mean() < 0.3


# Erasing


def test_erasing_by_hand():
    """A quarter of the area at equal shares: half of four mels, half of six frames."""
    x = torch.ones(2, 1, 4, 6)
    draws = drawn(
        ("random", [0.2, 0.9]),
        ("uniform", [0.25, 0.25]),
        ("uniform", [0.0, 0.0]),
        ("integers", [1, 1]),
        ("integers", [2, 2]),
    )
    found = erase(x, 0.5, torch.zeros(1, 1, 4, 1), draws)
    assert found[0, 0].tolist() == [[1] * 6, [1, 1, 0, 0, 0, 1], [1, 1, 0, 0, 0, 1], [1] * 6]
    assert torch.equal(found[1], x[1])


def test_erasing_masks_one_rectangle_of_some_clips():
    x, y, w = batch(3000, n_mels=20, n_frames=50)
    fill = -1000 - torch.arange(20.0)
    found, same_y, same_w = Augment(fill, erasing=0.4)(x, y, w, rng())
    where = found[:, 0] == fill.view(1, -1, 1)
    assert same_y is y and same_w is w and torch.equal(found[:, 0][~where], x[:, 0][~where])
    mels, frames = where.any(2), where.any(1)
    assert torch.equal(where, mels[:, :, None] & frames[:, None]), "a rectangle"
    for side in (mels, frames):
        assert (side.float().diff(dim=1).abs().sum(1) <= 2).all(), "in one piece"
        assert side.any(0).all(), "that lies anywhere"
    hit = where.any(2).any(1)
    assert hit.float().mean() == pytest.approx(0.4, abs=0.03)
    area, high, wide = (v[hit] for v in (where.float().mean((1, 2)), mels.float().mean(1), frames.float().mean(1)))
    assert area.min() > 0.005 and area.max() < 0.45, "2 to 40 %, and rounding"
    assert area.quantile(0.05) < 0.06 and area.quantile(0.95) > 0.35
    assert (high > wide).float().mean() == pytest.approx(0.5, abs=0.05)
    assert (high > 2 * wide).any() and (wide > 2 * high).any()


# Gain


def test_gain_is_one_offset_per_clip():
    x, y, w = batch(2000, n_frames=3)
    found, _, _ = Augment(FILL, gain=0.5)(x, y, w, rng())
    offset = (found - x).flatten(1)
    assert torch.allclose(offset, offset[:, :1].expand_as(offset), atol=1e-5)
    assert offset.mean() == pytest.approx(0, abs=0.05) and offset[:, 0].std() == pytest.approx(0.5, abs=0.05)


# Everything


def test_switched_off_it_returns_its_input():
    x, y, w = batch()
    assert all(one is other for one, other in zip(Augment(FILL)(x, y, w, rng()), (x, y, w), strict=True))


def test_the_same_seed_gives_the_same_bytes():
    one, other = (Augment(FILL, **ALL)(*batch(), rng(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    different = Augment(FILL, **ALL)(*batch(), rng(4))
    assert not torch.equal(one[0], different[0]) and not torch.equal(one[1], different[1])


def test_torchs_own_generator_is_not_used():
    torch.manual_seed(1)
    one = Augment(FILL, **ALL)(*batch(), rng(3))[0]
    torch.manual_seed(2)
    assert torch.equal(Augment(FILL, **ALL)(*batch(), rng(3))[0], one)


def test_the_batch_is_unchanged():
    given = batch()
    Augment(FILL, **ALL)(*given, rng())
    assert all(torch.equal(a, b) for a, b in zip(given, batch(), strict=True))


def test_shapes_and_types_stay():
    x, y, w = batch()
    found = Augment(FILL, **ALL)(x, y, w, rng())
    assert [(v.shape, v.dtype) for v in found] == [(v.shape, v.dtype) for v in (x, y, w)]


@pytest.mark.parametrize(("n", "n_mels", "n_frames"), [(1, 6, 20), (3, 1, 20), (3, 6, 1), (1, 1, 1)])
def test_the_smallest_batches(n, n_mels, n_frames):
    x, y, w = batch(n, n_mels, n_frames)
    for seed in range(20):
        found = Augment(FILL[:n_mels], **ALL)(x, y, w, rng(seed))
        assert found[0].shape == x.shape and all(v.isfinite().all() for v in found)
        assert torch.allclose(found[1].sum(1), torch.ones(n))


@pytest.mark.parametrize("name", [name for name in ALL if "mask_" not in name])
def test_autocast_changes_nothing(name):
    x, y, w = batch()
    augment = Augment(FILL, **{name: ALL[name]})
    plain = augment(x, y, w, rng(3))
    assert any(not torch.equal(one, other) for one, other in zip(plain, (x, y, w), strict=True)), "it does something"
    with torch.autocast("cpu", torch.bfloat16):
        found = augment(x, y, w, rng(3))
    assert all(one.dtype == torch.float32 and torch.equal(one, other) for one, other in zip(found, plain, strict=True))


def test_older_augmentations_draw_as_before():
    """Runs of older configs stay reproducible: gain, mixup, time masks, frequency masks, in this order."""
    x, y, w = batch()
    old = {k: ALL[k] for k in ("mixup_alpha", "time_masks", "time_mask_frames", "gain")}
    found, mixed, _ = Augment(FILL, **old)(x, y, w, rng(3))
    same = rng(3)
    louder = x + torch.from_numpy(same.normal(0, 0.3, (8, 1, 1, 1))).float()
    by_hand, labels, _ = mixup(louder, y, w, 0.4, same)
    for _ in range(2):
        width = same.integers(0, 6, 8)
        first = same.integers(0, 20 - width + 1)
        for clip, a, b in zip(by_hand, first, width, strict=True):
            clip[0, :, a : a + b] = FILL[:, None]
    assert torch.equal(found, by_hand) and torch.equal(mixed, labels)


def test_every_setting_of_the_config_is_used():
    assert set(ALL) == {f.name for f in fields(AugmentConfig)} - {"extra", "wave", "mixup_labels"}  # elsewhere
    augment = Augment.from_config(AugmentConfig(**ALL), FILL)
    assert {name: getattr(augment, name) for name in ALL} == ALL
    assert torch.equal(augment(*batch(), rng(3))[0], Augment(FILL, **ALL)(*batch(), rng(3))[0])
