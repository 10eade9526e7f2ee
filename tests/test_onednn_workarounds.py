"""Strided convolutions over few frames: the numbers of a plain Conv2d, and no uninitialised memory."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from configs.schema import Config, ModelConfig
from models.build import build_model
from models.onednn_workarounds import LEAST, WideEnough, widen_narrow_inputs


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (7, 2, 3), (5, (1, 3), 2), (2, 2, 1)])
def test_the_same_numbers_as_before(n_frames: int, kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, kernel, stride, padding)
    wide = copy.deepcopy(plain)
    widen_narrow_inputs(wide)
    assert isinstance(wide, WideEnough) and wide.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(2, 4, 8, n_frames)
    for one in (plain, wide):
        one(x).square().sum().backward()
    torch.testing.assert_close(wide(x), plain(x))
    torch.testing.assert_close(wide.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)


def test_a_kernel_that_does_not_fit_fails_as_before() -> None:
    wide = nn.Sequential(nn.Conv2d(1, 2, 11, 4, 2))
    widen_narrow_inputs(wide)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        wide(torch.zeros(1, 1, 64, 1))


def test_other_padding_is_unchanged() -> None:
    class Same(nn.Conv2d):
        pass

    network = nn.Sequential(
        Same(1, 1, 3, 2), nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 1, 2), nn.Conv2d(1, 1, 3, 2, padding_mode="circular")
    )
    widen_narrow_inputs(network)
    assert not any(isinstance(module, WideEnough) for module in network.modules())


def spoil_free_memory() -> None:
    """What is allocated next may hold NaN."""
    for n in (1_000, 20_000, 300_000, 2_000_000):
        _ = [torch.full((n,), np.nan, dtype=kind) for kind in (torch.float32, torch.bfloat16) for _ in range(3)]


@pytest.mark.parametrize("name", ["resnetish10", "resnetish50", "timm:resnet10t", "alexnet"])
def test_a_network_returns_the_same_twice_in_bf16(name: str) -> None:
    """Where a CPU has AMX, it did not without the wider input."""
    torch.manual_seed(0)
    network = build_model(Config(model=ModelConfig(name=name)), 5).eval().to(memory_format=torch.channels_last)
    x = torch.randn(4, 1, 64, 64 if name == "alexnet" else 9)
    seen: list[int] = []
    for module in network.modules():
        if isinstance(module, WideEnough):
            module.register_forward_hook(lambda m, args, out: seen.append(args[0].shape[3]))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        spoil_free_memory()
        first = network(x)
        spoil_free_memory()
        assert torch.equal(network(x), first) and first.isfinite().all()
    assert name == "alexnet" or min(seen) < LEAST, "the case is met"
