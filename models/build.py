"""A network by name, and its starting weights."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from configs.console import warn
from configs.errors import UserError, list_some
from configs.schema import Config
from models.cnn14 import FRONT_END, Cnn14, front_end_differences
from models.narrow_input import widen_narrow_inputs
from models.resnetish import STAGES, ResNetish
from models.vggish import AlexNet, VGGish

NAMES = (*(f"resnetish{depth}" for depth in STAGES), "vggish", "alexnet", "cnn14", "timm:<network>")
_array = np.empty(0).__reduce__()[0]  # the function that a pickled array names
ARRAYS: list[Any] = [  # read too, since some checkpoints hold arrays beside their weights: PANNs' of 16 kHz, for one
    *((_array, "numpy.core.multiarray._reconstruct"), _array),  # the first is its name before NumPy 2
    *(np.ndarray, np.dtype, np.dtypes.Int64DType),
]
State = dict[str, torch.Tensor]


def build_model(cfg: Config, n_classes: int, start: bool = True) -> nn.Module:
    """The backbone: (batch, cfg.model.channels, n_mels, n_frames) -> (batch, n_classes) logits.

    start=False leaves out pretrained or given weights (a trained state follows). Raises UserError on an unknown name,
    on settings that the network does not have and on weights that do not fit.
    """
    model = cfg.model
    if model.pooling != "grid" and not model.name.startswith(("resnetish", "vggish")):
        raise UserError(f"model.pooling={model.pooling}: {model.name} has a pooling of its own: use model.pooling=grid")
    if model.pretrained and not model.name.startswith("timm:"):
        raise UserError(f"model.pretrained: {model.name} has no weights to fetch; give a file with model.weights=FILE")
    network = _untrained(cfg, n_classes, model.pretrained and start)
    if model.weights and start:
        state = read_state(Path(model.weights))
        if isinstance(network, Cnn14) and (told := front_end_differences(cfg, state)):
            _warn_once(f"{model.weights}: learnt with other features, its start will be worse: {'; '.join(told)}")
        load_weights(network, state, model.weights)
    widen_narrow_inputs(network)
    return network


def _untrained(cfg: Config, n_classes: int, pretrained: bool) -> nn.Module:
    model = cfg.model
    size: dict[str, Any] = {"n_classes": n_classes, "width": model.width, "dropout": model.dropout}
    size |= {"in_channels": model.channels}
    if model.name.startswith("timm:"):
        from models.timm_networks import build_timm

        return build_timm(model.name.removeprefix("timm:"), n_classes, model.dropout, pretrained, model.channels)
    if model.name.startswith("resnetish") and model.name[9:] in map(str, STAGES):
        return ResNetish(int(model.name[9:]), **size, pooling=model.pooling)
    if model.name == "vggish":
        return VGGish(**size, pooling=model.pooling)
    if model.name == "alexnet":
        return AlexNet(**size)
    if model.name == "cnn14":
        return Cnn14(**size, n_mels=cfg.features.n_mels)
    raise UserError(f"model.name: no network {model.name!r}; known are {', '.join(NAMES)}")


def load_weights(network: nn.Module, state: State, file: str) -> None:
    """Start from a state dict; `file` is what errors call it.

    A last layer of another size keeps its random start; a first layer of other input channels is adapted. Raises
    UserError, naming keys, where anything else does not fit.
    """
    own = network.state_dict()
    aside = FRONT_END if isinstance(network, Cnn14) else ()
    state = {k: v for k, v in state.items() if not k.startswith(aside)}
    first = next((k for k, v in own.items() if v.dim() == 4), None)
    if first in state:
        state[first] = _first_layer(state[first], own[first])
    head = tuple(f"{name}." for name in _classifier(network))
    absent = [k for k in own if k not in state and not k.startswith(head) and not k.endswith("num_batches_tracked")]
    misfit = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    facts = {
        "unknown": [k for k in state if k not in own and not k.startswith(head)],
        "missing": absent,
        "of another shape": [k for k in misfit if not k.startswith(head)],
    }
    if any(facts.values()):
        told = "; ".join(f"{what} keys {list_some(sorted(keys), 5)}" for what, keys in facts.items() if keys)
        raise UserError(f"{file}: not the weights of this network: {told}")
    network.load_state_dict({k: v for k, v in state.items() if k in own and k not in misfit}, strict=False)


@cache
def _warn_once(line: str) -> None:
    """A network is built before the features are made and again for every fold."""
    warn(line)


def _classifier(network: nn.Module) -> tuple[str, ...]:
    """The name of the last layer; timm says it of its networks, in ours it is 'head' but for CNN14."""
    own = "fc_audioset" if isinstance(network, Cnn14) else "head"
    name = getattr(network, "pretrained_cfg", {}).get("classifier", own)
    return (name,) if isinstance(name, str) else tuple(name)


def _first_layer(there: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """A first convolution for other input channels, answering as it did.

    Three colours for n channels: each channel gets an n-th of their sum, so that the same input in all channels has the
    answer that it had in all colours. One channel for n: it stays the first, and the others begin at zero. What is
    neither is returned as it is.
    """
    n = own.shape[1]
    if there.dim() != 4 or there.shape[1] == n or there.shape[1] not in (1, 3):
        return there
    if there.shape[1] == 3:
        return (there.sum(dim=1, keepdim=True) / n).expand(-1, n, -1, -1)
    return torch.cat([there, there.new_zeros(len(there), n - 1, *there.shape[2:])], dim=1)


def read_state(file: Path) -> State:
    """The state dict in a .safetensors or .pth file, a training checkpoint or a run folder's model.safetensors.

    Raises UserError where it cannot be read or holds none.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load

            state: Any = load(file.read_bytes())  # load_file takes no path that is not UTF-8
        else:
            with torch.serialization.safe_globals(ARRAYS):
                state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each format fails in its own ways; the file is at fault in all of them
        fact = str(error).strip().partition("\n")[0].partition(". ")[0]  # then follow torch's ways around its own check
        kind = type(error).__name__
        raise UserError(
            f"{file}: cannot read the weights ({kind}: {fact}): is it a .pth or .safetensors file?"
        ) from None
    for wrapper in ("state_dict", "model"):  # training checkpoints wrap the state
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError(f"{file}: holds no state dict of tensors")
    inside = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    return inside or state  # a Tagger also holds the normalisation of its own clips
