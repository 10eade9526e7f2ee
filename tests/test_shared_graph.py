"""The networks of an experiment's folds are converted once, and each answers with its own weights."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import engine_openvino
from models.engine import EngineChoice, Torch
from models.engine_openvino import OpenVino
from models.inference import first_batches, predict_clips
from models.openvino_conversion import ConversionError
from models.shared_graph import Graph, share_graph
from models.tagger import Tagger
from tests.conftest import MakeStore
from tests.test_engine import CFG, N_MELS, SMALL, some_clips, spread_out, tagger_of

pytest.importorskip("openvino", reason="OpenVINO is an optional package")


def fold(backbone: nn.Module, seed: int) -> Tagger:
    """Of one network, with weights and statistics of its own."""
    tagger, rng = tagger_of(backbone), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in [*tagger.named_parameters(), *tagger.named_buffers()]:
            if weight.is_floating_point() and weight.numel() and "running_var" not in name:
                weight += 0.1 * weight.abs().mean() * torch.randn(weight.shape, generator=rng)
    return tagger


class Traces:
    """Counts the tracings of a block."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n, trace = 0, torch.jit.trace

        def count(*args: Any, **settings: Any) -> Any:
            self.n += 1
            return trace(*args, **settings)

        monkeypatch.setattr(torch.jit, "trace", count)


def answers(choice: EngineChoice, tagger: Tagger, make_store: MakeStore, precision: str = "fp32") -> np.ndarray:
    """By OpenVINO, in (clips, classes)."""
    batches, rows = some_clips(make_store), np.arange(6)
    first, n = first_batches(batches, rows, CFG)
    forward = choice.forward("kind", tagger, first, n, precision)
    assert isinstance(forward, OpenVino)
    return predict_clips(tagger, batches, rows, CFG, precision, forward=forward)


@pytest.mark.parametrize("name", SMALL)
def test_three_folds_are_converted_once_and_differ(
    make_store: MakeStore, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, choice, traces, found = some_clips(make_store), EngineChoice("openvino"), Traces(monkeypatch), []
    for seed in range(3):
        tagger = spread_out(fold(SMALL[name](), seed), batches)
        there = predict_clips(tagger, batches, np.arange(6), CFG, "fp32")
        found.append(answers(choice, tagger, make_store))
        np.testing.assert_allclose(found[-1], there, atol=1e-4)
    assert traces.n == 1
    assert min(np.abs(one - found[0]).max() for one in found[1:]) > 1e-3, "the same weights would prove nothing"


class Recurrent(nn.Module):
    """nn.GRU computes with references of its own to its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(N_MELS, 8, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rnn(x[:, 0].transpose(1, 2))[0].mean(dim=1))
        return logits


class ReadsAWeight(nn.Module):
    """Computes with a number that is read from a weight: a constant of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.scale = nn.Linear(N_MELS, 5), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x[:, 0].mean(dim=2) * self.scale.item()) + 0 * self.scale
        return logits


@pytest.mark.parametrize("network", [Recurrent, ReadsAWeight])
def test_a_network_whose_weights_cannot_all_be_inputs_is_converted_for_each_fold(
    make_store: MakeStore, network: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, choice, traces = some_clips(make_store), EngineChoice("openvino"), Traces(monkeypatch)
    torch.manual_seed(0)
    for seed in range(3):
        tagger = fold(network(), seed)
        there = predict_clips(tagger, batches, np.arange(6), CFG, "fp32")
        np.testing.assert_allclose(answers(choice, tagger, make_store), there, atol=1e-4)
    assert traces.n == (4 if network is Recurrent else 3), "each for itself, once that is found"


def test_weights_of_another_shape_do_not_fit() -> None:
    graph = share_graph(tagger_of(SMALL["resnetish"]()), 64)
    assert isinstance(graph, Graph)
    with pytest.raises(ConversionError, match="other shapes"):
        graph.with_weights(tagger_of(SMALL["attention"]()))


def test_a_weight_that_numpy_lacks_is_converted_for_each_fold(make_store: MakeStore) -> None:
    """And so is a network with another buffer of whole numbers, which are constants of the graph."""
    tagger = tagger_of(SMALL["resnetish"]())
    tagger.register_buffer("table", torch.ones(2, dtype=torch.bfloat16))
    assert share_graph(tagger, 64) is None
    choice = EngineChoice("openvino")
    for seed in range(4):
        tagger = fold(Shuffles(0 if seed < 3 else seed), seed)
        there = predict_clips(tagger, some_clips(make_store), np.arange(6), CFG, "fp32")
        np.testing.assert_allclose(answers(choice, tagger, make_store, "bf16"), there, atol=0.01)


class Shuffles(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.head = nn.Linear(N_MELS, 5)
        self.register_buffer("order", torch.randperm(N_MELS, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x[:, 0].mean(dim=2)[:, self.order])
        return logits


def test_a_fold_that_is_loaded_twice_counts_once(make_store: MakeStore) -> None:
    """As a forecast loads it: the next one is still the first that has weights in the graph of another."""
    choice = EngineChoice("openvino")
    for _ in range(3):
        answers(choice, fold(SMALL["resnetish"](), 0), make_store, "bf16")
    assert [len(sums) for sums in choice.seen["kind"].compared.values()] == [1]


def test_the_tagger_keeps_its_weights() -> None:
    tagger = tagger_of(SMALL["resnetish"]())
    before = {name: id(weight) for name, weight in tagger.named_parameters()}
    share_graph(tagger, 64)
    assert {name: id(weight) for name, weight in tagger.named_parameters()} == before
    assert all(isinstance(weight, nn.Parameter) for weight in tagger.parameters())


def test_two_folds_are_compared_in_full_precision_and_the_others_in_their_own(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    compile_network = engine_openvino.compile_network

    def note(model: Any, precision: str) -> Any:
        compiled.append(precision)
        return compile_network(model, precision)

    monkeypatch.setattr(engine_openvino, "compile_network", note)
    choice = EngineChoice("openvino")
    for seed in range(3):
        answers(choice, fold(SMALL["resnetish"](), seed), make_store, "bf16")
    assert compiled == ["fp32", "bf16", "fp32", "bf16", "bf16"]


@pytest.mark.parametrize("wrong", [False, True])
def test_a_fold_that_is_far_off_in_half_precision_is_compared_in_full(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    choice = EngineChoice("openvino")
    for seed in range(2):
        answers(choice, fold(SMALL["resnetish"](), seed), make_store, "bf16")
    checked: list[Tagger] = []

    def check(tagger: Tagger, *args: Any) -> None:
        checked.append(tagger)
        if wrong:
            raise ConversionError("it answers otherwise")

    monkeypatch.setattr(engine_openvino, "largest_difference", lambda *args: 0.2)
    monkeypatch.setattr(engine_openvino, "check_equal", check)
    first, n = first_batches(some_clips(make_store), np.arange(6), CFG)
    way = choice.forward("kind", fold(SMALL["resnetish"](), 2), first, n, "bf16")
    assert checked and isinstance(way, Torch if wrong else OpenVino)
