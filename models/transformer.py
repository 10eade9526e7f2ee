"""What the audio transformers share: patches of the log-mel, blocks of attention, tables of positions."""

from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 16  # mels and frames


class Patches(nn.Module):
    """(batch, in_channels, n_mels, n_frames) -> (batch, dim, bands, steps), a vector for each patch of 16 x 16."""

    def __init__(self, in_channels: int, dim: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, PATCH, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Attention(nn.Module):
    """Every token of (batch, tokens, dim) looks at all tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (batch, heads, tokens, .)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two layers for each token, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each on normalised tokens and added to them.

    Source: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020; names as timm's.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def n_patches(size: int, stride: int) -> int:
    """Patches along an axis of that many mels or frames."""
    return (size - PATCH) // stride + 1


def start_small(network: nn.Module) -> None:
    """Random weights as usual for transformers: linear layers and tables of standard deviation 0.02."""
    for name, parameter in network.named_parameters(recurse=False):
        if name.endswith(("embed", "token")):
            nn.init.trunc_normal_(parameter, std=0.02)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
