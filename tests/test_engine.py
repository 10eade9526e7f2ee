"""Prediction by a compiled engine, against PyTorch: the same probabilities, and no answer passed off as the other's."""

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import models.engine
from configs.paths import Paths
from configs.schema import PredictConfig
from console.errors import UserError
from features.batches import Batches
from models import openvino_conversion
from models.ast import AST, PaSST
from models.beats import BEATs
from models.ced import CED
from models.cnn14 import Cnn14
from models.efficientat import EfficientAT
from models.engine import EngineChoice, Torch, faster
from models.engine_openvino import OpenVino, rank_changes
from models.inference import first_batches, predict_clips, predict_finite
from models.onednn_workarounds import widen_narrow_inputs
from models.openvino_conversion import ConversionError, check_equal, compile_network, convert
from models.resnetish import ResNetish
from models.tagger import Tagger
from models.timm_networks import build_timm
from models.vggish import VGGish
from submit import submit
from tests.conftest import MakeStore

pytest.importorskip("openvino", reason="OpenVINO is an optional package")
N_MELS, CFG = 64, PredictConfig(window_seconds=3.2, batch_size=4)
SMALL: dict[str, Callable[[], nn.Module]] = {
    "resnetish": lambda: ResNetish(10, n_classes=5, width=8),
    "attention": lambda: ResNetish(10, n_classes=5, width=8, pooling="attention"),
    "vggish": lambda: VGGish(5, width=8),
    "cnn14": lambda: Cnn14(5, width=8),
    "cnn10": lambda: Cnn14(5, width=8, n_blocks=4),
    "mn": lambda: EfficientAT(0.1, 5),
    "ced": lambda: CED(16, 2, 5, depth=1),
    "ast": lambda: AST(5, dim=16, heads=2, depth=1),
    "beats": lambda: BEATs(5, dim=16, heads=2, depth=1, patch_dim=8),
    "passt": lambda: PaSST(5, n_mels=N_MELS, dim=16, heads=2, depth=1),
    "timm": lambda: build_timm("mobilenetv3_small_050", 5, 0.0, False),
}


def tagger_of(backbone: nn.Module, **more: object) -> Tagger:
    """With statistics that are worth undoing, and logits that differ between windows."""
    torch.manual_seed(0)
    tagger = Tagger(backbone, torch.full((N_MELS,), -4.0), torch.full((N_MELS,), 3.0), torch.ones(5) / 5, **more)  # type: ignore[arg-type]
    widen_narrow_inputs(tagger.backbone)
    return tagger.eval()


def spread_out(tagger: Tagger, batches: Batches) -> Tagger:
    """With logits that differ by about 0.5 between clips: those of small random networks may differ by 1e-4."""
    head = [one for one in tagger.backbone.modules() if isinstance(one, nn.Linear)][-1]
    with torch.inference_mode():
        x = batches.at(np.array([0, 3, 5]), np.zeros(3, np.int64), 64)
        head.weight.data *= 0.5 / float(tagger(x).std(dim=0).max())
        head.bias.data -= tagger(x).mean(dim=0)  # else a softmax of large logits would be flat again
    return tagger


def some_clips(make_store: MakeStore) -> Batches:
    rng = np.random.default_rng(0)
    return Batches(make_store([rng.normal(-4, 3, size=(n, N_MELS)) for n in (90, 33, 0, 200, 5, 64)]))


def test_conversions_here_report_to_no_server() -> None:
    """Each would start processes and wait for them; importing the package first would turn that on."""
    assert sys.modules["openvino_telemetry"] is None


@pytest.mark.parametrize("name", SMALL)
def test_openvino_answers_as_pytorch_for_clips_of_any_length(make_store: MakeStore, name: str) -> None:
    batches, rows = some_clips(make_store), np.arange(6)
    tagger = spread_out(tagger_of(SMALL[name]()), batches)
    there = predict_clips(tagger, batches, rows, CFG, "fp32")
    here = predict_clips(tagger, batches, rows, CFG, "fp32", forward=OpenVino(tagger))
    np.testing.assert_allclose(here, there, atol=1e-4)
    assert np.ptp(there[[0, 1, 3, 4, 5]], axis=0).max() > 1e-3, "a network that hears nothing proves nothing"


