"""Averages of weights on paper."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from training.weight_averaging import State, StateAverage, ema_share, mean_share, standing_in


def state(value: float, n: int = 0) -> State:
    return {"weight": torch.tensor([float(value), -float(value)]), "num_batches_tracked": torch.tensor(n)}


def averaged(share: Callable[[int], float], *values: float) -> float:
    average = StateAverage(share)
    for i, value in enumerate(values):
        average.add(state(value, i))
    assert average.state["num_batches_tracked"] == len(values) - 1
    assert average.state["weight"][1] == -average.state["weight"][0]
    return float(average.state["weight"][0])


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
    average, live = StateAverage(mean_share), state(1.0)
    average.add(live)
    live["weight"].fill_(9)
    assert average.state["weight"].tolist() == [1, -1]
    average.add(live)
    assert live["weight"].tolist() == [9, 9]


def test_it_goes_on_as_it_was_saved() -> None:
    whole, first, second = (StateAverage(ema_share(0.5)) for _ in range(3))
    for value in (1.0, 2.0, 4.0):
        whole.add(state(value))
    first.add(state(1.0))
    second.load(first.saved())
    second.add(state(2.0))
    second.add(state(4.0))
    assert torch.equal(second.state["weight"], whole.state["weight"])


def test_a_network_gets_its_own_weights_back_even_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    own = {k: v.clone() for k, v in network.state_dict().items()}
    other = {k: torch.ones_like(v) for k, v in own.items()}
    with pytest.raises(ZeroDivisionError), standing_in(network, other):
        assert all(torch.equal(v, other[k]) for k, v in network.state_dict().items())
        raise ZeroDivisionError
    assert all(torch.equal(v, own[k]) for k, v in network.state_dict().items())
    with standing_in(network, None):
        assert all(torch.equal(v, own[k]) for k, v in network.state_dict().items())
