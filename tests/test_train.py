"""Pseudo-labels, copies at other speeds and corrections, as train_fold.py trains with them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from configs.load import load_config
from configs.paths import Paths
from configs.schema import Config
from console.errors import UserError
from features.store import normalisation
from runs.predictions import Predictions, save_predictions
from runs.provenance import file_sha256
from runs.run_folder import CHECKPOINT, read_run, unfinished
from tests.conftest import MakeStore
from training.experiment_data import Data, load_data, prepare
from training.fold_data import FoldData
from training.train import train_folds, training_data, warn_where_prior_is_better

VOTERS = ("demo_resnetish", "demo_vggish")


def config(**changes: Any) -> Config:
    """The voters' settings, with other ones in some sections, under the name `new`."""
    overrides = ["model.width=8", "train.epochs=1", "folds.n_folds=2"]
    cfg = replace(load_config(Path("configs/demo_resnetish.yaml"), overrides), name="new")
    return replace(cfg, **{key: replace(getattr(cfg, key), **values) for key, values in changes.items()})


PSEUDO = {"runs": VOTERS, "min_confidence": 0.0}


@pytest.fixture
def own(blended: Paths, tmp_path: Path) -> Paths:
    """The finished competition with a work folder that may be changed."""
    return Paths(blended.input, Path(shutil.copytree(blended.work, tmp_path / "work")))


def say_otherwise(paths: Paths, experiment: str, fold: int, seed: int = 0) -> None:
    """Another training left other predictions of the test clips."""
    folder = paths.run(experiment, fold)
    run = read_run(folder)
    probs = np.random.default_rng(seed).dirichlet(np.ones(len(run.classes)), len(run.test.fnames))
    save_predictions(folder / "test.npz", Predictions(run.test.fnames, probs))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["test.npz"] = file_sha256(folder / "test.npz")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def data_of(cfg: Config, paths: Paths, *folds: int) -> Data:
    return load_data(cfg, list(folds), paths)


def test_a_fold_trains_to_the_same_bytes_whatever_the_other_folds_hold(own: Paths, tmp_path: Path) -> None:
    """The detector of leaks, at the place where they would be made: fold 1's models saw the clips of fold 0."""
    cfg = config(pseudo=PSEUDO)
    train_folds(cfg, [0], own)
    before = read_run(own.run("new", 0))
    for voter in VOTERS:
        say_otherwise(own, voter, 1)
    train_folds(cfg, [0], own)  # found: nothing that it was made from changed
    train_folds(cfg, [0], own, force=True)
    after = read_run(own.run("new", 0))
    assert before.oof.probs.tobytes() == after.oof.probs.tobytes()
    assert before.manifest.pseudo_runs == after.manifest.pseudo_runs
    say_otherwise(own, VOTERS[1], 0)
    train_folds(cfg, [0], own, force=True)
    changed = read_run(own.run("new", 0))
    assert before.oof.probs.tobytes() != changed.oof.probs.tobytes()


def test_sources_that_changed_are_refused_by_a_finished_and_by_a_begun_fold(own: Paths) -> None:
    cfg = config(pseudo=PSEUDO)
    train_folds(cfg, [0], own)
    manifest = read_run(own.run("new", 0)).manifest
    assert manifest.pseudo_runs == {voter: read_run(own.run(voter, 0)).id for voter in VOTERS}
    with unfinished(own.run("begun", 0), replace(cfg, name="begun"), manifest, restart=False) as partial:
        (partial / CHECKPOINT).write_text("an epoch")
    say_otherwise(own, VOTERS[0], 0)
    for name in ("new", "begun"):
        with pytest.raises(UserError, match=rf"{name}/fold0.* from other pseudo-labels .*--force"):
            train_folds(replace(cfg, name=name), [0], own)


