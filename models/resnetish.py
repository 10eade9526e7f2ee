"""ResNetish: a ResNet for log-mel input.

Source: S. Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017: the first convolution
keeps its stride at 1, and the last pooling leaves a 4 x 6 grid instead of one cell. Blocks: K. He et al., "Deep
Residual Learning for Image Recognition", 2016, with the stride of a bottleneck at its 3x3 convolution.
"""

from torch import Tensor, nn

from models.onednn_workarounds import StridedPointwise
from models.pooling import FRAMEWISE, AvgMaxPool, MelMean, frame_head

GRID = (4, 6)  # mel x time cells that reach the classifier
STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class ResNetish(nn.Module):
    """(batch, in_channels, n_mels, n_frames) log-mel -> (batch, n_classes) logits, for any input size.

    depth is 10, 18, 34 or 50 (a KeyError otherwise); width is the number of channels of the first stage. pooling:
    'grid' is the source's, the others are those of models/pooling.py, which ignore the position in time.
    """

    def __init__(
        self,
        depth: int,
        n_classes: int,
        width: int = 64,
        dropout: float = 0.0,
        in_channels: int = 1,
        pooling: str = "grid",
    ) -> None:
        super().__init__()
        block = Bottleneck if depth == 50 else BasicBlock
        # pooled before the ReLU: the same numbers from a quarter of the work
        self.stem = nn.Sequential(conv(in_channels, width, 7), nn.MaxPool2d(3, 2, 1), nn.ReLU(inplace=True))
        stages: list[nn.Module] = []
        channels = width
        for i, n_blocks in enumerate(STAGES[depth]):
            for j in range(n_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                stages.append(block(channels, width * 2**i, stride))
                channels = width * 2**i * block.expansion
        self.stages = nn.Sequential(*stages)
        self.pool: nn.Module
        self.head: nn.Module
        if pooling in FRAMEWISE:
            self.pool, self.head = MelMean(), frame_head(pooling, channels, n_classes, dropout)
        else:
            self.pool = nn.AdaptiveAvgPool2d(GRID) if pooling == "grid" else AvgMaxPool()
            features = channels * GRID[0] * GRID[1] if pooling == "grid" else channels
            self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, n_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.stages(self.stem(x))))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(n_in, width, 3, stride), nn.ReLU(inplace=True), conv(width, width, 3))
        self.shortcut = shortcut(n_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut; four times as many channels out."""

    expansion = 4

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.body = nn.Sequential(
            conv(n_in, width, 1), relu, conv(width, width, 3, stride), relu, conv(width, width * 4, 1)
        )
        self.shortcut = shortcut(n_in, width * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x), inplace=True)


def conv(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution that keeps the size (except for the stride), and its batch normalisation."""
    kind = StridedPointwise if kernel == 1 and stride > 1 and n_in < 16 else nn.Conv2d
    return nn.Sequential(kind(n_in, n_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(n_out))


def shortcut(n_in: int, n_out: int, stride: int) -> nn.Module:
    """The identity if shapes allow it, else a 1x1 convolution."""
    return nn.Identity() if stride == 1 and n_in == n_out else conv(n_in, n_out, 1, stride)
