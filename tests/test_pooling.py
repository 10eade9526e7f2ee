"""Pooling over time, by hand and in the networks that have it."""

import pytest
import torch
from torch import nn

from models.pooling import AttentionHead, AvgMaxPool
from models.resnetish import ResNetish
from models.vggish import VGGish

NETWORKS = {
    "resnetish": lambda **kw: ResNetish(10, n_classes=5, width=4, **kw),
    "vggish": lambda **kw: VGGish(5, 4, **kw),
}


def test_avg_max_by_hand() -> None:
    """One clip, one channel, two mels, three frames: means over mels 2, 4, 9, of which the maximum is 9, the mean 5."""
    x = torch.tensor([[[[1.0, 8.0, 9.0], [3.0, 0.0, 9.0]]]])
    assert AvgMaxPool()(x).tolist() == [[14.0]]


def test_attention_by_hand() -> None:
    """Two frames of one channel, 0 and 1. Class a attends with weights 1/4, 3/4, class b evenly."""
    head = AttentionHead(1, 2)
    with torch.no_grad():
        head.attention.weight.copy_(torch.tensor([[3.0], [1.0]]).log())
        head.classify.weight.copy_(torch.tensor([[8.0], [-4.0]]))
        head.classify.bias.copy_(torch.tensor([1.0, 0.0]))
    logits = head(torch.tensor([[[0.0], [1.0]]]))
    torch.testing.assert_close(logits, torch.tensor([[1 / 4 * 1 + 3 / 4 * 9, (0 - 4) / 2]]))


def test_attention_begins_as_the_mean_and_learns_to_attend() -> None:
    torch.manual_seed(0)
    head, x = AttentionHead(6, 3), torch.randn(4, 7, 6)
    torch.testing.assert_close(head(x), head.classify(x.mean(dim=1)))
    nn.functional.cross_entropy(head(x), torch.tensor([0, 1, 2, 0])).backward()
    assert head.attention.weight.grad is not None and head.attention.weight.grad.abs().max() > 0


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pooling", ["avg_max", "attention"])
@pytest.mark.parametrize("size", [(64, 500), (40, 33), (8, 3), (1, 1)])
def test_any_input_size(network: str, pooling: str, size: tuple[int, int]) -> None:
    built = NETWORKS[network](pooling=pooling).eval()
    with torch.inference_mode():
        found = built(torch.randn(2, 1, *size))
    assert found.shape == (2, 5) and found.isfinite().all()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pooling", ["grid", "avg_max", "attention"])
def test_only_a_grid_keeps_the_position_in_time(network: str, pooling: str) -> None:
    """Without a grid, the order of the frames does not change the logits."""
    torch.manual_seed(0)
    built = NETWORKS[network](pooling=pooling).eval()
    for p in built.head.parameters():
        nn.init.normal_(p)  # else attention is even
    cells = torch.randn(1, 32, 4, 6)

    def answer(x: torch.Tensor) -> torch.Tensor:
        if network == "resnetish":
            return built.head(built.pool(x))
        at = next(i for i, m in enumerate(built.features) if not isinstance(m, nn.Conv2d | nn.ReLU | nn.MaxPool2d))
        return built.head(built.embedding(built.features[at:](x)))

    with torch.inference_mode():
        alike = torch.allclose(answer(cells), answer(cells.flip(3)), atol=1e-4)
    assert alike == (pooling != "grid")


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pooling", ["avg_max", "attention"])
def test_every_parameter_learns_and_the_first_loss_is_plausible(network: str, pooling: str) -> None:
    torch.manual_seed(0)
    built = NETWORKS[network](pooling=pooling).train()
    logits = built(torch.randn(8, 1, 40, 50))
    assert logits.abs().max() < 30
    nn.functional.cross_entropy(logits, torch.arange(8) % 5).backward()
    still = [name for name, p in built.named_parameters() if p.grad is None or not p.grad.any()]
    assert still in ([], ["head.attention.bias"])  # a weight that is the same everywhere changes nothing


def test_the_grid_keeps_its_names() -> None:
    """Run folders of earlier versions load."""
    assert {k for k in ResNetish(10, 5, 4).state_dict() if k.startswith("head")} == {"head.2.weight", "head.2.bias"}
    found = [k for k in VGGish(5, 4).state_dict() if not k.startswith("features")]
    assert found == [f"embedding.{i}.{p}" for i in (0, 2, 4) for p in ("weight", "bias")] + [
        "head.1.weight",
        "head.1.bias",
    ]
