"""A network by name, and its starting weights."""

from collections.abc import Callable, Collection
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from configs.schema import Config, ModelConfig
from configs.user_code import faults_in_one_line, is_user_code, load_callable
from console.errors import UserError
from models.cnn14 import Cnn14, front_end_differences
from models.onednn_workarounds import widen_narrow_inputs
from models.resnetish import STAGES, ResNetish
from models.starting_weights import _warn_once, load_weights, read_state
from models.vggish import AlexNet, VGGish

# By short name; each takes n_classes, in_channels, and which it likes of width, dropout, pooling and n_mels.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnetish{depth}": partial(ResNetish, depth) for depth in STAGES},
    "vggish": VGGish,
    "alexnet": AlexNet,
    "cnn14": Cnn14,
}


def build_model(cfg: Config, n_classes: int, start: bool = True) -> nn.Module:
    """The backbone: (batch, cfg.model.channels, n_mels, n_frames) -> (batch, n_classes) logits.

    start=False leaves out pretrained or given weights (a trained state follows). Raises UserError on an unknown name,
    on settings that the network does not have and on weights that do not fit.
    """
    model = cfg.model
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
    if model.name.startswith("timm:"):
        from models.timm_networks import build_timm

        _check_options(model, ("width", "dropout"))  # a width is not asked of them
        return build_timm(model.name.removeprefix("timm:"), n_classes, model.dropout, pretrained, model.channels)
    own = is_user_code(model.name)
    if not own and model.name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise UserError(
            f"model.name: no network {model.name!r}; known are {known}, timm:<network>, or yours: my_file:MyNet"
        )
    needed: dict[str, Any] = {"n_classes": n_classes, "in_channels": model.channels}
    options: dict[str, Any] = {"width": model.width, "dropout": model.dropout, "pooling": model.pooling}
    options |= {"n_mels": cfg.features.n_mels}
    make = load_callable(model.name, "model.name", [*needed], [*options]) if own else NETWORKS[model.name]
    taken = {key: value for key, value in options.items() if key in signature(make).parameters}
    _check_options(model, taken)
    if not own:
        return make(**needed, **taken)
    with faults_in_one_line(model.name, "model.name"):
        network = make(**needed, **taken)
    _check_answer(network, cfg, n_classes)
    return network


def _check_options(model: ModelConfig, taken: Collection[str]) -> None:
    """Raises UserError where a setting asks for what the network does not have."""
    if model.pooling != "grid" and "pooling" not in taken:
        raise UserError(f"model.pooling={model.pooling}: {model.name} has a pooling of its own: use model.pooling=grid")
    for key in ("width", "dropout"):
        if (value := getattr(model, key)) != getattr(ModelConfig(), key) and key not in taken:
            raise UserError(f"model.{key}={value}: {model.name} takes no {key}: leave the setting out")


def _check_answer(network: Any, cfg: Config, n_classes: int) -> None:
    """Raises UserError where what the user's code made is no network that answers a batch of crops with logits."""
    name = cfg.model.name
    if not isinstance(network, nn.Module):
        raise UserError(f"model.name: {name} must return an nn.Module, but returns {type(network).__name__}")
    n_frames = round(cfg.train.crop_seconds * cfg.features.sample_rate / cfg.features.hop_length)
    given = (2, cfg.model.channels, cfg.features.n_mels, n_frames)
    with faults_in_one_line(name, f"model.name, input of {given}"), torch.no_grad():
        logits = network.eval()(torch.zeros(given))  # a lazy layer learns its size
    network.train()
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, n_classes):
        about = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UserError(
            f"model.name: {name} must answer {given} with logits {(2, n_classes)}, but answers with {about}"
        )
