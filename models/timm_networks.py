"""Networks of the timm library; the one module that imports it."""

import difflib

import timm
from timm.models import group_parameters
from torch import nn

from console.errors import UserError


def build_timm(name: str, n_classes: int, dropout: float, pretrained: bool, in_channels: int = 1) -> nn.Module:
    """A timm network with that many input channels; timm adapts pretrained first layers to them.

    Raises UserError on an unknown name, on a network with a fixed input size, and on weights that cannot be
    downloaded.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        hint = f": similar names are {', '.join(near)}" if near else ""
        raise UserError(f"model.name: timm has no network {name!r}{hint}")
    try:
        about = timm.get_pretrained_cfg(name)
        if about is not None and about.fixed_input_size:
            raise ValueError("it has a fixed input size: use a convolutional network")
        network: nn.Module = timm.create_model(
            name, in_chans=in_channels, num_classes=n_classes, drop_rate=dropout, pretrained=pretrained
        )
    except Exception as error:  # timm's networks and downloads raise any kind
        fact = " ".join(str(error).split())[:200] or type(error).__name__
        if not pretrained:
            raise UserError(f"model.name: timm cannot build {name} for log-mel input ({fact})") from None
        raise UserError(
            f"model.pretrained: timm could not download weights of {name} ({fact}): connect to the internet, or use a "
            f"file with model.pretrained=false model.weights=FILE"
        ) from None
    return network


def timm_steps(network: nn.Module) -> list[list[str]]:
    """The names of a timm network's parameters by depth."""
    matcher = network.group_matcher(coarse=False)  # type: ignore[operator]
    return [names for _, names in sorted(group_parameters(network, matcher).items())]
