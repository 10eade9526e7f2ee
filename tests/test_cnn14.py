"""CNN14 against its paper: parameters, shapes, and the layers written out once more in the published orientation."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.cnn14 import Cnn14


def small(n_classes: int = 5, **values: int | float) -> Cnn14:
    torch.manual_seed(0)
    network = Cnn14(n_classes, width=8, **values)  # type: ignore[arg-type]
    for name, value in network.state_dict().items():  # as after training: no norm is the identity
        if "bn" in name and not name.endswith("num_batches_tracked"):
            value.copy_(torch.rand_like(value) + 0.5)
    return network.eval()


def as_published(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits of (batch, 1, n_frames, n_mels) in decibels, time before mels as in the source."""

    def norm(x: Tensor, name: str) -> Tensor:
        parts = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    x = norm(x.transpose(1, 3), "bn0").transpose(1, 3)
    for i in range(1, 7):
        for j in (1, 2):
            kernel = state[f"conv_block{i}.conv{j}.weight"]
            x = F.relu(norm(F.conv2d(x, kernel, padding=1), f"conv_block{i}.bn{j}"))
        x = F.avg_pool2d(x, (2, 2)) if i < 6 else x
    x = x.mean(dim=3)
    x = x.max(dim=2).values + x.mean(dim=2)
    x = F.relu(F.linear(x, state["fc1.weight"], state["fc1.bias"]))
    return F.linear(x, state["fc_audioset.weight"], state["fc_audioset.bias"])


@pytest.mark.parametrize("n_frames", [32, 101, 500])
def test_the_output_is_the_published_one(n_frames: int) -> None:
    network = small()
    x = 10 * torch.randn(2, 1, 64, n_frames) - 30
    with torch.inference_mode():
        torch.testing.assert_close(
            network(x), as_published(network.state_dict(), x.transpose(2, 3)), rtol=1e-3, atol=1e-3
        )


def test_parameters_are_the_published_ones() -> None:
    """80.75 million with AudioSet's 527 classes: convolutions, two norms a block, bn0, two dense layers."""
    channels = [1, 64, 128, 256, 512, 1024, 2048]
    blocks = sum(9 * a * b + 9 * b * b + 4 * b for a, b in pairwise(channels))
    by_hand = blocks + 2 * 64 + 2048 * 2048 + 2048
    with torch.device("meta"):
        for n_classes, total in ((527, 80_753_615), (41, 79_757_801)):
            found = sum(p.numel() for p in Cnn14(n_classes).parameters())
            assert found == by_hand + 2049 * n_classes == total


@pytest.mark.parametrize("size", [(64, 500), (64, 33), (64, 3), (64, 1), (40, 20), (1, 1)])
def test_any_input_size(size: tuple[int, int]) -> None:
    network = small(n_mels=size[0])
    with torch.inference_mode():
        found = network(torch.randn(2, 1, *size))
    assert found.shape == (2, 5) and found.isfinite().all()


def test_more_channels_are_not_normalised_with_the_log_mel() -> None:
    """The statistics of bn0 are those of the log-mel, as they are published."""
    network = small(in_channels=2).train()
    before = network.bn0.running_mean.clone()
    x = torch.cat([torch.full((2, 1, 64, 32), 7.0), torch.full((2, 1, 64, 32), 1000.0)], dim=1)
    network(x)
    torch.testing.assert_close(network.bn0.running_mean, 0.9 * before + 0.1 * 7)
    network.eval()
    with torch.inference_mode():
        assert not torch.allclose(network(x), network(x * torch.tensor([1.0, 0.5]).view(1, 2, 1, 1)))


def test_dropout_acts_in_training_only() -> None:
    network, x = small(), torch.randn(4, 1, 64, 40)
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


def test_every_parameter_learns() -> None:
    network = small().train()
    F.cross_entropy(network(torch.randn(4, 1, 64, 64)), torch.arange(4)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
