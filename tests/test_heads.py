"""The head on embeddings: the optimum, the choice of C, and what it leaves out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeStore
from sklearn.linear_model import LogisticRegression

from configs.schema import AugmentConfig, Config, FeatureConfig, ModelConfig, PredictConfig, TrainConfig
from console.errors import UserError
from features.store import Store
from models.inference import predict_clips
from training.fold_data import FoldData
from training.heads import HeadTrainer, check_settings, inner_parts, solve, standardisation

N, DIM, CLASSES = 90, 6, 3


def embeddings(make_store: MakeStore, n: int = N, dim: int = DIM) -> tuple[Store, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.arange(n) % CLASSES
    x = rng.normal(size=(n, dim)) + 3 * np.eye(CLASSES, dim)[label]
    return make_store([row[None] for row in x.astype(np.float32)], frame_rate=0.2), label


def trainer(store: Store, targets: np.ndarray, task: Any = "single_label", kind: Any = "linear") -> HeadTrainer:
    n = len(targets)
    val, train = np.arange(0, n, 5), np.flatnonzero(np.arange(n) % 5)
    prior, ones = np.nanmean(targets[train], axis=0), np.ones(n)
    metric = "map@3" if task == "single_label" else "macro_roc_auc"
    names = tuple(store.fnames[i] for i in val)
    parts = FoldData(
        train, val, np.float32(targets), ones, ones > 0, names, ones[val] > 0, prior, task=task, metric=metric
    )
    cfg = Config(model=ModelConfig(name="embedding:a.onnx", head=kind))
    return HeadTrainer(cfg, 0, parts, inner_parts(train % 5, train), [store])


@pytest.mark.parametrize("dim", [DIM, 200])  # more clips than numbers, and fewer
def test_the_solution_is_that_of_scikit_learn(make_store: MakeStore, dim: int):
    store, label = embeddings(make_store, dim=dim)
    head = trainer(store, np.eye(CLASSES)[label])
    every = torch.ones(len(head.rows), dtype=torch.bool)
    head._load(solve(head.problem, head.loss, 0.1, every, head._start()))
    x = ((store.frames.astype(np.float32) - head.tagger.mean.numpy()) / head.tagger.std.numpy()).astype(np.float64)
    theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(x[head.rows], label[head.rows])
    with torch.no_grad():
        ours = head.head(torch.from_numpy(x).float()[:, None, :, None]).softmax(1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(x), atol=2e-3)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_head_learns_and_says_which_c(make_store: MakeStore, tmp_path: Path, kind: str):
    store, label = embeddings(make_store)
    head = trainer(store, np.eye(CLASSES)[label], kind=kind)
    head.fit(tmp_path, "here")
    lines = (tmp_path / "metrics.csv").read_text().split()
    assert lines[0] == "C,map3" and len(lines) == 1 + len(head.history)
    with torch.no_grad():
        x = torch.from_numpy(store.frames).float()[:, None, :, None]
        right = (head.tagger(x).argmax(1).numpy() == label)[head.parts.val]
    assert right.mean() > 0.8


def test_a_head_answers_in_full_precision(make_store: MakeStore, tmp_path: Path):
    """It costs nothing, and logits of eight bits would rank clips alike that are not."""
    store, label = embeddings(make_store)
    head = trainer(store, np.eye(CLASSES)[label])
    head.fit(tmp_path, "here")
    full, half = (
        predict_clips(head.tagger, head.batches, np.arange(N), PredictConfig(), one) for one in ("fp32", "bf16")
    )
    np.testing.assert_array_equal(half, full)


def test_unknown_labels_and_clips_without_weight_teach_nothing(make_store: MakeStore, tmp_path: Path):
    store, label = embeddings(make_store)
    targets = np.eye(CLASSES)[label]
    unknown, wrong = targets.copy(), targets.copy()
    rows = [i for i in range(N) if i % 7 == 1]
    unknown[rows], wrong[rows] = np.nan, 1 - targets[rows]
    masked, weighted = trainer(store, unknown, "multi_label"), trainer(store, wrong, "multi_label")
    weighted.problem.w[np.isin(weighted.rows, rows)] = 0
    every = torch.ones(len(masked.rows), dtype=torch.bool)
    start = masked._start()
    found = [solve(head.problem, head.loss, 0.1, every, start)[0] for head in (masked, weighted)]
    np.testing.assert_allclose(masked.axes @ found[0], weighted.axes @ found[1], atol=5e-3)


def test_a_clip_without_sound_teaches_nothing(make_store: MakeStore):
    store, label = embeddings(make_store)
    silent = make_store([store.frames[i : i + (i != 1)] for i in range(N)], frame_rate=0.2)
    assert 1 not in trainer(silent, np.eye(CLASSES)[label]).rows


def test_inner_parts_are_other_folds_or_groups():
    assert inner_parts(np.array([1, 2, 3, 4, 1]), np.arange(5)).tolist() == [0, 1, 2, 0, 0]
    assert inner_parts(np.array([1, 1, 1, 1]), np.array(["a", "b", "a", "c"])).tolist() == [0, 1, 0, 2]


def test_a_constant_number_cannot_become_an_outlier():
    mean, std = standardisation(np.float32([[1, 0], [3, 0]]))
    assert mean.tolist() == [2, 0] and std.tolist() == pytest.approx([1, 0.1])


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        (
            {"augment": AugmentConfig(roll=True, time_masks=1, time_mask_frames=50)},
            r"^augment\.roll=true augment\.time_masks=1 augment\.time_mask_frames=50: not with embedding:a\.onnx.*: "
            r"use augment\.roll=false augment\.time_masks=0 augment\.time_mask_frames=25$",
        ),
        ({"train": TrainConfig(ema=0.9)}, r"train\.ema=0\.9: .*: use train\.ema=0\.0"),
        ({"train": TrainConfig(speeds=(0.9,))}, r"train\.speeds=.*: use train\.speeds=\[\]"),
        *(
            ({"train": TrainConfig(**{key: value})}, rf"train\.{key}={json.dumps(value)}: not with")
            for key, value in {
                "head_lr": 0.1,
                "layer_decay": 0.5,
                "freeze_epochs": 1,
                "freeze_batch_norm": True,
                "accumulate": 2,
                "clip_norm": 1.0,
                "checkpointing": True,
            }.items()
        ),
        (
            {"model": ModelConfig(name="embedding:cnn14", dropout=0.2)},
            r"model\.dropout=0\.2: .*model\.dropout=0\.0",
        ),
        ({"features": FeatureConfig(trim_db=60)}, r"features\.trim_db=60: .*: use features\.trim_db=null"),
        ({"model": ModelConfig(name="embedding:a.onnx", deltas=2)}, r"model\.deltas=2: .*: use model\.deltas=0"),
    ],
)
def test_settings_that_a_head_would_ignore(changes: dict[str, Any], fact: str):
    with pytest.raises(UserError, match=fact):
        check_settings(Config(**({"model": ModelConfig(name="embedding:a.onnx")} | changes)))


def test_log_mel_of_a_frozen_network_may_be_trimmed():
    check_settings(Config(features=FeatureConfig(trim_db=60), model=ModelConfig(name="embedding:cnn14", deltas=2)))


def test_sizes_of_masks_that_are_off_are_not_refused():
    off = AugmentConfig(time_masks=0, time_mask_frames=50, freq_masks=0, freq_mask_mels=16)
    check_settings(Config(model=ModelConfig(name="embedding:a.onnx"), augment=off))
