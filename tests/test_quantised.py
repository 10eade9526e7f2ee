"""Prediction in eight bits: nearly PyTorch's answers, by sounds that are spread over all clips."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import models.quantised
from configs.paths import Paths
from configs.schema import PredictConfig
from console.errors import UserError
from input.competition import load_competition
from models.engine import EngineChoice, Torch
from models.engine_openvino import OpenVino
from models.inference import first_batches, predict_clips
from models.openvino_conversion import ConversionError
from models.quantised import split
from runs.converted import write_converted
from runs.run_folder import read_trained
from submission.bundle import bundle
from submission.kernel_predict import predict
from tests.conftest import MakeStore
from tests.test_engine import CFG, N_MELS, SMALL, some_clips, spread_out, tagger_of

pytest.importorskip("openvino", reason="OpenVINO is an optional package")
pytest.importorskip("nncf", reason="NNCF is an optional package")


def test_a_network_in_eight_bits_answers_nearly_as_pytorch(
    make_store: MakeStore, capfd: pytest.CaptureFixture[str]
) -> None:
    batches, rows = some_clips(make_store), np.arange(6)
    tagger, choice = spread_out(tagger_of(SMALL["resnetish"]()), batches), EngineChoice("int8")
    first, n = first_batches(batches, np.resize(rows, 60), replace(CFG, batch_size=40))
    forward = choice.forward("kind", tagger, first, n, "bf16")
    assert isinstance(forward, OpenVino) and choice.chosen == {"kind": "int8"}
    assert any("FakeQuantize" in op.get_type_name() for op in forward.models[32].get_ops()), "else nothing was rounded"
    here, there = (predict_clips(tagger, batches, rows, CFG, "fp32", forward=way) for way in (forward, Torch(tagger)))
    np.testing.assert_allclose(here, there, atol=0.05)
    assert np.abs(here - there).max() > 1e-5, "the same numbers would not be of eight bits"
    told = capfd.readouterr()
    assert (
        "OpenVINO in eight bits: the first 3 classes change in " in told.out and "Statistics" not in told.out + told.err
    )


def test_what_openvino_gets_is_left_as_it_is(make_store: MakeStore) -> None:
    """In eight bits it computes the first layer in the memory of its input."""
    x = first_batches(some_clips(make_store), np.arange(6), PredictConfig(3.2, batch_size=14))[0][0]
    tagger, before = tagger_of(SMALL["resnetish"]()), x.clone()
    way = OpenVino(tagger, int8=True)
    answers = [torch.cat(list(way([x], "fp32"))) for _ in range(3)]
    assert torch.equal(x, before) and torch.equal(answers[0], answers[2])


def test_the_windows_that_show_the_range_are_spread_over_all_clips(make_store: MakeStore) -> None:
    """Clips 0 to 9 of one window each, whose number stands in every frame; four windows are of clips 0, 2, 5 and 7."""
    batches = some_clips(lambda _: make_store([np.full((32, N_MELS), i) for i in range(10)]))  # type: ignore[arg-type]
    first, n = first_batches(batches, np.arange(10), CFG)
    assert first[0][:, 0, 0, 0].tolist() == [0, 2, 5, 7] and n == 3


def test_a_head_on_embeddings_is_left_in_full(make_store: MakeStore) -> None:
    tagger = tagger_of(OneFrame())
    x, told = torch.randn(40, 1, N_MELS, 1), "int8"  # the name of what was asked for, by which answers are found again
    choice = EngineChoice("int8")
    assert isinstance(way := choice.forward("kind", tagger, [x], 1, "fp32"), OpenVino) and not way.int8
    assert choice.chosen == {"kind": told}


class OneFrame(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(N_MELS, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x[:, 0, :, 0])  # type: ignore[no-any-return]


def test_a_network_that_eight_bits_spoil_is_left_to_pytorch(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batches = some_clips(make_store)
    tagger = spread_out(tagger_of(SMALL["resnetish"]()), batches)
    first, n = first_batches(batches, np.resize(np.arange(6), 60), replace(CFG, batch_size=40))
    monkeypatch.setattr(models.quantised, "FAR", 0.0)
    choice = EngineChoice("int8")
    assert isinstance(choice.forward("kind", tagger, first, n, "fp32"), Torch) and choice.chosen == {"kind": "torch"}
    assert "in eight bits it differs from PyTorch on windows of 32 frames, by " in capsys.readouterr().err


def test_few_windows_are_left_to_pytorch(make_store: MakeStore, capsys: pytest.CaptureFixture[str]) -> None:
    """They do not show how large activations become."""
    first, n = first_batches(some_clips(make_store), np.arange(6), CFG)
    choice = EngineChoice("int8")
    assert isinstance(choice.forward("kind", tagger_of(SMALL["resnetish"]()), first, n, "fp32"), Torch)
    assert "4 windows are too few to round a network by, at least 32: PyTorch predicts" in capsys.readouterr().err


def test_it_is_compared_on_windows_that_it_was_not_rounded_by() -> None:
    fit, kept = split(torch.arange(8))
    assert (fit.tolist(), kept.tolist()) == ([0, 1, 2, 4, 5, 6], [3, 7])


def test_without_nncf_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.quantised, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"NNCF is not installed: pip install '\.\[int8\]', or use --engine openvino"):
        EngineChoice("int8")


def test_a_kernel_predicts_with_what_was_rounded_at_bundling(
    blended: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = replace(blended, work=tmp_path / "work")
    shutil.copytree(blended.work, paths.work, ignore=shutil.ignore_patterns("features"))
    monkeypatch.setattr(models.quantised, "FAR", 1.0)  # networks of two epochs, eight channels wide, round badly
    folder = bundle(paths, "default", "me", engine="int8")
    assert list(folder.glob("weights/*/fold0/converted/*.xml"))
    monkeypatch.setattr(models.quantised, "find_spec", None)  # the kernel has no NNCF
    place = folder, paths.input.parent, paths.input.name, tmp_path / "out" / "submission.csv", tmp_path
    predict(*place)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["engines"] == ["int8"] and set(report["predicted_by"]["demo_vggish"]["fold0"]) == {"int8"}
    predict(*place, "openvino")  # it converts them itself: those in the bundle are others
    assert json.loads((tmp_path / "out" / "report.json").read_text())["engines"] == ["openvino"]


def test_rounded_networks_are_not_taken_from_a_bundle_of_full_ones(
    blended: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = replace(blended, work=tmp_path / "work")
    shutil.copytree(blended.work, paths.work, ignore=shutil.ignore_patterns("features"))
    folder = bundle(paths, "default", "me", engine="openvino")
    monkeypatch.setattr(models.quantised, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="NNCF is not installed"):
        predict(folder, paths.input.parent, paths.input.name, tmp_path / "submission.csv", tmp_path, "int8")


def test_a_bundle_without_sound_to_round_by_goes_as_pytorch(
    blended: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, few = read_trained(blended.run("demo_vggish", 0)), load_competition(blended.input).test[:1]
    with pytest.raises(ConversionError, match="the sound of 1 test clips has fewer than 32 windows"):
        write_converted(run, tmp_path / "converted", few)
