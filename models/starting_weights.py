"""Starting weights: read from a file, matched to the network, and adapted to its input channels."""

import argparse
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from console.errors import UserError, list_some
from console.output import say, warn
from models.beats import check_settings
from models.published_names import with_our_names

_array = np.empty(0).__reduce__()[0]  # the function in a pickled array
_scalar: Any = np.float64(0).__reduce__()[0]
ARRAYS: list[Any] = [  # allowed, since some checkpoints contain arrays too, e.g. PANNs' of 16 kHz
    *((_array, "numpy.core.multiarray._reconstruct"), _array),  # the first name is from before NumPy 2
    *((_scalar, "numpy.core.multiarray.scalar"), _scalar),  # a best score, for example
    *(np.ndarray, np.dtype, np.dtypes.Int64DType, np.dtypes.Float32DType, np.dtypes.Float64DType, argparse.Namespace),
]
STATE_KEYS = ["state_dict", "model_state_dict", "model_state", "model"]  # of the state dict in a checkpoint
STATE_KEYS += ["network", "net", "module", "weights", "checkpoint"]
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # PyTorch's, parts of names
AVERAGED = "n_averaged"  # a counter in torch.optim.swa_utils.AveragedModel
State = dict[str, torch.Tensor]


def load_weights(network: nn.Module, state: State, file: str, partial: bool = False, frozen: bool = False) -> State:
    """Load a state dict; messages name it `file`. Returns the state by the network's own names.

    Names may have the prefix of a wrapper (DataParallel, torch.compile, a LightningModule). A first layer with other
    input channels is adapted. A last layer of another size, and a first convolution of another shape, keep their random
    start, and a line names them. Raises UserError with the keys if anything else does not fit; with `partial` only if
    nothing fits; with `frozen`, since nothing would train it, also for a first convolution.
    """
    own = network.state_dict()
    found = _unwrapped(state, network, file)
    if unusable := sorted(k for k, v in found.items() if k in own and not _is_usable(v, own[k])):
        raise UserError(f"{file}: not starting weights: NaN, infinity or no plain numbers in {list_some(unusable, 5)}")
    state = {k: v for k, v in found.items() if not k.startswith(getattr(network, "UNUSED", ()))}
    first = next((f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.Conv2d)), None)
    if first in state:
        state[first] = _first_layer(state[first], own[first])
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    head = tuple(f"{name}." for name in last_layer(network))
    lacking = [k for k in own if k not in fitting and not k.endswith("num_batches_tracked")]
    unknown = [k for k in state if k not in own and not k.startswith(head)]
    if partial and not any(own[k].dim() > 1 and not k.startswith(head) for k in fitting):
        raise UserError(f"{file}: no weight in it fits this network: use a file of weights of the same kind of network")
    if not partial:
        below = [k for k in lacking if not k.startswith(head) and (k != first or k not in state or frozen)]
        remedy = (
            "a frozen network needs all its weights" if frozen else "use model.partial_weights=true to take what fits"
        )
        _check_fit(below, unknown, state, file, remedy)
    network.load_state_dict(fitting, strict=False)
    if (lacking or unknown) and not frozen:  # whose last layer is not used
        more = f"; not used: {list_some(sorted(unknown), 5)}" if unknown else ""
        say_once(f"{file}: starts at random, not from this file: {list_some(sorted(lacking), 5)}{more}")
    return found


def _check_fit(lacking: list[str], unknown: list[str], state: State, file: str, remedy: str) -> None:
    """Raises UserError where anything is lacking or unknown."""
    facts = {
        "unknown": unknown,
        "missing": [k for k in lacking if k not in state],
        "of another shape": [k for k in lacking if k in state],
    }
    if any(facts.values()):
        text = "; ".join(f"{what} keys {list_some(sorted(keys), 5)}" for what, keys in facts.items() if keys)
        raise UserError(f"{file}: not the weights of this network: {text}: {remedy}")


