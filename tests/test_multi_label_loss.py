"""The loss of several labels a clip, against torch's and by hand."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from configs.schema import AugmentConfig, TrainConfig
from console.errors import UserError
from features.augment import Augment
from training.losses import build_loss, soft_cross_entropy
from training.multi_label_loss import MultiLabelLoss

NAN = math.nan
ONES = torch.ones(2)
RNG = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(2, 4, generator=RNG)
LABELS = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])  # the second clip has none


def found(loss: MultiLabelLoss, y: torch.Tensor = LABELS, w: torch.Tensor = ONES, unverified: float = 0) -> float:
    return float(loss(LOGITS, loss.with_unverified(y, torch.tensor([0, unverified])), w))


def test_it_is_torchs_binary_cross_entropy() -> None:
    assert found(MultiLabelLoss()) == pytest.approx(float(binary_cross_entropy_with_logits(LOGITS, LABELS)), rel=1e-6)
    w = torch.tensor([3.0, 1.0])
    theirs = binary_cross_entropy_with_logits(LOGITS, LABELS, reduction="none").mean(dim=1)
    assert found(MultiLabelLoss(), w=w) == pytest.approx(float((theirs * w).sum() / 4), rel=1e-6)
    assert found(MultiLabelLoss(), w=torch.zeros(2)) == 0
    positive = np.array([2.0, 1, 5, 1])
    theirs = binary_cross_entropy_with_logits(LOGITS, LABELS, pos_weight=torch.from_numpy(positive).float())
    assert found(MultiLabelLoss(positive_weight=positive)) == pytest.approx(float(theirs), rel=1e-6)
    smoothed = binary_cross_entropy_with_logits(LOGITS, LABELS * 0.9 + 0.05)
    assert found(MultiLabelLoss(0.1)) == pytest.approx(float(smoothed), rel=1e-6)


def test_class_weights_weigh_every_label_of_a_class() -> None:
    weight = np.array([2.0, 1, 1, 0])
    each = binary_cross_entropy_with_logits(LOGITS, LABELS, reduction="none")
    by_hand = float((each * torch.from_numpy(weight)).sum() / 8)
    assert found(MultiLabelLoss(class_weight=weight)) == pytest.approx(by_hand, rel=1e-6)


def test_a_label_that_is_not_known_has_no_part() -> None:
    y = LABELS.clone()
    y[0, 1] = y[1] = NAN
    each = binary_cross_entropy_with_logits(LOGITS, LABELS, reduction="none")[0, [0, 2, 3]]
    assert found(MultiLabelLoss(smoothing=0)) == pytest.approx(found(MultiLabelLoss()))
    assert found(MultiLabelLoss(), y) == pytest.approx(float(each.mean()), rel=1e-6)
    assert math.isfinite(found(MultiLabelLoss(0.1, gamma=2.0), torch.full((2, 4), NAN)))


def test_focal_by_hand() -> None:
    """p = 3/4 of a present label: (1/4)^2 log(4/3); of an absent one (3/4)^2 log 4."""
    logits = torch.tensor([[math.log(3), math.log(3)]])
    loss = MultiLabelLoss(gamma=2.0)
    value = float(loss(logits, loss.with_unverified(torch.tensor([[1.0, 0.0]]), torch.zeros(1)), torch.ones(1)))
    assert value == pytest.approx((math.log(4 / 3) / 16 + 9 / 16 * math.log(4)) / 2)
    one = soft_cross_entropy(torch.tensor([[math.log(3), 0.0]]), torch.tensor([[1.0, 0.0]]), torch.ones(1), gamma=2.0)
    assert float(one) == pytest.approx(math.log(4 / 3) / 16)


def test_bootstrap_moves_an_unverified_clip_towards_its_prediction() -> None:
    y = LABELS.clone()
    y[1] = 0.7 * y[1] + 0.3 * LOGITS[1].sigmoid()
    theirs = binary_cross_entropy_with_logits(LOGITS, y)
    assert found(MultiLabelLoss(unverified="bootstrap"), unverified=1) == pytest.approx(float(theirs), rel=1e-5)


def test_truncate_drops_an_unverified_clip_of_a_large_loss() -> None:
    each = binary_cross_entropy_with_logits(LOGITS, LABELS, reduction="none").mean(dim=1)
    dropped = found(MultiLabelLoss(unverified="truncate", truncate=0.0), unverified=1)
    assert dropped == pytest.approx(float(each[0]), rel=1e-6)
    kept = found(MultiLabelLoss(unverified="truncate", truncate=1.0), unverified=1)
    assert kept == pytest.approx(float(each.mean()), rel=1e-6)


@pytest.mark.parametrize("kind", ["bootstrap", "truncate"])
def test_verified_clips_are_left_alone(kind: str) -> None:
    loss = MultiLabelLoss(unverified=kind, truncate=0.0)  # type: ignore[arg-type]
    assert found(loss) == pytest.approx(found(MultiLabelLoss()), rel=1e-6)


def mixed(mixup_labels: str, y: torch.Tensor, w: torch.Tensor = ONES) -> tuple[torch.Tensor, torch.Tensor]:
    """Both clips mixed with each other, to shares of the seed."""
    cfg = AugmentConfig(mixup_alpha=0.4, mixup_labels=mixup_labels)  # type: ignore[arg-type]
    augment = Augment.from_config(cfg, torch.zeros(3))
    for seed in range(99):
        _, found_y, found_w = augment(torch.zeros(2, 1, 3, 5), y, w, np.random.default_rng(seed))
        if not torch.equal(found_w, w) or not torch.equal(found_y, y):  # else each meets itself
            return found_y, found_w
    raise AssertionError


def test_mixup_by_the_maximum_keeps_all_labels() -> None:
    y = torch.tensor([[1.0, 0, 0.5], [0, 1, 0]])
    assert mixed("max", y)[0].tolist() == [[1, 1, 0.5]] * 2
    assert mixed("mean", y)[0].sum(dim=1).max() < 1.6
    silent = torch.tensor([1.0, 0.0])  # the second clip has weight 0: its labels are not joined
    assert mixed("max", y, silent)[0].tolist() == [[1, 0, 0.5]] * 2


def test_a_mixture_knows_a_label_that_one_of_its_clips_has() -> None:
    loss = MultiLabelLoss()
    wide = loss.with_unverified(torch.tensor([[NAN, NAN, 0], [1, 0, 0]]), torch.zeros(2))
    y, w = mixed("max", wide)
    assert y.tolist() == [[1, 0, 0, 1, 1, 0]] * 2
    value = float(loss(torch.zeros(2, 3), y, w))
    assert value == pytest.approx(math.log(2))
    logits = torch.tensor([[0.0, 50, 0]] * 2)  # of the second class nothing is known, however sure the prediction
    assert float(loss(logits, y, w)) == pytest.approx(math.log(2))


def test_the_users_loss_sees_what_is_not_known_as_nan() -> None:
    seen: list[torch.Tensor] = []

    def own(logits: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        seen.append(y)
        return logits.sum()

    found(MultiLabelLoss(function=own), torch.tensor([[1, NAN, 0, 0.5], [0, 0, 0, 0]]))
    np.testing.assert_allclose(seen[0].numpy(), [[1, NAN, 0, 0.5], [0, 0, 0, 0]])


def test_names_by_task() -> None:
    assert isinstance(build_loss(TrainConfig(), "multi_label"), MultiLabelLoss)
    assert build_loss(TrainConfig(loss="focal", focal_gamma=3), "multi_label").gamma == 3
    assert build_loss(TrainConfig(focal_gamma=3), "multi_label").gamma == 0
    with pytest.raises(
        UserError, match=r"no loss 'binary_cross_entropy' for a single_label .*: use cross_entropy, foc"
    ):
        build_loss(TrainConfig(loss="binary_cross_entropy"))
