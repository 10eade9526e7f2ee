"""A trained network compiled by OpenVINO for a CPU, as an engine of prediction."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from models.device import autocast
from models.openvino_conversion import (
    TOLERANCE,
    ConversionError,
    check_equal,
    compile_network,
    convert,
    import_openvino,
    in_fp32,
    largest_difference,
    read_network,
)
from models.quantised import check_near, quantise, split
from models.shared_graph import Graph, share_graph
from models.tagger import Tagger

Files = Mapping[int | None, str]  # number of frames, None: any -> .xml of a converted network, with a .bin beside it
PART = 8  # windows at once in a stream: their activations stay in the cache, and no stream is idle for long at the end
EIGHT = "eight bits"
RANKS = 3  # classes that a submission names
ENOUGH = 2  # networks of a kind that are compared in fp32: the second had its weights put into the graph of the first
COARSE = 0.1  # how far a probability in bf16 may be from fp32, where it is compared with nothing else


class OpenVino:
    """A `Forward` that compiles the tagger once for each number of frames and precision, and works on PART windows
    per stream at a time.

    The network is compared with PyTorch on the first windows that it gets: in fp32 their probabilities may differ by
    TOLERANCE. files: networks that were converted before; none: the tagger is converted here. seen: what is known of
    networks of this kind. int8: in eight bits, by the windows that come first; `files` have them already. Raises
    ConversionError where it cannot be converted or differs more, UserError without the package.
    """

    def __init__(
        self, tagger: Tagger, files: Files | None = None, seen: "Seen | None" = None, int8: bool = False
    ) -> None:
        self.tagger, self.files, self.seen, self.int8 = tagger, files or {}, seen or Seen(), int8
        self.ov = import_openvino()
        self.models: dict[int, Any] = {}
        self.compiled: dict[tuple[int, str], Any] = {}
        self.queues: dict[tuple[int, str], Any] = {}

    def __call__(self, batches: Iterable[Tensor], precision: str) -> Iterator[Tensor]:
        done: dict[int, Tensor] = {}  # logits of parts by number
        queue, started, waiting = None, 0, deque[range]()  # the parts of each batch that is not given yet
        for x in batches:
            queue = self._queue(x, precision)
            parts = x.split(PART)
            waiting.append(range(started, started + len(parts)))
            for part in parts:  # waits for a free request, so memory is bounded
                queue.start_async({0: part.numpy().copy()}, (done, started))  # it may compute in the memory it is given
                started += 1
            while waiting and all(i in done for i in waiting[0]):
                yield torch.cat([done.pop(i) for i in waiting.popleft()])
        if queue is not None:
            queue.wait_all()
        for numbers in waiting:
            yield torch.cat([done.pop(i) for i in numbers])

    def prepare(self, x: Tensor, precision: str) -> None:
        """Convert, compare and compile for batches like x."""
        self._queue(x, precision)

    def _queue(self, x: Tensor, precision: str) -> Any:
        """The requests for batches of this length."""
        key = x.shape[-1], "fp32" if self.int8 else precision  # what eight bits leave is slower in bf16
        if key[0] not in self.models:
            self._convert(x, key[1])
            if self.int8:
                self._round(x)
        if key not in self.queues:
            queue = self.ov.AsyncInferQueue(self._compile(*key))
            queue.set_callback(_keep)
            self.queues[key] = queue
        return self.queues[key]

    def _convert(self, x: Tensor, precision: str) -> None:
        """Keep the network for any number of windows of this length, once it answers as PyTorch does."""
        n_frames = x.shape[-1]
        file = self.files.get(n_frames, self.files.get(None))
        if file:
            self.models[n_frames] = read_network(file, len(self.tagger.mean), n_frames)
            if self.int8:
                return
        elif not self.int8 and (graph := self.seen.graph(self.tagger, n_frames)):  # NNCF corrects no bias in it
            try:
                self.models[n_frames] = graph.with_weights(self.tagger)
                self._compare(x, precision)
                return
            except ConversionError:
                self.seen.graphs[n_frames] = None
                self._forget(n_frames)
        if not file:
            self.models[n_frames] = convert(self.tagger, n_frames)
        self._compare(x, precision)

    def _round(self, x: Tensor) -> None:
        """Keep the network in eight bits, once it answers nearly as PyTorch does."""
        n_frames = x.shape[-1]
        if not (self.files.get(n_frames) or self.files.get(None)):
            fit, x = split(x)
            self.models[n_frames] = quantise(self.models[n_frames], fit)
            self._forget(n_frames)
        check_near(self.tagger, self._compile(n_frames, "fp32"), x)

    def _compare(self, x: Tensor, precision: str) -> None:
        """Raises ConversionError where the converted network answers otherwise than PyTorch."""
        n_frames = x.shape[-1]
        some = torch.cat([x[:3]] * 3)[:3]  # another number of windows than the network was traced with
        if len(self.seen.compared.get(n_frames, ())) >= ENOUGH:
            # in the precision that is compiled anyway, if possible
            difference = largest_difference(self.tagger, self._compile(n_frames, precision), some)
            if difference <= (TOLERANCE if precision == "fp32" else COARSE):
                return
        check_equal(self.tagger, self._compile(n_frames, "fp32"), some)
        sums = tuple(float(weight.detach().double().sum()) for weight in self.tagger.parameters())
        self.seen.compared.setdefault(n_frames, set()).add(sums)

    def _compile(self, n_frames: int, precision: str) -> Any:
        if (n_frames, precision) not in self.compiled:
            self.compiled[n_frames, precision] = compile_network(self.models[n_frames], precision)
        return self.compiled[n_frames, precision]

    def _forget(self, n_frames: int) -> None:
        for key in [key for key in self.compiled if key[0] == n_frames]:
            del self.compiled[key]


@dataclass
class Seen:
    """What is known of networks that differ in nothing but their weights, by number of frames."""

    graphs: dict[int, Graph | None] = field(default_factory=dict)  # None: each is converted by itself
    compared: dict[int, set[tuple[float, ...]]] = field(default_factory=dict)  # sums of weights of those that equalled
    # PyTorch in fp32: a forecast loads the same fold several times

    def graph(self, tagger: Tagger, n_frames: int) -> Graph | None:
        """One for all of them, from the first tagger that asks."""
        if n_frames not in self.graphs:
            try:
                self.graphs[n_frames] = share_graph(tagger, n_frames)
            except ConversionError:
                self.graphs[n_frames] = None
        return self.graphs[n_frames]


def rank_changes(tagger: Tagger, answer: Tensor, x: Tensor, precision: str, used: str | None = None) -> str:
    """How `answer`, the logits of windows x by OpenVINO, and PyTorch's own in this precision differ from PyTorch in
    fp32: the windows whose first three classes are others or in another order, and the largest step of a probability.

    used: what OpenVINO computed in, where that is not `precision`.
    """
    with torch.inference_mode():
        with in_fp32():
            exact = tagger(x)
        with autocast(precision, torch.device("cpu")):
            theirs = tagger(x).float()
    first = [logits.topk(min(RANKS, logits.shape[1])).indices for logits in (exact, answer, theirs)]
    changed = [int((one != first[0]).any(dim=1).sum()) for one in first[1:]]
    probs = [tagger.probabilities(logits) for logits in (exact, answer)]
    step = float((probs[1] - probs[0]).abs().max())
    fact = f"the first {RANKS} classes change in {changed[0]} of {len(x)} windows against fp32"
    name = EIGHT if used == "int8" else precision
    theirs_too = f"(PyTorch's {precision}: {changed[1]})"
    return f"OpenVINO in {name}: {fact} {theirs_too}, a probability by at most {step:.1g}"


def _keep(request: Any, place: tuple[dict[int, Tensor], int]) -> None:
    """Called in a thread of OpenVINO when a batch is done."""
    done, i = place
    done[i] = torch.from_numpy(request.get_output_tensor(0).data.copy())