def test_several_lengths_labels_and_channels(make_store: MakeStore) -> None:
    tagger = tagger_of(ResNetish(10, n_classes=5, width=8, in_channels=4), deltas=2, frequency_channel=True)
    tagger.task = "multi_label"
    batches, cfg = some_clips(make_store), PredictConfig(3.2, (0.2,), 0.5, 16)
    there = predict_clips(tagger, batches, np.arange(6), cfg, "fp32")
    here = predict_clips(tagger, batches, np.arange(6), cfg, "fp32", forward=OpenVino(tagger))
    np.testing.assert_allclose(here, there, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batches_at_once_give_the_same_numbers_in_the_same_order(make_store: MakeStore, precision: str) -> None:
    batches, rows, threads = some_clips(make_store), np.array([3, 0, 5, 4, 2, 3]), torch.get_num_threads()
    tagger = tagger_of(SMALL["resnetish"]())
    done: list[int] = []
    torch.set_num_threads(2)
    try:
        there = predict_clips(tagger, batches, rows, CFG, precision)
        for forward in (Torch(tagger), OpenVino(tagger)):
            done.clear()
            here = predict_clips(tagger, batches, rows, CFG, precision, done.append, forward)
            same = precision == "fp32" or isinstance(forward, Torch)
            np.testing.assert_allclose(here, there, atol=1e-4 if same else 2e-2)
            assert done == [4, 4, 4, 4, 4] and torch.get_num_threads() == 2
            with ThreadPoolExecutor(1) as new:
                assert new.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(threads)


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 3:
            raise RuntimeError("no memory")
        return x.mean(dim=(1, 2))[:, :5]


def test_an_error_in_a_worker_is_raised_and_the_workers_end() -> None:
    forward, before = Torch(tagger_of(Fails())), threading.active_count()
    with pytest.raises(RuntimeError, match="no memory"):
        list(forward((torch.zeros(n, 1, N_MELS, 32) for n in (4, 4, 4, 3, 4)), "fp32"))
    assert len(list(forward((torch.zeros(4, 1, N_MELS, 32) for _ in range(5)), "fp32"))) == 5
    next(iter(forward((torch.zeros(4, 1, N_MELS, 32) for _ in range(5)), "fp32")))  # given up
    assert threading.active_count() == before


class Half(nn.Module):
    """Another answer while it is traced: what a converter that errs would give."""

    def __init__(self, wrong: float) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, x: Tensor) -> Tensor:
        logits = x.mean(dim=(1, 2))[:, :5]
        return logits * (1 + self.wrong) if torch.jit.is_tracing() else logits


class Refuses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("not\nfor tracers")
        return x.mean(dim=(1, 2))[:, :5]


@pytest.mark.parametrize(
    ("backbone", "message"),
    [(Half(0.5), "it differs from PyTorch on windows of 32 frames"), (Refuses(), "cannot convert")],
)
def test_a_network_that_is_not_converted_rightly_is_left_to_pytorch(
    make_store: MakeStore, capsys: pytest.CaptureFixture[str], backbone: nn.Module, message: str
) -> None:
    batches, tagger = some_clips(make_store), tagger_of(backbone)
    first, n = first_batches(batches, np.arange(6), PredictConfig(0.4, (3.2,), batch_size=4))
    choice = EngineChoice("openvino")
    forward = choice.forward("kind", tagger, first[1:], n, "fp32")
    assert isinstance(forward, Torch) and choice.chosen == {"kind": "torch"}
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and "PyTorch predicts" in told
    choice.forward("kind", tagger, first[1:], n, "fp32")
    assert capsys.readouterr().err == "", "once for all folds"


def test_nan_is_not_equal() -> None:
    tagger = tagger_of(Half(float("nan")))
    with pytest.raises(ConversionError, match="differs from PyTorch"):
        check_equal(tagger, compile_network(convert(tagger, 32), "fp32"), torch.zeros(3, 1, N_MELS, 32))


class Given(nn.Module):
    """The first five bands of the first frame as logits; in half precision those of the last window upside down."""

    def forward(self, x: Tensor) -> Tensor:
        logits = (x * 3 - 4)[:, 0, :5, 0]
        return torch.cat([logits[:-1], logits[-1:].flip(1)]) if torch.is_autocast_enabled("cpu") else logits


def test_changed_ranks_are_counted_by_hand() -> None:
    """Of four windows: none, the second and third swapped, another third class, none by OpenVINO."""
    logits = torch.tensor([[5.0, 4, 3, 2, 1], [5, 4, 3, 2, 1], [5, 4, 3, 2, 1], [5, 4, 3, 2, 1]])
    x = torch.zeros(4, 1, N_MELS, 8)
    x[:, 0, :5] = logits.unsqueeze(2)
    answer = logits.clone()
    answer[1] = torch.tensor([5.0, 3, 4, 2, 1])
    answer[2] = torch.tensor([5.0, 4, 2, 3, 1])
    told = rank_changes(tagger_of(Given()), answer, x, "bf16")
    assert "change in 2 of 4 windows against fp32 (PyTorch's bf16: 1), a probability by at most 0.1" in told


