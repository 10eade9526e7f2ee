"""The losses, with softmaxes that can be written down."""

import math

import pytest
import torch

from training.losses import Loss, bootstrapped, soft_cross_entropy, truncated

LOGITS = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(8)]])  # softmax (1/2, 1/4, 1/4), (.1, .1, .8)


def test_loss_by_hand() -> None:
    logits = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(8)]])  # softmax (1/2, 1/4, 1/4), (.1, .1, .8)
    hard = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    one = torch.ones(2)
    assert float(soft_cross_entropy(logits, hard, one)) == pytest.approx((math.log(2) - math.log(0.8)) / 2)
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    by_hand = (0.5 * math.log(2) + 0.5 * math.log(4) - math.log(0.8)) / 2
    assert float(soft_cross_entropy(logits, soft, one)) == pytest.approx(by_hand)


def test_smoothing_moves_a_share_to_all_classes() -> None:
    logits, hard = torch.tensor([[math.log(2), 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    by_hand = 0.8 * math.log(2) + 0.1 * math.log(4) + 0.1 * math.log(4)  # 0.3 smoothed: 0.7 + 0.1, 0.1, 0.1
    assert float(soft_cross_entropy(logits, hard, torch.ones(1), smoothing=0.3)) == pytest.approx(by_hand)
    rng = torch.Generator().manual_seed(0)
    logits, label = torch.randn(9, 5, generator=rng), torch.randint(5, (9,), generator=rng)
    theirs = torch.nn.functional.cross_entropy(logits, label, label_smoothing=0.1)
    ours = soft_cross_entropy(logits, torch.nn.functional.one_hot(label, 5).float(), torch.ones(9), 0.1)
    torch.testing.assert_close(ours, theirs)


def test_weights_are_a_weighted_mean() -> None:
    logits = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(8)]])
    hard = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = float(soft_cross_entropy(logits, hard, torch.tensor([3.0, 1.0])))
    assert found == pytest.approx((3 * math.log(2) - math.log(0.8)) / 4)
    assert float(soft_cross_entropy(logits, hard, torch.zeros(2))) == 0


# Three rows of label 0 with probabilities (1/2, 1/4, 1/4), (.1, .8, .1) and (.1, .1, .8): losses log 2, log 10, log 10.
THREE = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, math.log(8), 0.0], [0.0, 0.0, math.log(8)]])
FIRST = torch.tensor([[1.0, 0.0, 0.0]] * 3)
ONES = torch.ones(3)


def found(loss: Loss, unverified: list[float], w: torch.Tensor = ONES, logits: torch.Tensor = THREE) -> float:
    return float(loss(logits, loss.with_unverified(FIRST, torch.tensor(unverified)), w))


def test_bootstrap_by_hand() -> None:
    """The second row is unverified: label (.75, 0, 0) + a quarter of (.1, .8, .1) = (.775, .2, .025)."""
    second = 0.775 * math.log(10) + 0.2 * math.log(1.25) + 0.025 * math.log(10)
    loss = Loss(unverified="bootstrap", bootstrap=0.25)
    assert found(loss, [0, 1, 0]) == pytest.approx((math.log(2) + second + math.log(10)) / 3)
    assert found(loss, [0, 1, 0], torch.tensor([1.0, 2.0, 0.0])) == pytest.approx((math.log(2) + 2 * second) / 3)


def test_the_prediction_in_a_bootstrapped_label_is_a_constant() -> None:
    """Then the gradient is softmax minus label, (.1, .8, .1) - (.775, .2, .025)."""
    logits = THREE[1:2].clone().requires_grad_()
    loss = Loss(unverified="bootstrap", bootstrap=0.25)
    loss(logits, loss.with_unverified(FIRST[:1], torch.ones(1)), ONES[:1]).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.675, 0.6, 0.075]]))


def test_truncate_by_hand() -> None:
    """Of losses log 2, log 10, log 10 those above 0.8 log 10 go, if unverified: the second alone."""
    assert found(Loss(unverified="truncate", truncate=0.8), [1, 1, 0]) == pytest.approx(math.log(20) / 2)
    assert found(Loss(unverified="truncate", truncate=0.2), [1, 1, 0]) == pytest.approx(math.log(10))
    assert found(Loss(unverified="truncate", truncate=1.0), [1, 1, 1]) == pytest.approx(math.log(200) / 3)
    assert found(Loss(unverified="truncate", truncate=0.0), [1, 1, 1]) == 0  # nothing is left, and nothing divided
    weighted = found(Loss(unverified="truncate"), [1, 1, 0], torch.tensor([1.0, 1.0, 3.0]))
    assert weighted == pytest.approx((math.log(2) + 3 * math.log(10)) / 4)


@pytest.mark.parametrize("kind", ["bootstrap", "truncate"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_verified_rows_are_left_alone(kind: str, smoothing: float) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(40, 5, generator=rng)
    y = torch.nn.functional.one_hot(torch.randint(5, (40,), generator=rng), 5).float()
    w = torch.rand(40, generator=rng)
    loss = Loss(smoothing, kind, truncate=0.3)  # type: ignore[arg-type]
    verified, plain = (
        loss(logits, loss.with_unverified(y, torch.zeros(40)), w),
        soft_cross_entropy(logits, y, w, smoothing),
    )
    assert torch.equal(verified, plain)
    unverified = (torch.arange(40) % 2).float()
    wide = loss.with_unverified(y, unverified)
    new_y, new_w = wide[:, :5], w
    if kind == "bootstrap":
        new_y = bootstrapped(logits, *wide.chunk(2, dim=1), 0.3)
    else:
        new_y, new_w = truncated(logits, *wide.chunk(2, dim=1), w, 0.3, smoothing)
    assert torch.equal(new_y[::2], y[::2]) and torch.equal(new_w[::2], w[::2])
    assert not torch.equal(new_y[1::2], y[1::2]) and (kind == "bootstrap" or not torch.equal(new_w[1::2], w[1::2]))
    torch.testing.assert_close(new_y.sum(dim=1) * (new_w > 0), (new_w > 0).float())  # still labels, where they count


def mixed() -> tuple[torch.Tensor, torch.Tensor]:
    """Three quarters of a verified clip of label 0 and a quarter of an unverified one of label 1."""
    return torch.tensor([[0.75, 0.25, 0.0]]), torch.tensor([[0.0, 0.25, 0.0]])


def test_of_a_mixed_row_the_unverified_share_is_bootstrapped() -> None:
    """Prediction (.1, .1, .8); half of the quarter goes: (.75, .125, 0) + .125 (.1, .1, .8)."""
    label = bootstrapped(THREE[2:], *mixed(), 0.5)
    torch.testing.assert_close(label, torch.tensor([[0.7625, 0.1375, 0.1]]))


def test_of_a_mixed_row_the_unverified_share_is_dropped() -> None:
    y, w = truncated(THREE[2:], *mixed(), torch.tensor([2.0]), 0.8, 0.0)
    torch.testing.assert_close(y, torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(w, torch.tensor([1.5]))


def test_a_plain_loss_carries_nothing_along() -> None:
    assert Loss().with_unverified(FIRST, ONES) is FIRST
    assert found(Loss(), [1, 1, 1]) == pytest.approx(math.log(200) / 3)
