"""Networks by name, starting weights from files, and errors if they do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from configs.load import load_configs
from configs.schema import Config, FeatureConfig, ModelConfig, TrainConfig
from console.errors import UserError
from models.build import build_model
from models.resnetish import ResNetish

CONFIGS = [cfg for file in sorted(Path("configs").glob("*.yaml")) for cfg in load_configs(file)]
PUBLISHED = FeatureConfig(32_000, 1024, 320, 64, 50.0, 14_000.0, mel_scale="slaney", log_floor=1e-10)
DECIBEL = TrainConfig(normalise="decibel")
BACKBONES = ["resnetish10", "resnetish18", "resnetish34", "resnetish50", "vggish", "alexnet", "cnn14"]


def of(name: str, width: int = 8, **values: object) -> Config:
    return Config(model=ModelConfig(name=name, width=width, **values))  # type: ignore[arg-type]


def state_of(n_classes: int, seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return build_model(of("resnetish10"), n_classes).state_dict()


def started_from(file: Path, n_classes: int, name: str = "resnetish10") -> torch.nn.Module:
    return build_model(of(name, weights=str(file)), n_classes)


TRAINED = [cfg for cfg in CONFIGS if not cfg.model.name.startswith("embedding:")]  # a frozen network is a file


@pytest.mark.parametrize("cfg", TRAINED, ids=lambda cfg: cfg.name)
def test_every_config_builds_its_model(cfg: Config) -> None:
    model = build_model(cfg, 41, start=False).eval()
    frames_per_second = cfg.features.sample_rate / cfg.features.hop_length
    lengths = {round(s * frames_per_second) for s in (cfg.train.crop_seconds, cfg.predict.window_seconds, 1.0)}
    with torch.inference_mode():
        for n_frames in lengths:
            assert model(torch.zeros(2, cfg.model.channels, cfg.features.n_mels, n_frames)).shape == (2, 41)


def test_there_are_configs() -> None:
    assert CONFIGS


@pytest.mark.parametrize("name", [*BACKBONES, "timm:mobilenetv4_conv_small_050"])
@pytest.mark.parametrize("channels", [{}, {"deltas": 2}, {"deltas": 1, "frequency_channel": True}])
def test_every_name_builds_for_any_input_channels(name: str, channels: dict[str, int]) -> None:
    cfg = of(name, **channels)
    model = build_model(cfg, 3).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, cfg.model.channels, 64, 50)).shape == (1, 3)


@pytest.mark.parametrize("pooling", ["avg_max", "attention", "max"])
def test_pooling_is_for_networks_that_give_frames(pooling: str) -> None:
    for name in ("resnetish10", "vggish"):
        found = build_model(of(name, pooling=pooling), 3).state_dict()
        assert ("head.attention.weight" in found) == (pooling == "attention")
    for name in ("alexnet", "ast", "passt", "timm:resnet18"):
        with pytest.raises(UserError, match=rf"model.pooling={pooling}: {name} has .* use model.pooling=grid"):
            build_model(of(name, pooling=pooling), 3)


@pytest.mark.parametrize("name", ["resnetish", "resnetish9", "resnetish180", "vgg", "timm", ""])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"use one of resnetish10, .*vggish, alexnet, cnn14, .*passt, timm:<network>"):
        build_model(of(name), 3)


def test_the_kits_networks_have_no_weights_to_download() -> None:
    with pytest.raises(UserError, match="no weights to download"):
        build_model(of("vggish", pretrained=True), 3)


def test_timm_network_with_one_channel() -> None:
    model = build_model(of("timm:seresnext50_32x4d"), 41).eval()
    assert model.conv1.weight.shape == (64, 1, 7, 7)
    assert model.fc.weight.shape == (41, 2048)
    with torch.inference_mode():
        for size in ((64, 128), (64, 500), (40, 33)):
            assert model(torch.zeros(1, 1, *size)).shape == (1, 41)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet17", "timm has no network 'resnet17': similar names are"),
        ("timm:resnet18.nobody", "cannot build resnet18.nobody .*Invalid pretrained tag"),
        ("timm:vit_tiny_patch16_224", "it has a fixed input size"),
    ],
)
def test_timm_networks_that_cannot_be_built(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(of(name), 3)


def test_timm_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(*_: object, **kwargs: object) -> None:
        assert kwargs["pretrained"]
        raise OSError("no\n route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"no route to host.*model.weights=FILE"):
        build_model(of("timm:resnet18", pretrained=True), 3)


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


def test_a_taggers_own_weights_can_be_starting_weights(tmp_path: Path) -> None:
    state = state_of(5)
    extras = {"mean": torch.zeros(4), "std": torch.ones(4), "prior": torch.ones(5) / 5}
    save_file({f"backbone.{k}": v for k, v in state.items()} | extras, tmp_path / "model.safetensors")
    found = started_from(tmp_path / "model.safetensors", 5).state_dict()
    assert all(torch.equal(found[k], v) for k, v in state.items())


@pytest.mark.parametrize(
    "keys", [(), ("state_dict",), ("model_state_dict",), ("model",), ("checkpoint", "net"), ("net", "state_dict")]
)
@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "model._orig_mod.module.", "student.encoder."],
)
def test_weights_of_a_wrapped_network_load(tmp_path: Path, keys: tuple[str, ...], prefix: str) -> None:
    """As DataParallel, torch.compile and a LightningModule name them, nested in a checkpoint as it is common."""
    state = state_of(5)
    held: dict[str, Any] = {prefix + k: v for k, v in state.items()}
    for key in reversed(keys):
        held = {"epoch": 3, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}, key: held}
    torch.save(held, tmp_path / "start.ckpt")
    found = started_from(tmp_path / "start.ckpt", 5).state_dict()
    assert all(torch.equal(found[k], v) for k, v in state.items())


def test_a_lightning_checkpoint_loads(tmp_path: Path) -> None:
    """With settings, a best score, a parameter of the loss, and a head of another name."""
    import argparse

    state = {f"model.{k}": v for k, v in state_of(5).items() if not k.startswith("head.")}
    state |= {"classifier.weight": torch.zeros(2, 2), "loss.weight": torch.ones(5)}
    facts = {
        "hyper_parameters": argparse.Namespace(lr=0.1),
        "callbacks": {"best": np.float64(0.5), "at": np.float32(1)},
    }
    torch.save({"epoch": 3, "state_dict": state, **facts}, tmp_path / "last.ckpt")
    found = started_from(tmp_path / "last.ckpt", 5).state_dict()
    assert torch.equal(found["stages.0.body.0.0.weight"], state_of(5)["stages.0.body.0.0.weight"])


def test_a_part_that_was_wrapped_and_an_average_load(tmp_path: Path) -> None:
    state = state_of(5)
    wrapped = {k.replace("stages.", "stages.module.", 1): v for k, v in state.items()}
    averaged = torch.optim.swa_utils.AveragedModel(started_from_nothing(state)).state_dict()
    for number, held in enumerate((wrapped, averaged)):
        torch.save(held, tmp_path / f"{number}.pth")
        found = started_from(tmp_path / f"{number}.pth", 5).state_dict()
        assert all(torch.equal(found[k], v) for k, v in state.items())


def started_from_nothing(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    network = build_model(of("resnetish10"), 5)
    network.load_state_dict(state)
    return network


def test_two_networks_in_one_file_are_an_error(tmp_path: Path) -> None:
    state = state_of(5)
    torch.save({f"{who}.{k}": v for who in ("teacher", "student") for k, v in state.items()}, tmp_path / "two.pth")
    with pytest.raises(UserError, match=r"two\.pth: several networks match, under 2: teacher\., student\."):
        started_from(tmp_path / "two.pth", 5)
    torch.save(state | {f"module.{k}": v for k, v in state.items()}, tmp_path / "both.pth")
    with pytest.raises(UserError, match=r"both\.pth: weights appear twice, with and without wrapper"):
        started_from(tmp_path / "both.pth", 5)


@pytest.mark.parametrize(
    "odd",
    [
        torch.full((8, 1, 7, 7), torch.nan),
        torch.full((8, 1, 7, 7), 1e300, dtype=torch.float64),
        torch.zeros(8, 1, 7, 7, dtype=torch.int8),
        torch.zeros(8, 1, 7, 7, dtype=torch.complex64),
        torch.zeros(8, 1, 7, 7).to_sparse(),
        torch.zeros(8, 1, 7, 7, device="meta"),
    ],
    ids=["nan", "infinite", "integers", "complex", "sparse", "meta"],
)
def test_tensors_that_cannot_be_weights_are_errors(tmp_path: Path, odd: torch.Tensor) -> None:
    torch.save(state_of(5) | {"stem.0.0.weight": odd}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"odd\.pth: (not starting weights: .* in stem\.0\.0\.weight|cannot read)"):
        started_from(tmp_path / "odd.pth", 5)


def test_half_precision_and_wrapped_cnn14_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its front-end is found inside the wrapper."""
    state = published(5)
    torch.save({"model": {f"module.{k}": v.half() for k, v in state.items()}}, tmp_path / "cnn14.pth")
    found = build_model(cnn14_from(tmp_path / "cnn14.pth"), 5).state_dict()
    assert torch.equal(found["fc1.weight"], state["fc1.weight"].half().float()) and capsys.readouterr().err == ""
    build_model(cnn14_from(tmp_path / "cnn14.pth", features=FeatureConfig()), 5)
    assert "trained with other features" in capsys.readouterr().err


