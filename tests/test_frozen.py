"""Frozen networks: what they take, what they give, and what is said where they do not fit."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
from onnx import TensorProto, helper, numpy_helper

from configs.load import load_config
from configs.schema import Config, ModelConfig
from console.errors import UserError
from features.noise_reduction import reduce_noise
from models.build import build_model
from models.frozen import FrozenTagger, OnnxFile, TFLiteFile, build_frozen, wave_network
from runs.clips import FrozenFile, _cut, _of_waves, clip_key, clip_settings
from runs.network_file import network_sha256, parts_of

SAMPLES = 800


def make_onnx(
    file: Path,
    batch: str | int = "batch",
    middle: tuple[int, ...] = (),
    kind: int = TensorProto.FLOAT,
    beside: str | None = None,
) -> Path:
    """embedding (batch, 4) = |wave @ m|, logits (batch, 3), frames (batch, 1, 4). beside: the name of a file for m."""
    rng = np.random.default_rng(0)
    m, head = rng.normal(size=(SAMPLES, 4)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    constants = [numpy_helper.from_array(m, "m"), numpy_helper.from_array(head, "head")]
    constants += [
        numpy_helper.from_array(np.array([-1, SAMPLES]), "flat"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    nodes = [
        helper.make_node("Cast", ["wave"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "flat"], ["x"]),
        helper.make_node("MatMul", ["x", "m"], ["xm"]),
        helper.make_node("Abs", ["xm"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "head"], ["logits"]),
        helper.make_node("Unsqueeze", ["embedding", "one"], ["frames"]),
    ]
    given = helper.make_tensor_value_info("wave", kind, [batch, *middle, SAMPLES])
    shapes = {"embedding": [batch, 4], "logits": [batch, 3], "frames": [batch, 1, 4]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "tiny", [given], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, file, save_as_external_data=bool(beside), location=beside, size_threshold=1000)
    return file


@pytest.mark.parametrize(("batch", "middle"), [("batch", ()), (1, ()), ("batch", (1,))])
def test_an_onnx_file_gives_the_named_output(tmp_path: Path, batch: str | int, middle: tuple[int, ...]):
    network = OnnxFile(str(make_onnx(tmp_path / "a.onnx", batch, middle)), "embedding")
    waves = np.random.default_rng(1).normal(size=(3, SAMPLES)).astype(np.float32)
    m = np.random.default_rng(0).normal(size=(SAMPLES, 4)).astype(np.float32)
    assert network.n_samples == SAMPLES
    np.testing.assert_allclose(network(waves), np.abs(waves @ m), rtol=1e-4)


def test_without_a_name_the_last_output_of_two_dimensions(tmp_path: Path):
    assert OnnxFile(str(make_onnx(tmp_path / "a.onnx")), None).output == "logits"


def test_an_unknown_output_lists_those_that_are_there(tmp_path: Path):
    with pytest.raises(
        UserError, match=r"model\.output: .*no output 'embeding': use one of 3: frames, logits, embedding$"
    ):
        OnnxFile(str(make_onnx(tmp_path / "a.onnx")), "embeding")


def test_a_file_that_takes_no_waveform(tmp_path: Path):
    with pytest.raises(UserError, match=r"is no waveform \(batch, samples\) of float32"):
        OnnxFile(str(make_onnx(tmp_path / "a.onnx", middle=(2,))), None)
    with pytest.raises(UserError, match="is no waveform"):
        OnnxFile(str(make_onnx(tmp_path / "b.onnx", kind=TensorProto.INT32)), None)


@pytest.mark.parametrize("name", ["a.onnx", "a.tflite"])
def test_a_damaged_file(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"no network" * 20)
    with pytest.raises(UserError, match=rf"{name}: cannot read the network \(.*bring the file again$"):
        wave_network(str(tmp_path / name), None)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("a.onnx", "onnxruntime", "onnxruntime"), ("a.tflite", "ai_edge_litert.interpreter", "ai-edge-litert")],
)
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"{package}, which is not installed: .*\.\[frozen\]"):
        wave_network(name, None)


class FakeInterpreter:
    """TFLite's interface: 'inside' (1, 2) is only kept on request. No tool here writes a TFLite file."""

    kept: bool

    def __init__(self, model_path: str, num_threads: int, experimental_preserve_all_tensors: bool = False) -> None:
        self.kept = experimental_preserve_all_tensors

    def allocate_tensors(self) -> None: ...

    def _tensor(self, name: str, index: int, shape: list[int]) -> dict[str, Any]:
        return {"name": name, "index": index, "shape": np.array(shape), "dtype": np.float32}

    def get_input_details(self) -> list[dict[str, Any]]:
        return [self._tensor("wave", 0, [1, SAMPLES])]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [self._tensor("logits", 9, [1, 3])]

    def get_tensor_details(self) -> list[dict[str, Any]]:
        more = [
            self._tensor("weights", 5, [7, 2]),
            self._tensor("inside", 7, [1, 2]),
            self._tensor("map", 8, [1, 2, 2]),
        ]
        return [*self.get_input_details(), *more, *self.get_output_details()]

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        assert (index, value.shape, value.dtype) == (0, (1, SAMPLES), np.float32)
        self.total = float(value.sum())

    def invoke(self) -> None: ...

    def get_tensor(self, index: int) -> np.ndarray:
        assert index == 9 or self.kept
        return np.float32([[self.total, index]])


