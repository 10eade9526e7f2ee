"""A network by name, and its starting weights."""

from pathlib import Path
from typing import Any

from torch import nn

from configs.schema import Config
from console.errors import UserError
from models.cnn14 import Cnn14, front_end_differences
from models.onednn_workarounds import widen_narrow_inputs
from models.resnetish import STAGES, ResNetish
from models.starting_weights import _warn_once, load_weights, read_state
from models.vggish import AlexNet, VGGish

NAMES = (*(f"resnetish{depth}" for depth in STAGES), "vggish", "alexnet", "cnn14", "timm:<network>")


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
        state = load_weights(network, read_state(Path(model.weights)), model.weights)
        if isinstance(network, Cnn14) and (told := front_end_differences(cfg, state)):
            _warn_once(f"{model.weights}: learnt with other features, its start will be worse: {'; '.join(told)}")
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
