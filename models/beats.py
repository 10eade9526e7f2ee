"""BEATs, with the names of its published weights (BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt and its like).

Sources: S. Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers", 2022; the attention's gated relative
positions are those of S. Chen et al., "WavLM", 2021, the norms H. Wang et al., "DeepNet", 2022. Only self-supervised
weights have no last layer: it starts at random.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from console.errors import UserError
from models.checkpointing import run_blocks
from models.pooling import frame_head
from models.transformer import PATCH

BUCKETS, FARTHEST = 320, 800  # of relative positions; the distance, in tokens, from which all share a bucket
KERNEL, GROUPS = 128, 16  # of the convolution over tokens that gives positions
SETTINGS = {  # in the files' cfg, which shapes of tensors do not show
    "relative_position_embedding": True,
    "max_distance": FARTHEST,
    "gru_rel_pos": True,
    "deep_norm": True,
    "layer_norm_first": False,
    "activation_fn": "gelu",
}


class BEATs(nn.Module):
    """(batch, in_channels, n_mels, n_frames) normalised log-mel -> (batch, n_classes) logits, of any size.

    dropout: before the last layer. The tokens are in the order of time, 8 for each 16 frames of 128 mels. pooling:
    'grid' is the published mean, the frame-wise ones are those of models/pooling.py.
    """

    checkpointing = False
    UNUSED = ("unused.",)
    PUBLISHED_NAMES = (
        (r"^encoder\.layers\.0\.self_attn\.relative_attention_bias\.", "relative_attention_bias."),
        (r"^encoder\.layers\.(\d+)\.self_attn\.relative_attention_bias\.", r"unused.\1."),  # the same in all layers
        (r"^encoder\.layers\.", "blocks."),
        (r"^encoder\.pos_conv\.0\.", "pos_conv."),
        (r"^encoder\.layer_norm\.", "norm."),
        (r"^predictor\.", "head."),
    )

    def __init__(
        self,
        n_classes: int,
        in_channels: int = 1,
        dropout: float = 0.0,
        dim: int = 768,
        heads: int = 12,
        depth: int = 12,
        patch_dim: int = 512,
        pooling: str = "grid",
    ) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(in_channels, patch_dim, PATCH, PATCH, bias=False)
        self.layer_norm = nn.LayerNorm(patch_dim)
        self.post_extract_proj = nn.Linear(patch_dim, dim)
        self.pos_conv = PositionalConv(dim)
        self.norm = nn.LayerNorm(dim)
        self.relative_attention_bias = nn.Embedding(BUCKETS, heads)
        self.blocks = nn.ModuleList(BEATsBlock(dim, heads, depth) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.framewise = pooling != "grid"
        self.head = frame_head(pooling, dim, n_classes) if self.framewise else nn.Linear(dim, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embedding(x.transpose(2, 3))  # the kernels are time x mel
        bands = x.shape[3]
        x = x.flatten(2).transpose(1, 2)
        x = self.post_extract_proj(self.layer_norm(x))
        x = self.norm(x + self.pos_conv(x))
        bias = self.relative_attention_bias(buckets(x.shape[1], x.device)).permute(2, 0, 1)  # (heads, tokens, tokens)
        x = run_blocks(self.blocks, self.checkpointing, x, bias)
        x = x.unflatten(1, (-1, bands)).mean(2) if self.framewise else x.mean(1)
        return self.head(self.dropout(x))


class PositionalConv(nn.Module):
    """A grouped convolution over tokens, whose kernel has a length and a direction for each of its taps."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        kernel = torch.randn(dim, dim // GROUPS, KERNEL) * math.sqrt(4 / (KERNEL * dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.weight_g = nn.Parameter(kernel.norm(dim=(0, 1), keepdim=True))
        self.weight_v = nn.Parameter(kernel)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        x = F.conv1d(x.transpose(1, 2), kernel, self.bias, padding=KERNEL // 2, groups=GROUPS)
        return F.gelu(x[..., :-1]).transpose(1, 2)  # an even kernel gives one token too many


class BEATsBlock(nn.Module):
    """Attention and two layers, each added to the tokens, which are then normalised."""

    def __init__(self, dim: int, heads: int, depth: int) -> None:
        super().__init__()
        self.residual = (2 * depth) ** 0.25  # how much the tokens weigh against what is added
        self.self_attn = GatedAttention(dim, heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        less = (8 * depth) ** -0.25
        for layer in (self.self_attn.v_proj, self.self_attn.out_proj, self.fc1, self.fc2):
            nn.init.xavier_normal_(layer.weight, gain=less)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.self_attn_layer_norm(self.residual * x + self.self_attn(x, bias))
        return self.final_layer_norm(self.residual * x + self.fc2(F.gelu(self.fc1(x))))


class GatedAttention(nn.Module):
    """Attention with a bias for each distance, times a gate that each token opens or closes."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, dim) for _ in range(3))
        self.out_proj = nn.Linear(dim, dim)
        self.grep_linear = nn.Linear(dim // heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        split = (layer(x).unflatten(2, (self.heads, -1)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (part.transpose(1, 2) for part in split)  # (batch, heads, tokens, dim // heads)
        a, b = self.grep_linear(q).unflatten(3, (2, 4)).sum(4).sigmoid().chunk(2, dim=3)
        gate = a * (b * self.grep_a - 1) + 2
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=(gate * bias).to(q.dtype))
        return self.out_proj(x.transpose(1, 2).flatten(2))


def buckets(tokens: int, device: torch.device) -> Tensor:
    """(tokens, tokens) the bucket of the distance from a token to another: half for each direction, of which half are
    exact and the others grow with the logarithm. Source: C. Raffel et al., T5, 2019."""
    place = torch.arange(tokens, device=device)
    distance = place[None] - place[:, None]
    each = BUCKETS // 2
    exact = each // 2
    away = distance.abs()
    far = exact + ((away.float() / exact).log() / math.log(FARTHEST / exact) * (each - exact)).long()
    return (distance > 0) * each + torch.where(away < exact, away, far.clamp(max=each - 1))


def check_settings(cfg: dict[str, Any], file: str) -> None:
    """Raises UserError if the cfg in a file of weights is that of a BEATs with other settings than the published."""
    if "max_distance" in cfg:
        other = [
            f"{key}={cfg[key]!r} is not {value!r}" for key, value in SETTINGS.items() if cfg.get(key, value) != value
        ]
        if other:
            raise UserError(f"{file}: not the weights of this network: {'; '.join(other)}")
