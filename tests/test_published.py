"""Networks against their authors' code: the same random weights under the published names, the same logits."""

from pathlib import Path

import pytest
import torch

from configs.schema import Config, FeatureConfig, ModelConfig
from models.build import NETWORKS, build_model
from models.starting_weights import load_weights
from tests.published import log_mel, published_state, read_reference

REFERENCES = {"mn04_as": "mn04_as", "mn10_as": "mn10_as", "cnn10": "cnn10"}


@pytest.mark.parametrize("reference", REFERENCES)
def test_logits_are_those_of_the_authors(reference: str) -> None:
    published = read_reference(reference)
    network = NETWORKS[REFERENCES[reference]](n_classes=527).eval()
    load_weights(network, published_state(published.shapes), reference)
    for name, shape in published.inputs.items():
        with torch.inference_mode():
            found = network(log_mel(shape))
        expected = torch.from_numpy(published.logits[name])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", ["mn04_as"])
def test_every_tensor_of_the_file_is_loaded(tmp_path: Path, name: str) -> None:
    """As anybody starts from it, for other classes and with two more channels: only the last layer is new."""
    state = published_state(read_reference(name).shapes)
    torch.save(state, tmp_path / "file.pt")
    model = ModelConfig(name=name, weights=str(tmp_path / "file.pt"), deltas=2)
    found = build_model(Config(model=model, features=FeatureConfig(n_mels=128)), 41).state_dict()
    other = [key for key, value in state.items() if not torch.equal(found[key], value)]
    assert other == ["features.0.0.weight", "classifier.5.weight", "classifier.5.bias"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("mn04_as", 983_599), ("mn10_as", 4_876_831), ("mn40_as", 68_427_303), ("cnn10", 5_219_279)],
)
def test_parameters_are_the_published_ones(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in NETWORKS[name](n_classes=527).parameters()) == parameters
