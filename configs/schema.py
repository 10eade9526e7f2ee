"""Every setting of an experiment: typed, frozen, with its default, its unit and its bounds.

Only the standard library is imported here, so that the Kaggle kernel can rebuild a config without pydantic or YAML.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_type_hints

from configs.forms import misfit


def _require(condition: bool, key: str, fact: str) -> None:
    if not condition:
        raise ValueError(f"{key} {fact}")


def require_plain(name: str, key: str) -> None:
    """Raises ValueError where a name cannot be that of a folder of ours, without a way out of the one above."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    _require(plain.isalnum() and not name.startswith("."), key, "takes letters, digits, '-', '_' and '.' only")
    _require(not name.endswith((".partial", ".old")), key, "must not end as what is unfinished or replaced does")


@dataclass(frozen=True)
class InputConfig:
    """What to do with clips that are faulty, short or wrongly labelled."""

    skip_unreadable: bool = False  # leave out empty, silent, missing or damaged training clips instead of stopping
    padding: Literal["silence", "repeat"] = "silence"  # what fills a clip that is shorter than a crop or a window
    corrections: str | None = None  # CSV of fname,label: heard labels, for training only; no label leaves a clip out


@dataclass(frozen=True)
class FeatureConfig:
    """Log-mel settings; the defaults are the tutorial's."""

    sample_rate: int = 44_100  # Hz; every clip is resampled to it
    n_fft: int = 1024  # samples
    hop_length: int = 441  # samples; 10 ms at 44.1 kHz
    n_mels: int = 64
    f_min: float = 0.0  # Hz
    f_max: float = 22_050.0  # Hz
    mel_scale: Literal["htk", "slaney"] = "htk"  # slaney: librosa's, with filters of equal area, as PANNs has it
    log_floor: float = 1e-6  # added to the mel power, so that digital silence is log(1e-6) and not -inf
    trim_db: float | None = None  # cut leading and trailing frames this many dB below the loudest; null keeps them
    speed: float = 1.0  # the wave is played at this speed, its pitch with it; train.speeds makes such copies

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
        _require(0.5 <= self.speed <= 2, "speed", "must lie in 0.5 to 2")


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

    name: str = "resnetish18"  # of NETWORKS in models/build.py, timm:<network>, or yours: my_file:MyNet
    width: int = 64  # channels of the first stage, a multiple of 8; timm networks have their own
    pooling: Literal["grid", "avg_max", "attention"] = "grid"  # what a ResNetish or VGGish does before its last layers
    deltas: int = 0  # 1 adds the slope of the log-mel over time as an input channel, 2 its slope as well
    frequency_channel: bool = False  # an input channel that tells each mel band its place
    dropout: float = 0.0  # before the last layer
    pretrained: bool = False  # timm networks only: timm's own download
    weights: str | None = None  # a local .safetensors or .pth file to start from

    def __post_init__(self) -> None:
        # At a width of 4 training in channels_last on a CPU (torch 2.14) died of corrupted memory.
        _require(self.width > 0 and self.width % 8 == 0, "width", "must be a multiple of 8")
        _require(0 <= self.dropout < 1, "dropout", "must lie in [0, 1)")
        _require(0 <= self.deltas <= 2, "deltas", "must be 0, 1 or 2")
        _require(not (self.pretrained and self.weights), "pretrained", "and weights exclude each other")

    @property
    def channels(self) -> int:
        """Input channels of the backbone."""
        return 1 + self.deltas + self.frequency_channel


