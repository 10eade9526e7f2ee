"""Every setting of an experiment: typed, frozen, with its default, its unit and its bounds.

Only the standard library is imported here, so that the Kaggle kernel can rebuild a config without pydantic or YAML.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_type_hints


def _require(condition: bool, key: str, fact: str) -> None:
    if not condition:
        raise ValueError(f"{key} {fact}")


@dataclass(frozen=True)
class InputConfig:
    """What to do with the competition's own faults."""

    skip_unreadable: bool = False  # leave out empty, silent, missing or unreadable training clips instead of stopping


@dataclass(frozen=True)
class FeatureConfig:
    """Log-mel settings; the defaults are the tutorial's."""

    sample_rate: int = 44_100  # Hz; every clip is resampled to it
    n_fft: int = 1024  # samples
    hop_length: int = 441  # samples; 10 ms at 44.1 kHz
    n_mels: int = 64
    f_min: float = 0.0  # Hz
    f_max: float = 22_050.0  # Hz
    log_floor: float = 1e-6  # added to the mel power, so that digital silence is log(1e-6) and not -inf
    trim_db: float | None = None  # cut leading and trailing frames this many dB below the loudest; null keeps them

    def __post_init__(self) -> None:
        _require(self.sample_rate > 0, "sample_rate", "must be above 0")
        _require(self.n_fft >= 2 and self.n_fft % 2 == 0, "n_fft", "must be even and at least 2")
        _require(self.hop_length > 0, "hop_length", "must be above 0")
        _require(self.n_mels > 0, "n_mels", "must be above 0")
        _require(0 <= self.f_min < self.f_max, "f_min", "must lie between 0 and f_max")
        _require(
            self.f_max <= self.sample_rate / 2,
            "f_max",
            f"is above half the sample rate: {self.f_max:g} > {self.sample_rate / 2:g}",
        )
        _require(self.log_floor > 0, "log_floor", "must be above 0: silence would give -inf")
        _require(self.trim_db is None or self.trim_db > 0, "trim_db", "must be above 0, or null")


@dataclass(frozen=True)
class FoldConfig:
    """How the training clips are dealt into folds."""

    n_folds: int = 5
    group_column: str | None = "freesound_id"  # clips that share it stay on one side; null deals clip by clip
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.n_folds >= 2, "n_folds", "must be at least 2")


@dataclass(frozen=True)
class ModelConfig:
    """The backbone."""

    name: str = "resnetish18"  # resnetish10/18/34/50, vggish, alexnet, or timm:<network>
    width: int = 64  # channels of the first stage, a multiple of 8; ignored by timm networks
    dropout: float = 0.0  # before the last layer
    pretrained: bool = False  # timm networks only: timm's own download
    weights: str | None = None  # a local .safetensors or .pth file to start from

    def __post_init__(self) -> None:
        # At a width of 4 training in channels_last on a CPU (torch 2.14) died of corrupted memory.
        _require(self.width > 0 and self.width % 8 == 0, "width", "must be a multiple of 8")
        _require(0 <= self.dropout < 1, "dropout", "must lie in [0, 1)")
        _require(not (self.pretrained and self.weights), "pretrained", "and weights exclude each other")


@dataclass(frozen=True)
class AugmentConfig:
    """Batch augmentation in training; validation and prediction have none."""

    mixup_alpha: float = 0.0  # lambda ~ Beta(alpha, alpha); 0 turns mixup off
    time_masks: int = 0  # per clip
    time_mask_frames: int = 25  # widest mask, frames
    freq_masks: int = 0  # per clip
    freq_mask_mels: int = 8  # widest mask, mel bands
    gain: float = 0.0  # standard deviation of a per-clip offset in log-mel

    def __post_init__(self) -> None:
        for key in ("mixup_alpha", "time_masks", "time_mask_frames", "freq_masks", "freq_mask_mels", "gain"):
            _require(getattr(self, key) >= 0, key, "must not be negative")


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation of one fold."""

    epochs: int = 60
    batch_size: int = 64
    crop_seconds: float = 5.0  # length of a random training crop
    lr: float = 1e-3  # peak of the one-cycle schedule
    weight_decay: float = 1e-2
    warmup: float = 0.1  # share of all steps before the peak
    label_smoothing: float = 0.0
    class_weights: bool = False  # weight classes by the inverse of their count
    unverified_weight: float = 1.0  # weight of a clip whose label nobody verified
    normalise: Literal["global", "per_mel"] = "per_mel"  # statistics of the training folds only
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 or fp16 where the hardware gains from it
    channels_last: bool = True
    compile: bool = False  # torch.compile the backbone
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "crop_seconds", "lr"):
            _require(getattr(self, key) > 0, key, "must be above 0")
        _require(self.weight_decay >= 0, "weight_decay", "must not be negative")
        _require(0 <= self.warmup < 1, "warmup", "must lie in [0, 1)")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", "must lie in [0, 1)")
        _require(0 <= self.unverified_weight <= 1, "unverified_weight", "must lie in [0, 1]")
        _require(self.seed >= 0, "seed", "must not be negative")


@dataclass(frozen=True)
class PredictConfig:
    """Prediction over all windows of a clip: validation, out-of-fold, test and kernel alike."""

    window_seconds: float = 5.0
    batch_size: int = 64  # windows

    def __post_init__(self) -> None:
        _require(self.window_seconds > 0, "window_seconds", "must be above 0")
        _require(self.batch_size > 0, "batch_size", "must be above 0")


@dataclass(frozen=True)
class Config:
    """One experiment. `name` is where its runs go: work/runs/<name>/fold<k>/."""

    name: str = "resnetish18"
    input: InputConfig = field(default_factory=InputConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    folds: FoldConfig = field(default_factory=FoldConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)

    def __post_init__(self) -> None:
        plain = self.name.replace("-", "").replace("_", "").replace(".", "")
        _require(
            plain.isalnum() and not self.name.startswith("."), "name", "takes letters, digits, '-', '_' and '.' only"
        )
        hop = self.features.hop_length / self.features.sample_rate
        for key, seconds in (
            ("train.crop_seconds", self.train.crop_seconds),
            ("predict.window_seconds", self.predict.window_seconds),
        ):
            _require(round(seconds / hop) > 0, key, f"is shorter than a frame of the features: {seconds:g} < {hop:g} s")


def to_dict(cfg: Config) -> dict[str, Any]:
    """The config as plain nested dicts, ready for JSON."""
    return asdict(cfg)


def from_dict(values: dict[str, Any], kind: type = Config) -> Any:
    """The inverse of `to_dict`; raises ValueError on an unknown key (a config of another version of the kit)."""
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    if extra := sorted(set(values) - known):
        raise ValueError(f"{kind.__name__} has no setting {extra[0]!r}: was it written by another version of the kit?")
    return kind(**{k: from_dict(v, hints[k]) if is_dataclass(hints[k]) else v for k, v in values.items()})


def config_hash(part: Any) -> str:
    """Twelve hex digits that name a config or a part of it (a dataclass instance)."""
    return hashlib.sha256(json.dumps(asdict(part), sort_keys=True).encode()).hexdigest()[:12]


def differences(one: Config, other: Config) -> list[str]:
    """Where two configs differ, as 'train.epochs: 20 -> 30' lines."""

    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in values.items():
            out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return out

    a, b = flat(to_dict(one)), flat(to_dict(other))
    return [f"{key}: {a[key]} -> {b[key]}" for key in a if a[key] != b[key]]
