"""VGGish and AlexNet: shapes, sizes, parameter counts worked by hand."""

import pytest
import torch

from models.vggish import AlexNet, VGGish


@pytest.mark.parametrize("kind", [VGGish, AlexNet])
@pytest.mark.parametrize("size", [(64, 500), (40, 100), (96, 64), (8, 3), (1, 1)])
def test_any_input_size(kind: type, size: tuple[int, int]) -> None:
    network = kind(n_classes=5, width=4).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, *size)).shape == (2, 5)


def test_vggish_is_the_published_network_but_for_its_classifier() -> None:
    """At the published 64 x 96 input the last pooling sees 8 x 12 cells and is the published 2x2 max-pooling to 4 x 6,
    so the trunk has the published 72.1 million parameters (S. Hershey et al., released as a 128-number embedding)."""
    network = VGGish(n_classes=41)
    convolutions = 9 * (1 * 64 + 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512)
    biases = 64 + 128 + 256 + 256 + 512 + 512 + 4096 + 4096 + 128
    dense = 512 * 24 * 4096 + 4096 * 4096 + 4096 * 128
    trunk = [*network.features.parameters(), *network.embedding.parameters()]
    assert sum(p.numel() for p in trunk) == convolutions + biases + dense == 72_141_184
    assert sum(p.numel() for p in network.head.parameters()) == 128 * 41 + 41


def test_alexnet_parameters_by_hand() -> None:
    w, n = 8, 41
    convolutions = 121 * w + 25 * w * 3 * w + 9 * (3 * w * 6 * w + 6 * w * 4 * w + 4 * w * 4 * w)
    biases = w + 3 * w + 6 * w + 4 * w + 4 * w + 64 * w + 64 * w + n
    dense = 4 * w * 24 * 64 * w + 64 * w * 64 * w + 64 * w * n
    assert sum(p.numel() for p in AlexNet(n, w).parameters()) == convolutions + biases + dense


@pytest.mark.parametrize("kind", [VGGish, AlexNet])
def test_the_signal_neither_fades_nor_explodes_at_the_start(kind: type) -> None:
    torch.manual_seed(0)
    network = kind(n_classes=41, width=16).eval()
    with torch.inference_mode():
        logits = network(torch.randn(8, 1, 64, 128))
    assert 0.05 < float(logits.std(dim=0).mean()) < 20  # PyTorch's default start gives 0.0001 and 0.0004


@pytest.mark.parametrize("kind", [VGGish, AlexNet])
def test_channels_last_gives_the_same_answer(kind: type) -> None:
    torch.manual_seed(0)
    network = kind(n_classes=5, width=4).eval()
    x = torch.randn(2, 1, 32, 48)
    with torch.inference_mode():
        plain = network(x)
        network.to(memory_format=torch.channels_last)
        other = network(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, other, rtol=1e-4, atol=1e-5)