@pytest.fixture
def tflite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", SimpleNamespace(Interpreter=FakeInterpreter))


@pytest.mark.parametrize(("output", "index"), [(None, 9), ("logits", 9), ("inside", 7), ("7", 7)])
def test_a_tflite_file_gives_an_output_or_a_tensor_inside(tflite: None, output: str | None, index: int):
    network = TFLiteFile("a.tflite", output)
    waves = np.stack([np.zeros(SAMPLES, np.float32), np.ones(SAMPLES, np.float32)])
    assert network(waves).tolist() == [[0, index], [SAMPLES, index]]
    assert network.n_samples == SAMPLES


@pytest.mark.parametrize("output", ["weights", "map", "8"])
def test_a_tensor_that_is_no_embedding_is_refused(tflite: None, output: str):
    with pytest.raises(UserError, match=r"no output '\w+': use one of 3: logits, inside, wave$"):
        TFLiteFile("a.tflite", output)


def test_the_embedding_is_what_the_last_layer_is_given(tmp_path: Path):
    model = ModelConfig(name="resnetish10", width=8)
    torch.manual_seed(0)
    network = build_model(Config(model=model), 5).eval()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    cfg = Config(model=replace(model, name="embedding:resnetish10", weights=str(tmp_path / "a.pth")))
    x, mean, std = torch.randn(2, 1, 64, 100), np.full(64, 0.5, np.float32), np.full(64, 2, np.float32)
    found = FrozenTagger(cfg, mean, std, torch.device("cpu"))(x)
    with torch.no_grad():
        expected = network((x - 0.5) / 2)
        np.testing.assert_allclose(network.head[-1](torch.from_numpy(found)), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "values", "n_frames"),
    [("resnetish10", {"width": 8, "pooling": "attention"}, 100), ("ced_tiny", {}, 2024)],
)
def test_frames_and_pieces_are_averaged(name: str, values: dict[str, Any], n_frames: int, tmp_path: Path):
    """The mean over frames is what attention sees that is not trained; the mean over pieces, each for itself."""
    model = ModelConfig(name=name, **values)
    torch.manual_seed(0)
    network = build_model(Config(model=model), 2).eval()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    cfg = Config(model=replace(model, name=f"embedding:{name}", weights=str(tmp_path / "a.pth")))
    x, zeros = torch.randn(2, 1, 64, n_frames), np.zeros(64, np.float32)
    frozen = FrozenTagger(cfg, zeros, zeros + 1, torch.device("cpu"))
    found = torch.from_numpy(frozen(x))
    with torch.no_grad():
        if name == "ced_tiny":
            np.testing.assert_allclose(found, (frozen(x[..., :1012]) + frozen(x[..., 1012:])) / 2, atol=1e-4)
        else:
            np.testing.assert_allclose(network.head.classify(found), network(x), rtol=1e-3, atol=1e-4)


def test_the_front_end_of_a_checkpoint_comes_with_its_name():
    cfg = load_config(None, ["model.name=embedding:beats_iter3plus", "predict.window_seconds=4"])
    plain = load_config(Path("configs/pretrained/beats_iter3plus.yaml"))
    assert cfg.features == plain.features and cfg.model.weights == plain.model.weights
    assert (cfg.model.name, cfg.predict.window_seconds) == ("embedding:beats", 4.0)
    assert (cfg.train.normalise, cfg.train.fixed_mean) == (plain.train.normalise, plain.train.fixed_mean)
    assert cfg.augment == Config().augment and cfg.train.lr == Config().train.lr


@pytest.mark.parametrize("change", ["width=8", "pooling=attention", "deltas=2", "output=x", "name=embedding:ced_mini"])
def test_another_network_has_another_store(change: str):
    settings, frozen = ["model.name=embedding:ced_tiny", "model.weights=a.pth"], FrozenFile(Path("a.pth"), "0" * 64)
    one, other = (load_config(None, [*settings, *more]) for more in ([], [f"model.{change}"]))
    assert clip_settings(one, frozen) != clip_settings(other, frozen)
    assert clip_key(one, [], [], frozen) != clip_key(other, [], [], frozen)


def test_another_file_of_that_name_makes_no_embeddings(tmp_path: Path):
    (tmp_path / "a.onnx").write_bytes(b"another")
    with pytest.raises(
        UserError, match=r"a\.onnx: is not the file that this run was made with \(sha256 000000000000\)"
    ):
        FrozenFile(tmp_path / "a.onnx", "0" * 64).find()


