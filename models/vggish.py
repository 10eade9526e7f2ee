"""VGGish and AlexNet for log-mel input, with adaptive pooling for any input size.

Source of VGGish: S. Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017; its
embedding layers are kept, a classifier follows them. Source of AlexNet: A. Krizhevsky, "One weird trick for
parallelizing convolutional neural networks", 2014, with the first stride halved for a small spectrogram.
"""

from torch import Tensor, nn

from models.pooling import FRAMEWISE, AvgMaxPool, MelMean, frame_head

GRID = (4, 6)  # mel x time cells that reach the fully connected layers


class VGGish(nn.Module):
    """(batch, in_channels, n_mels, n_frames) log-mel -> (batch, n_classes) logits.

    width: channels of the first convolution. pooling: 'grid' is the source's; the others are those of
    models/pooling.py, and before a frame-wise one the embedding layers see each frame separately.
    """

    def __init__(
        self, n_classes: int, width: int = 64, dropout: float = 0.0, in_channels: int = 1, pooling: str = "grid"
    ) -> None:
        super().__init__()
        w = width
        plan: list[int | str] = [w, "M", 2 * w, "M", 4 * w, 4 * w, "M", 8 * w, 8 * w]
        layers: list[nn.Module] = []
        channels = in_channels
        for step in plan:
            if isinstance(step, str):
                # before the ReLU: the same numbers from a quarter of the work
                layers.insert(-1, nn.MaxPool2d(2, ceil_mode=True))  # ceil: for inputs of a few frames
            else:
                layers += [nn.Conv2d(channels, step, 3, padding=1), nn.ReLU(inplace=True)]
                channels = step
        self.features = nn.Sequential(*layers, *_pooled(pooling))
        cells = GRID[0] * GRID[1] if pooling == "grid" else 1
        self.embedding = nn.Sequential(*dense(channels * cells, 64 * w), *dense(64 * w, 64 * w), *dense(64 * w, 128))
        last = nn.Sequential(nn.Dropout(dropout), nn.Linear(128, n_classes))
        self.head = frame_head(pooling, 128, n_classes, dropout) if pooling in FRAMEWISE else last
        _kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(self.features(x)))


class AlexNet(nn.Module):
    """(batch, in_channels, n_mels, n_frames) log-mel -> (batch, n_classes) logits.

    width: channels of the first convolution.
    """

    def __init__(self, n_classes: int, width: int = 64, dropout: float = 0.0, in_channels: int = 1) -> None:
        super().__init__()
        w = width
        self.features = nn.Sequential(
            # pooled before the ReLU, as above
            *(nn.Conv2d(in_channels, w, 11, stride=2, padding=5), nn.MaxPool2d(3, 2, 1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(w, 3 * w, 5, padding=2), nn.MaxPool2d(3, 2, 1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(3 * w, 6 * w, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(6 * w, 4 * w, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(4 * w, 4 * w, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.AdaptiveMaxPool2d(GRID), nn.Flatten()),
        )
        hidden = 64 * w
        self.embedding = nn.Sequential(
            nn.Dropout(dropout), *dense(4 * w * GRID[0] * GRID[1], hidden), nn.Dropout(dropout), *dense(hidden, hidden)
        )
        self.head = nn.Linear(hidden, n_classes)
        _kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(self.features(x)))


def _pooled(pooling: str) -> tuple[nn.Module, ...]:
    if pooling == "grid":
        return nn.AdaptiveMaxPool2d(GRID), nn.Flatten()
    return (AvgMaxPool() if pooling == "avg_max" else MelMean(),)


def dense(n_in: int, n_out: int) -> tuple[nn.Module, nn.Module]:
    """A fully connected layer and its ReLU."""
    return nn.Linear(n_in, n_out), nn.ReLU(inplace=True)


def _kaiming(network: nn.Module) -> None:
    """Without batch normalisation PyTorch's default scale lets the signal fade over nine layers."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and name != "head.attention":  # which starts uniform
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
