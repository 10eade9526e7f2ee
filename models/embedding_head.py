"""What is trained on the embeddings of a frozen network: a linear layer, or one with a hidden layer before it."""

from typing import Literal

import torch
from torch import Tensor, nn

HIDDEN = 256  # units


class EmbeddingHead(nn.Module):
    """(batch, 1, n, 1) standardised embeddings, one for each clip -> (batch, n_classes) logits."""

    def __init__(self, n: int, n_classes: int, kind: Literal["linear", "mlp"] = "linear") -> None:
        super().__init__()
        self.hidden = nn.Linear(n, HIDDEN) if kind == "mlp" else None
        self.head = nn.Linear(HIDDEN if self.hidden else n, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1).float()
        with torch.autocast(x.device.type, enabled=False):  # half precision would save nothing, and make ties
            return self.head(self.hidden(x).relu() if self.hidden else x)
