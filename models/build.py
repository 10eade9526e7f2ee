"""A network by name, and its starting weights."""

from collections.abc import Callable, Collection
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import nn

from configs.schema import Config, ModelConfig
from configs.user_code import faults_in_one_line, is_user_code, load_callable
from console.errors import UserError
from models.ast import AST, PaSST
from models.beats import BEATs
from models.ced import CED, SIZES
from models.cnn14 import Cnn14, front_end_differences
from models.efficientat import WIDTHS, EfficientAT
from models.onednn_workarounds import widen_narrow_inputs
from models.published_names import weights_file
from models.resnetish import STAGES, ResNetish
from models.starting_weights import load_weights, read_state, warn_once
from models.vggish import AlexNet, VGGish

# Each takes n_classes, in_channels, and any of width, dropout, pooling and n_mels.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnetish{depth}": partial(ResNetish, depth) for depth in STAGES},
    "vggish": VGGish,
    "alexnet": AlexNet,
    "cnn14": Cnn14,
    "cnn10": partial(Cnn14, n_blocks=4),
    **{f"mn{tenths:02d}_as": partial(EfficientAT, tenths / 10) for tenths in WIDTHS},
    **{f"ced_{size}": partial(CED, *shape) for size, shape in SIZES.items()},
    "ast": AST,
    "beats": BEATs,
    "passt": PaSST,
}


def build_model(cfg: Config, n_classes: int, start: bool = True, frozen: bool = False) -> nn.Module:
    """The backbone: (batch, cfg.model.channels, n_mels, n_frames) -> (batch, n_classes) logits.

    start=False skips starting weights, because a trained state will be loaded. frozen: what the weights lack is never
    trained. Raises UserError on an unknown name, on settings that the network does not have and on weights that do not
    fit.
    """
    model = cfg.model
    if model.frozen is not None:
        raise UserError(f"model.name={model.name}: a frozen network is not searched: train it with train_fold.py")
    if model.pretrained and not model.name.startswith("timm:"):
        raise UserError(f"model.pretrained: {model.name} has no weights to download: use model.weights=FILE")
    network = _build_network(cfg, n_classes, model.pretrained and start)
    if model.weights and start:
        there = read_state(weights_file(model.weights))
        state = load_weights(network, there, model.weights, model.partial_weights, frozen)
        if isinstance(network, Cnn14) and (differences := front_end_differences(cfg, state)):
            warn_once(f"{model.weights}: trained with other features, so it helps less: {'; '.join(differences)}")
    widen_narrow_inputs(network)
    return network


def _build_network(cfg: Config, n_classes: int, pretrained: bool) -> nn.Module:
    model = cfg.model
    if model.name.startswith("timm:"):
        from models.timm_networks import build_timm

        _check_options(model, ("width", "dropout"))  # timm networks have a fixed width
        return build_timm(model.name.removeprefix("timm:"), n_classes, model.dropout, pretrained, model.channels)
    own = is_user_code(model.name)
    if not own and model.name not in NETWORKS:
        known = f"{', '.join(NETWORKS)}, timm:<network>, or your own my_file:MyNet"
        raise UserError(f"model.name: no network {model.name!r}: use one of {known}")
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
    _check_output(network, cfg, n_classes)
    return network


def _check_options(model: ModelConfig, taken: Collection[str]) -> None:
    """Raises UserError if the network does not have a setting."""
    if model.pooling != "grid" and "pooling" not in taken:
        fact = f"{model.name} has its own pooling and gives no frames"
        raise UserError(f"model.pooling={model.pooling}: {fact}: use model.pooling=grid")
    for key in ("width", "dropout"):
        if (value := getattr(model, key)) != getattr(ModelConfig(), key) and key not in taken:
            raise UserError(f"model.{key}={value}: {model.name} has no {key}: remove this setting")


def _check_output(network: Any, cfg: Config, n_classes: int) -> None:
    """Raises UserError unless the user's network returns logits for a batch of crops."""
    name = cfg.model.name
    if not isinstance(network, nn.Module):
        raise UserError(f"model.name: {name} must return an nn.Module, but returns {type(network).__name__}")
    n_frames = round(cfg.train.crop_seconds * cfg.features.sample_rate / cfg.features.hop_length)
    given = (2, cfg.model.channels, cfg.features.n_mels, n_frames)
    with faults_in_one_line(name, f"model.name, input of {given}"), torch.no_grad():
        logits = network.eval()(torch.zeros(given))  # lazy layers get their size
    network.train()
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, n_classes):
        about = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UserError(f"model.name: {name} must return logits {(2, n_classes)} for {given}, but returns {about}")
