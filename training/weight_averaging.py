"""Averages of a network's weights over steps or epochs, kept in one copy however many there are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


class StateAverage:
    """The average of the state dicts that were added; `state` is empty before the first.

    share(n): what the state after n others counts, 1 - share(n) what the average of those does. Running means and
    variances of batch normalisation are averaged like weights: those of one moment belong to the weights of that
    moment. Integers are those of the last state.
    """

    def __init__(self, share: Callable[[int], float]) -> None:
        self.share = share
        self.state: State = {}
        self.n = 0

    @torch.no_grad()
    def add(self, state: State) -> None:
        if not self.state:
            self.state = {k: v.detach().clone() for k, v in state.items()}
        else:
            # read from a checkpoint it may lie on another device
            self.state = {k: v.to(state[k].device) for k, v in self.state.items()}
            floats = [k for k, v in state.items() if v.is_floating_point()]
            torch._foreach_lerp_([self.state[k] for k in floats], [state[k] for k in floats], self.share(self.n))
            for k in state.keys() - set(floats):
                self.state[k].copy_(state[k])
        self.n += 1

    def saved(self) -> dict[str, Any]:
        """For a checkpoint; the inverse of `load`."""
        return {"state": self.state, "n": self.n}

    def load(self, saved: dict[str, Any]) -> None:
        self.state, self.n = saved["state"], saved["n"]


def ema_share(decay: float) -> Callable[[int], float]:
    """Of an exponential moving average, whose decay grows to `decay` as (1 + n) / (10 + n) does.

    With a full decay from the start, early epochs would be judged by little else than the initial weights. Source of
    that warm-up: TensorFlow's ExponentialMovingAverage with num_updates.
    """
    return lambda n: 1 - min(decay, (1 + n) / (10 + n))


def mean_share(n: int) -> float:
    """Of the plain mean, as P. Izmailov et al. take it: "Averaging Weights Leads to Wider Optima", 2018."""
    return 1 / (n + 1)


@contextmanager
def standing_in(network: nn.Module, state: State | None) -> Iterator[None]:
    """The network with the weights `state` for a while; its own come back to the bit. None: with its own."""
    if state is None:
        yield
        return
    own = {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(state)
    try:
        yield
    finally:
        network.load_state_dict(own)