def test_a_last_layer_of_another_size_keeps_its_random_start(tmp_path: Path) -> None:
    save_file(state_of(5), tmp_path / "five.safetensors")
    torch.manual_seed(3)
    fresh = ResNetish(10, 7, width=8).state_dict()
    torch.manual_seed(3)
    found = started_from(tmp_path / "five.safetensors", 7).state_dict()
    assert torch.equal(found["head.2.weight"], fresh["head.2.weight"])
    assert torch.equal(found["stages.0.body.0.0.weight"], state_of(5)["stages.0.body.0.0.weight"])


@pytest.mark.parametrize("deltas", [0, 1, 2])
def test_a_timm_file_for_three_colours_and_other_classes(tmp_path: Path, deltas: int) -> None:
    """The same input in all channels has the answer that it had in all colours."""
    import timm

    torch.manual_seed(1)
    state = timm.create_model("resnet10t", num_classes=1000).state_dict()  # three colours
    torch.save(state, tmp_path / "colour.pth")
    cfg = of("timm:resnet10t", weights=str(tmp_path / "colour.pth"), deltas=deltas)
    found = build_model(cfg, 41).state_dict()
    there, kernel, x = state["conv1.0.weight"], found["conv1.0.weight"], torch.randn(2, 1, 16, 16)
    assert kernel.shape[1] == 1 + deltas
    expected = torch.nn.functional.conv2d(x.expand(-1, 3, -1, -1), there)
    torch.testing.assert_close(torch.nn.functional.conv2d(x.expand(-1, 1 + deltas, -1, -1), kernel), expected)
    if deltas == 2:
        assert torch.equal(kernel, there)
    assert torch.equal(found["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    assert found["fc.weight"].shape == (41, 512)


def test_weights_for_one_channel_work_with_more(tmp_path: Path) -> None:
    """The output at the start does not depend on the other channels."""
    save_file(state_of(5), tmp_path / "one.safetensors")
    cfg = of("resnetish10", weights=str(tmp_path / "one.safetensors"), deltas=2)
    old, new = build_model(of("resnetish10"), 5).eval(), build_model(cfg, 5).eval()
    old.load_state_dict(state_of(5))
    x = torch.randn(2, 3, 32, 40)
    with torch.inference_mode():
        torch.testing.assert_close(new(x), old(x[:, :1]))


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = state_of(5)
    del state["stages.1.body.0.0.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["stages.0.body.0.0.weight"] = torch.zeros(4, 8, 3, 3)
    state["stem.0.0.weight"] = torch.zeros(4, 1, 5, 5)  # of another shape alone it would do
    save_file(state, tmp_path / "odd.safetensors")
    message = (
        r"odd\.safetensors: not the weights of this network: unknown keys extra\.weight; "
        r"missing keys stages\.1\.body\.0\.0\.weight; of another shape keys stages\.0\.body\.0\.0\.weight: "
        r"use model\.partial_weights=true"
    )
    with pytest.raises(UserError, match=message):
        started_from(tmp_path / "odd.safetensors", 5)


def test_a_first_layer_of_another_shape_keeps_its_random_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the last layer does; one line names both."""
    file = tmp_path / "five.safetensors"
    save_file(state_of(5) | {"stem.0.0.weight": torch.zeros(8, 1, 5, 5)}, file)
    torch.manual_seed(3)
    fresh = ResNetish(10, 7, width=8).state_dict()
    for _ in range(2):
        torch.manual_seed(3)
        found = started_from(file, 7).state_dict()
    random = ["head.2.bias", "head.2.weight", "stem.0.0.weight"]
    there = state_of(5)
    assert all(torch.equal(found[k], fresh[k] if k in random else there[k]) for k in found)
    line = f"{file}: starts at random, not from this file: 3: {', '.join(random)}\n"
    assert capsys.readouterr() == (line, ""), "once"


def test_nothing_is_said_where_all_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(state_of(5), tmp_path / "all.safetensors")
    started_from(tmp_path / "all.safetensors", 5)
    assert capsys.readouterr() == ("", "")


def test_what_fits_is_taken_where_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt layer, one of another shape, one that is missing."""
    state, file = state_of(5), tmp_path / "part.safetensors"
    state["stages.0.bodi.0.0.weight"] = state.pop("stages.0.body.0.0.weight")
    state["stages.1.body.0.0.weight"] = torch.zeros(4, 4, 3, 3)
    del state["head.2.bias"]
    save_file(state, file)
    torch.manual_seed(3)
    fresh = ResNetish(10, 5, width=8).state_dict()
    torch.manual_seed(3)
    cfg = of("resnetish10", weights=str(file), partial_weights=True)
    found = build_model(cfg, 5).state_dict()
    random = ["head.2.bias", "stages.0.body.0.0.weight", "stages.1.body.0.0.weight"]
    assert all(torch.equal(found[k], fresh[k] if k in random else state[k]) for k in found)
    assert capsys.readouterr().out == (
        f"{file}: starts at random, not from this file: 3: {', '.join(random)}; not used: stages.0.bodi.0.0.weight\n"
    )
    with pytest.raises(UserError, match=r"part\.safetensors: no weight in it fits this network"):
        build_model(of("vggish", weights=str(file), partial_weights=True), 5)


def test_the_weights_of_another_network_are_an_error(tmp_path: Path) -> None:
    save_file(state_of(5), tmp_path / "resnetish.safetensors")
    with pytest.raises(UserError, match=r"unknown keys .* missing keys"):
        started_from(tmp_path / "resnetish.safetensors", 5, name="vggish")


def test_files_without_weights_are_errors(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"lr": 0.1}, tmp_path / "numbers.pth")
    torch.save({3: torch.zeros(1)}, tmp_path / "numbered.pth")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "whole.pth")
    for name, message in (
        ("text.safetensors", "cannot read"),
        ("numbers.pth", "no state dict"),
        ("numbered.pth", "no state dict"),
        (
            "whole.pth",
            r"cannot read .*objects that may run code \(torch\.nn\.modules\.linear\.Linear\): save .*state_dict",
        ),
        ("no.pth", "cannot read"),
    ):
        with pytest.raises(UserError, match=rf"{name}: .*{message}"):
            started_from(tmp_path / name, 5)


def test_a_trained_state_needs_no_starting_weights() -> None:
    cfg = of("resnetish10", weights="gone.safetensors")
    assert isinstance(build_model(cfg, 5, start=False), ResNetish)


# CNN14 and its published weights


def published(n_classes: int = 527, w: int = 8, n_fft: int = 1024) -> dict[str, torch.Tensor]:
    """Random weights with the names of Cnn14_mAP=0.431.pth, written here and not taken from our network."""
    rng = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        f"spectrogram_extractor.stft.conv_{part}.weight": (n_fft // 2 + 1, 1, n_fft) for part in ("real", "imag")
    }
    shapes |= {"logmel_extractor.melW": (n_fft // 2 + 1, 64)}
    norms = {"bn0": 64}
    for i in range(6):
        n_in, n_out = (1 if i == 0 else w * 2 ** (i - 1)), w * 2**i
        shapes |= {f"conv_block{i + 1}.conv1.weight": (n_out, n_in, 3, 3)}
        shapes |= {f"conv_block{i + 1}.conv2.weight": (n_out, n_out, 3, 3)}
        norms |= {f"conv_block{i + 1}.bn{j}": n_out for j in (1, 2)}
    for name, n in norms.items():
        shapes |= {f"{name}.{part}": (n,) for part in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {"fc1.weight": (32 * w, 32 * w), "fc1.bias": (32 * w,)}
    shapes |= {"fc_audioset.weight": (n_classes, 32 * w), "fc_audioset.bias": (n_classes,)}
    counts = {f"{name}.num_batches_tracked": torch.tensor(7) for name in norms}
    return {name: torch.rand(shape, generator=rng) for name, shape in shapes.items()} | counts


def cnn14_from(file: Path, **values: object) -> Config:
    cfg = {"features": PUBLISHED, "train": DECIBEL} | values
    return Config(model=ModelConfig(name="cnn14", width=8, weights=str(file)), **cfg)  # type: ignore[arg-type]


@pytest.mark.parametrize("zipped", [True, False])
def test_published_cnn14_weights_load(tmp_path: Path, capsys: pytest.CaptureFixture[str], zipped: bool) -> None:
    """In a checkpoint with other values, also of old versions of PyTorch; the head of 527 classes is replaced."""
    state, file = published(), tmp_path / "Cnn14_mAP=0.431.pth"
    checkpoint = {"iteration": 600_000, "model": state, "sampler": {"indexes": np.arange(9), "pointer": 3}}
    torch.save(checkpoint, file, _use_new_zipfile_serialization=zipped)
    found = build_model(cnn14_from(file), 5).state_dict()
    loaded = [k for k in state if k in found and not k.startswith("fc_audioset")]
    assert len(loaded) == len(state) - 5 and all(torch.equal(found[k], state[k]) for k in loaded)
    assert set(found) == {*loaded, "fc_audioset.weight", "fc_audioset.bias"}
    assert found["fc_audioset.weight"].shape == (5, 256)
    assert capsys.readouterr().err == "", "and the features are the published ones"
    for key, value in build_model(cnn14_from(file), 527).state_dict().items():
        assert torch.equal(value, state[key]), "for its own classes the last layer too"


def test_other_features_than_cnn14s_are_a_warning_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cnn14.pth"
    torch.save({"model": published()}, file)
    cfg = cnn14_from(file, features=FeatureConfig(sample_rate=32_000, f_max=14_000.0), train=TrainConfig())
    for _ in range(2):  # a fold is built after the check
        build_model(cfg, 5)
    assert capsys.readouterr().err == (
        f"warning: {file}: trained with other features, so it helps less: features.hop_length=441 is not 320; "
        "features.f_min=0.0 is not 50.0; features.mel_scale=htk is not slaney; features.log_floor=1e-06 is not 1e-10; "
        "train.normalise=per_mel is not decibel\n"
    )
    build_model(cfg, 5, start=False)
    assert capsys.readouterr().err == ""


def test_the_front_end_of_the_file_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": published(n_fft=512)}, tmp_path / "Cnn14_16k.pth")
    cfg = FeatureConfig(16_000, 512, 160, 64, 50.0, 8_000.0, mel_scale="slaney", log_floor=1e-10)
    build_model(cnn14_from(tmp_path / "Cnn14_16k.pth", features=cfg), 5)
    assert capsys.readouterr().err == ""
    build_model(cnn14_from(tmp_path / "Cnn14_16k.pth"), 5)
    assert "features.sample_rate=32000 is not 16000" in capsys.readouterr().err


def test_a_run_folders_cnn14_was_trained_with_its_own_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {k: v for k, v in published(5).items() if "_extractor" not in k}
    save_file({f"backbone.{k}": v for k, v in state.items()}, tmp_path / "model.safetensors")
    build_model(cnn14_from(tmp_path / "model.safetensors", features=FeatureConfig()), 5)
    assert capsys.readouterr().err == ""


def test_only_cnn14_knows_the_front_end_and_similar_networks_are_errors(tmp_path: Path) -> None:
    extra = {k: v for k, v in published().items() if "_extractor" in k}
    torch.save(state_of(5) | extra, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"unknown keys 3: logmel_extractor\.melW"):
        started_from(tmp_path / "odd.pth", 5)
    relative = {k: v for k, v in published().items() if not k.startswith("conv_block6")}
    torch.save({"model": relative | {"att_block.att.weight": torch.zeros(1)}}, tmp_path / "relative.pth")
    with pytest.raises(
        UserError, match=r"unknown keys att_block\.att\.weight; missing keys 10: conv_block6\.bn1\.bias"
    ):
        build_model(cnn14_from(tmp_path / "relative.pth"), 5)
    torch.save({"model": published(w=16)}, tmp_path / "wide.pth")
    with pytest.raises(UserError, match="of another shape keys"):
        build_model(cnn14_from(tmp_path / "wide.pth"), 5)
