"""An experiment on a frozen network, from train_fold to the bundle; and a student of it."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_frozen import make_onnx

from blending import load_blend, loaded_blend
from configs.load import load_config
from configs.paths import Paths
from configs.schema import Config
from console.errors import UserError
from ensemble import blend
from input.competition import load_competition
from input.demo import make_demo
from models.engine import EngineChoice
from runs import clips
from runs.forecast import Work, forecast
from runs.predict import predict_test
from runs.predictions import load_predictions
from runs.run_folder import finished_folds, read_run
from submission.bundle import bundle
from submit import submit
from training.experiment_data import load_data, prepare
from training.train import build_head, train_folds

SETTINGS = ["features.sample_rate=8000", "features.f_max=4000", "predict.window_seconds=0.1", "folds.n_folds=3"]


def experiment(file: Path, *changes: str) -> Config:
    settings = [f"model.name=embedding:{file}", "model.output=embedding", "name=frozen", *SETTINGS, *changes]
    return load_config(None, settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Paths, Config]]:
    """The demo with three folds of a head on a tiny ONNX file, which has its weights beside it, blended. Shared: copy
    what a test changes."""
    root = tmp_path_factory.mktemp("frozen")
    paths = Paths(root / "input" / "tiny-tagging", root / "work")
    paths.input.parent.mkdir()
    make_demo(paths.input, train_per_class=6, test_per_class=2)
    cfg = experiment(make_onnx(root / "tiny.onnx", beside="tiny.onnx.data"))
    train_folds(cfg, [0, 1, 2], paths)
    blend(paths, [], "geometric", "default", force=False)
    yield paths, cfg


def test_a_run_is_as_any_other(trained: tuple[Paths, Config], tmp_path: Path):
    paths, cfg = trained
    run = read_run(paths.run("frozen", 0))
    assert run.config == cfg and set(run.manifest.code) == {"tiny.onnx"}
    np.testing.assert_allclose(run.oof.probs.sum(axis=1), 1, rtol=1e-4)
    submit(paths, "default", tmp_path / "submission.csv", None)
    assert len((tmp_path / "submission.csv").read_text().split("\n")) > 10


def test_clips_without_sound_get_the_prior(trained: tuple[Paths, Config]):
    paths, _ = trained
    run = read_run(paths.run("frozen", 0))
    faults = [run.manifest.test_faults.get(fname) for fname in run.test.fnames]
    faulty = [i for i, fault in enumerate(faults) if fault in ("empty", "silent")]
    assert len(faulty) == 2  # of the demo
    np.testing.assert_array_equal(run.test.probs[faulty[0]], run.test.probs[faulty[1]])


def test_files_are_predicted_from_embeddings_alone(trained: tuple[Paths, Config], monkeypatch: pytest.MonkeyPatch):
    """No log-mel is made, and a file that cannot be read is told from a silent one, as with other networks."""
    paths, _ = trained
    stored = load_predictions(paths.ensemble("default") / "test.npz")
    monkeypatch.setattr(clips, "open_features", lambda *_: pytest.fail("log-mel"))
    monkeypatch.setattr(loaded_blend, "open_features", lambda *_: pytest.fail("log-mel"))
    table = load_blend(paths.ensemble("default")).predict(paths.input / "audio_test")
    names = [Path(file).name for file in table["file"]]
    assert set(stored.fnames) - set(names) == {"empty.wav"} and "silent.wav" in names
    assert {Path(file).name for file in table.attrs["faults"]} == {"empty.wav", "silent.wav"}
    np.testing.assert_allclose(
        table[list(read_run(paths.run("frozen", 0)).classes)], stored.of(names, "test"), atol=1e-6
    )


def test_a_second_run_reads_the_store(
    trained: tuple[Paths, Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    paths, cfg = trained
    monkeypatch.setattr(clips, "_of_waves", lambda *_: pytest.fail("made again"))
    train_folds(cfg, [0], paths)
    assert "fold0: found, out-of-fold" in capsys.readouterr().out
    changes = ["name=mlp", "model.head=mlp", "model.clip_pooling=mean_max"]
    train_folds(experiment(Path(str(cfg.model.frozen)), *changes), [1], paths)
    shutil.rmtree(paths.runs / "mlp")


def test_a_forecast_counts_the_frozen_network_until_the_embeddings_are_there(
    trained: tuple[Paths, Config], tmp_path: Path
):
    paths, _ = trained
    folders, test = finished_folds(paths.runs / "frozen"), load_competition(paths.input).test
    works = {"frozen": Work(tuple(folders), test)}
    before = forecast(works, tmp_path, EngineChoice())
    assert sum(before.features.values()) > 0 and before.fold["frozen"] > 0 and not list(tmp_path.iterdir())
    predict_test(folders[:1], test, tmp_path)
    assert sum(forecast(works, tmp_path, EngineChoice()).features.values()) == 0


def test_a_clip_dropped_by_corrections_moves_no_other_to_another_part(trained: tuple[Paths, Config], tmp_path: Path):
    paths, cfg = trained
    gone = read_run(paths.run("frozen", 1)).oof.fnames[0]
    (tmp_path / "corrections.csv").write_text(f"fname,label\n{gone},\n")
    cfg = experiment(
        Path(str(cfg.model.frozen)),
        "name=fewer",
        f"input.corrections={tmp_path / 'corrections.csv'}",
        "pseudo.runs=[frozen]",
        "pseudo.min_confidence=0",
    )
    data = prepare(cfg, load_data(cfg, [0], paths), paths, [0])
    head = build_head(cfg, 0, data)
    fold = data.folds.set_index("fname")["fold"]
    labelled = head.rows[head.rows < len(data.train.fnames)]
    assert gone not in {data.train.fnames[row] for row in labelled}
    assert head.inner[: len(labelled)].tolist() == [fold[data.train.fnames[row]] - 1 for row in labelled]
    assert set(head.inner[len(labelled) :]) == {-1} and len(head.inner) == len(head.rows)
    assert build_head(cfg, 0, replace(data, device=torch.device("meta"))).batches.device.type == "meta"


def test_another_file_of_that_name_is_another_experiment(trained: tuple[Paths, Config], tmp_path: Path):
    paths, _ = trained
    other = make_onnx(tmp_path / "tiny.onnx", batch=1)
    with pytest.raises(UserError, match=r"made with other settings|from other code of tiny\.onnx"):
        train_folds(experiment(other), [0], paths)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ("features.sample_rate=16000", r"takes 800 samples, not the 1600 of predict\.window_seconds=0\.1 at .*16000"),
        ("model.output=embeding", r"no output 'embeding': use one of"),
        ("model.name=embedding:none.onnx", r"model\.name=embedding:none\.onnx: there is no such file: put it there"),
        ("model.name=embedding:ced_tiny", r"no file input/weights/audiotransformer.*python -m models\.fetch"),
        (
            "model.name=embedding:timm:resnet10t",
            r"a frozen network needs trained weights: name them with model\.weights",
        ),
        ("augment.roll=true", r"augment\.roll=true: not with embedding:"),
        ("train.teacher=frozen", r"train\.teacher"),
    ],
)
def test_what_does_not_fit_is_refused(
    trained: tuple[Paths, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, fact: str
):
    paths, cfg = trained
    file = cfg.model.frozen
    monkeypatch.chdir(tmp_path)
    changes = [change] if "ced" not in change else [change, "model.output=null"]
    if "ced" in change or "timm" in change:
        wanted = load_config(None, [change, "name=other", "folds.n_folds=3"])
    else:
        wanted = experiment(Path(str(file)), "name=other", *changes)
    with pytest.raises(UserError, match=fact):
        train_folds(wanted, [0], paths)
    assert not (paths.runs / "other" / "fold0").exists()


def test_a_normalisation_of_folds_is_refused_with_the_numbers_to_use(trained: tuple[Paths, Config], tmp_path: Path):
    import torch

    from models.build import build_model

    paths, _ = trained
    plain = ["model.name=resnetish10", "model.width=8", "folds.n_folds=3"]
    torch.save(build_model(load_config(None, plain), 2).state_dict(), tmp_path / "a.pth")
    settings = [*plain[1:], "model.name=embedding:resnetish10", f"model.weights={tmp_path / 'a.pth'}", "name=own"]
    with pytest.raises(UserError, match=r"use train\.normalise=fixed train\.fixed_mean=-?\d.* train\.fixed_std=\d"):
        train_folds(load_config(None, settings), [0], paths)
    fixed = ["train.normalise=fixed", "train.fixed_mean=-5", "train.fixed_std=3"]
    train_folds(load_config(None, [*settings, *fixed]), [0], paths)
    assert read_run(paths.run("own", 0)).manifest.code.keys() == {"a.pth"}
    shutil.rmtree(paths.runs / "own")


def test_a_bundle_brings_the_file_and_a_new_clip_without_it_is_refused(
    trained: tuple[Paths, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    paths, cfg = trained
    packed = bundle(paths, "default", "me", "tiny-tagging-kit")
    assert all((packed / "weights" / "frozen" / name).exists() for name in ("tiny.onnx", "tiny.onnx.data"))
    folders = finished_folds(packed / "weights" / "frozen")
    test = load_competition(paths.input).test
    run, file = read_run(paths.run("frozen", 0)), Path(str(cfg.model.frozen))
    file.rename(tmp_path / "away.onnx")
    try:
        found = predict_test(folders[:1], test, tmp_path / "features")[0]
        np.testing.assert_allclose(found.of(run.test.fnames, ""), run.test.probs, atol=1e-5)
        with pytest.raises(UserError, match=r"tiny\.onnx: is missing, the file that .*frozen was made with .*bring it"):
            predict_test([run.folder], test, tmp_path / "more")
    finally:
        (tmp_path / "away.onnx").rename(file)
