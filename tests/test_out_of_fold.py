"""Fold models at one level, before their out-of-fold rows are compared within a class."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.schema import Config
from console.errors import UserError
from metrics.metric import find_metric
from runs.out_of_fold import join_folds
from runs.predictions import Predictions
from runs.run_folder import Manifest, Run

ROC_AUC, MAP = find_metric("macro_roc_auc", "multi_label"), find_metric("map@3")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


def fold_model(fold: int, offset: float, task: str = "multi_label", n_test: int = 30) -> tuple[Run, np.ndarray]:
    """A fold of a model that knows the clips' scores but adds an offset to those of the first class; the scores."""
    scores = np.random.default_rng(fold).normal(size=(50, 2))
    test = np.random.default_rng(9).normal(size=(n_test, 2))
    shift = np.array([offset, 0.0])
    if task == "multi_label":
        oof, answers = sigmoid(scores + shift), sigmoid(test + shift)
    else:
        oof, answers = ((p := np.exp(x + shift)) / p.sum(axis=1, keepdims=True) for x in (scores, test))
    names = tuple(f"{fold}-{i}.wav" for i in range(50))
    manifest = Manifest(n_folds=2, fold_hash="", experiment="one", fold=fold, task=task)  # type: ignore[arg-type]
    tests = Predictions(tuple(f"t{i}.wav" for i in range(n_test)), answers.astype(np.float32))
    run = Run(Path("one") / f"fold{fold}", "", Config(), ("a", "b"), Predictions(names, oof), tests, {}, manifest)
    return run, scores


def test_an_offset_of_a_fold_model_is_taken_out() -> None:
    (low, first), (high, second) = fold_model(0, -4.0), fold_model(1, 0.0)
    scores = np.concatenate([first, second])
    found = join_folds([low, high], ROC_AUC)
    assert found.fnames == low.oof.fnames + high.oof.fnames
    # both at the mean level of the two
    np.testing.assert_allclose(found.probs, sigmoid(scores - np.array([2.0, 0.0])), atol=1e-4)
    truth = scores > 0
    raw = np.concatenate([low.oof.probs, high.oof.probs])
    assert ROC_AUC.score(found.probs, truth) == 1 > ROC_AUC.score(raw, truth)


def test_one_label_per_clip_stays_a_distribution() -> None:
    (low, first), (high, second) = fold_model(0, -2.0, "single_label"), fold_model(1, 0.0, "single_label")
    found = join_folds([low, high], ROC_AUC).probs
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    scores = np.concatenate([first, second])
    difference = np.log(found[:, 0] / found[:, 1]) - (scores[:, 0] - scores[:, 1])
    assert np.ptp(difference) < 0.5 < np.ptp(np.repeat([-2.0, 0.0], 50))


@pytest.mark.parametrize(("metric", "n_test"), [(MAP, 30), (ROC_AUC, 19), (find_metric("log_loss", "multi_label"), 30)])
def test_otherwise_rows_stay_as_they_are(metric: object, n_test: int) -> None:
    runs = [fold_model(k, -4.0 * k, n_test=n_test)[0] for k in (0, 1)]
    found = join_folds(runs, metric)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.probs, np.concatenate([run.oof.probs for run in runs]))


def changed(
    run: Run, fnames: list[str], probs: np.ndarray, faults: dict[str, str], size: list[int] | None = None
) -> Run:
    """With other test clips."""
    test = Predictions(tuple(fnames), probs.astype(np.float32), None if size is None else np.array(size))
    return replace(run, test=test, manifest=replace(run.manifest, test_faults=faults))


def test_the_level_is_of_test_clips_that_all_fold_models_heard() -> None:
    """One fold model has answered ten clips more, and to the prior what it could not hear or another file."""
    low, high = fold_model(0, -4.0)[0], fold_model(1, 0.0)[0]
    expected = join_folds([low, high], ROC_AUC).probs
    names, more = list(low.test.fnames), [f"u{i}.wav" for i in range(10)]
    wrong = np.full((10, 2), 0.999)
    later = changed(low, more + names, np.concatenate([wrong, low.test.probs]), {})
    np.testing.assert_array_equal(join_folds([later, high], ROC_AUC).probs, expected)
    both = [
        changed(one, more + names, np.concatenate([other, one.test.probs]), dict.fromkeys(more, "silent"))
        for one, other in ((low, wrong), (high, 1 - wrong))
    ]
    np.testing.assert_array_equal(join_folds(both, ROC_AUC).probs, expected)
    both = [
        changed(one, more + names, np.concatenate([wrong, one.test.probs]), {}, [size] * 10 + [7] * 30)
        for one, size in ((low, 1), (high, 2))
    ]
    np.testing.assert_array_equal(join_folds(both, ROC_AUC).probs, expected)
    few = [changed(one, names, one.test.probs, dict.fromkeys(names[:11], "silent")) for one in (low, high)]
    np.testing.assert_array_equal(join_folds(few, ROC_AUC).probs, np.concatenate([low.oof.probs, high.oof.probs]))


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_no_two_probabilities_become_equal(task: str) -> None:
    runs = [fold_model(k, -1.0 * k, task)[0] for k in (0, 1)]
    tiny = np.geomspace(1e-12, 1e-3, 50)
    probs = np.column_stack([tiny, 1 - tiny if task == "single_label" else tiny[::-1]]).astype(np.float32)
    runs = [replace(run, oof=replace(run.oof, probs=probs)) for run in runs]
    found = join_folds(runs, find_metric("macro_roc_auc", task)).probs
    assert all(len(np.unique(found[part, 0])) == 50 for part in (slice(50), slice(50, 100)))


def test_a_clip_in_two_folds_is_refused() -> None:
    one, _ = fold_model(0, 0.0)
    with pytest.raises(UserError, match=r"one: clips appear twice out-of-fold: 50: 0-0\.wav"):
        join_folds([one, one], ROC_AUC)
