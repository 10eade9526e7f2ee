"""The MobileNets of EfficientAT, with the names of their published weights (mn10_as_mAP_471.pt).

Sources: F. Schmid et al., "Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge Distillation", 2023;
the shape is the large one of A. Howard et al., "Searching for MobileNetV3", 2019, wider or narrower.
"""

from torch import Tensor, nn

from models.pooling import MelMean, frame_head

WIDTHS = (1, 2, 4, 5, 10, 20, 30, 40)  # tenths, of the published networks
STEM, LAST = 16, 1280
LAYERS = (  # kernel, channels inside, channels out, squeeze-and-excitation, Hardswish, stride
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


class EfficientAT(nn.Module):
    """(batch, in_channels, n_mels, n_frames) normalised log-mel -> (batch, n_classes) logits, of any size.

    multiplier: of all channels, 1.0 for mn10. dropout: before the last layer, 0.2 as published. pooling: 'grid' is the
    published mean, the frame-wise ones are those of models/pooling.py.
    """

    HEAD = "classifier.5"

    def __init__(
        self,
        multiplier: float,
        n_classes: int,
        in_channels: int = 1,
        dropout: float = 0.0,
        pooling: str = "grid",
    ) -> None:
        super().__init__()
        channels = rounded(STEM * multiplier)
        layers: list[nn.Module] = [conv(in_channels, channels, 3, stride=2, activation=nn.Hardswish())]
        for kernel, inside, out, squeeze, hardswish, stride in LAYERS:
            shape = channels, rounded(inside * multiplier), rounded(out * multiplier)
            layers.append(InvertedResidual(*shape, kernel, stride, squeeze, hardswish))
            channels = shape[-1]
        layers.append(conv(channels, 6 * channels, 1, activation=nn.Hardswish()))
        self.features = nn.Sequential(*layers)
        last = rounded(LAST * multiplier)
        self.classifier = nn.Sequential(
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6 * channels, last), nn.Hardswish()),
            *(nn.Dropout(dropout), nn.Linear(last, n_classes)),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        for module in self.classifier:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)
        if pooling != "grid":
            self.classifier[0], self.classifier[1] = MelMean(), nn.Identity()
            self.classifier[5] = frame_head(pooling, last, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, weigh the channels, project; added to the input where the shape stays."""

    def __init__(
        self, n_in: int, inside: int, n_out: int, kernel: int, stride: int, squeeze: bool, hardswish: bool
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if hardswish else nn.ReLU
        self.adds = stride == 1 and n_in == n_out
        self.block = nn.Sequential(
            *([conv(n_in, inside, 1, activation=activation())] if inside != n_in else []),
            conv(inside, inside, kernel, stride, groups=inside, activation=activation()),
            *([Squeezes(inside)] if squeeze else []),
            conv(inside, n_out, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.adds else self.block(x)


class Squeezes(nn.Module):
    """The published code weighs channels, bands or frames; the published networks weigh channels only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([SqueezeExcitation(channels, rounded(channels // 4))])

    def forward(self, x: Tensor) -> Tensor:
        return self.conc_se_layers[0](x)


class SqueezeExcitation(nn.Module):
    """Each channel times a weight between 0 and 1, which the means of all channels give."""

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, inside), nn.Linear(inside, channels)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.fc2(self.fc1(x.mean(dim=(2, 3))).relu()).sigmoid()
        return x * weights[:, :, None, None]


def conv(
    n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1, activation: nn.Module | None = None
) -> nn.Sequential:
    """Convolution without bias, batch normalisation, activation."""
    layers = [nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)]
    norm = nn.BatchNorm2d(n_out, eps=0.001, momentum=0.01)
    return nn.Sequential(*layers, norm, *([activation] if activation else []))


def rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and not below 90 % of what is given."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near
