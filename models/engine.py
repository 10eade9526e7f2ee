"""What computes the logits of a trained network: PyTorch or, on a CPU, the compiled network of OpenVINO."""

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import repeat
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal

import torch
from torch import Tensor

from console.errors import UserError
from console.options import COMPILED, ENGINES
from console.output import say, warn
from models.device import autocast, streams
from models.engine_openvino import Files, OpenVino, Seen, rank_changes
from models.openvino_conversion import ConversionError, import_openvino, is_installed
from models.quantised import LEAST, import_nncf
from models.tagger import Tagger

Engine = Literal["torch", "openvino", "int8"]
Forward = Callable[[Iterable[Tensor], str], Iterator[Tensor]]  # batches, precision -> float32 logits of each, in order
Job = tuple[Tensor, "Future[Tensor]"]

RANKED = 32  # windows, at most, whose first classes are compared with those in fp32
WORTH = 20.0  # seconds of PyTorch's work; for less, a network is not compiled


class Torch:
    """A `Forward` that works on several batches at once, each with its share of the threads."""

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger

    def __call__(self, batches: Iterable[Tensor], precision: str) -> Iterator[Tensor]:
        threads, n = torch.get_num_threads(), streams()
        todo: SimpleQueue[Job | None] = SimpleQueue()
        workers = [Thread(target=self._work, args=(todo, precision, threads // n), daemon=True) for _ in range(n)]
        waiting: deque[Future[Tensor]] = deque()
        for worker in workers:
            worker.start()
        try:
            for x in batches:
                waiting.append(Future())
                todo.put((x, waiting[-1]))
                if len(waiting) > n:  # one more than there are workers, so that none waits
                    yield waiting.popleft().result()
            yield from (one.result() for one in waiting)
        finally:
            for _ in workers:
                todo.put(None)
            for worker in workers:
                worker.join()
            torch.set_num_threads(threads)  # the workers changed what new threads begin with

    def _work(self, todo: SimpleQueue[Job | None], precision: str, threads: int) -> None:
        torch.set_num_threads(threads)  # of this thread
        with torch.inference_mode(), autocast(precision, torch.device("cpu")):
            while (job := todo.get()) is not None:
                x, answer = job
                try:
                    answer.set_result(self.tagger(x).float())
                except BaseException as error:
                    answer.set_exception(error)


@dataclass
class EngineChoice:
    """The engine that is asked for, and those chosen: the folds of an experiment are of one kind and share it.

    Raises UserError if OpenVINO is asked for and not installed, and on another name.
    """

    asked: str = "torch"  # one of ENGINES
    chosen: dict[Hashable, Engine] = field(default_factory=dict)
    converted: Mapping[Any, Files] | None = None  # by run folder, PyTorch predicts the others; None: convert here
    seen: dict[Hashable, Seen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.asked not in ENGINES:
            raise UserError(f"engine={self.asked!r}: expected {', '.join(ENGINES)}")
        if self.asked in COMPILED:
            import_openvino()  # before any work is done
        if self.asked == "int8" and self.converted is None:
            import_nncf()

    def forward(
        self,
        kind: Hashable,
        tagger: Tagger,
        first: Sequence[Tensor],
        n_batches: int,
        precision: str,
        run: Hashable = None,
    ) -> Forward | None:
        """What is to predict; None: the tagger itself, on a GPU. first: the first batch of each length of windows, of
        n_batches of the first length. run: a key of `converted`.

        auto measures both where OpenVINO is installed. A network that OpenVINO cannot compute is left to PyTorch, which
        a warning says.
        """
        on_cpu = tagger.mean.device.type == "cpu"
        known: Engine | None = self.chosen.get(kind)
        files: Files | None = {} if self.converted is None else self.converted.get(run)
        if self.asked == "torch" or not on_cpu or not first or (self.asked == "auto" and not is_installed()):
            known = "torch"
        torch_way = Torch(tagger)
        if known != "torch" and files is not None:
            try:
                int8 = self.asked == "int8" and self._is_to_round(first, bool(files))
                way = OpenVino(tagger, files, self.seen.setdefault(kind, Seen()), int8)
                if known or self.asked in COMPILED or faster(torch_way, way, first[0], n_batches, precision) != "torch":
                    for x in first:
                        way.prepare(x, precision)
                    used = "int8" if int8 else precision
                    if used != "fp32" and not known:  # once for all folds
                        some = first[0][:RANKED]
                        say(rank_changes(tagger, next(iter(way([some], precision))), some, precision, used))
                    self.chosen[kind] = "int8" if self.asked == "int8" else "openvino"
                    return way
            except ConversionError as error:
                warn(f"{error}: PyTorch predicts")
        self.chosen[kind] = "torch"
        return torch_way if on_cpu else None

    def _is_to_round(self, first: Sequence[Tensor], is_rounded: bool) -> bool:
        """A head on embeddings, which have one frame, is too small to gain from it; few windows show too little."""
        fewest = min(len(x) for x in first)
        if first[0].shape[-1] > 1 and fewest < LEAST and not is_rounded:
            fact = f"{fewest} windows are too few to round a network by, at least {LEAST}"
            raise ConversionError(f"--engine int8: {fact}")
        return first[0].shape[-1] > 1


def faster(torch_way: Torch, openvino_way: OpenVino, x: Tensor, n_batches: int, precision: str) -> Engine:
    """The engine that takes less time for n_batches like x, by a few batches of both in turns; what OpenVINO needs to
    compile counts as its time. Raises ConversionError."""
    n = streams()
    first = _seconds(torch_way, x, n, precision) / n
    if first * n_batches < WORTH:
        return "torch"
    start = time.perf_counter()
    openvino_way.prepare(x, precision)
    before = time.perf_counter() - start
    ways: dict[Engine, Forward] = {"torch": torch_way, "openvino": openvino_way}
    _seconds(openvino_way, x, n, precision)  # the first batches are slower
    rounds = [{name: _seconds(way, x, n, precision) / n for name, way in ways.items()} for _ in range(2)]
    least = {name: min(times[name] for times in rounds) for name in ways}
    least["openvino"] += before / n_batches
    best = min(least, key=lambda name: least[name])
    told = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in least.items())
    say(f"a batch of {len(x)} windows in {precision}: {told}: {best} predicts")
    return best


def _seconds(way: Forward, x: Tensor, n_batches: int, precision: str) -> float:
    start = time.perf_counter()
    for _ in way(repeat(x, n_batches), precision):
        pass
    return time.perf_counter() - start
