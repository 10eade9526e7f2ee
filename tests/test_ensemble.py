"""ensemble.py from end to end on what is not one label per clip and MAP@3: several labels, scores, other metrics."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blending.apply import SCORES_TOO, sigmoid
from blending.ensemble_folder import load_ensemble
from blending.methods import METHODS
from configs.paths import Paths
from console.errors import UserError
from ensemble import blend
from metrics.metric import find_metric
from submit import submit
from tests.test_ensemble_folder import made, write_folder

CLIPS, TESTS = 90, 12
CLASSES = ("ant", "bat", "cat", "dog")
NEEDS_PROBABILITIES = [method for method in METHODS if method not in SCORES_TOO]


def made_truth(n: int, seed: int) -> np.ndarray:
    """(n, classes) bool; some clips have no label."""
    return np.random.default_rng(seed).random((n, len(CLASSES))) < 0.35


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Several labels per clip: three models of falling skill, as probabilities, whose test rows know the labels too."""
    folder, rng = tmp_path / "theirs", np.random.default_rng(2)
    folder.mkdir()
    truth, test = made_truth(CLIPS, 0), made_truth(TESTS, 1)
    labels = [",".join(np.array(CLASSES)[row]) for row in truth]
    pd.DataFrame({"fname": [f"a{i}.wav" for i in range(CLIPS)], "labels": labels, "fold": np.arange(CLIPS) % 2}).to_csv(
        folder / "train.csv", index=False
    )
    sample = pd.DataFrame(0.0, [f"t{i}.wav" for i in range(TESTS)], ["dog", "cat", "bat", "ant"])  # its own order
    sample.to_csv(folder / "sample_submission.csv", index_label="fname")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    for name, skill in (("good", 3.0), ("fair", 1.5), ("poor", 0.7)):
        logits = {key: rng.normal(size=t.shape) - 1 + skill * t for key, t in (("oof", truth), ("test", test))}
        np.savez(folder / f"{name}.npz", **{key: sigmoid(z).astype(np.float32) for key, z in logits.items()})
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few trials and draws, and no pictures: tests/test_ensemble_folder.py has a whole report."""
    monkeypatch.setattr("blending.fit.TRIALS", 6)
    monkeypatch.setattr("blending.bootstrap.METRIC_RESAMPLES", 50)
    monkeypatch.setattr("blending.report.write_report", lambda *_: None)


def work(folder: Path) -> Paths:
    return Paths(folder.parent / "none", folder.parent / "work")


def change(file: Path, to: np.ufunc) -> None:
    """Every value of a model."""
    with np.load(file) as data:
        changed = {key: to(data[key]).astype(np.float32) for key in data}
    np.savez(file, **changed)


def test_all_methods_of_several_labels_end_in_a_submission_of_probabilities(folder: Path) -> None:
    paths, output = work(folder), folder.parent / "s.csv"
    made_by_auto = blend(paths, [], "auto", "default", False, folder)
    methods = made_by_auto.comparison.methods
    assert set(methods) == {*METHODS, "auto"} and all(0.5 < one.score <= 1 for one in methods.values())
    assert methods["auto"].score > methods["arithmetic"].score - 0.02
    for name in ("default", *METHODS):
        if name != "default":
            blend(paths, [], name, name, False, folder)
        submit(paths, name, output, None, folder)
        table = pd.read_csv(output, index_col="fname")
        assert list(table) == ["dog", "cat", "bat", "ant"] and list(table.index) == [f"t{i}.wav" for i in range(TESTS)]
        ours = load_ensemble(paths.ensemble(name)).test.probs
        np.testing.assert_allclose(table[list(CLASSES)], ours, atol=1e-5)
        found = find_metric("macro_roc_auc").score(table[list(CLASSES)].to_numpy(), made_truth(TESTS, 1))
        assert found > 0.85, name
    assert made_by_auto.blend.classes == CLASSES


@pytest.mark.parametrize("scale", ["logits", "negative ranks"])
@pytest.mark.parametrize("method", ["auto", *SCORES_TOO])
def test_scores_of_another_scale_count_where_a_method_compares_them(
    folder: Path, scale: str, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder / "good.npz", lambda p: np.log(p / (1 - p)) if scale == "logits" else p.argsort(0).argsort(0) - 1e3)
    ensemble = blend(work(folder), [], method, "default", False, folder)
    weights = {name: model.weight for name, model in ensemble.blend.models.items()}
    assert f" blend of {sum(one > 0 for one in weights.values())} model" in capsys.readouterr().out, "those that count"
    assert ensemble.comparison.left_out["good"].startswith(
        "it has values outside 0 to 1: only single and rank count it"
    )
    assert weights["good"] > 0 if method != "auto" else ensemble.comparison.methods["single"].score > 0.9
    submit(work(folder), "default", folder.parent / "s.csv", None, folder)


@pytest.mark.parametrize("method", NEEDS_PROBABILITIES)
def test_a_method_that_needs_probabilities_names_the_models_that_have_none(folder: Path, method: str) -> None:
    change(folder / "good.npz", lambda p: 3 * p - 2)
    with pytest.raises(UserError, match=f"--method {method} needs probabilities, .* outside 0 to 1: good: leave them"):
        blend(work(folder), [], method, "default", False, folder)
    assert not work(folder).ensembles.exists()
    blend(work(folder), ["fair", "poor"], method, "default", False, folder)


def test_only_scores_are_blended_by_their_ranks(folder: Path) -> None:
    for file in folder.glob("*.npz"):
        change(file, lambda p: 5 - 9 * p)
    assert set(blend(work(folder), [], "auto", "default", False, folder).comparison.methods) == {*SCORES_TOO, "auto"}


@pytest.mark.parametrize("metric", ["log_loss", "macro_f1"])
@pytest.mark.parametrize("several", [True, False])
def test_metrics_that_fall_or_have_thresholds_choose_a_better_blend_than_the_worst(
    folder: Path, metric: str, several: bool
) -> None:
    if not several:
        folder = folder.parent / "single"
        write_folder(made(), folder)
    ensemble = blend(work(folder), [], "auto", "default", False, folder, metric=metric)
    scores, sign = ensemble.scores, -1 if metric == "log_loss" else 1
    alone = [sign * scores[name][metric] for name in ensemble.blend.models]
    compared = ensemble.comparison
    assert sign * compared.methods["auto"].score > min(alone)
    assert sign * compared.methods["single"].score == pytest.approx(max(alone), abs=0.05)
    assert scores["blend"][metric] == pytest.approx(compared.methods["auto"].nested_all)
    assert (ensemble.blend.thresholds is not None) == (metric == "macro_f1" and several)
    low, high = compared.expected.interval
    assert low < compared.expected.score < high


def test_a_metric_of_ones_own_without_a_value_is_one_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A correlation of constant scores is 0 / 0."""
    (folder.parent / "by_me.py").write_text(
        "import numpy as np\n\n\n@np.errstate(invalid='ignore')\ndef correlation(probs, truth):\n"
        "    spread = probs.std() * truth.std()\n"
        "    return np.divide(((probs - probs.mean()) * (truth - truth.mean())).mean(), spread)\n"
    )
    monkeypatch.chdir(folder.parent)
    monkeypatch.syspath_prepend(folder.parent)
    paths, output = work(folder), folder.parent / "s.csv"
    blend(paths, [], "auto", "fine", False, folder, metric="by_me:correlation")
    submit(paths, "fine", output, None, folder)
    output.unlink()
    change(folder / "poor.npz", lambda p: np.full_like(p, 0.5))
    told = "metric: by_me:correlation returns nan: return a finite number"
    with pytest.raises(UserError, match=told):
        blend(paths, [], "auto", "default", False, folder, metric="by_me:correlation")
    assert not paths.ensemble("default").exists()
    with pytest.raises(UserError, match="changed since"):
        submit(paths, "fine", output, None, folder)
    change(folder / "poor.npz", lambda p: p + np.random.default_rng(0).random(p.shape) / 4)
    blend(paths, ["poor"], "single", "poor", False, folder, metric="by_me:correlation")
    with np.load(folder / "poor.npz") as data:
        np.savez(folder / "poor.npz", oof=data["oof"], test=np.full_like(data["test"], 0.5))
    blend(paths, ["poor"], "single", "poor", False, folder, metric="by_me:correlation")
    truth = pd.DataFrame({"fname": [f"t{i}.wav" for i in range(TESTS)], "labels": "ant"})
    truth.to_csv(folder.parent / "truth.csv", index=False)
    with pytest.raises(UserError, match=told):
        submit(paths, "poor", output, folder.parent / "truth.csv", folder)


def test_without_test_clips_the_blend_ends_in_its_cross_validated_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = replace(made(), test_fnames=(), test=np.zeros((3, 0, 4), np.float32))
    monkeypatch.setattr("ensemble.candidates_of", lambda *_: alone)
    paths = Paths(tmp_path / "none", tmp_path / "work")
    found = blend(paths, [], "auto", "default", False)
    low, high = found.comparison.expected.interval
    score = found.comparison.methods["auto"].score
    assert f"cross-validated score: {score:.4f} (95 %: {low:.4f} to {high:.4f})" in capsys.readouterr().out
    assert found.test.fnames == () and found.test.probs.shape == (0, 4)
    assert load_ensemble(paths.ensemble("default")).comparison.expected.clips == 0
    blend(paths, [], "auto", "default", False)
    assert "default: found" in capsys.readouterr().out
