"""Averages of weights on paper."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from models.tagger import Tagger
from training.weight_averaging import WeightAverage, ema_share, mean_share


def tagger(value: float, n: int = 0) -> Tagger:
    network = nn.BatchNorm1d(2)
    network.weight.data.fill_(value)
    network.running_mean.fill_(-value)  # type: ignore[union-attr]
    network.num_batches_tracked.fill_(n)  # type: ignore[union-attr]
    return Tagger(network, torch.zeros(2), torch.ones(2), torch.tensor([0.1, 0.9]))


def weight(average: WeightAverage) -> float:
    return float(average.network.backbone.weight[0])


def averaged(share: Callable[[int], float], *values: float) -> float:
    average = WeightAverage(tagger(1e6), share)
    for i, value in enumerate(values):
        average.add(tagger(value, i))
    state = average.network.state_dict()
    assert state["backbone.num_batches_tracked"] == len(values) - 1
    assert torch.equal(state["backbone.running_mean"], -state["backbone.weight"])
    assert torch.equal(state["prior"], torch.tensor([0.1, 0.9]))
    return weight(average)


def test_ema_by_hand() -> None:
    """The first state is taken as it is, whatever the initial weights; then decays of 2/11, 3/12, 0.3 and 0.3."""
    assert averaged(ema_share(0.3), 11) == 11
    assert averaged(ema_share(0.3), 11, 22) == pytest.approx(2 / 11 * 11 + 9 / 11 * 22)  # 20
    assert averaged(ema_share(0.3), 11, 22, 40) == pytest.approx(20 / 4 + 30)  # 35
    assert averaged(ema_share(0.3), 11, 22, 40, 5) == pytest.approx(0.3 * 35 + 0.7 * 5)  # 4/13 is above 0.3: 14
    assert averaged(ema_share(0.3), 11, 22, 40, 5, 2) == pytest.approx(0.3 * 14 + 0.7 * 2)


def test_a_long_ema_has_its_full_decay() -> None:
    assert ema_share(0.99)(10_000) == pytest.approx(0.01)
    assert ema_share(0.99)(10) == pytest.approx(1 - 11 / 20)


def test_mean_by_hand() -> None:
    assert averaged(mean_share, 3) == 3
    assert averaged(mean_share, 3, 5) == 4
    assert averaged(mean_share, 3, 5, 13) == pytest.approx(7)


def test_an_average_is_a_copy() -> None:
    live = tagger(1.0)
    average = WeightAverage(live, mean_share)
    average.add(live)
    live.backbone.weight.data.fill_(9)
    assert weight(average) == 1
    average.add(live)
    assert weight(average) == 5 and live.backbone.weight.tolist() == [9, 9]
    assert not any(p.requires_grad for p in average.parameters())


def test_it_goes_on_as_it_was_saved() -> None:
    whole, first, second = (WeightAverage(tagger(0.0), ema_share(0.5)) for _ in range(3))
    for value in (1.0, 2.0, 4.0):
        whole.add(tagger(value))
    first.add(tagger(1.0))
    second.load_state_dict(first.state_dict())
    second.add(tagger(2.0))
    second.add(tagger(4.0))
    assert weight(second) == weight(whole) and second.n == whole.n == 3
