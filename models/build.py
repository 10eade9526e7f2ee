"""A network by name, and its starting weights."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from configs.errors import UserError, list_some
from configs.schema import ModelConfig
from models.resnetish import STAGES, ResNetish
from models.vggish import AlexNet, VGGish

NAMES = (*(f"resnetish{depth}" for depth in STAGES), "vggish", "alexnet", "timm:<network>")


def build_model(cfg: ModelConfig, n_classes: int, start: bool = True) -> nn.Module:
    """The backbone: (batch, 1, n_mels, n_frames) -> (batch, n_classes) logits.

    start=False leaves out pretrained or given weights (a trained state follows). Raises UserError on an unknown name
    and on weights that do not fit.
    """
    size: dict[str, Any] = {"n_classes": n_classes, "width": cfg.width, "dropout": cfg.dropout}
    if cfg.name.startswith("timm:"):
        from models.timm_networks import build_timm

        network = build_timm(cfg.name.removeprefix("timm:"), n_classes, cfg.dropout, cfg.pretrained and start)
    elif cfg.name.startswith("resnetish") and cfg.name[9:] in map(str, STAGES):
        network = ResNetish(int(cfg.name[9:]), **size)
    elif cfg.name == "vggish":
        network = VGGish(**size)
    elif cfg.name == "alexnet":
        network = AlexNet(**size)
    else:
        raise UserError(f"model.name: no network {cfg.name!r}; known are {', '.join(NAMES)}")
    if cfg.pretrained and not cfg.name.startswith("timm:"):
        raise UserError(f"model.pretrained: {cfg.name} has no published weights; give a file with model.weights=FILE")
    if cfg.weights and start:
        load_weights(network, Path(cfg.weights))
    return network


def load_weights(network: nn.Module, file: Path) -> None:
    """Start from a state dict in a .safetensors or .pth file, or from a run folder's model.safetensors.

    A last layer of another size keeps its random start; a first layer for three colours is summed over them, as timm
    does. Raises UserError, naming keys, where the file is unreadable or anything else does not fit.
    """
    own = network.state_dict()
    state = {k: _one_channel(v, own[k]) if k in own else v for k, v in _read_state(file).items()}
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


def _classifier(network: nn.Module) -> tuple[str, ...]:
    """The name of the last layer; timm says it of its networks, in ours it is 'head'."""
    name = getattr(network, "pretrained_cfg", {}).get("classifier", "head")
    return (name,) if isinstance(name, str) else tuple(name)


def _one_channel(there: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """A convolution over three colours as one over their sum, where the network has one channel."""
    if there.dim() == own.dim() == 4 and there.shape[1] == 3 and own.shape[1] == 1:
        return there.sum(dim=1, keepdim=True)
    return there


def _read_state(file: Path) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each format fails in its own ways; the file is at fault in all of them
        raise UserError(f"{file}: cannot read the weights: {' '.join(str(error).split())[:200]}") from None
    for wrapper in ("state_dict", "model"):  # training checkpoints wrap the state
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError(f"{file}: holds no state dict of tensors")
    inside = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    return inside or state  # a Tagger also holds the normalisation of its own clips
