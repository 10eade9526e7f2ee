"""Parameters by depth: what comes first, what is the head, and that none is forgotten."""

from functools import partial
from itertools import chain

import pytest
import torch
from torch import nn

from configs.schema import Config, ModelConfig
from models.ast import AST, PaSST
from models.beats import BEATs
from models.build import build_model
from models.ced import CED
from models.efficientat import EfficientAT
from models.parameter_groups import parameter_groups

SMALL = {"n_classes": 3, "dim": 48, "heads": 3, "depth": 2}
TRANSFORMERS = {
    "ced": (partial(CED, **SMALL), 2 + 1),  # patches with positions, then blocks
    "ast": (partial(AST, **SMALL), 2 + 1),
    "passt": (partial(PaSST, **SMALL), 2 + 1),
    "beats": (partial(BEATs, **SMALL, patch_dim=32), 2 + 4),  # patches, projection, convolution, biases
}


def names_of(network: nn.Module) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = parameter_groups(network)
    assert [depth for depth, _ in groups] == list(range(len(groups)))
    found = [[names[id(parameter)] for parameter in parameters] for _, parameters in groups]
    assert sorted(chain(*found)) == sorted(names.values())
    return found


def built(name: str) -> nn.Module:
    return build_model(Config(model=ModelConfig(name=name, width=8 if name.startswith(("res", "cnn")) else 64)), 3)


@pytest.mark.parametrize(
    ("name", "steps", "first", "last"),
    [
        ("resnetish10", 1 + 4, "stem.0.0.weight", "head.2.bias"),
        ("resnetish34", 1 + 16, "stem.0.0.weight", "head.2.bias"),
        ("cnn14", 6 + 1, "bn0.weight", "fc_audioset.bias"),
        ("timm:tf_efficientnet_lite0", 1 + 16, "conv_stem.weight", "classifier.bias"),
        ("timm:mobilenetv4_conv_small_050", None, "conv_stem.weight", "classifier.bias"),
    ],
)
def test_steps_from_the_input_to_the_head(name: str, steps: int | None, first: str, last: str) -> None:
    groups = names_of(built(name))
    assert steps is None or len(groups) == steps + 1
    assert groups[0][0] == first and groups[-1][-1] == last and len(groups[-1]) == 2


def test_vggish_steps_are_its_layers() -> None:
    with torch.device("meta"):
        groups = names_of(built("vggish"))
    assert len(groups) == 6 + 3 + 1 and groups[-1] == ["head.1.weight", "head.1.bias"]


def test_efficientat_has_a_step_for_the_layer_before_the_head() -> None:
    groups = names_of(EfficientAT(0.4, 3))
    assert len(groups) == 17 + 1 + 1
    assert groups[-2:] == [["classifier.2.weight", "classifier.2.bias"], ["classifier.5.weight", "classifier.5.bias"]]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_positions_are_first_and_norms_with_what_they_follow(name: str) -> None:
    build, steps = TRANSFORMERS[name]
    groups = names_of(build())
    assert len(groups) == steps + 1 and len(groups[-1]) == 2
    places = {key: depth for depth, keys in enumerate(groups) for key in keys}
    assert all(places[key] == 0 for key in places if key.endswith(("pos_embed", "_token")) or key.startswith("init_bn"))
    if name != "beats":
        assert places["norm.weight"] == places["blocks.1.mlp.fc2.weight"] == steps - 1


def test_by_hand() -> None:
    """A norm at the front waits for the first layer, one at the end follows; the head is what is called so."""

    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 2)
            self.norm = nn.LayerNorm(2)
            self.a, self.b = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
            self.scale = nn.Parameter(torch.ones(1))

    found = names_of(Mine())
    pairs = [["norm", "a"], ["b.0", "b.1"], ["b.2"], ["head"]]
    expected = [[f"{part}.{kind}" for part in parts for kind in ("weight", "bias")] for parts in pairs]
    assert found == [["scale", *expected[0]], *expected[1:]]
