"""Schedules by hand, and what the two stages train on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.schema import AugmentConfig, Config, TrainConfig
from training.fold_data import FoldData
from training.schedule import build_stages, lr_factor, one_cycle, stage_of

PARTS = FoldData(
    train=np.array([0, 2, 3, 5, 6]),
    val=np.array([1, 4]),
    targets=np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0]],
    weights=np.ones(7),
    verified=np.array([True, True, False, True, True, False, True]),
    val_fnames=("1.wav", "4.wav"),
    val_verified=np.array([True, True]),
    prior=np.full(3, 1 / 3),
)
CFG = Config(
    augment=AugmentConfig(mixup_alpha=0.4, concat_mix=0.3, time_masks=1),
    train=TrainConfig(epochs=2, batch_size=2, lr=1e-2, finetune_epochs=3, finetune_lr=1e-3),
)


def test_one_cycle_rises_in_a_line_and_falls_in_a_cosine() -> None:
    shares = [one_cycle(step, 100, 0.1) for step in range(101)]
    np.testing.assert_allclose(shares[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(shares[10], 1)
    np.testing.assert_allclose(shares[55], 0.5)  # half-way down
    np.testing.assert_allclose(shares[100], 0, atol=1e-12)
    assert all(np.diff(shares[10:]) <= 0)


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.1), (1, 0.0), (3, 0.9), (100, 0.0)])
def test_one_cycle_of_few_steps_stays_between_0_and_1(total: int, warmup: float) -> None:
    shares = [one_cycle(step, total, warmup) for step in range(total + 1)]
    assert all(0 <= s <= 1 for s in shares)
    assert max(shares[:total]) == 1


def test_the_second_stage_has_verified_rows_and_no_mixing() -> None:
    first, second = build_stages(CFG, PARTS, torch.zeros(4))
    assert (first.epochs, first.rows.tolist(), first.steps, first.lr) == (2, [0, 2, 3, 5, 6], 3, 1e-2)
    assert (second.epochs, second.rows.tolist(), second.steps, second.lr) == (3, [0, 3, 6], 2, 1e-3)
    assert first.augment.mixup_alpha == 0.4 and second.augment.mixup_alpha == 0
    assert first.augment.concat_mix == 0.3 and second.augment.concat_mix == 0
    assert first.augment.time_masks == second.augment.time_masks == 1
    (only,) = build_stages(replace(CFG, train=replace(CFG.train, finetune_epochs=0)), PARTS, torch.zeros(4))
    assert only.rows.tolist() == first.rows.tolist()


def test_epochs_count_over_both_stages() -> None:
    first, second = stages = build_stages(CFG, PARTS, torch.zeros(4))
    assert [stage_of(stages, epoch) for epoch in range(6)] == [first, first, *[second] * 4]


def test_every_stage_has_its_own_cycle() -> None:
    """Six steps up to 1e-2, then six up to 1e-3, a tenth of it."""
    stages = build_stages(CFG, PARTS, torch.zeros(4))
    found = [lr_factor(stages, step, 0.4) for step in range(13)]
    first = [one_cycle(step, 6, 0.4) for step in range(6)]
    np.testing.assert_allclose(found, first + [0.1 * share for share in first] + [0], atol=1e-12)
    assert max(found) == found[1] == found[2] == 1 and max(found[6:]) == pytest.approx(0.1)
