"""Averages of a network's weights over steps or epochs, kept in one copy however many there are."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from models.tagger import Tagger


class WeightAverage(nn.Module):
    """`network` has the average of the weights that were added; before the first, `n` is 0 and it means nothing.

    share(n): what the weights after n others count, 1 - share(n) what the average of those does. Running means and
    variances of batch normalisation are averaged like weights: those of one moment belong to the weights of that
    moment. Integers are those of the last network. As a part of the LightningModule it goes with it to the device and
    into the checkpoint.
    """

    # By hand: Lightning's WeightAveraging copies the whole module, the features with it, has room for one average in a
    # checkpoint, and torch's AveragedModel below it waits for the GPU at every step.

    def __init__(self, network: Tagger, share: Callable[[int], float]) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.share = share
        self.n = 0

    @torch.no_grad()
    def add(self, network: nn.Module) -> None:
        own, new = self.network.state_dict(), network.state_dict()
        if not self.n:
            self.network.load_state_dict(new)
        else:
            floats = [k for k, v in new.items() if v.is_floating_point()]
            torch._foreach_lerp_([own[k] for k in floats], [new[k] for k in floats], self.share(self.n))
            for k in new.keys() - set(floats):
                own[k].copy_(new[k])
        self.n += 1

    def get_extra_state(self) -> int:
        return self.n

    def set_extra_state(self, n: int) -> None:
        self.n = n


def ema_share(decay: float) -> Callable[[int], float]:
    """Of an exponential moving average, whose decay grows to `decay` as (1 + n) / (10 + n) does.

    With a full decay from the start, early epochs would be judged by little else than the initial weights. Source of
    that warm-up: TensorFlow's ExponentialMovingAverage with num_updates.
    """
    return lambda n: 1 - min(decay, (1 + n) / (10 + n))


def mean_share(n: int) -> float:
    """Of the plain mean, as P. Izmailov et al. take it: "Averaging Weights Leads to Wider Optima", 2018."""
    return 1 / (n + 1)
