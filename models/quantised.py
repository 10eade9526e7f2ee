"""A converted network in whole numbers of eight bits, by post-training quantisation: NNCF, an optional package."""

import logging
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import Any

import torch
from torch import Tensor

from console.errors import UserError
from models.openvino_conversion import ConversionError, largest_difference, one_line
from models.tagger import Tagger

PART = 8  # windows at once
WINDOWS, LEAST = 64, 32  # that show how large activations become: as many as there are, and no fewer
EVERY = 4  # one in so many of them is kept for the comparison with PyTorch
NEAR = 16  # windows that are compared
FAR = 0.3  # of a probability: a larger difference means that rounding broke the network


def quantise(model: Any, windows: Tensor) -> Any:
    """The openvino.Model with weights and activations of eight bits. Raises ConversionError.

    windows (n, 1, n_mels, n_frames): sounds that show how large activations become; no labels are needed. The bias of
    each layer is corrected by what these windows lose (NNCF's accurate way: with the fast one ResNetish lost 0.002 of
    MAP@3, with this one nothing).
    """
    import_nncf()
    with one_line("NNCF", "quantise this network"), warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # NNCF imports it; it looks for CUDA
        import nncf

        nncf.set_log_level(40)  # errors
        parts = [part.numpy() for part in windows.split(PART)]
        settings = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(parts), "fast_bias_correction": False}
        return nncf.quantize(model, nncf.Dataset(parts), **settings)


def split(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Those that a network is rounded by, and those that it is compared on."""
    kept = torch.arange(len(windows)) % EVERY == EVERY - 1
    return windows[~kept], windows[kept]


def check_near(tagger: Tagger, compiled: Any, x: Tensor) -> None:
    """Raises ConversionError where a quantised network answers the first of windows x quite otherwise than PyTorch in
    fp32."""
    difference = largest_difference(tagger, compiled, x[:NEAR])
    if not difference <= FAR:  # NaN too
        raise ConversionError(
            f"in eight bits it differs from PyTorch on windows of {x.shape[-1]} frames, by {difference:.1g}"
        )


def import_nncf() -> None:
    """Raises UserError where it is not installed."""
    if find_spec("nncf") is None:
        raise UserError("NNCF is not installed: pip install '.[int8]', or use --engine openvino")