@pytest.mark.parametrize("name", ["a.onnx.data", "w" * 200])
def test_weights_beside_an_onnx_file_are_part_of_it(tmp_path: Path, name: str):
    file, data = make_onnx(tmp_path / "a.onnx", beside=name), tmp_path / name
    assert parts_of(file) == [file, data] and parts_of(make_onnx(tmp_path / "b.onnx")) == [tmp_path / "b.onnx"]
    frozen = FrozenFile(file, network_sha256(file))
    assert frozen.find() == file and OnnxFile(str(file), "embedding").output == "embedding"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"a\.onnx: is not the file that this run was made with"):
        frozen.find()
    data.unlink()
    with pytest.raises(UserError, match=r"a\.onnx: is not the file that this run was made with"):
        frozen.find()


def test_windows_of_a_short_and_a_long_wave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A short one is repeated, centred; a long one has overlapping windows, of which a batch at a time is in memory."""
    sizes = list[int]()
    monkeypatch.setattr(
        "runs.clips._cut", lambda wave, start, *how: sizes.append(len(start)) or _cut(wave, start, *how)
    )
    waves = [np.random.default_rng(n).uniform(-0.5, 0.5, n).astype(np.float32) for n in (300, 1000)]
    for i, wave in enumerate(waves):
        soundfile.write(tmp_path / f"{i}.wav", wave, 8000, subtype="FLOAT")
    settings = ["model.name=embedding:a.onnx", "model.output=embedding", "input.padding=repeat", "predict.overlap=0.9"]
    settings += ["features.sample_rate=8000", "features.f_max=4000", "predict.window_seconds=0.1"]
    settings += ["predict.batch_size=3"]
    embed = _of_waves(
        load_config(None, settings), [str(tmp_path / f"{i}.wav") for i in (0, 1)], make_onnx(tmp_path / "a.onnx")
    )
    short, long = (found for found, _ in embed(0, 2))
    m = np.random.default_rng(0).normal(size=(SAMPLES, 4)).astype(np.float32)
    np.testing.assert_allclose(short, np.abs(waves[0][(np.arange(-250, 550)) % 300] @ m)[None], rtol=1e-3)
    expected = [waves[1][first : first + SAMPLES] for first in (0, 67, 133, 200)]
    np.testing.assert_allclose(long, np.abs(np.stack(expected) @ m), rtol=1e-3)
    assert sizes == [1, 3, 1]


def test_a_frozen_file_hears_the_wave_with_reduced_noise(tmp_path: Path):
    wave = np.random.default_rng(3).uniform(-0.5, 0.5, SAMPLES).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype="FLOAT")
    settings = ["model.name=embedding:a.onnx", "model.output=embedding", "features.noise_reduction=1.5"]
    settings += ["features.sample_rate=8000", "features.f_max=4000", "predict.window_seconds=0.1"]
    cfg = load_config(None, settings)
    embed = _of_waves(cfg, [str(tmp_path / "a.wav")], make_onnx(tmp_path / "a.onnx"))
    [(found, _)] = embed(0, 1)
    m = np.random.default_rng(0).normal(size=(SAMPLES, 4)).astype(np.float32)
    np.testing.assert_allclose(found, np.abs(reduce_noise(wave, 8000, 1.5) @ m)[None], rtol=1e-3)
    plain = load_config(None, [one for one in settings if "noise" not in one])
    frozen = FrozenFile(tmp_path / "a.onnx", "0" * 64, None)
    assert clip_key(cfg, ["a.wav"], [None], frozen) != clip_key(plain, ["a.wav"], [None], frozen)


def test_no_part_of_a_frozen_network_may_stay_random():
    with pytest.raises(UserError, match=r"partial_weights.*not for embedding:<network>"):
        load_config(None, ["model.name=embedding:resnetish10", "model.weights=a.pth", "model.partial_weights=true"])


@pytest.mark.parametrize("lost", ["stem.0.0.weight", "stages.0.body.0.0.weight"])
def test_weights_that_lack_a_part_of_a_frozen_network_are_refused(
    tmp_path: Path, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing would train it. The last layer is not used."""
    state = build_model(Config(model=ModelConfig(name="resnetish10", width=8)), 5).state_dict()
    torch.save(state, tmp_path / "whole.pth")
    torch.save(state | {lost: torch.zeros(8, 1, 5, 5)}, tmp_path / "other.pth")
    model = ModelConfig(name="embedding:resnetish10", width=8, weights=str(tmp_path / "whole.pth"))
    build_frozen(Config(model=model))
    assert capsys.readouterr().out == ""
    fact = rf"of another shape keys {re.escape(lost)}: a frozen network needs all its weights$"
    with pytest.raises(UserError, match=fact):
        build_frozen(Config(model=replace(model, weights=str(tmp_path / "other.pth"))))


def test_settings_of_embeddings_are_for_embeddings_only():
    with pytest.raises(UserError, match="are for embedding:<network> only"):
        load_config(None, ["model.head=mlp"])
