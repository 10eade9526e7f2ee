"""Folds of several labels a clip from a hand-made competition: three tones, alone, together, or none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from configs.load import load_config
from configs.paths import Paths
from configs.schema import Config
from console.errors import UserError
from input.competition import Competition
from input.corrections import correct, targets_of
from runs.predict import predict_test
from runs.run_folder import check_same_data, read_run
from training.experiment_data import load_data
from training.train import train_folds

CLASSES = ("high", "low", "mid")
RATE = 16_000
N_TRAIN, N_TEST = 48, 6


def competition_of(folder: Path, n_test: int = N_TEST) -> Competition:
    """Each clip has a random set of the tones, maybe none; the last eight are of another table: not verified, weight
    0.5, and what is not their first label is unknown."""
    rng = np.random.default_rng(0)
    pitch, t = np.array([3000, 300, 1000]), np.arange(RATE) / RATE
    truth = rng.random((N_TRAIN + n_test, 3)) < 0.4
    folder.mkdir(parents=True)
    for i, has in enumerate(truth):
        wave = rng.normal(0, 0.01, RATE) + 0.2 * has @ np.sin(2 * np.pi * pitch[:, None] * t)
        sf.write(folder / f"{i:02}.wav", wave, RATE)
    names = [f"{i:02}.wav" for i in range(len(truth))]
    table = pd.DataFrame({"fname": names, "path": [str(folder / name) for name in names]})
    train = table[:N_TRAIN].reset_index(drop=True)
    noisy = np.arange(N_TRAIN) >= N_TRAIN - 8
    targets = truth[:N_TRAIN].astype(np.float32)
    targets[noisy] = np.where(targets[noisy] == 1, 1, np.nan)
    labels = ["|".join(np.array(CLASSES)[has]) for has in truth[:N_TRAIN]]
    train = train.assign(label=labels, verified=~noisy, weight=np.where(noisy, 0.5, 1.0))
    test = table[N_TRAIN:].reset_index(drop=True)
    return Competition(folder, CLASSES, train, test, targets, "multi_label", "macro_roc_auc")


def config(**changes: Any) -> Config:
    overrides = ["model.width=8", "train.epochs=8", "folds.n_folds=2", "folds.group_column=null", "train.batch_size=8"]
    cfg = replace(load_config(Path("configs/demo_resnetish.yaml"), overrides), name="several")
    return replace(cfg, **{key: replace(getattr(cfg, key), **values) for key, values in changes.items()})


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    give(monkeypatch, competition_of(tmp_path / "clips"))
    return Paths(tmp_path / "clips", tmp_path / "work")


def give(monkeypatch: pytest.MonkeyPatch, competition: Competition) -> None:
    monkeypatch.setattr("training.experiment_data.load_competition", lambda *args, **kw: competition)


def test_folds_of_several_labels_end_to_end(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    found = train_folds(config(), [0, 1], paths)
    runs = [read_run(paths.run("several", fold)) for fold in (0, 1)]
    assert found == [run.scores["macro_roc_auc"] for run in runs]
    assert min(found) > 0.8  # anyone can tell the tones apart
    assert set(runs[0].scores) == {"macro_roc_auc", "macro_roc_auc_verified", "epoch"}
    assert (runs[0].manifest.task, runs[0].manifest.metric) == ("multi_label", "macro_roc_auc")
    probs = np.concatenate([run.oof.probs for run in runs])
    assert probs.shape == (N_TRAIN, 3) and probs.sum(axis=1).max() > 1.1  # sigmoids
    out = capsys.readouterr().out
    assert "several folds 0..1: out-of-fold macro ROC-AUC 0." in out and "(over the 48 clips of these folds)" in out
    assert train_folds(config(), [0, 1], paths) == found
    assert "found, out-of-fold macro ROC-AUC" in capsys.readouterr().out
    again = predict_test([runs[0].folder], competition_of(paths.work / "copy").test, paths.features)[0]
    np.testing.assert_allclose(again.probs, runs[0].test.probs, atol=1e-6)  # from the manifest: sigmoids again


@pytest.mark.parametrize(
    "changes",
    [
        {
            "augment": {"mixup_alpha": 0.4, "mixup_labels": "max", "concat_mix": 0.5},
            "train": {"positive_weight": 0.5, "balanced": True, "label_smoothing": 0.1, "finetune_epochs": 1},
        },
        {"train": {"loss": "focal", "class_weights": True, "unverified_loss": "bootstrap", "keep": "best"}},
        {"train": {"unverified_loss": "truncate", "unverified_weight": 0.5, "ema": 0.9}},
    ],
)
def test_every_option_trains(paths: Paths, changes: dict[str, Any]) -> None:
    changes["train"] |= {"epochs": 2}
    assert 0 <= train_folds(config(**changes), [0], paths)[0] <= 1


def test_pseudo_labels_are_the_mean_of_the_sigmoids_to_a_power(paths: Paths) -> None:
    train_folds(config(train={"epochs": 1}), [0], paths)
    cfg = replace(config(pseudo={"runs": ("several",), "min_confidence": 0.0, "power": 2.0}), name="second")
    labels = load_data(cfg, [0], paths).pseudo[0]
    np.testing.assert_allclose(labels.probs, read_run(paths.run("several", 0)).test.probs ** 2, rtol=1e-6)
    assert 0 <= train_folds(replace(cfg, train=replace(cfg.train, epochs=1, balanced=True)), [0], paths)[0] <= 1


def test_corrections_of_several_labels(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("fname,label\n00.wav,low|high\n01.wav,\n02.wav,|\n")
    cfg = config(input={"corrections": str(tmp_path / "c.csv")}, train={"epochs": 1})
    data = load_data(cfg, [0], paths)
    assert data.corrections == {"00.wav": "high|low", "01.wav": "", "02.wav": "|"}
    fold = int(data.folds["fold"][0])
    table = correct(data.folds, data.corrections, 1 - fold)
    assert targets_of(table, data.competition)[0].tolist() == [1, 1, 0]
    assert table["label"].tolist()[0] == "high|low" and bool((table["label"] == "").any())
    train_folds(cfg, [0], paths)
    with pytest.raises(UserError, match="with other settings"):
        train_folds(config(train={"epochs": 1}), [0], paths)


def test_no_test_clips(paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give(monkeypatch, competition_of(tmp_path / "no_test", n_test=0))
    train_folds(config(train={"epochs": 1}), [0, 1], paths)
    test = read_run(paths.run("several", 0)).test
    assert test.probs.shape == (0, 3) and test.fnames == ()
    cfg = replace(config(pseudo={"runs": ("several",)}), name="second")
    with pytest.raises(UserError, match=r"pseudo\.runs: the competition has no test clips"):
        train_folds(cfg, [0], paths)


def test_a_run_of_another_task_or_of_other_weights_is_refused(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train_folds(config(train={"epochs": 1}), [0], paths)
    manifest = read_run(paths.run("several", 0)).manifest
    with pytest.raises(UserError, match=r"from other labels \(one, or several a clip\)"):
        check_same_data(manifest, replace(manifest, task="single_label"), "it was made")
    other = competition_of(tmp_path / "other")
    train = other.train.assign(weight=1.0)
    give(monkeypatch, replace(other, train=train))
    with pytest.raises(UserError, match="from other secondary labels or weights"):
        train_folds(config(train={"epochs": 1}), [0], paths)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"loss": "my_file:f", "class_weights": True}}, r"train\.class_weights: not with a loss of your own"),
        ({"train": {"loss": "hinge"}}, r"train\.loss: no loss 'hinge' for a multi_label competition"),
    ],
)
def test_what_does_not_fit_the_task_is_refused(paths: Paths, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_folds(config(**changes), [0], paths)


def test_a_loss_of_the_user_that_cannot_take_unknown_labels_is_refused(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`careful` trains, `plain` is refused before features are made."""
    code = [
        "from torch.nn.functional import binary_cross_entropy_with_logits as bce",
        "def plain(logits, targets, weights):",
        "    return bce(logits, targets, weights[:, None].expand_as(logits))",
        "def careful(logits, targets, weights):",
        "    known = ~targets.isnan()",
        "    return bce(logits[known], targets[known])",
    ]
    (tmp_path / "loss_of_several.py").write_text("\n".join(code))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train_folds(config_here(tmp_path, "loss_of_several:careful"), [0], paths)
    with pytest.raises(UserError, match="loss_of_several:plain is NaN where a target is"):
        train_folds(config_here(tmp_path, "loss_of_several:plain", name="other"), [0], paths)


def config_here(folder: Path, loss: str, name: str = "several") -> Config:
    """`config` from another current folder."""
    overrides = ["folds.n_folds=2", "folds.group_column=null", "model.width=8", "model.name=resnetish10"]
    overrides += ["train.epochs=1", f"train.loss={loss}", f"name={name}", "features.sample_rate=16000"]
    return load_config(None, [*overrides, "features.f_max=8000", "train.crop_seconds=1.0"])


def test_a_fold_that_has_no_score_is_refused_before_features_are_made(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every clip of fold 1 has the label low, none another: no class has a positive and a negative."""
    of = competition_of(paths.input.parent / "more")
    fold = np.arange(N_TRAIN) % 2
    label, targets = of.train["label"].where(fold == 0, "low"), of.targets.copy()
    targets[fold == 1] = np.array(CLASSES) == "low"
    of = replace(of, train=of.train.assign(label=label, fold=fold), targets=targets)
    give(monkeypatch, of)
    with pytest.raises(UserError, match=r"fold 1: its clips have no macro_roc_auc: .* use fewer folds"):
        train_folds(config(), [0, 1], paths)
    assert not paths.features.exists() and not paths.runs.exists()
