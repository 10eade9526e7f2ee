"""The schema: bounds, hashes, and the way to plain dicts and back."""

import dataclasses
import json
import re
import subprocess
import sys
from typing import Any

import pytest

from configs.schema import (
    AugmentConfig,
    Config,
    FeatureConfig,
    FoldConfig,
    ModelConfig,
    PredictConfig,
    PseudoConfig,
    TrainConfig,
    config_hash,
    differences,
    from_dict,
    hashed_settings,
    to_dict,
)

AUGMENTATIONS = [f.name for f in dataclasses.fields(AugmentConfig) if f.name not in ("mixup_labels", "extra", "wave")]


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (FeatureConfig, {"sample_rate": 0}, "sample_rate must be above 0"),
        (FeatureConfig, {"n_fft": 1023}, "n_fft must be even"),
        (FeatureConfig, {"n_fft": 0}, "n_fft must be even and at least 2"),
        (FeatureConfig, {"hop_length": 0}, "hop_length must be above 0"),
        (TrainConfig, {"layer_decay": 0.0}, "layer_decay must be in (0, 1]"),
        (TrainConfig, {"layer_decay": 1.1}, "layer_decay must be in (0, 1]"),
        (FeatureConfig, {"n_mels": 0}, "n_mels must be above 0"),
        (FeatureConfig, {"f_min": -1.0}, "f_min must be between 0 and f_max"),
        (FeatureConfig, {"f_min": 22_050.0}, "f_min must be between 0 and f_max"),
        (FeatureConfig, {"f_max": 22_051.0}, "f_max is above half the sample rate: 22051 > 22050"),
        (FeatureConfig, {"log_floor": 0.0}, "log_floor must be above 0: silence would give -inf"),
        (FeatureConfig, {"trim_db": 0.0}, "trim_db must be above 0"),
        (FeatureConfig, {"win_length": 1025}, "win_length must be in [2, n_fft]"),
        (FeatureConfig, {"pre_emphasis": 1.0}, "pre_emphasis must be in [0, 1)"),
        (FeatureConfig, {"top_db": 0.0}, "top_db must be above 0"),
        (TrainConfig, {"fixed_std": 0.0}, "fixed_std must be above 0"),
        (FoldConfig, {"n_folds": 1}, "n_folds must be at least 2"),
        (ModelConfig, {"width": 0}, "width must be a multiple of 8"),
        (ModelConfig, {"dropout": 1.0}, "dropout must be in"),
        (TrainConfig, {"compile": True, "crop_seconds_min": 0.5}, "compile and crop_seconds_min cannot be combined"),
        (ModelConfig, {"pretrained": True, "weights": "w.pth"}, "pretrained and weights cannot be combined"),
        *[(AugmentConfig, {name: -1}, f"{name} must not be negative") for name in AUGMENTATIONS],
        (
            AugmentConfig,
            {"extra": ("my_aug:tilt", "tilt")},
            "extra must name your functions, like my_file:my_function",
        ),
        (AugmentConfig, {"wave": ("tilt",)}, "wave must name your functions, like my_file:my_function"),
        (AugmentConfig, {"wave": ("a:b", "a:b")}, "wave must not repeat a name"),
        (TrainConfig, {"epochs": 0}, "epochs must be above 0"),
        (TrainConfig, {"epochs": 2, "freeze_epochs": 2}, "freeze_epochs must be below train.epochs=2: in"),
        (TrainConfig, {"batch_size": 0}, "batch_size must be above 0"),
        (TrainConfig, {"crop_seconds": 0.0}, "crop_seconds must be above 0"),
        (TrainConfig, {"lr": 0.0}, "lr must be above 0"),
        (TrainConfig, {"weight_decay": -0.1}, "weight_decay must not be negative"),
        (TrainConfig, {"warmup": 1.0}, "warmup must be in"),
        (TrainConfig, {"label_smoothing": 1.0}, "label_smoothing must be in"),
        (TrainConfig, {"focal_gamma": -1.0}, "focal_gamma must not be negative"),
        (TrainConfig, {"positive_weight": 1.1}, "positive_weight must be in"),
        (PseudoConfig, {"power": 0.0}, "power must be above 0"),
        (TrainConfig, {"unverified_weight": 1.1}, "unverified_weight must be in"),
        (TrainConfig, {"seed": -1}, "seed must be between 0 and"),
        (PredictConfig, {"window_seconds": 0.0}, "window_seconds must be above 0"),
        (PredictConfig, {"batch_size": 0}, "batch_size must be above 0"),
        (Config, {"train": TrainConfig(crop_seconds=0.005)}, "train.crop_seconds is shorter than a frame"),
        (Config, {"predict": PredictConfig(window_seconds=0.004)}, "predict.window_seconds is shorter than a frame"),
        *[
            (Config, {"name": name}, "name may only have letters")
            for name in ("", ".", "..", ".hidden", "a/b", "a b", "../x")
        ],
        (Config, {"name": "blend"}, "name must not be 'blend'"),
        *[(Config, {"name": name}, "name must not end with") for name in ("a.old", "a.partial")],
    ],
)
def test_values_out_of_bounds_are_errors(kind, values, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        kind(**values)


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.epochs = 3  # type: ignore[misc]


def test_a_config_survives_json():
    cfg = Config(
        name="x", features=FeatureConfig(n_mels=80, trim_db=60.0), train=TrainConfig(lr=1e-4, normalise="global")
    )
    assert from_dict(json.loads(json.dumps(to_dict(cfg)))) == cfg


def test_a_setting_of_another_version_is_an_error():
    values = to_dict(Config())
    values["train"]["optimiser"] = "sgd"
    with pytest.raises(ValueError, match=r"no setting 'train\.optimiser'"):
        from_dict(values)


def test_a_setting_missing_in_an_older_version_gets_its_default():
    values = to_dict(Config(name="x"))
    del values["augment"], values["train"]["seed"]
    assert from_dict(values) == Config(name="x")


def test_the_hash_depends_on_every_value_and_nothing_else():
    base = config_hash(FeatureConfig())
    assert config_hash(FeatureConfig(n_mels=64)) == base
    changed = {"n_mels": 65, "f_min": 1.0, "trim_db": 60.0, "log_floor": 1e-7, "hop_length": 440}
    assert len({base, *(config_hash(FeatureConfig(**{k: v})) for k, v in changed.items())}) == 6


def test_the_hash_is_the_same_everywhere():
    """A changed default changes it, and with it the name of every feature store."""
    assert config_hash(FoldConfig(n_folds=5, group_column="freesound_id", seed=0)) == "559dab0c169c"


def test_settings_added_later_are_no_part_of_the_hash_at_their_default():
    """The hashes of November 2026: stores and runs of then keep their names."""
    assert config_hash(FeatureConfig()) == "43659aa78481"
    assert config_hash(Config()) == "2d846758602b"
    panns = {"f_min": 50.0, "f_max": 14_000.0, "mel_scale": "slaney", "log_floor": 1e-10}
    assert config_hash(FeatureConfig(sample_rate=32_000, hop_length=320, **panns)) == "41ac85849f9b"
    assert config_hash(FeatureConfig(pre_emphasis=0.97)) != config_hash(FeatureConfig())
    assert "fixed_mean" not in hashed_settings(Config())["train"]
    assert hashed_settings(Config(train=TrainConfig(fixed_mean=-4.5)))["train"]["fixed_mean"] == -4.5


def test_differences_are_named_with_both_values():
    other = Config(train=TrainConfig(epochs=3), folds=FoldConfig(group_column=None))
    assert differences(Config(), other) == ["folds.group_column: freesound_id -> None", "train.epochs: 60 -> 3"]
    assert differences(Config(), Config()) == []


def test_the_schema_needs_the_standard_library_only():
    """The Kaggle kernel rebuilds a config without pydantic or YAML."""
    code = "import sys, configs.schema; print(*{'pydantic', 'yaml', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("values", [[], None, "train", {"train": ["lr"]}, {"train": 3}, {"train": None}])
def test_settings_must_be_a_mapping(values: Any) -> None:
    with pytest.raises(ValueError, match=r"^(it|train) is "):
        from_dict(values)