def test_what_is_wrong_with_the_sources_stops_before_any_work(own: Paths) -> None:
    for file in own.features.iterdir():
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    shutil.rmtree(own.run(VOTERS[1], 1))
    with pytest.raises(UserError, match=rf"pseudo\.runs: .*{VOTERS[1]}/fold1 is not finished"):
        train_folds(config(pseudo=PSEUDO), [0, 1], own)
    assert not list(own.features.iterdir()) and not (own.runs / "new").exists()


def test_statistics_and_prior_are_those_of_the_labelled_clips(own: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    from training.lit_tagger import build_lit_tagger

    cfg = config(pseudo=PSEUDO, train={"speeds": (0.8, 1.25)})
    data = prepare(cfg, data_of(cfg, own, 0), own, [0])
    with_, without = training_data(cfg, 0, data), training_data(cfg, 0, replace(data, pseudo={}))
    n, faulty = len(data.train.fnames), len(data.test.faults)
    assert f"new fold 0: {len(data.test.fnames) - faulty} of {len(data.test.fnames)} test clips join" in (
        capsys.readouterr().out
    )
    assert faulty == 2 and (with_.train >= n).sum() == len(data.test.fnames) - faulty
    assert (with_.prior == without.prior).all()
    lit = build_lit_tagger(cfg, 0, with_, data.train, data.device, "fp32", data.copies, data.test)
    mean, std = normalisation(data.train, without.train, cfg.train.normalise)
    assert (lit.tagger.mean.numpy() == mean).all() and (lit.tagger.std.numpy() == std).all()
    assert [len(part) for part in lit.sources.parts] == [3, 1] and lit.batches.store is data.train
    lengths = np.stack([data.train.length, *(copy.length for copy in data.copies)])
    np.testing.assert_allclose(lengths[1:] / lengths[0], [[1.25] * n, [0.8] * n], atol=0.05)
    lit.rng = np.random.default_rng(0)
    loss = lit.training_step(with_.train[-3:], 0)
    assert np.isfinite(float(loss.detach()))


def test_the_soft_labels_and_their_weight_reach_the_loss(make_store: MakeStore, monkeypatch: Any) -> None:
    import torch

    from tests.test_lit_tagger import CFG, lit_of
    from training.lit_tagger import build_lit_tagger

    one = lit_of(make_store, replace(CFG, augment=replace(CFG.augment, mixup_alpha=0.0)))
    from training.pseudo_labels import PseudoLabels, add_pseudo_labels

    test = make_store([np.zeros((12, 6))] * 3)
    probs = np.float32([[0.7, 0.2, 0.1]])
    parts = add_pseudo_labels(one.parts, PseudoLabels(("1.wav",), probs, {}), 0.25, test)
    cfg = replace(CFG, augment=replace(CFG.augment, mixup_alpha=0.0))
    lit = build_lit_tagger(cfg, 0, parts, one.batches.store, torch.device("cpu"), "fp32", (), test)
    seen: dict[str, Any] = {}

    def augment(x: Any, y: Any, w: Any, rng: np.random.Generator) -> Any:
        seen.update(x=x, y=y, w=w)
        return x, y, w

    lit.stages = [replace(stage, augment=augment) for stage in lit.stages]
    lit.rng = np.random.default_rng(0)
    lit.training_step(np.array([21 + 1, 0]), 0)
    assert seen["y"].tolist() == [probs[0].tolist(), [1, 0, 0]]
    assert seen["w"].tolist() == [0.25, 1.0]
    assert (seen["x"][0] == 0).all() and not (seen["x"][1] == 0).any()


# Corrections


@pytest.fixture
def heard(blended: Paths, tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """A corrections file: the first unverified clip gets another label, the second is left out."""
    train = pd.read_csv(blended.input / "train.csv")
    rows = train[train["manually_verified"] == 0].head(2).copy()
    labels = sorted(set(train["label"]))
    rows["label"] = [next(label for label in labels if label != rows["label"].iloc[0]), ""]
    rows[["fname", "label"]].to_csv(tmp_path / "corrections.csv", index=False)
    return tmp_path / "corrections.csv", rows


def test_corrections_reach_training_and_no_score(own: Paths, heard: tuple[Path, pd.DataFrame]) -> None:
    file, rows = heard
    cfg = config(input={"corrections": str(file)}, train={"unverified_weight": 0.5})
    data = prepare(cfg, data_of(cfg, own), own, [0, 1])
    plain = replace(data, corrections={})
    for clip, label in zip(rows["fname"], rows["label"], strict=True):
        row, fold = data.train.rows([clip])[0], data.folds.set_index("fname")["fold"][clip]
        given, other = training_data(cfg, fold, plain), training_data(cfg, 1 - fold, data)
        own_fold = training_data(cfg, fold, data)
        assert own_fold.labels[row] == given.labels[row] and row in own_fold.val  # the truth of the fold stays
        assert (own_fold.val_verified == given.val_verified).all() and own_fold.val_fnames == given.val_fnames
        if label:
            assert row in other.train and data.competition.classes[other.labels[row]] == label
            assert other.weights[row] == 1.0
        else:
            assert row not in other.train


def test_a_run_knows_its_corrections(own: Paths, heard: tuple[Path, pd.DataFrame]) -> None:
    file, rows = heard
    cfg = config(input={"corrections": str(file)})
    train_folds(cfg, [0], own)
    run = read_run(own.run("new", 0))
    assert run.manifest.fold_hash == read_run(own.run(VOTERS[0], 0)).manifest.fold_hash  # they blend with others
    file.write_text(file.read_text() + "\n")
    train_folds(cfg, [0], own)  # the content is the same
    rows.assign(label="")[["fname", "label"]].to_csv(file, index=False)
    with pytest.raises(UserError, match=r"new/fold0 was made from other corrections: .*--force"):
        train_folds(cfg, [0], own)


def test_without_any_of_it_runs_are_as_before(own: Paths) -> None:
    """A run of an older version, whose manifest knows nothing of all this, is found."""
    run = read_run(own.run(VOTERS[0], 0))
    assert run.manifest.corrections_hash is None and run.manifest.pseudo_runs is None
    assert train_folds(run.config, [0], own) == [run.scores["map3"]]


def test_without_the_preamble_a_fold_speaks_of_itself_alone(own: Paths, capfd: pytest.CaptureFixture[str]) -> None:
    cfg = config()
    train_folds(cfg, [0], own, preamble=True)
    out, err = capfd.readouterr()
    assert "training clips, " in out and "test clips with a fault" in err
    train_folds(cfg, [0], own, force=True, preamble=False)
    again, err = capfd.readouterr()
    assert all("no better than the class prior" in line for line in err.splitlines())  # of the fold itself
    assert [line.partition(" fold 0")[0] for line in again.splitlines()] == ["new", "new"]
    assert len(out.splitlines()) == 3


def test_a_fold_that_is_done_again_goes_on_without_force(own: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the line says that an interrupted --force leaves; what is finished stays until then."""
    cfg = config()
    train_folds(cfg, [0], own)
    final, before = own.run("new", 0), read_run(own.run("new", 0))
    longer = replace(cfg, train=replace(cfg.train, epochs=2))

    def interrupt(lit: Any, partial: Path, *_: Any) -> None:
        (partial / CHECKPOINT).write_text("an epoch")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.trainer.fit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_folds(longer, [0], own, force=True)
        with pytest.raises(KeyboardInterrupt):  # it goes on, and is interrupted again
            train_folds(longer, [0], own)
    assert train_folds(cfg, [0], own) == [before.scores["map3"]]  # found: the begun one has other settings
    (final.with_name("fold0.partial") / CHECKPOINT).unlink()
    train_folds(longer, [0], own, force=True)
    assert read_run(final).config == longer


# What is said of the score


def test_the_score_of_all_folds_is_said_last(own: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """Over clips, not over folds: the mean of each fold counts by its clips."""
    runs = [read_run(own.run(VOTERS[0], fold)) for fold in (0, 1)]
    cfg = runs[0].config
    scores = train_folds(cfg, [0, 1], own)
    n = np.array([len(run.oof.fnames) for run in runs])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{VOTERS[0]} folds 0..1: out-of-fold MAP@3 {scores @ n / n.sum():.4f}, standard error 0.0")
    assert last.endswith(f"(mean over the {n.sum()} clips of these folds)")
    train_folds(cfg, [1], own)
    assert "standard error" not in capsys.readouterr().out, "one fold has its own line"


@pytest.mark.parametrize(
    ("probs", "warns"),
    [
        ([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], False),  # better in both
        ([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], True),  # the prior itself
        ([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], True),
        ([[0.4, 0.3, 0.3], [1.0, 0.0, 0.0]], True),  # as good a score, a far worse loss
        ([[0.9, 0.1, 0.0], [0.5, 0.4, 0.1]], True),  # a better loss, but no better score
    ],
)
def test_what_is_no_better_than_the_class_prior_is_warned_of(
    probs: list[list[float]], warns: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two clips, of the first and the second class; the prior puts them first and second: MAP@3 0.75, log loss 0.95."""
    parts = FoldData(
        train=np.arange(0), val=np.array([2, 0]), targets=np.float32([[0, 1, 0], [0, 0, 0], [1, 0, 0]]),
        weights=np.ones(3), verified=np.ones(3, bool), val_fnames=("a", "b"), val_verified=np.ones(2, bool),
        prior=np.array([0.5, 0.3, 0.2]),
    )  # fmt: skip
    warn_where_prior_is_better("x fold 0", np.array(probs), parts)
    err = capsys.readouterr().err
    assert err.startswith("warning: x fold 0: no better than the class prior: out-of-fold MAP@3 ") == warns
    assert not warns or "the prior has 0.7500 and 0.949: try another train.lr" in err


def test_ones_own_metric_need_not_score_the_prior(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the same scores for every clip a correlation is NaN, which is no reason to lose a trained fold."""
    code = "import numpy as np\n\n\ndef spread(probs, truth):\n    return 1.0 if np.ptp(probs[:, 0]) else np.nan\n"
    (tmp_path / "prior_metric.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    parts = FoldData(
        train=np.arange(0), val=np.array([0, 1]), targets=np.float32([[1, 0], [0, 1]]), weights=np.ones(2),
        verified=np.ones(2, bool), val_fnames=("a", "b"), val_verified=np.ones(2, bool), prior=np.array([0.5, 0.5]),
        metric="prior_metric:spread",
    )  # fmt: skip
    warn_where_prior_is_better("x fold 0", np.array([[0.4, 0.6], [0.6, 0.4]]), parts)
    assert capsys.readouterr().err == ""


def test_a_better_score_with_a_worse_log_loss_is_not_called_no_better(capsys: pytest.CaptureFixture[str]) -> None:
    """As above: MAP@3 1 against 0.75, log loss -log(0.34) = 1.079 against 0.949."""
    parts = FoldData(
        train=np.arange(0), val=np.array([2, 0]), targets=np.float32([[0, 1, 0], [0, 0, 0], [1, 0, 0]]),
        weights=np.ones(3), verified=np.ones(3, bool), val_fnames=("a", "b"), val_verified=np.ones(2, bool),
        prior=np.array([0.5, 0.3, 0.2]),
    )  # fmt: skip
    warn_where_prior_is_better("x fold 0", np.array([[0.34, 0.33, 0.33], [0.33, 0.34, 0.33]]), parts)
    err = capsys.readouterr().err
    assert "log loss 1.079 is no better than the class prior's 0.949, though out-of-fold MAP@3 1.0000 is better" in err


def test_a_learning_rate_of_100_is_warned_of(own: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    train_folds(config(train={"lr": 100.0}), [0], own)
    err = capsys.readouterr().err
    assert "warning: new fold 0: " in err and "no better than the class prior" in err
