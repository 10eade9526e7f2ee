"""One conversion by OpenVINO for several sets of weights: the folds of an experiment differ in nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.openvino_conversion import ConversionError, convert_traced, import_openvino, with_lengths
from models.tagger import Tagger


@dataclass(frozen=True)
class Graph:
    """A network whose weights are inputs."""

    model: Any  # openvino.Model: windows of log-mel and each weight -> logits
    n_frames: int
    shapes: dict[str, torch.Size]  # of the weights by name, in the order of the inputs
    others: dict[str, Tensor]  # buffers of whole numbers, such as places: constants of the graph

    def with_weights(self, tagger: Tagger) -> Any:
        """The openvino.Model of this tagger, for any number of windows.

        Raises ConversionError if its weights do not fit.
        """
        weights = weights_of(tagger)
        if {name: weight.shape for name, weight in weights.items()} != self.shapes:
            raise ConversionError("its weights have other shapes than those of the network that was converted")
        theirs = others_of(tagger)
        if theirs.keys() != self.others.keys() or not all(torch.equal(theirs[k], self.others[k]) for k in theirs):
            raise ConversionError("its buffers of whole numbers are not those of the network that was converted")
        model, constant = self.model.clone(), import_openvino().op.Constant
        for given, weight in zip(model.get_parameters()[1:], weights.values(), strict=True):
            value = np.ascontiguousarray(weight.detach().numpy())
            given.output(0).replace(constant(value, shared_memory=False).output(0))
            model.remove_parameter(given)
        return with_lengths(model, len(tagger.mean), self.n_frames)


def share_graph(tagger: Tagger, n_frames: int) -> Graph | None:
    """None for a network whose weights cannot all be inputs: nn.GRU and others keep references to them of their own,
    and NumPy, which hands them over, has no bfloat16.

    Raises ConversionError where it cannot be converted.
    """
    weights, example = weights_of(tagger), torch.zeros(2, 1, len(tagger.mean), n_frames)
    if any(weight.dtype == torch.bfloat16 for weight in weights.values()):
        return None
    model = convert_traced(_WithInputs(tagger, list(weights)), (example, *weights.values()))
    parameters = dict(tagger.named_parameters())
    inputs = dict(zip(weights, model.inputs[1:], strict=True))
    if any(name in parameters and not given.get_target_inputs() for name, given in inputs.items()):
        return None
    shapes = {name: weight.shape for name, weight in weights.items()}
    return Graph(model, n_frames, shapes, {name: one.clone() for name, one in others_of(tagger).items()})


def weights_of(tagger: Tagger) -> dict[str, Tensor]:
    """Parameters and statistics by name."""
    every = {**dict(tagger.named_parameters()), **dict(tagger.named_buffers())}
    return {name: weight for name, weight in every.items() if weight.is_floating_point()}


def others_of(tagger: Tagger) -> dict[str, Tensor]:
    """Buffers of other numbers by name, without the counters of batch normalisation, which nothing is computed from."""
    every = dict(tagger.named_buffers())
    return {k: v for k, v in every.items() if not v.is_floating_point() and not k.endswith("num_batches_tracked")}


class _WithInputs(nn.Module):
    """x and weights -> what the tagger answers with these weights; to be traced, where torch.func refuses."""

    def __init__(self, tagger: Tagger, names: Sequence[str]) -> None:
        super().__init__()
        self.tagger, self.names = [tagger], names  # in a list: not a part, whose weights would be traced too

    def forward(self, x: Tensor, *weights: Tensor) -> Tensor:
        with _replaced(self.tagger[0], self.names, weights):
            answer: Tensor = self.tagger[0](x)
        return answer


@contextmanager
def _replaced(tagger: Tagger, names: Sequence[str], weights: Sequence[Tensor]) -> Iterator[None]:
    """The tagger with these weights, until the end of the block."""
    before: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for name, weight in zip(names, weights, strict=True):
            path, _, leaf = name.rpartition(".")
            part = tagger.get_submodule(path)
            place: dict[str, Any] = part._parameters if leaf in part._parameters else part._buffers
            before.append((place, leaf, place[leaf]))
            place[leaf] = weight
        yield
    finally:
        for place, leaf, weight in before:
            place[leaf] = weight
