"""A trained network compiled by OpenVINO for a CPU.

OpenVINO is an optional package (pip install '.[fast]') and is imported only when it is asked for.
"""

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from console.errors import UserError
from models.device import autocast, streams
from models.tagger import Tagger

Files = Mapping[int | None, str]  # number of frames, None: any -> .xml of a converted network, with a .bin beside it
HINTS = {"fp32": "f32", "bf16": "bf16"}
TOLERANCE = 1e-4  # of a probability in fp32
RANKS = 3  # classes that a submission names


class ConversionError(Exception):
    """A network cannot be converted, or then answers otherwise than PyTorch; one line says how."""


class OpenVino:
    """A `Forward` that compiles the tagger once for each number of frames and precision, and works on one batch per
    stream at a time.

    Each network is compared with PyTorch on the first windows that it gets: in fp32 their probabilities may differ by
    TOLERANCE. files: networks that were converted before; none: the tagger is converted here. Raises ConversionError
    where it cannot be converted or differs more, UserError without the package.
    """

    def __init__(self, tagger: Tagger, files: Files | None = None) -> None:
        self.tagger, self.files, self.ov = tagger, files or {}, import_openvino()
        self.models: dict[int, Any] = {}
        self.queues: dict[tuple[int, str], Any] = {}

    def __call__(self, batches: Iterable[Tensor], precision: str) -> Iterator[Tensor]:
        done: dict[int, Tensor] = {}
        queue, started, given = None, 0, 0
        for x in batches:
            queue = self._queue(x, precision)
            queue.start_async({0: x.numpy()}, (done, started))  # waits for a free request, so memory is bounded
            started += 1
            while given in done:
                yield done.pop(given)
                given += 1
        if queue is not None:
            queue.wait_all()
        for i in range(given, started):
            yield done.pop(i)

    def prepare(self, x: Tensor, precision: str) -> None:
        """Convert, compare and compile for batches like x."""
        self._queue(x, precision)

    def _queue(self, x: Tensor, precision: str) -> Any:
        """The requests for batches of this length."""
        n_frames = x.shape[-1]
        if n_frames not in self.models:
            self.models[n_frames] = self._compared(x)
        if (n_frames, precision) not in self.queues:
            queue = self.ov.AsyncInferQueue(compile_network(self.models[n_frames], precision))
            queue.set_callback(_keep)
            self.queues[n_frames, precision] = queue
        return self.queues[n_frames, precision]

    def _compared(self, x: Tensor) -> Any:
        """The network for any number of windows of this length, once it answers as PyTorch does."""
        n_frames = x.shape[-1]
        file = self.files.get(n_frames, self.files.get(None))
        model = read_network(file, len(self.tagger.mean), n_frames) if file else convert(self.tagger, n_frames)
        some = torch.cat([x[:3]] * 3)[:3]  # another number of windows than the network was traced with
        check_equal(self.tagger, compile_network(model, "fp32"), some)
        return model


def convert(tagger: Tagger, n_frames: int, any_length: bool = False) -> Any:
    """The openvino.Model of a tagger for any number of windows, of n_frames or of any length: log-mel -> logits.

    Raises ConversionError where it cannot be converted.
    """
    ov, n_mels = import_openvino(), len(tagger.mean)
    example = torch.zeros(2, 1, n_mels, n_frames)
    with one_line("OpenVINO", "convert this network"), _in_fp32(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each size that Python computes; the numbers are compared instead
        # traced here, as OpenVINO does but without running the network again to compare: three times as fast
        traced = torch.jit.trace(tagger.eval(), example, check_trace=False, strict=False)
        model = ov.convert_model(traced, example_input=example)
        model.reshape([-1, 1, n_mels, -1 if any_length else n_frames])
    return model


def read_network(file: str, n_mels: int, n_frames: int) -> Any:
    """As `convert`, of a file that has the network converted. Raises ConversionError."""
    with one_line("OpenVINO", f"read {file}"):
        model = import_openvino().Core().read_model(file)
        model.reshape([-1, 1, n_mels, n_frames])
    return model


def compile_network(model: Any, precision: str) -> Any:
    """The openvino.CompiledModel for as many threads as PyTorch uses. Raises ConversionError."""
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams()}
    settings |= {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": HINTS[precision]}
    settings["ENABLE_CPU_PINNING"] = False  # two processes would be pinned to the same cores
    with one_line("OpenVINO", "compile this network"):
        return import_openvino().Core().compile_model(model, "CPU", settings)


def check_equal(tagger: Tagger, compiled: Any, x: Tensor) -> None:
    """Raises ConversionError where a network compiled in fp32 answers otherwise than PyTorch by more than TOLERANCE."""
    with torch.inference_mode(), _in_fp32(), one_line("OpenVINO", "run this network"):
        answer = torch.from_numpy(compiled({0: x.numpy()})[0].copy())
        pair = [tagger.probabilities(logits) for logits in (answer, tagger(x))]
        difference = float((pair[0] - pair[1]).abs().max())  # fails if the number of windows was fixed
    if not difference <= TOLERANCE:  # NaN too
        raise ConversionError(f"converted it answers otherwise for {x.shape[-1]} frames, by {difference:.1g}")


def rank_changes(tagger: Tagger, answer: Tensor, x: Tensor, precision: str) -> str:
    """How `answer`, the logits of windows x by OpenVINO, and PyTorch's own in this precision differ from PyTorch in
    fp32: the windows whose first three classes are others or in another order, and the largest step of a probability.
    """
    with torch.inference_mode():
        with _in_fp32():
            exact = tagger(x)
        with autocast(precision, torch.device("cpu")):
            theirs = tagger(x).float()
    first = [logits.topk(min(RANKS, logits.shape[1])).indices for logits in (exact, answer, theirs)]
    changed = [int((one != first[0]).any(dim=1).sum()) for one in first[1:]]
    probs = [tagger.probabilities(logits) for logits in (exact, answer)]
    step = float((probs[1] - probs[0]).abs().max())
    fact = f"the first {RANKS} classes change in {changed[0]} of {len(x)} windows against fp32"
    return f"OpenVINO in {precision}: {fact} (PyTorch's {precision}: {changed[1]}), a probability by at most {step:.1g}"


def _in_fp32() -> AbstractContextManager[None]:
    """Whatever precision the caller predicts in: a conversion would write that into the network."""
    return autocast("fp32", torch.device("cpu"))


def is_installed() -> bool:
    return find_spec("openvino") is not None


def import_openvino() -> Any:
    """The package. Raises UserError where it is not installed."""
    if not is_installed():
        raise UserError("OpenVINO is not installed: pip install '.[fast]', or use --engine torch")
    # Otherwise each import and conversion reports to a server and waits for it; OpenVINO works without that package.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@contextmanager
def one_line(who: str, what: str) -> Iterator[None]:
    """Turn an exception of a converter, which are of many kinds and pages long, into ConversionError."""
    try:
        yield
    except (ConversionError, MemoryError):
        raise
    except Exception as error:
        root: BaseException = error
        while root.__cause__:  # says what is missing; torch.onnx wraps it in advice
            root = root.__cause__
        text = " ".join(str(root).split()) or type(root).__name__
        fact = text if len(text) <= 200 else f"... {text[-200:]}"
        raise ConversionError(f"{who} cannot {what}: {fact}") from None


def _keep(request: Any, place: tuple[dict[int, Tensor], int]) -> None:
    """Called in a thread of OpenVINO when a batch is done."""
    done, i = place
    done[i] = torch.from_numpy(request.get_output_tensor(0).data.copy())
