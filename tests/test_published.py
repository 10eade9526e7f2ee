"""Networks against their authors' code: the same random weights under the published names, the same logits."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from configs.schema import Config, FeatureConfig, ModelConfig
from console.errors import UserError
from models.ast import AST, PaSST, resized
from models.beats import BEATs
from models.build import NETWORKS, build_model
from models.ced import CED
from models.starting_weights import load_weights, read_state
from tests.published import log_mel, published_state, read_reference

SMALL = {"dim": 48, "heads": 3, "depth": 2}
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "mn04_as": NETWORKS["mn04_as"],
    "mn10_as": NETWORKS["mn10_as"],
    "cnn10": NETWORKS["cnn10"],
    "ced_depth2": partial(CED, **SMALL),
    "ast_depth2": partial(AST, **SMALL),  # the file of transformers
    "ast_tiny": partial(AST, dim=192, heads=3),  # the authors' file
    "beats_depth2": partial(BEATs, **SMALL, patch_dim=32),
    "passt_depth2": partial(PaSST, **SMALL),
}
SMALLER = [name for name in BUILDERS if name not in ("mn10_as", "ast_tiny")]


def state_of(reference: str) -> dict[str, torch.Tensor]:
    state = published_state(read_reference(reference).shapes)
    if reference.startswith("beats"):  # all layers share one table
        table = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
        state[table.format(1)] = state[table.format(0)]
    return state


@pytest.mark.parametrize("name", BUILDERS)
def test_logits_are_those_of_the_authors(name: str) -> None:
    reference = read_reference(name)
    network = BUILDERS[name](n_classes=527).eval()
    load_weights(network, state_of(name), name)
    for case, shape in reference.inputs.items():
        expected = torch.from_numpy(reference.logits[case])
        with torch.inference_mode():
            found = network(log_mel(shape))
        assert found.shape[1] == 527
        torch.testing.assert_close(found[:, : expected.shape[1]], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SMALLER)
def test_other_classes_replace_only_the_last_layer(name: str) -> None:
    """And two more input channels, which answer nothing at first."""
    torch.manual_seed(0)
    whole = BUILDERS[name](n_classes=527).eval()
    load_weights(whole, state_of(name), name)
    other = BUILDERS[name](n_classes=5, in_channels=3).eval()
    load_weights(other, state_of(name), name)
    changed = [k for k, v in other.state_dict().items() if v.shape != whole.state_dict()[k].shape]
    head = getattr(whole, "HEAD", "head")
    assert len(changed) == 3 and changed[1:] == [f"{head}.weight", f"{head}.bias"]
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in other.state_dict().items() if k not in changed)


def test_a_run_folders_own_names_load_too() -> None:
    for name in SMALLER:
        build = BUILDERS[name]
        state = build(n_classes=5).state_dict()
        found = build(n_classes=5)
        load_weights(found, {f"backbone.{k}": v.clone() for k, v in state.items()}, name)
        assert all(torch.equal(v, state[k]) for k, v in found.state_dict().items())


@pytest.mark.parametrize("name", SMALLER)
def test_keys_that_do_not_fit_are_named(name: str) -> None:
    state = state_of(name)
    state["odd.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"^file: not the weights of this network: unknown keys odd\.weight: use model"):
        load_weights(BUILDERS[name](n_classes=527), state, "file")
    del state["odd.weight"]
    key = next(k for k, v in state.items() if v.dim() == 1 and k.endswith(".weight"))
    del state[key]
    with pytest.raises(UserError, match=r"^file: not the weights of this network: missing keys \S+: use model"):
        load_weights(BUILDERS[name](n_classes=527), state, "file")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mn04_as", 983_599),
        ("mn10_as", 4_876_831),
        ("mn40_as", 68_427_303),
        ("cnn10", 5_219_279),
        ("ced_tiny", 5_503_183),
        ("ced_base", 85_711_759),
        ("beats", 90_717_055),
        ("passt", 86_153_758 - 769 * 527),  # less its second head, which answers nothing
    ],
)
def test_parameters_are_the_published_ones(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in NETWORKS[name](n_classes=527).parameters()) == parameters


@pytest.mark.parametrize("name", ["mn04_as", "cnn10", "ced_tiny"])
def test_names_build_from_a_config(tmp_path: Path, name: str) -> None:
    weights = None
    if name in BUILDERS:
        weights = str(tmp_path / "file.pt")
        torch.save(state_of(name), weights)
    mels = 128 if name == "mn04_as" else 64
    cfg = Config(model=ModelConfig(name=name, weights=weights, deltas=1), features=FeatureConfig(n_mels=mels))
    network = build_model(cfg, 41).train()
    network(torch.randn(2, 2, mels, 200)).sum().backward()
    assert [k for k, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", SMALLER)
@pytest.mark.parametrize("n_frames", [33, 1100])
def test_any_length_and_every_parameter_learns(name: str, n_frames: int) -> None:
    torch.manual_seed(0)
    network = BUILDERS[name](n_classes=3).train()
    mels = 64 if name.startswith(("ced", "cnn")) else 128
    logits = network(torch.randn(2, 1, mels, n_frames))
    assert logits.shape == (2, 3) and logits.isfinite().all()
    logits.sum().backward()
    assert [k for k, p in network.named_parameters() if p.grad is None] == []


def test_positions_by_hand() -> None:
    """Four of seven steps are those from 3 - 2 = 1 on, as the authors of AST cut; twice as many lie between."""
    table = torch.arange(7.0).view(1, 1, 1, 7)
    assert resized(table, 3, 4).flatten().tolist() == [1, 2, 3, 4]
    assert resized(table, 3, 4, start=2).flatten().tolist() == [2, 3, 4, 5]
    assert torch.equal(resized(table, 3, 7), table)
    assert resized(table, 3, 14).flatten()[:4].tolist() == [0, 0.25, 0.75, 1.25]
    assert resized(table.transpose(2, 3), 2, 3).flatten().tolist() == [2, 3, 4]


def test_a_clip_in_pieces_has_the_mean_probability() -> None:
    network = CED(n_classes=3, **SMALL).eval()
    x = torch.randn(1, 1, 64, 2 * 1012)
    with torch.inference_mode():
        pieces = torch.cat([network(x[..., :1012]), network(x[..., 1012:])]).sigmoid()
        torch.testing.assert_close(network(x).sigmoid(), pieces.mean(0, keepdim=True))
        network.outputlayer[1].bias.fill_(200)  # a probability of 1 in fp32
        assert network(x).isfinite().all()


def test_beats_with_other_settings_is_an_error(tmp_path: Path) -> None:
    cfg = {"max_distance": 1280, "num_buckets": 320, "deep_norm": True, "layer_norm_first": False}
    torch.save({"cfg": cfg, "model": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: not the weights of this network: max_distance=1280 is not 800$"):
        read_state(tmp_path / "other.pt")
    state = state_of("beats_depth2")
    torch.save({"cfg": cfg | {"max_distance": 800}, "model": state, "label_dict": {0: "x"}}, tmp_path / "beats.pt")
    assert set(read_state(tmp_path / "beats.pt")) == set(state)
