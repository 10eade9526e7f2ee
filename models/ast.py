"""AST and PaSST, transformers with the shape of DeiT, and the names of their published weights.

Sources: Y. Gong et al., "AST: Audio Spectrogram Transformer", 2021 (audioset_10_10_0.4593.pth of the authors, or the
file of MIT/ast-finetuned-audioset-10-10-0.4593 for transformers); K. Koutini et al., "Efficient Training of Audio
Transformers with Patchout", 2021 (passt-s-f128-p16-s10-ap.476-swa.pt).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpointing import run_blocks
from models.transformer import Block, Patches, n_patches, start_small

STRIDE = 10  # of the patches, mels and frames
BANDS, STEPS = n_patches(128, STRIDE), n_patches(1024, STRIDE)  # of AST's table of positions: 12, 101
PASST_STEPS = n_patches(998, STRIDE)
OLD_LAYER = r"^audio_spectrogram_transformer\.encoder\.layer\.(\d+)\."  # of transformers


class AST(nn.Module):
    """(batch, in_channels, n_mels, n_frames) normalised log-mel -> (batch, n_classes) logits, of any length.

    The table of positions is cut in its middle for shorter inputs and fewer mels, and interpolated for longer ones, as
    the authors do when they fine-tune it. dropout: before the last layer, none as published.
    """

    HEAD = "head.1"
    checkpointing = False
    UNUSED = ("unused.",)
    PUBLISHED_NAMES = (
        (r"^v\.(head|head_dist)\.", r"unused.\1."),  # of the image network
        (r"^v\.", ""),
        (r"^mlp_head\.", "head."),
        (OLD_LAYER + r"attention\.attention\.query\.", r"blocks.\1.attn.qkv.0."),
        (OLD_LAYER + r"attention\.attention\.key\.", r"blocks.\1.attn.qkv.1."),
        (OLD_LAYER + r"attention\.attention\.value\.", r"blocks.\1.attn.qkv.2."),
        (OLD_LAYER + r"attention\.output\.dense\.", r"blocks.\1.attn.proj."),
        (OLD_LAYER + r"intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
        (OLD_LAYER + r"output\.dense\.", r"blocks.\1.mlp.fc2."),
        (OLD_LAYER + r"layernorm_before\.", r"blocks.\1.norm1."),
        (OLD_LAYER + r"layernorm_after\.", r"blocks.\1.norm2."),
        (r"^audio_spectrogram_transformer\.layernorm\.", "norm."),
        (r"^audio_spectrogram_transformer\.embeddings\.distillation_token", "dist_token"),
        (r"^audio_spectrogram_transformer\.embeddings\.cls_token", "cls_token"),
        (r"^audio_spectrogram_transformer\.embeddings\.position_embeddings", "pos_embed"),
        (r"^audio_spectrogram_transformer\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^classifier\.layernorm\.", "head.0."),
        (r"^classifier\.dense\.", "head.1."),
    )

    def __init__(
        self,
        n_classes: int,
        in_channels: int = 1,
        dropout: float = 0.0,
        dim: int = 768,
        heads: int = 12,
        depth: int = 12,
    ) -> None:
        super().__init__()
        self.patch_embed = Patches(in_channels, dim, STRIDE)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 2 + BANDS * STEPS, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_classes))
        start_small(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        grid = self.pos_embed[:, 2:].transpose(1, 2).unflatten(2, (BANDS, STEPS))
        x = x + resized(resized(grid, 3, x.shape[3]), 2, x.shape[2])
        return logits_of(self, x, self.pos_embed[:, :2])


class PaSST(nn.Module):
    """(batch, in_channels, n_mels, n_frames) normalised log-mel -> (batch, n_classes) logits, of any length.

    Positions in time and in frequency have a table each. Shorter inputs use the start of the table in time, in training
    a random part; longer ones interpolate it (the authors cut such inputs, and lose their end). Without patchout.
    n_mels: 128 as published.
    """

    HEAD = "head.1"
    checkpointing = False
    UNUSED = ("head_dist.",)

    def __init__(
        self,
        n_classes: int,
        in_channels: int = 1,
        n_mels: int = 128,
        dropout: float = 0.0,
        dim: int = 768,
        heads: int = 12,
        depth: int = 12,
    ) -> None:
        super().__init__()
        self.patch_embed = Patches(in_channels, dim, STRIDE)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, dim))
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, dim, n_patches(n_mels, STRIDE), 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, dim, 1, PASST_STEPS))
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_classes))
        start_small(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        spare = PASST_STEPS - x.shape[3]
        start = int(torch.randint(spare + 1, ())) if self.training and spare > 0 else 0
        x = x + resized(self.time_new_pos_embed, 3, x.shape[3], start) + self.freq_new_pos_embed
        return logits_of(self, x, self.new_pos_embed)


def logits_of(network: AST | PaSST, x: Tensor, positions: Tensor) -> Tensor:
    """(batch, n_classes) from patches (batch, dim, bands, steps) with their positions added: the mean of the two tokens
    before them, whose own positions are (1, 2, dim)."""
    tokens = torch.cat((network.cls_token, network.dist_token), dim=1) + positions
    x = torch.cat((tokens.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)), dim=1)
    x = network.norm(run_blocks(network.blocks, network.checkpointing, x))
    return network.head(network.dropout(x[:, :2].mean(1)))


def resized(table: Tensor, axis: int, size: int, start: int | None = None) -> Tensor:
    """(1, dim, bands, steps) with `size` along axis 2 or 3: a part from `start`, else from the middle, or interpolated
    where it is longer."""
    there = table.shape[axis]
    if size <= there:
        return table.narrow(axis, there // 2 - size // 2 if start is None else start, size)
    shape = (size, table.shape[3]) if axis == 2 else (table.shape[2], size)
    return F.interpolate(table, size=shape, mode="bilinear")
