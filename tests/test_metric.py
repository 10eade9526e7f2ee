"""Every metric: on paper, against scikit-learn or the published code, its properties, and what it refuses."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from configs.competition import Task
from configs.metric_names import LIKELY, NAMES, SINGLE_LABEL
from console.errors import UserError
from metrics.metric import METRICS, Metric, find_metric
from metrics.scores import oof_columns, scores

SEVERAL = [one for one in METRICS if "multi_label" in one.tasks] + [find_metric(f"map@{k}") for k in (1, 3, 5)]
SINGLE = [one for one in METRICS if "single_label" in one.tasks] + [find_metric(n) for n in ("map@2", "top@1", "top@3")]
OF_RANKS = [one for one in SEVERAL if one.name not in ("macro_f1", "log_loss", "padded_cmap")]  # not of values
EVERY = [
    pytest.param(one, task, id=f"{one.name}-{task}")
    for task, of in (("single_label", SINGLE), ("multi_label", SEVERAL))
    for one in of
]


@st.composite
def examples(draw: st.DrawFn, task: Task = "multi_label") -> tuple[np.ndarray, np.ndarray]:
    """(probs, truth) of some clips: values on a grid, hence ties; often constant, with one class, without labels."""
    n, classes = draw(st.integers(2, 12)), draw(st.integers(1, 5))
    values = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0])
    probs = draw(hnp.arrays(np.float64, (n, classes), elements=draw(st.sampled_from([values, st.just(0.5)]))))
    if task == "single_label":
        return probs, np.eye(classes, dtype=bool)[draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))]
    truth = draw(hnp.arrays(np.bool_, (n, classes)))
    assume(truth.any())
    return probs, truth


def value(metric: Metric, probs: np.ndarray, truth: np.ndarray) -> float | None:
    """None where ROC-AUC has no class with both positives and negatives."""
    try:
        return metric.score(probs, truth)
    except ValueError as error:
        assert "both positive and negative" in str(error) and not (truth.any(axis=0) & ~truth.all(axis=0)).any()
        return None


# On paper

PROBS = np.array([[0.9, 0.6, 0.1], [0.2, 0.8, 0.7], [0.3, 0.4, 0.5]])
TRUTH = np.array([[0, 1, 1], [0, 1, 0], [0, 0, 0]], dtype=bool)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        # clip 1: b second (1/2), c third (2/3); clip 2: b first (1)
        ("lwlrap", (1 / 2 + 2 / 3 + 1) / 3),
        # clip 1: (0 + 1/2) / 2 of two, (1/2 + 2/3) / 2 of three; clip 3 has no label
        ("map@2", (1 / 4 + 1 + 0) / 3),
        ("map@3", (7 / 12 + 1 + 0) / 3),
        # b: both positives above the negative, 1; c: 0.1 below both, 0; a has no positive
        ("macro_roc_auc", 1 / 2),
        # b: 1; c: third of three, 1/3
        ("macro_average_precision", (1 + 1 / 3) / 2),
        # falling: .9 .8+ .7 .6+ .5 .4 .3 .2 .1+ -> 1/2, 2/4, 3/9
        ("micro_average_precision", (1 / 2 + 2 / 4 + 3 / 9) / 3),
        # five more on top: a 1; b (7 of 7) 1; c (5 + 6/8) / 6
        ("padded_cmap", (1 + 1 + (5 + 6 / 8) / 6) / 3),
        # at 0.5: b both, none wrong, 1; c predicted for clips 2 and 3, which is wrong, 0
        ("macro_f1", 1 / 2),
        ("log_loss", -np.log([0.1, 0.6, 0.1, 0.8, 0.8, 0.3, 0.7, 0.6, 0.5]).mean()),
    ],
)
def test_on_paper(name: str, by_hand: float) -> None:
    assert find_metric(name, "multi_label").score(PROBS, TRUTH) == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("accuracy", 1 / 3),  # a, b, c are most probable
        ("top@2", 2 / 3),
        ("map@2", (1 / 2 + 1 + 0) / 3),
        ("lwlrap", (1 / 2 + 1 + 1 / 3) / 3),  # the reciprocal rank
        ("macro_f1", (0 + 2 / 3) / 2),  # a: predicted once, wrong; b: 1 of 2 found, none wrong; c: does not occur
        ("log_loss", -np.log([0.6, 0.8, 0.3]).mean()),
    ],
)
def test_on_paper_with_one_label(name: str, by_hand: float) -> None:
    truth = np.eye(3, dtype=bool)[[1, 1, 0]]
    by_hand = by_hand if name != "macro_f1" else (0 + 2 / 3) / 2
    assert find_metric(name, "single_label").score(PROBS, truth) == pytest.approx(by_hand, abs=1e-12)


# Against scikit-learn and the published code


def published(name: str, probs: np.ndarray, truth: np.ndarray) -> float:
    classes = truth.shape[1]
    has = truth.any(axis=0)
    if name == "lwlrap":  # the competition's own function calls scikit-learn in this way
        weight = truth.sum(axis=1)
        return sk.label_ranking_average_precision_score(
            truth[weight > 0], probs[weight > 0], sample_weight=weight[weight > 0]
        )
    if name == "macro_roc_auc":
        both = has & ~truth.all(axis=0)
        return np.mean([sk.roc_auc_score(truth[:, c], probs[:, c]) for c in np.flatnonzero(both)])
    if name == "macro_average_precision":
        return np.mean([sk.average_precision_score(truth[:, c], probs[:, c]) for c in np.flatnonzero(has)])
    if name == "micro_average_precision":
        return sk.average_precision_score(truth.ravel(), probs.ravel())
    if name == "padded_cmap":
        rows = np.ones((5, classes))
        padded = np.concatenate([truth, rows]).astype(bool), np.concatenate([probs, rows])
        return np.mean([sk.average_precision_score(padded[0][:, c], padded[1][:, c]) for c in range(classes)])
    if name == "macro_f1":
        return np.mean([sk.f1_score(truth[:, c], probs[:, c] >= 0.5, zero_division=0) for c in np.flatnonzero(has)])
    if name == "log_loss":
        limited = np.clip(probs, 1e-7, 1 - 1e-7)
        return np.mean([sk.log_loss(truth[:, c], limited[:, c], labels=[False, True]) for c in range(classes)])
    k = int(name.partition("@")[2])
    return float(
        np.mean(
            [
                apk(set(np.flatnonzero(t)), np.argsort(-p, kind="stable").tolist(), k)
                for p, t in zip(probs, truth, strict=True)
            ]
        )
    )


def apk(actual: set[int], predicted: list[int], k: int) -> float:
    """Average precision at k, label by label."""
    hits, total = 0, 0.0
    for place, one in enumerate(predicted[:k], start=1):
        if one in actual:
            hits += 1
            total += hits / place
    return total / min(len(actual), k) if actual else 0.0


@pytest.mark.parametrize("metric", SEVERAL, ids=lambda one: one.name)
@settings(max_examples=60, deadline=None)
@given(example=examples())
def test_equals_the_published_one(metric: Metric, example: tuple[np.ndarray, np.ndarray]) -> None:
    found = value(metric, *example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found is None or found == pytest.approx(published(metric.name, *example), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(example=examples("single_label"))
def test_with_one_label_equals_scikit_learn(example: tuple[np.ndarray, np.ndarray]) -> None:
    probs, truth = example
    index, classes = truth.argmax(axis=1), range(truth.shape[1])
    top = np.argsort(-probs, axis=1, kind="stable")
    found = {name: find_metric(name, "single_label").score(probs, truth) for name in ("accuracy", "macro_f1", "top@2")}
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(index, top[:, 0]))
    assert found["macro_f1"] == pytest.approx(
        sk.f1_score(index, top[:, 0], average="macro", labels=np.unique(index), zero_division=0)
    )
    assert found["top@2"] == pytest.approx(np.mean([one in row[:2] for one, row in zip(index, top, strict=True)]))
    odds = probs + 0.01
    odds /= odds.sum(axis=1, keepdims=True)
    if len(classes) > 1:
        ours = find_metric("log_loss", "single_label").score(odds, truth)
        assert ours == pytest.approx(sk.log_loss(index, odds, labels=list(classes)), abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", [one for one in SEVERAL if one.name != "log_loss"], ids=lambda one: one.name)
def test_equals_the_published_one_on_many_clips(metric: Metric, dtype: type) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((700, 30)) < 0.05
    truth[:, 7] = False
    probs = np.round(np.clip(rng.random(truth.shape) * 0.8 + 0.2 * truth, 0, 1), 3).astype(dtype)
    assert metric.score(probs, truth) == pytest.approx(published(metric.name, probs, truth), abs=1e-9)


# Properties


@pytest.mark.parametrize(("metric", "task"), EVERY)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_order_of_clips_and_classes_does_not_matter(metric: Metric, task: Task, data: st.DataObject) -> None:
    probs, truth = data.draw(examples(task))
    clips, columns = data.draw(st.permutations(range(len(probs)))), data.draw(st.permutations(range(probs.shape[1])))
    found = value(metric, probs, truth)
    assert value(metric, probs[clips], truth[clips]) == pytest.approx(found, abs=1e-12)
    if metric.name.startswith(("map@", "top@", "accuracy")) or (metric.name == "macro_f1" and task == "single_label"):
        probs = probs + np.linspace(0, 0.1, probs.size).reshape(probs.shape)  # of tied classes the first is preferred
        found = value(metric, probs, truth)
    assert value(metric, probs[:, columns], truth[:, columns]) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("metric", SEVERAL, ids=lambda one: one.name)
@settings(max_examples=20, deadline=None)
@given(example=examples())
def test_the_truth_itself_scores_best(metric: Metric, example: tuple[np.ndarray, np.ndarray]) -> None:
    _, truth = example
    best = value(metric, truth.astype(np.float64), truth)
    bound = truth.any(axis=1).mean() if metric.name.startswith("map@") else float(metric.name != "log_loss")
    assert best is None or best == pytest.approx(bound, abs=1e-6)


@pytest.mark.parametrize("metric", OF_RANKS, ids=lambda one: one.name)
@settings(max_examples=20, deadline=None)
@given(example=examples())
def test_a_ranking_is_all_that_counts_within(metric: Metric, example: tuple[np.ndarray, np.ndarray]) -> None:
    """What `within` says: another scale for every clip, for every class, or for all changes nothing."""
    probs, truth = example
    scale = np.linspace(0.3, 0.9, probs.size).reshape(probs.shape)
    scale = {"clip": scale[:, :1], "class": scale[:1], "all": scale[:1, :1]}[metric.within]
    assert value(metric, probs * scale, truth) == pytest.approx(value(metric, probs, truth), abs=1e-12)


def test_clips_without_a_label() -> None:
    """lwlrap leaves them out; MAP@k counts 0; for a class they are negatives."""
    probs, truth = np.concatenate([PROBS[:2], PROBS[2:].repeat(4, axis=0)]), TRUTH[[0, 1, 2, 2, 2, 2]]
    assert find_metric("lwlrap").score(probs, truth) == find_metric("lwlrap").score(PROBS, TRUTH)
    assert find_metric("map@3").score(probs, truth) == pytest.approx(find_metric("map@3").score(PROBS, TRUTH) / 2)


def test_constant_scores_have_an_area_of_a_half() -> None:
    truth = np.random.default_rng(0).random((50, 6)) < 0.3
    assert find_metric("macro_roc_auc").score(np.full(truth.shape, 0.2), truth) == pytest.approx(0.5)


def test_padding_stays_on_top_of_scores_above_one() -> None:
    metric = find_metric("padded_cmap")
    assert metric.score(PROBS * 100, TRUTH) == pytest.approx(metric.score(PROBS, TRUTH))


# What is refused


@pytest.mark.parametrize(("metric", "task"), EVERY)
def test_what_has_no_score_raises(metric: Metric, task: Task) -> None:
    truth = np.eye(3, dtype=bool)[[0, 1, 2, 2]]
    probs = np.random.default_rng(0).random((4, 3))
    metric.score(probs, truth)
    for shape_of in (truth[:3], truth[:, :2], truth[0], truth.astype(int), truth.argmax(axis=1)):
        with pytest.raises(ValueError, match="do not match"):
            metric.score(probs, shape_of)
    with pytest.raises(ValueError, match="of no clips"):
        metric.score(probs[:0], truth[:0])
    with pytest.raises(ValueError, match="a score of 4 clips without any label"):
        metric.score(probs, np.zeros_like(truth))
    spoiled = probs.copy()
    spoiled[[1, 3], 2] = np.nan, np.inf
    with pytest.raises(ValueError, match="a NaN among the probabilities of 1 clip"):
        metric.score(spoiled, truth)


@pytest.mark.parametrize("name", ["accuracy", "top@2", "log_loss", "macro_f1"])
def test_one_label_is_needed(name: str) -> None:
    with pytest.raises(ValueError, match="no label or several for 2 clips"):
        find_metric(name, "single_label").score(PROBS, TRUTH)


def test_roc_auc_needs_both_kinds() -> None:
    with pytest.raises(ValueError, match="both positive and negative"):
        find_metric("macro_roc_auc").score(PROBS, np.ones_like(TRUTH))


# By name


@pytest.mark.parametrize(
    ("name", "likely"),
    [
        ("MAP@3", "map@3"),
        ("map5", "map@3"),
        ("macro_rocauc", "macro_roc_auc"),
        ("AUC", "macro_roc_auc"),
        ("LWLRAP", "lwlrap"),
        ("acuracy", "accuracy"),
        ("logloss", "log_loss"),
        ("F1", "macro_f1"),
        ("cmAP", "padded_cmap"),
        ("map@0", "map@3"),
    ],
)
def test_a_typo_is_answered_with_the_likely_name(name: str, likely: str) -> None:
    with pytest.raises(
        UserError, match=f"metric '{name}': no such metric: did you mean '{likely}'.* map@K, top@K, acc"
    ):
        find_metric(name)


def test_a_metric_of_the_other_task_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"metric 'accuracy': is for one label per clip, but clips have several: use .*lwlrap"
    ):
        find_metric("accuracy", "multi_label")
    with pytest.raises(UserError, match="metric 'top@3': is for one label"):
        find_metric("top@3", "multi_label")
    assert find_metric("accuracy").tasks == ("single_label",)


def test_keys_and_titles_are_distinct() -> None:
    for task in ("single_label", "multi_label"):
        of = [one for one in (*METRICS, find_metric("map@3"), find_metric("map@5")) if task in one.tasks]
        assert len({one.key for one in of}) == len({one.title for one in of}) == len(of)
    assert find_metric("map@3").key == "map3" and find_metric("map@3").title == "MAP@3"
    assert find_metric("log_loss").gain(PROBS, np.eye(3, dtype=bool)) == -find_metric("log_loss").score(
        PROBS, np.eye(3, dtype=bool)
    )


# One's own


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of a user, in the current folder."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "def share(probs, truth):\n    probs[:] = 0\n    return truth.mean()\n"
        "def broken(probs, truth):\n    return 1 / 0\n"
        "def nothing(probs, truth):\n    return float('nan')\n"
        "def three(probs, truth, rates):\n    return 0.0\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield name


def test_ones_own_metric(own: str) -> None:
    metric = find_metric(f"{own}:share")
    probs = PROBS.copy()
    assert metric.score(probs, TRUTH) == pytest.approx(1 / 3) and metric.higher_is_better
    assert (probs == PROBS).all(), "it may change only its own copy"
    assert (metric.key, metric.per_clip, metric.within) == ("share", None, "all")
    with pytest.raises(ValueError, match="NaN"):
        metric.score(PROBS * np.nan, TRUTH)


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        ("broken", r"broken raises ZeroDivisionError: division by zero \(.*\.py:5\)"),
        ("nothing", "nothing returns nan: return a finite number"),
        ("three", r"must take \(probs, truth\), but takes"),
        ("shares", "has no 'shares', did you mean 'share'"),
    ],
)
def test_a_faulty_metric_of_ones_own(own: str, function: str, fault: str) -> None:
    with pytest.raises(UserError, match=f"^metric: .*{fault}"):
        find_metric(f"{own}:{function}").score(PROBS, TRUTH)


# Scores by name


def test_scores_of_several_labels() -> None:
    found = scores(PROBS, TRUTH, np.array([True, False, False]), "lwlrap")
    assert found == {"lwlrap": pytest.approx(13 / 18), "lwlrap_verified": pytest.approx(7 / 12)}
    assert oof_columns([found], "lwlrap") == {"OOF": "lwlrap", "OOF verified": "lwlrap_verified"}
    assert list(scores(PROBS, TRUTH, np.array([False, False, True]), "lwlrap")) == ["lwlrap"], "it has no label"
    assert scores(PROBS, TRUTH, np.zeros(3, bool), "log_loss") == {
        "log_loss": find_metric("log_loss", "multi_label").score(PROBS, TRUTH)
    }


def test_scores_of_one_label_by_another_metric() -> None:
    found = scores(PROBS, np.array([1, 1, 0]), np.ones(3, bool), "macro_roc_auc")
    assert list(found) == ["macro_roc_auc", "accuracy"] and found["accuracy"] == pytest.approx(1 / 3)
    assert scores(PROBS, np.array([1, 1, 0]), np.ones(3, bool), "accuracy") == {"accuracy": pytest.approx(1 / 3)}


def test_verified_clips_that_have_no_score_are_left_out() -> None:
    """One clip has no ROC-AUC: it needs a positive and a negative."""
    assert list(scores(PROBS, TRUTH, np.array([True, False, False]), "macro_roc_auc")) == ["macro_roc_auc"]


def test_every_metric_is_known_by_name_before_any_is_computed() -> None:
    assert set(NAMES) == {one.name for one in METRICS} and set(LIKELY.values()) <= {*NAMES, "map@3", "top@5"}
    for name in NAMES:
        suits = {task for one in METRICS if one.name == name for task in one.tasks}
        assert ("multi_label" not in suits) == bool(SINGLE_LABEL.fullmatch(name)) and "single_label" in suits
