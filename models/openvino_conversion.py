"""A trained network as OpenVINO computes it on a CPU: converted, compiled, compared with PyTorch.

OpenVINO is an optional package (pip install '.[fast]') and is imported only when it is asked for.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from console.errors import UserError
from models.device import autocast, streams
from models.tagger import Tagger

HINTS = {"fp32": "f32", "bf16": "bf16"}
TOLERANCE = 1e-4  # of a probability in fp32


class ConversionError(Exception):
    """A network cannot be converted, or then answers otherwise than PyTorch; one line says how."""


def convert(tagger: Tagger, n_frames: int, any_length: bool = False) -> Any:
    """The openvino.Model of a tagger for any number of windows, of n_frames or of any length: log-mel -> logits.

    Raises ConversionError where it cannot be converted.
    """
    n_mels = len(tagger.mean)
    model = convert_traced(tagger.eval(), (torch.zeros(2, 1, n_mels, n_frames),))
    return with_lengths(model, n_mels, -1 if any_length else n_frames)


def convert_traced(network: nn.Module, example: tuple[Tensor, ...]) -> Any:
    """The openvino.Model of a network with inputs like the example. Raises ConversionError."""
    ov = import_openvino()
    with one_line("OpenVINO", "convert this network"), in_fp32(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each size that Python computes; the numbers are compared instead
        # traced here, as OpenVINO does but without running the network again to compare: three times as fast
        traced = torch.jit.trace(network, example, check_trace=False, strict=False)
        return ov.convert_model(traced, example_input=example)


def with_lengths(model: Any, n_mels: int, n_frames: int) -> Any:
    """The model for any number of windows of n_frames; -1: of any length. Raises ConversionError."""
    with one_line("OpenVINO", "convert this network"):
        model.reshape([-1, 1, n_mels, n_frames])
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
    difference = largest_difference(tagger, compiled, x)
    if not difference <= TOLERANCE:  # NaN too
        raise ConversionError(
            f"converted it differs from PyTorch on windows of {x.shape[-1]} frames, by {difference:.1g}"
        )


def largest_difference(tagger: Tagger, compiled: Any, x: Tensor) -> float:
    """Of the probabilities of windows x, between a compiled network and PyTorch in fp32. Raises ConversionError."""
    with torch.inference_mode(), in_fp32(), one_line("OpenVINO", "run this network"):
        answer = torch.from_numpy(compiled({0: x.numpy().copy()})[0].copy())
        pair = [tagger.probabilities(logits) for logits in (answer, tagger(x))]
        return float((pair[0] - pair[1]).abs().max())  # fails if the number of windows was fixed


def in_fp32() -> AbstractContextManager[None]:
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
