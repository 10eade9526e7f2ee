"""Networks by name, starting weights from files, and what is said where they do not fit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from configs.errors import UserError
from configs.load import load_configs
from configs.schema import Config, ModelConfig
from models.build import build_model
from models.resnetish import ResNetish

CONFIGS = [cfg for file in sorted(Path("configs").glob("*.yaml")) for cfg in load_configs(file)]
SMALL = ModelConfig(name="resnetish10", width=8)


def state_of(n_classes: int, seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return build_model(SMALL, n_classes).state_dict()


def started_from(file: Path, n_classes: int, name: str = "resnetish10") -> torch.nn.Module:
    return build_model(ModelConfig(name=name, width=8, weights=str(file)), n_classes)


@pytest.mark.parametrize("cfg", CONFIGS, ids=lambda cfg: cfg.name)
def test_every_config_builds_its_model(cfg: Config) -> None:
    model = build_model(cfg.model, 41, start=False).eval()
    frames_per_second = cfg.features.sample_rate / cfg.features.hop_length
    lengths = {round(s * frames_per_second) for s in (cfg.train.crop_seconds, cfg.predict.window_seconds, 1.0)}
    with torch.inference_mode():
        for n_frames in lengths:
            assert model(torch.zeros(2, 1, cfg.features.n_mels, n_frames)).shape == (2, 41)


def test_there_are_configs() -> None:
    assert CONFIGS


@pytest.mark.parametrize("name", ["resnetish10", "resnetish18", "resnetish34", "resnetish50", "vggish", "alexnet"])
def test_every_name_builds(name: str) -> None:
    model = build_model(ModelConfig(name=name, width=8), 3).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, 40, 50)).shape == (1, 3)


@pytest.mark.parametrize("name", ["resnetish", "resnetish9", "resnetish180", "vgg", "timm", ""])
def test_an_unknown_name_is_told_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"known are resnetish10, .*vggish, alexnet, timm:<network>"):
        build_model(ModelConfig(name=name), 3)


def test_own_networks_have_no_published_weights() -> None:
    with pytest.raises(UserError, match="no published weights"):
        build_model(ModelConfig(name="vggish", pretrained=True), 3)


def test_timm_network_with_one_channel() -> None:
    model = build_model(ModelConfig(name="timm:seresnext50_32x4d"), 41).eval()
    assert model.conv1.weight.shape == (64, 1, 7, 7)
    assert model.fc.weight.shape == (41, 2048)
    with torch.inference_mode():
        for size in ((64, 128), (64, 500), (40, 33)):
            assert model(torch.zeros(1, 1, *size)).shape == (1, 41)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("timm:resnet17", "timm has no network 'resnet17'; near it are"),
        ("timm:resnet18.nobody", "cannot build resnet18.nobody .*Invalid pretrained tag"),
        ("timm:vit_tiny_patch16_224", "one size of input only"),
    ],
)
def test_timm_networks_that_cannot_be_built(name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        build_model(ModelConfig(name=name), 3)


def test_timm_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(*_: object, **kwargs: object) -> None:
        assert kwargs["pretrained"]
        raise OSError("no\n route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"no route to host.*model.weights=FILE"):
        build_model(ModelConfig(name="timm:resnet18", pretrained=True), 3)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_local_weights_load(tmp_path: Path, suffix: str, wrapped: bool) -> None:
    state, file = state_of(5), tmp_path / f"start{suffix}"
    if suffix == ".safetensors":
        save_file({f"backbone.{k}": v for k, v in state.items()} if wrapped else state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, file)
    torch.manual_seed(2)
    found = started_from(file, 5).state_dict()
    assert all(torch.equal(found[k], v) for k, v in state.items())
    assert not torch.equal(state_of(5, seed=2)["stem.0.0.weight"], state["stem.0.0.weight"])


def test_a_taggers_own_weights_are_a_start(tmp_path: Path) -> None:
    state = state_of(5)
    extras = {"mean": torch.zeros(4), "std": torch.ones(4), "prior": torch.ones(5) / 5}
    save_file({f"backbone.{k}": v for k, v in state.items()} | extras, tmp_path / "model.safetensors")
    found = started_from(tmp_path / "model.safetensors", 5).state_dict()
    assert all(torch.equal(found[k], v) for k, v in state.items())


def test_a_last_layer_of_another_size_keeps_its_random_start(tmp_path: Path) -> None:
    save_file(state_of(5), tmp_path / "five.safetensors")
    torch.manual_seed(3)
    fresh = ResNetish(10, 7, width=8).state_dict()
    torch.manual_seed(3)
    found = started_from(tmp_path / "five.safetensors", 7).state_dict()
    assert torch.equal(found["head.2.weight"], fresh["head.2.weight"])
    assert torch.equal(found["stages.0.body.0.0.weight"], state_of(5)["stages.0.body.0.0.weight"])


def test_a_timm_file_for_three_colours_and_other_classes(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(1)
    state = timm.create_model("resnet10t", num_classes=1000).state_dict()  # three colours
    torch.save(state, tmp_path / "colour.pth")
    found = build_model(ModelConfig(name="timm:resnet10t", weights=str(tmp_path / "colour.pth")), 41).state_dict()
    torch.testing.assert_close(found["conv1.0.weight"], state["conv1.0.weight"].sum(dim=1, keepdim=True))
    assert torch.equal(found["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    assert found["fc.weight"].shape == (41, 512)


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = state_of(5)
    del state["stages.1.body.0.0.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["stem.0.0.weight"] = torch.zeros(4, 1, 5, 5)
    save_file(state, tmp_path / "odd.safetensors")
    told = (
        r"odd\.safetensors: not the weights of this network: unknown keys extra\.weight; "
        r"missing keys stages\.1\.body\.0\.0\.weight; of another shape keys stem\.0\.0\.weight"
    )
    with pytest.raises(UserError, match=told):
        started_from(tmp_path / "odd.safetensors", 5)


def test_the_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(state_of(5), tmp_path / "resnetish.safetensors")
    with pytest.raises(UserError, match=r"unknown keys .* missing keys"):
        started_from(tmp_path / "resnetish.safetensors", 5, name="vggish")


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"lr": 0.1}, tmp_path / "numbers.pth")
    for name, told in (
        ("text.safetensors", "cannot read"),
        ("numbers.pth", "no state dict"),
        ("no.pth", "cannot read"),
    ):
        with pytest.raises(UserError, match=rf"{name}: .*{told}"):
            started_from(tmp_path / name, 5)


def test_a_trained_state_needs_no_starting_weights() -> None:
    cfg = ModelConfig(name="resnetish10", width=8, weights="gone.safetensors")
    assert isinstance(build_model(cfg, 5, start=False), ResNetish)
