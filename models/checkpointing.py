"""Gradient checkpointing: a block's activations are computed again for the gradient instead of kept.

Source: T. Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from console.errors import UserError


def keep_few_activations(network: nn.Module, name: str) -> None:
    """Turn it on: in timm's networks by their own means, in others by their attribute `checkpointing`.

    Raises UserError where a network has neither.
    """
    if hasattr(network, "checkpointing"):
        network.checkpointing = True  # type: ignore[assignment]
        return
    try:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError):  # timm asserts that it is not asked for
        raise UserError(f"train.checkpointing: {name} cannot: use false, and a smaller train.batch_size") from None


def run_blocks(blocks: Iterable[nn.Module], checkpointing: bool, x: Tensor, *further: Tensor) -> Tensor:
    """Block after block, each called with x and `further`."""
    for block in blocks:
        again = checkpointing and torch.is_grad_enabled()
        x = checkpoint(block, x, *further, use_reentrant=False) if again else block(x, *further)
    return x
