"""ResNetish: shapes, sizes, parameter counts worked by hand."""

import pytest
import torch

from models.onednn_workarounds import StridedPointwise
from models.resnetish import STAGES, BasicBlock, Bottleneck, ResNetish


@pytest.mark.parametrize("depth", sorted(STAGES))
@pytest.mark.parametrize("size", [(64, 500), (40, 100), (128, 33), (8, 3), (1, 1)])
def test_any_input_size(depth: int, size: tuple[int, int]) -> None:
    network = ResNetish(depth, n_classes=5, width=4).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, *size)).shape == (2, 5)


def test_depth_is_the_number_of_weighted_layers() -> None:
    for depth in STAGES:
        network = ResNetish(depth, n_classes=5, width=2)
        kernels = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
        shortcuts = [m for m in network.modules() if isinstance(m, BasicBlock | Bottleneck)]
        shortcuts = [m for m in shortcuts if not isinstance(m.shortcut, torch.nn.Identity)]
        assert len(kernels) - len(shortcuts) == depth


def test_parameters_by_hand() -> None:
    """ResNetish10 of width w: stem 49w, stages of 3x3 convolutions, three 1x1 shortcuts, norms, classifier."""
    w, n = 8, 41
    stem = 49 * w
    stages = 2 * 9 * w * w + sum(9 * (c // 2) * c + 9 * c * c + (c // 2) * c for c in (2 * w, 4 * w, 8 * w))
    norms = 2 * (w + 2 * w + 3 * (2 * w + 4 * w + 8 * w))
    head = 8 * w * 24 * n + n
    assert sum(p.numel() for p in ResNetish(10, n, w).parameters()) == stem + stages + norms + head


def test_first_convolution_keeps_the_size_and_24_cells_reach_the_classifier() -> None:
    network = ResNetish(18, n_classes=3, width=4).eval()
    x = torch.randn(1, 1, 64, 96)
    assert network.stem[0](x).shape == (1, 4, 64, 96)
    assert network.pool(network.stages(network.stem(x))).shape == (1, 32, 4, 6)


def test_dropout_acts_in_training_only() -> None:
    network = ResNetish(10, n_classes=3, width=4, dropout=0.5)
    x = torch.randn(2, 1, 32, 48)
    network.eval()
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


def test_an_unknown_depth_raises() -> None:
    with pytest.raises(KeyError):
        ResNetish(19, n_classes=3)


def test_a_strided_pointwise_convolution_gives_the_same_numbers() -> None:
    own, plain = StridedPointwise(3, 5, 1, 2), torch.nn.Conv2d(3, 5, 1, 2)
    own.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 7, 6)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    found = [module(given) for module, given in zip((own, plain), inputs, strict=True)]
    for y in found:
        y.square().sum().backward()
    torch.testing.assert_close(*found)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(own.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("depth", [10, 50])
def test_no_narrow_convolution_uses_the_kernel_that_corrupts_memory(depth: int) -> None:
    """It would kill the process of all tests, so only the type of the layers is checked."""
    network = ResNetish(depth, n_classes=3, width=8)
    strided = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1)]
    strided = [m for m in strided if m.stride == (2, 2)]
    assert {type(m) for m in strided if m.in_channels < 16} <= {StridedPointwise}
    assert {type(m) for m in strided if m.in_channels >= 16} == {torch.nn.Conv2d}
    assert any(m.in_channels < 16 for m in strided) == (depth == 10)
