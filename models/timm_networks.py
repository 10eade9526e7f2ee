"""Networks of the timm library; the one module that imports it."""

import difflib

import timm
from torch import nn

from console.errors import UserError


def build_timm(name: str, n_classes: int, dropout: float, pretrained: bool, in_channels: int = 1) -> nn.Module:
    """A timm network for that many input channels; timm itself adapts pretrained first layers to them.

    Raises UserError on a name that timm does not know, on a network for one size of input only, and on weights that
    cannot be downloaded.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        hint = f"; near it are {', '.join(near)}" if near else ""
        raise UserError(f"model.name: timm has no network {name!r}{hint}")
    try:
        about = timm.get_pretrained_cfg(name)
        if about is not None and about.fixed_input_size:
            raise ValueError("it takes one size of input only: choose a convolutional network")
        network: nn.Module = timm.create_model(
            name, in_chans=in_channels, num_classes=n_classes, drop_rate=dropout, pretrained=pretrained
        )
    except Exception as error:  # timm raises whatever its networks and the download raise
        fact = " ".join(str(error).split())[:200] or type(error).__name__
        if not pretrained:
            raise UserError(f"model.name: timm cannot build {name} for log-mel input ({fact})") from None
        raise UserError(
            f"model.pretrained: timm could not fetch weights for {name} ({fact}): go online once, or give a file "
            f"with model.pretrained=false model.weights=FILE"
        ) from None
    return network
