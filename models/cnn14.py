"""CNN14 and CNN10 of the PANNs, with the names of their published weights, for log-mel that features/log_mel.py makes.

Source: Q. Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020. The
published weights (Cnn14_mAP=0.431.pth, Cnn10_mAP=0.380.pth, trained on AudioSet) include their front-end, which we
compute ourselves: its keys are skipped, and `front_end_differences` lists settings that differ from it.
"""

from collections.abc import Mapping

from torch import Tensor, cat, nn
from torch.nn import functional as F

from configs.schema import Config
from models.pooling import AvgMaxPool, MelMean, frame_head

WAVE = "spectrogram_extractor.stft.conv_real.weight"  # (bins, 1, n_fft)
PUBLISHED = {  # by n_fft; the second is Cnn14_16k_mAP=0.438.pth
    1024: {"sample_rate": 32_000, "n_fft": 1024, "hop_length": 320, "f_min": 50.0, "f_max": 14_000.0},
    512: {"sample_rate": 16_000, "n_fft": 512, "hop_length": 160, "f_min": 50.0, "f_max": 8_000.0},
}


class Cnn14(nn.Module):
    """(batch, in_channels, n_mels, n_frames) log-mel in decibels -> (batch, n_classes) logits, of any length.

    n_blocks: 6 for CNN14, 4 for CNN10. width: channels of the first block, 64 as published. n_mels: of the input, 64 as
    published. dropout: before the last layer, none as published; the fixed 0.2 after each block and 0.5 before the
    embedding are always there. pooling: 'grid' is the published one, the frame-wise ones are those of
    models/pooling.py, with which the layer before the last sees each frame separately.
    """

    HEAD = "fc_audioset"
    UNUSED = ("spectrogram_extractor.", "logmel_extractor.")  # of the published weights

    def __init__(
        self,
        n_classes: int,
        width: int = 64,
        dropout: float = 0.0,
        in_channels: int = 1,
        n_mels: int = 64,
        n_blocks: int = 6,
        pooling: str = "grid",
    ) -> None:
        super().__init__()
        self.n_blocks = n_blocks
        self.bn0 = nn.BatchNorm2d(n_mels)
        channels = in_channels
        for i in range(n_blocks):
            self.add_module(f"conv_block{i + 1}", ConvBlock(channels, width * 2**i))
            channels = width * 2**i
        self.pool: nn.Module = AvgMaxPool()
        self.fc1 = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.fc_audioset: nn.Module = nn.Linear(channels, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if pooling != "grid":
            self.pool, self.fc_audioset = MelMean(), frame_head(pooling, channels, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        log_mel = self.bn0(x[:, :1].transpose(1, 2)).transpose(1, 2)  # each band separately
        x = log_mel if x.shape[1] == 1 else cat((log_mel, x[:, 1:]), dim=1)
        x = x.transpose(2, 3)  # (batch, channels, n_frames, n_mels): the published kernels are time x mel
        for i in range(1, self.n_blocks + 1):
            x = getattr(self, f"conv_block{i}")(x)
            if i < 6:  # the last of CNN14 keeps its size, that of CNN10 does not
                x = F.avg_pool2d(x, [min(2, size) for size in x.shape[2:]])  # the last row of an odd number is dropped
            x = F.dropout(x, 0.2, self.training)
        x = F.dropout(self.pool(x.transpose(2, 3)), 0.5, self.training)
        return self.fc_audioset(self.dropout(F.relu(self.fc1(x), inplace=True)))


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)


def front_end_differences(cfg: Config, state: Mapping[str, Tensor]) -> list[str]:
    """Settings that differ from the front-end of published weights, as 'features.hop_length=441 is not 320'.

    None for weights without a front-end, such as a run folder's.
    """
    if WAVE not in state:
        return []
    published = PUBLISHED.get(state[WAVE].shape[-1], PUBLISHED[1024])
    features = {**published, "n_mels": 64, "mel_scale": "slaney", "log_floor": 1e-10}
    expected = {f"features.{key}": value for key, value in features.items()} | {"train.normalise": "decibel"}
    found = {f"features.{key}": getattr(cfg.features, key) for key in features}
    found |= {"train.normalise": cfg.train.normalise}
    return [f"{key}={found[key]} is not {value}" for key, value in expected.items() if found[key] != value]
