"""CED, the small audio transformers of consistent ensemble distillation, with the names of their published weights.

Source: H. Dinkel et al., "CED: Consistent Ensemble Distillation for Audio Tagging", 2023; .pt files of the authors and
the .safetensors of their models for transformers. Their input is log-mel in decibels, which the network normalises.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpointing import run_blocks
from models.pooling import frame_head
from models.transformer import PATCH, Block, Patches, n_patches, start_small

LONGEST = 1012  # frames that the published table of positions covers
SIZES = {"tiny": (192, 3), "mini": (256, 4), "small": (384, 6), "base": (768, 12)}  # dim, heads


class CED(nn.Module):
    """(batch, in_channels, n_mels, n_frames) log-mel in decibels -> (batch, n_classes) logits.

    More than 1012 frames are cut into pieces of 1012, the last filled with zeros, whose probabilities of each class are
    averaged, as the authors do (their code leaves out a last piece that is full). Fewer use the start of the table of
    positions. n_mels: 64 as published. pooling: 'grid' is the published mean, the frame-wise ones, within a piece, are
    those of models/pooling.py.
    """

    HEAD = "outputlayer.1"
    checkpointing = False
    UNUSED = ("front_end.",)
    PUBLISHED_NAMES = ((r"^encoder\.", ""), (r"^init_bn\.1\.", "init_bn."))  # transformers' and the authors'

    def __init__(
        self,
        dim: int,
        heads: int,
        n_classes: int,
        in_channels: int = 1,
        n_mels: int = 64,
        dropout: float = 0.0,
        depth: int = 12,
        pooling: str = "grid",
    ) -> None:
        super().__init__()
        self.init_bn = nn.BatchNorm2d(n_mels, momentum=0.01)
        self.patch_embed = Patches(in_channels, dim, PATCH)
        self.time_pos_embed = nn.Parameter(torch.zeros(1, dim, 1, LONGEST // PATCH))
        self.freq_pos_embed = nn.Parameter(torch.zeros(1, dim, n_patches(n_mels, PATCH), 1))
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.outputlayer = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_classes))
        start_small(self)
        self.framewise = pooling != "grid"
        if self.framewise:
            self.outputlayer[1] = frame_head(pooling, dim, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        log_mel = self.init_bn(x[:, :1].transpose(1, 2)).transpose(1, 2)  # each band separately
        x = log_mel if x.shape[1] == 1 else torch.cat((log_mel, x[:, 1:]), dim=1)
        pieces = math.ceil(x.shape[3] / LONGEST)
        if pieces == 1:
            return self.piece(x)
        x = F.pad(x, (0, pieces * LONGEST - x.shape[3]))
        logits = self.piece(torch.cat(x.split(LONGEST, dim=3))).unflatten(0, (pieces, -1))
        # the logit of the mean probability, without the probability, which would round to 1
        return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)

    def piece(self, x: Tensor) -> Tensor:
        """Logits of up to LONGEST frames."""
        x = self.patch_embed(x)
        x = x + self.time_pos_embed[..., : x.shape[3]] + self.freq_pos_embed
        bands = x.shape[2]
        x = self.norm(run_blocks(self.blocks, self.checkpointing, x.flatten(2).transpose(1, 2)))
        x = x.unflatten(1, (bands, -1)).mean(1) if self.framewise else x.mean(1)
        return self.outputlayer(self.dropout(x))
