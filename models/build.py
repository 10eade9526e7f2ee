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
    """Start from a state dict in a .safetensors or .pth file; a last layer of another size keeps its random start.

    Raises UserError, naming keys, where the file is unreadable or anything but the last layer does not fit.
    """
    state = _read_state(file)
    own = network.state_dict()
    misfit = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    last = list(own)[-2:]  # weight and bias of the classifier
    unknown, missing = sorted(set(state) - set(own)), sorted(set(own) - set(state) - set(last))
    if unknown or missing or set(misfit) - set(last):
        facts = [("unknown", unknown), ("missing", missing), ("of another shape", sorted(set(misfit) - set(last)))]
        told = "; ".join(f"{what} keys {list_some(keys, 5)}" for what, keys in facts if keys)
        raise UserError(f"{file}: not the weights of this network: {told}")
    network.load_state_dict({k: v for k, v in state.items() if k not in misfit}, strict=False)


def _read_state(file: Path) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each format fails in its own ways; the file is at fault in all of them
        raise UserError(f"{file}: cannot read the weights: {' '.join(str(error).split())[:200]}") from None
    for wrapper in ("state_dict", "model"):  # training checkpoints wrap the state
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError(f"{file}: holds no state dict of tensors")
    return state