def test_changed_ranks_are_shown_once_for_all_folds_in_half_precision(
    make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    tagger = tagger_of(SMALL["resnetish"]())
    first, n = first_batches(some_clips(make_store), np.arange(6), CFG)
    for precision, shown in (("bf16", 1), ("fp32", 0)):
        choice = EngineChoice("openvino")
        for _ in range(2):
            assert isinstance(choice.forward("kind", tagger, first, n, precision), OpenVino)
        assert capsys.readouterr().out.count("OpenVINO in bf16: the first 3 classes change in ") == shown


def test_an_overflow_is_predicted_again_in_full_precision(make_store: MakeStore) -> None:
    batches, tagger, rows = some_clips(make_store), tagger_of(SMALL["resnetish"]()), np.arange(6)

    class Overflows(OpenVino):
        def __call__(self, batches, precision):  # type: ignore[no-untyped-def]
            factor = 1 if precision == "fp32" else np.nan
            return (logits * factor for logits in super().__call__(batches, precision))

    found = predict_finite(tagger, batches, rows, CFG, "bf16", Overflows(tagger))
    np.testing.assert_allclose(found, predict_clips(tagger, batches, rows, CFG, "fp32"), atol=1e-4)


@pytest.mark.parametrize(("slow", "best"), [("torch", "openvino"), ("openvino", "torch")])
def test_auto_keeps_the_faster_and_folds_share_it(
    monkeypatch: pytest.MonkeyPatch, make_store: MakeStore, capsys: pytest.CaptureFixture[str], slow: str, best: str
) -> None:
    tagger = tagger_of(SMALL["resnetish"]())
    first, n = first_batches(some_clips(make_store), np.arange(6), CFG)
    assert [len(x) for x in first] == [4] and n == 4  # 3 + 1 + 7 + 1 + 2 windows, and no frame of one clip
    measured: list[str] = []

    def seconds(way: object, x: Tensor, n_batches: int, precision: str) -> float:
        measured.append("torch" if isinstance(way, Torch) else "openvino")
        return n_batches * (40.0 if measured[-1] == slow else 30.0)

    monkeypatch.setattr(models.engine, "_seconds", seconds)
    monkeypatch.setattr(OpenVino, "prepare", lambda *args: None)
    choice = EngineChoice("auto")
    for _ in range(2):
        forward = choice.forward("kind", tagger, first, n, "fp32")
        assert isinstance(forward, Torch if best == "torch" else OpenVino)
    assert measured == ["torch", "openvino", *["torch", "openvino"] * 2], "once for all folds, in turns"
    assert f"{best} predicts" in capsys.readouterr().out


def test_auto_compiles_nothing_for_little_work(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tagger = tagger_of(SMALL["resnetish"]())
    monkeypatch.setattr(OpenVino, "prepare", None)
    monkeypatch.setattr(models.engine, "_seconds", lambda way, x, n, precision: 0.1 * n)
    assert faster(Torch(tagger), OpenVino(tagger), torch.zeros(4, 1, N_MELS, 32), 100, "fp32") == "torch"


def test_without_openvino_auto_is_pytorch_and_asking_for_it_is_an_error(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, n = first_batches(some_clips(make_store), np.arange(6), CFG)
    for module in (models.engine, openvino_conversion):
        monkeypatch.setattr(module, "is_installed", lambda: False)
    assert isinstance(EngineChoice("auto").forward("kind", tagger_of(Fails()), first, n, "fp32"), Torch)
    with pytest.raises(UserError, match=r"OpenVINO is not installed: pip install '\.\[fast\]', or use --engine torch"):
        EngineChoice("openvino")


def test_a_trained_run_answers_alike_and_each_engine_has_answers_of_its_own(
    blended: Paths, paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The competition of two experiments: what one engine has cached is never given as the other's."""
    out, n_runs = tmp_path / "out.csv", len(list(paths.runs.glob("*/fold?")))
    submit(paths, "default", out, None, engine="openvino")  # obeyed though PyTorch's answers are stored
    assert "predicted by OpenVINO: 2 of 2 runs" in capsys.readouterr().out
    by = json.loads((tmp_path / "out.report.json").read_text())["predicted_by"]
    assert by == {
        name: {"fold0": {"openvino": 30}, "fold1": {"openvino": 30}} for name in ("demo_resnetish", "demo_vggish")
    }
    kept = sorted(file.name for file in paths.predictions.iterdir())
    assert len(kept) == n_runs and all(name.endswith("-openvino.npz") for name in kept)
    submit(paths, "default", out, None)
    assert out.read_bytes() == (blended.work / "submission.csv").read_bytes()
    assert "OpenVINO" not in capsys.readouterr().out
    submit(paths, "default", out, None, engine="auto")
    assert "predicted by OpenVINO: 2 of 2 runs" in capsys.readouterr().out, "found, and named"
    submit(paths, "default", out, None, refresh=True)
    assert len(list(paths.predictions.iterdir())) == 2 * n_runs
    for mine in paths.predictions.glob("*-openvino.npz"):
        theirs = mine.with_name(mine.name.replace("-openvino", ""))
        with np.load(mine) as a, np.load(theirs) as b:
            np.testing.assert_allclose(a["probs"], b["probs"], atol=2e-2)  # bf16, where the CPU has it
