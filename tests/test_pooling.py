"""Pooling over time, by hand and in the networks that have it."""

import pytest
import torch
from torch import nn

from console.errors import UserError
from models.beats import BEATs
from models.ced import CED
from models.cnn14 import Cnn14
from models.efficientat import EfficientAT
from models.pooling import FRAMEWISE, AttentionHead, AvgMaxPool, FrameHead, GridPool, linear_softmax
from models.resnetish import ResNetish
from models.vggish import VGGish

NETWORKS = {
    "resnetish": lambda **kw: ResNetish(10, n_classes=5, width=4, **kw),
    "vggish": lambda **kw: VGGish(5, 4, **kw),
}
PUBLISHED = {  # networks, and the frames that they make of 128
    "cnn14": lambda **kw: Cnn14(5, width=8, n_mels=64, n_blocks=4, **kw),
    "mn": lambda **kw: EfficientAT(0.1, 5, **kw),
    "ced": lambda **kw: CED(48, 3, 5, depth=1, **kw),
    "beats": lambda **kw: BEATs(5, dim=48, heads=3, depth=1, patch_dim=32, **kw),
}
LAST = {"cnn14": "fc_audioset", "mn": "classifier.5", "ced": "outputlayer.1", "beats": "head"}
FRAMES = {"cnn14": 8, "mn": 4, "ced": 8, "beats": 8}


@pytest.mark.parametrize("size", [(4, 6), (1, 1), (7, 5)])
def test_a_pooling_to_a_grid_is_the_adaptive_one_for_maps_of_any_size(size: tuple[int, int]) -> None:
    for mels, frames in ((1, 1), (2, 3), (4, 6), (5, 7), (16, 40), (9, 131)):
        x = torch.randn(2, 3, mels, frames, generator=torch.Generator().manual_seed(0))
        assert torch.equal(GridPool(size)(x), nn.AdaptiveMaxPool2d(size)(x))
        torch.testing.assert_close(GridPool(size, mean=True)(x), nn.AdaptiveAvgPool2d(size)(x))


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


def test_max_and_linear_softmax_by_hand() -> None:
    """Probabilities of two frames 3/4 and 1/4: the maximum, and (9 + 1) / 16 over 1, which is 5/8."""
    head = FrameHead(1, 1, linear_softmax=False)
    nn.init.ones_(head.classify.weight)
    nn.init.zeros_(head.classify.bias)
    frames = torch.tensor([0.75, 0.25]).logit().view(1, 2, 1)
    torch.testing.assert_close(head(frames).sigmoid(), torch.tensor([[0.75]]))
    torch.testing.assert_close(linear_softmax(frames).sigmoid(), torch.tensor([[0.625]]))


def test_linear_softmax_of_one_frame_is_its_logit_however_large() -> None:
    x = torch.tensor([[[-200.0, -3.0, 0.0, 40.0, 200.0]]])
    torch.testing.assert_close(linear_softmax(x), x[:, 0])
    assert linear_softmax(torch.cat((x, -x), dim=1)).isfinite().all()


@pytest.mark.parametrize("network", PUBLISHED)
@pytest.mark.parametrize("pooling", FRAMEWISE)
def test_published_networks_pool_the_logits_of_their_frames(network: str, pooling: str) -> None:
    """Up to the last layer they are as they were published; attention begins as the mean."""
    torch.manual_seed(0)
    own, built = PUBLISHED[network]().eval(), PUBLISHED[network](pooling=pooling).eval()
    built.load_state_dict({k: v for k, v in own.state_dict().items() if not k.startswith(LAST[network])}, strict=False)
    head = built.get_submodule(LAST[network])
    given: list[torch.Tensor] = []
    head.register_forward_pre_hook(lambda _, frames: given.append(*frames))
    with torch.inference_mode():
        found = built(torch.randn(2, 1, 64, 128))
        logits = head.classify(given[0])
    assert logits.shape == (2, FRAMES[network], 5) and logits.std(dim=1).min() > 0
    expected = {"attention": logits.mean(1), "max": logits.amax(1), "linear_softmax": linear_softmax(logits)}[pooling]
    torch.testing.assert_close(found, expected)
    # the mean over frames is what the published pooling sees
    if network in ("ced", "beats"):
        inner: list[torch.Tensor] = []
        own.get_submodule("dropout").register_forward_pre_hook(lambda _, x: inner.append(*x))
        built.get_submodule("dropout").register_forward_pre_hook(lambda _, x: inner.append(*x))
        with torch.inference_mode():
            x = torch.randn(2, 1, 64, 128)
            own(x), built(x)
        torch.testing.assert_close(inner[1].mean(1), inner[0])


@pytest.mark.parametrize("network", PUBLISHED)
def test_published_networks_refuse_a_pooling_before_the_last_layer(network: str) -> None:
    with pytest.raises(
        UserError, match=r"model\.pooling=avg_max: of ResNetish and VGGish only: use grid or attention, max"
    ):
        PUBLISHED[network](pooling="avg_max")


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pooling", ["avg_max", *FRAMEWISE])
@pytest.mark.parametrize("size", [(64, 500), (40, 33), (8, 3), (1, 1)])
def test_any_input_size(network: str, pooling: str, size: tuple[int, int]) -> None:
    built = NETWORKS[network](pooling=pooling).eval()
    with torch.inference_mode():
        found = built(torch.randn(2, 1, *size))
    assert found.shape == (2, 5) and found.isfinite().all()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pooling", ["grid", "avg_max", *FRAMEWISE])
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
@pytest.mark.parametrize("pooling", ["avg_max", *FRAMEWISE])
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
