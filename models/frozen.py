"""Networks that are not trained here: windows of log-mel or of the waveform -> embeddings."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs.schema import Config
from console.errors import UserError, list_some
from models.build import build_model
from models.starting_weights import last_layer
from models.tagger import Tagger

EXTRA = "this needs {0}, which is not installed: pip install -c constraints.txt -e '.[frozen]', or pip install {0}"


class FrozenTagger:
    """A network of ours or of timm with the weights of the config: what its last layer is given.

    Call: (batch, 1, n_mels, n_frames) log-mel -> (batch, n) float32 on the CPU. mean, std (n_mels,): its normalisation.
    Raises UserError on an unknown name and on weights that do not fit.
    """

    def __init__(self, cfg: Config, mean: np.ndarray, std: np.ndarray, device: torch.device) -> None:
        model, backbone, unused = cfg.model, build_frozen(cfg), torch.zeros(2)
        shape = (torch.from_numpy(mean), torch.from_numpy(std), unused)
        options = (cfg.train.channels_last, model.deltas, model.frequency_channel)
        self.tagger = Tagger(backbone, *shape, *options).to(device).eval()
        self.given: list[Tensor] = []
        head = backbone.get_submodule(last_layer(backbone)[0])
        layer = [module for module in head.modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)][-1]
        self.frames_first = isinstance(layer, nn.Linear)  # (batch, frames, n), else (batch, n, frames) or a map
        layer.register_forward_pre_hook(lambda _, inputs: self.given.append(inputs[0]))

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> np.ndarray:
        self.given.clear()
        self.tagger(x)
        found = self.given[-1].float()
        if found.dim() > 2:  # frame by frame, or a map
            found = found.flatten(1, -2).mean(1) if self.frames_first else found.flatten(2).mean(2)
        if len(found) > len(x):  # CED's pieces of long inputs, one after the other
            found = found.unflatten(0, (-1, len(x))).mean(0)
        return found.cpu().numpy()


def build_frozen(cfg: Config) -> nn.Module:
    """The network behind 'embedding:' with its weights; its last layer is not used. Raises UserError as `build_model`,
    and where the weights lack a part of it."""
    assert cfg.model.frozen is not None
    model = replace(cfg.model, name=cfg.model.frozen, head="linear", output=None, clip_pooling="mean")
    return build_model(replace(cfg, model=model), n_classes=2, frozen=True)


class OnnxFile:
    """A network in an ONNX file: (windows, samples) float32 -> (windows, n) float32.

    output: the name of one of its outputs, None: the last one of two dimensions. n_samples: the only length that it
    takes, None for any. Raises UserError without onnxruntime, on a file that it cannot read and on an unknown output.
    """

    def __init__(self, file: str, output: str | None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"{file}: {EXTRA.format('onnxruntime')}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.log_severity_level = 3  # its warnings are for the authors of the file
        try:
            self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has many kinds, without a common one
            raise unreadable(file, error) from None
        flat = [one.name for one in self.session.get_outputs() if len(one.shape) == 2]
        known = [one.name for one in self.session.get_outputs()]
        self.output = chosen_output(file, output, known, flat)
        self.input = self.session.get_inputs()[0]
        batch, *middle, last = self.input.shape
        check_wave_input(file, self.input.type == "tensor(float)", [batch, *middle, last])
        self.one_by_one, self.middle = batch == 1, len(middle)
        self.n_samples: int | None = last if isinstance(last, int) else None

    def __call__(self, waves: np.ndarray) -> np.ndarray:
        x = waves.reshape(len(waves), *[1] * self.middle, -1)
        parts = np.split(x, len(x)) if self.one_by_one else [x]
        return np.concatenate([self.session.run([self.output], {self.input.name: part})[0] for part in parts])


class TFLiteFile:
    """A network in a TFLite file: as `OnnxFile`, for one window after the other.

    output: the name or number of any tensor (1, n), also inside of the network, such as the one before the last layer.
    """

    def __init__(self, file: str, output: str | None) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise UserError(f"{file}: {EXTRA.format('ai-edge-litert')}") from None
        threads = len(os.sched_getaffinity(0))
        try:
            plain = Interpreter(model_path=file, num_threads=threads)
            outputs = [tensor for tensor in plain.get_output_details() if len(tensor["shape"]) == 2]
            inside = output is not None and output not in {tensor["name"] for tensor in outputs}
            self.network = plain
            if inside:  # keeps what is computed on the way
                self.network = Interpreter(file, num_threads=threads, experimental_preserve_all_tensors=True)
            self.network.allocate_tensors()
            tensors = [t for t in self.network.get_tensor_details() if len(t["shape"]) == 2 and t["shape"][0] == 1]
        except (ValueError, RuntimeError) as error:
            raise unreadable(file, error) from None
        (given, *_) = self.network.get_input_details()
        shape = given["shape"].tolist()
        check_wave_input(file, given["dtype"] == np.float32, shape)
        names = {tensor["name"]: tensor["index"] for tensor in tensors} | {t["name"]: t["index"] for t in outputs}
        numbers = {str(index): index for index in names.values()}
        chosen = chosen_output(file, output, [*names, *numbers], [tensor["name"] for tensor in outputs], list(names))
        self.output, self.input, self.shape = (names | numbers)[chosen], given["index"], shape
        self.n_samples: int | None = shape[-1]

    def __call__(self, waves: np.ndarray) -> np.ndarray:
        found = []
        for wave in waves:
            self.network.set_tensor(self.input, wave.reshape(self.shape))
            self.network.invoke()
            found.append(self.network.get_tensor(self.output))
        return np.concatenate(found)


def wave_network(file: str, output: str | None) -> OnnxFile | TFLiteFile:
    """The network in an .onnx or .tflite file, see there."""
    return (OnnxFile if file.endswith(".onnx") else TFLiteFile)(file, output)


def chosen_output(
    file: str, output: str | None, known: Sequence[str], flat: Sequence[str], listed: Sequence[str] | None = None
) -> str:
    """`output` if it is known, without one the last of `flat`. Raises UserError that lists what there is."""
    if output is None and flat:
        return flat[-1]
    if output in known:
        return str(output)
    there = list_some(list(reversed(listed or known)), 12)
    what = "none of its outputs is (batch, n)" if output is None else f"no output {output!r}"
    raise UserError(f"model.output: {file}: {what}: use one of {there}")


def check_wave_input(file: str, is_float: bool, shape: Sequence[Any]) -> None:
    """Raises UserError unless it takes a float32 waveform: (batch, samples), maybe with ones between."""
    if not is_float or len(shape) < 2 or any(size != 1 for size in shape[1:-1]):
        raise UserError(
            f"{file}: its input {tuple(shape)} is no waveform (batch, samples) of float32: use another file"
        )


def unreadable(file: str, error: Exception) -> UserError:
    fact = " ".join(str(error).split())[:200]
    return UserError(f"{file}: cannot read the network ({fact}): bring the file again")