@dataclass(frozen=True)
class AugmentConfig:
    """Batch augmentation in training; validation and prediction have none."""

    mixup_alpha: float = 0.0  # lambda ~ Beta(alpha, alpha); 0 turns mixup off
    concat_mix: float = 0.0  # share of clips whose end gives way to another clip's, labels by length
    resized_crop: float = 0.0  # 0.2: a part of 80 to 100 % of mels and frames, stretched to the whole
    roll: bool = False  # turn each crop in time by a random number of frames
    freq_shift: int = 0  # shift each crop by up to so many mel bands, up or down
    erasing: float = 0.0  # share of clips that lose a rectangle
    time_masks: int = 0  # per clip
    time_mask_frames: int = 25  # widest mask, frames
    freq_masks: int = 0  # per clip
    freq_mask_mels: int = 8  # widest mask, mel bands
    gain: float = 0.0  # standard deviation of a per-clip offset in log-mel
    extra: tuple[str, ...] = ()  # yours, after all of these, in this order: [my_file:on_a_batch]
    wave: tuple[str, ...] = ()  # yours, on the sound: each makes further copies of the clips, as train.speeds does

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if key in ("extra", "wave"):
                _require(all(":" in name for name in value), key, "takes names of yours, like my_file:my_function")
            else:
                _require(value >= 0, key, "must not be negative")
        _require(len(set(self.wave)) == len(self.wave), "wave", "must differ")
        for key in ("concat_mix", "erasing"):
            _require(getattr(self, key) <= 1, key, "must lie in 0 to 1")
        _require(self.resized_crop < 1, "resized_crop", "must lie in [0, 1)")


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation of one fold."""

    epochs: int = 60
    batch_size: int = 64
    crop_seconds: float = 5.0  # length of a random training crop
    crop_seconds_min: float | None = None  # given, every batch draws its length from here to crop_seconds
    speeds: tuple[float, ...] = ()  # of further copies of the clips, [0.9, 1.1] say, among which each crop chooses
    lr: float = 1e-3  # peak of the one-cycle schedule
    weight_decay: float = 1e-2
    warmup: float = 0.1  # share of all steps before the peak
    loss: str = "cross_entropy"  # of LOSSES in training/losses.py, or yours: my_file:my_loss
    label_smoothing: float = 0.0
    class_weights: bool = False  # weight classes by the inverse of their count
    balanced: bool = False  # draw every class equally often instead of every clip once an epoch
    unverified_weight: float = 1.0  # weight of a clip whose label nobody verified
    unverified_loss: Literal["plain", "bootstrap", "truncate"] = "plain"  # bootstrap: labels mixed with predictions
    bootstrap: float = 0.3  # share of the prediction in the label of an unverified clip, with the loss of that name
    truncate: float = 0.8  # an unverified clip above this share of the batch's largest loss is dropped, likewise
    finetune_epochs: int = 0  # a second stage, on verified clips alone, without mixing
    finetune_lr: float = 1e-4  # peak of its own schedule
    ema: float = 0.0  # decay per step of an average of the weights that stands for them; 0.99 say, 0 turns it off
    average_epochs: int = 1  # keep the mean of the weights of so many last epochs, whichever stage they are of
    keep: Literal["last", "best"] = "last"  # best: of the epoch that scored best, which flatters the score of the fold
    normalise: Literal["global", "per_mel", "decibel"] = "per_mel"  # of the training folds only; decibel: no statistics
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 or fp16 where the hardware gains from it
    channels_last: bool = True
    compile: bool = False  # torch.compile the backbone
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "crop_seconds", "lr", "finetune_lr", "average_epochs"):
            _require(getattr(self, key) > 0, key, "must be above 0")
        least = self.crop_seconds_min
        _require(least is None or 0 < least <= self.crop_seconds, "crop_seconds_min", "must lie in 0 to crop_seconds")
        _require(
            not (self.compile and least),
            "compile",
            "and crop_seconds_min exclude each other: a compiled network is one length's",
        )
        _require(
            all(0.5 <= speed <= 2 and speed != 1 for speed in self.speeds),
            "speeds",
            "must lie in 0.5 to 2, and not be 1",
        )
        _require(len(set(self.speeds)) == len(self.speeds), "speeds", "must differ")
        _require(self.weight_decay >= 0, "weight_decay", "must not be negative")
        _require(0 <= self.warmup < 1, "warmup", "must lie in [0, 1)")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", "must lie in [0, 1)")
        for key in ("unverified_weight", "bootstrap", "truncate"):
            _require(0 <= getattr(self, key) <= 1, key, "must lie in [0, 1]")
        _require(0 <= self.ema < 1, "ema", "must lie in [0, 1)")
        _require(self.finetune_epochs >= 0, "finetune_epochs", "must not be negative")
        _require(self.average_epochs <= self.epochs, "average_epochs", "must not exceed epochs")
        _require(self.average_epochs == 1 or self.keep == "last", "average_epochs", "wants keep=last")
        _require(0 <= self.seed < 2**32, "seed", "must lie in 0 to 2**32 - 1")


@dataclass(frozen=True)
class PredictConfig:
    """Prediction over all windows of a clip: validation, out-of-fold, test and kernel alike."""

    window_seconds: float = 5.0
    more_window_seconds: tuple[float, ...] = ()  # further lengths; the mean over lengths counts
    overlap: float = 0.0  # share of a window that the next one covers again, at least
    batch_size: int = 64  # windows

    def __post_init__(self) -> None:
        _require(self.window_seconds > 0, "window_seconds", "must be above 0")
        _require(all(seconds > 0 for seconds in self.more_window_seconds), "more_window_seconds", "must be above 0")
        lengths = (self.window_seconds, *self.more_window_seconds)
        _require(len(set(lengths)) == len(lengths), "more_window_seconds", "must differ, from window_seconds too")
        _require(0 <= self.overlap < 1, "overlap", "must lie in [0, 1)")
        _require(self.batch_size > 0, "batch_size", "must be above 0")


@dataclass(frozen=True)
class PseudoConfig:
    """Training on test clips too, with labels that finished experiments gave them, fold by fold."""

    runs: tuple[str, ...] = ()  # experiments whose model of the same fold votes, by geometric mean; none turns it off
    min_confidence: float = 0.7  # a clip whose largest mean probability is below is not used
    weight: float = 0.5  # of such a clip in the loss

    def __post_init__(self) -> None:
        _require(0 <= self.min_confidence <= 1, "min_confidence", "must lie in [0, 1]")
        _require(0 < self.weight <= 1, "weight", "must lie in (0, 1]")


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
    pseudo: PseudoConfig = field(default_factory=PseudoConfig)

    def __post_init__(self) -> None:
        require_plain(self.name, "name")
        _require(self.name != "blend", "name", "must not be 'blend', as scores call what is made of all experiments")
        hop = self.features.hop_length / self.features.sample_rate
        for key, seconds in (
            ("train.crop_seconds", self.train.crop_seconds),
            ("train.crop_seconds_min", self.train.crop_seconds_min or self.train.crop_seconds),
            ("predict.window_seconds", self.predict.window_seconds),
            ("predict.more_window_seconds", min(self.predict.more_window_seconds, default=hop)),
        ):
            _require(round(seconds / hop) > 0, key, f"is shorter than a frame of the features: {seconds:g} < {hop:g} s")


def to_dict(cfg: Config) -> dict[str, Any]:
    """The config as plain nested dicts, ready for JSON."""
    return asdict(cfg)


def from_dict(values: dict[str, Any], kind: type = Config) -> Any:
    """The inverse of `to_dict`; raises ValueError on an unknown key (a config of another version of the kit) and on a
    value of another type or out of bounds."""
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is {values!r}: settings are expected")
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    if extra := sorted(set(values) - known):
        raise ValueError(f"{kind.__name__} has no setting {extra[0]!r}: was it written by another version of the kit?")
    parts = {k: from_dict(v, hints[k]) if is_dataclass(hints[k]) else v for k, v in values.items()}
    if wrong := [fault for k, v in parts.items() if not is_dataclass(hints[k]) and (fault := misfit(v, hints[k], k))]:
        raise ValueError(f"{kind.__name__}: {wrong[0]}")
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in parts.items()})  # JSON knows no tuples
    except ArithmeticError as error:  # of numbers that nobody means
        raise ValueError(f"{kind.__name__}: {error}") from None


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