def _unwrapped(state: State, network: nn.Module, file: str) -> State:
    """The state with the names of `network`.

    PyTorch's wrappers may be anywhere in a name. Another prefix such as 'model.' is the one with most matching names;
    other keys (a loss, a Tagger's mean) are not part of the network. Raises UserError if two prefixes match equally.
    """
    own = network.state_dict()
    wrappers = WRAPPERS - {part for k in own for part in k.split(".")}
    plain = {k: ".".join(part for part in k.split(".") if part not in wrappers) for k in state}
    if len(set(plain.values())) < len(plain):
        raise UserError(f"{file}: weights appear twice, with and without wrapper: save the state dict of one network")
    state = with_our_names({plain[k]: v for k, v in state.items() if k != AVERAGED}, network, file)
    fits: Counter[str] = Counter()
    for k in state:
        parts = k.split(".")
        fits.update(".".join((*parts[:i], "")) for i in range(len(parts)) if ".".join(parts[i:]) in own)
    best = [prefix for prefix, n in fits.items() if n == max(fits.values())]
    if "" in best or 2 * fits[best[0] if best else ""] < len(own):
        return state
    if len(best) > 1:
        raise UserError(f"{file}: several networks match, under {list_some(best)}: save only one of them")
    return {k.removeprefix(best[0]): v for k, v in state.items() if k.startswith(best[0])}


def _is_usable(there: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether a tensor has plain finite numbers: no indices, no codes of a quantized network."""
    plain = there.layout == torch.strided and there.device.type == "cpu" and not there.is_quantized
    real = not there.is_complex() and (there.is_floating_point() or not own.is_floating_point())
    return plain and real and bool(there.float().isfinite().all())


@cache
def warn_once(line: str) -> None:
    """Warn once, although a network is built before feature extraction and again for every fold."""
    warn(line)


@cache
def say_once(line: str) -> None:
    """As `warn_once`, to standard output."""
    say(line)


def last_layer(network: nn.Module) -> tuple[str, ...]:
    """The names of the layers that give the logits: 'head' unless the network says otherwise."""
    name = getattr(network, "pretrained_cfg", {}).get("classifier", getattr(network, "HEAD", "head"))
    return (name,) if isinstance(name, str) else tuple(name)


def _first_layer(there: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """A first convolution adapted to other input channels, with the same output.

    Three colours to n channels: each channel gets an n-th of their sum, so that equal channels give the output of equal
    colours. One channel to n: the others start at zero. Anything else is returned unchanged.
    """
    n = own.shape[1]
    if there.dim() != 4 or there.shape[1] == n or there.shape[1] not in (1, 3):
        return there
    if there.shape[1] == 3:
        return (there.sum(dim=1, keepdim=True) / n).expand(-1, n, -1, -1)
    return torch.cat([there, there.new_zeros(len(there), n - 1, *there.shape[2:])], dim=1)


def read_state(file: Path) -> State:
    """The state dict in a .safetensors or .pth file, a training checkpoint or a run folder's model.safetensors.

    Raises UserError if it cannot be read or has none.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load

            state: Any = load(file.read_bytes())  # load_file only takes UTF-8 paths
        else:
            with torch.serialization.safe_globals(ARRAYS):
                state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{file}: cannot read the weights: {error.strerror or error}: correct model.weights") from None
    except Exception as error:  # each format has its own errors
        text = " ".join(str(error).split())
        if held := re.search(r"Unsupported global: GLOBAL (\S+)", text):
            reason = f"it has objects that may run code ({held[1]}): save only the network's state_dict()"
        else:  # torch's first sentence: the others explain how to disable its check
            reason = f"{type(error).__name__}: {text.partition('. ')[0]}: use a .pth or .safetensors file"
        raise UserError(f"{file}: cannot read the weights: {reason}") from None
    if isinstance(state, dict) and isinstance(state.get("cfg"), dict):
        check_settings(state["cfg"], str(file))
    while isinstance(state, dict) and (inner := [state[k] for k in STATE_KEYS if isinstance(state.get(k), dict)]):
        state = inner[0]
    tensors = isinstance(state, dict) and all(isinstance(v, torch.Tensor) for v in state.values())
    if not tensors or not all(isinstance(k, str) for k in state):
        raise UserError(f"{file}: no state dict of tensors: save the network's state_dict()")
    return dict(state)
