"""The metrics by name: how a competition's score is computed from probabilities and true labels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from configs.competition import Task
from configs.metric_names import AT_K, check_metric
from configs.user_code import faults_in_one_line, is_user_code, load_callable
from console.errors import UserError
from metrics.average_precision import (
    macro_average_precision,
    micro_average_precision,
    padded_cmap,
    resampled_macro_average_precision,
    resampled_micro_average_precision,
    resampled_padded_cmap,
)
from metrics.checks import check_scores
from metrics.f1 import (
    fit_thresholds,
    macro_f1,
    macro_f1_of_top,
    resampled_macro_f1,
    resampled_macro_f1_of_top,
)
from metrics.log_loss import binary_cross_entropy, cross_entropy
from metrics.lwlrap import lwlrap, resampled_lwlrap
from metrics.map_at_k import average_precision_at_k, hit_at_k
from metrics.roc_auc import macro_roc_auc, macro_roc_auc_against, resampled_macro_roc_auc

Score = Callable[[np.ndarray, np.ndarray], float]
OfProbs = Callable[[np.ndarray], float]
PerClip = Callable[[np.ndarray, np.ndarray], np.ndarray]
Resample = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Within = Literal["clip", "class", "all"]
BOTH: tuple[Task, ...] = ("single_label", "multi_label")


@dataclass(frozen=True)
class Metric:
    """probs (clips, classes) float, truth (clips, classes) bool; a row has one true class in a single-label task.

    `score` and `per_clip` raise ValueError on NaN, shapes that do not match, no clips and no labels at all.
    """

    name: str  # as competition.yaml and --metric give it
    title: str  # as tables and reports show it
    key: str  # as scores.json names it
    score: Score  # as published
    per_clip: PerClip | None = None  # (clips,) values whose mean is `score`; None: not a mean over clips
    higher_is_better: bool = True
    tasks: tuple[Task, ...] = BOTH  # that it suits
    within: Within = "clip"  # compares the classes of a clip, the clips of a class, or all values with one another
    resample: Resample | None = None  # (probs, truth, times (k, clips)) -> (k,) scores: see `resampling.resampled`
    against: Callable[[np.ndarray], OfProbs] | None = None  # truth -> a faster `score` of probs, without checks
    fit_thresholds: PerClip | None = None  # (classes,) thresholds, where `f1.decide(probs, thresholds)` is to be scored

    def __reduce__(self) -> tuple[Any, ...]:  # another process finds it by its name
        return find_metric, (self.name, self.tasks[0])

    def scorer(self, truth: np.ndarray) -> OfProbs:
        """`score` of many predictions of the same clips, as a function of probs alone, which are finite."""
        if self.against is not None:
            return self.against(truth)
        return lambda probs: self.score(probs, truth)

    def gain(self, probs: np.ndarray, truth: np.ndarray) -> float:
        """`score`, negated where lower is better: what is maximised."""
        found = self.score(probs, truth)
        return found if self.higher_is_better else -found


def find_metric(name: str, task: Task | None = None) -> Metric:
    """The metric of that name, or one's own as 'my_file:function', called as function(probs, truth) -> float.

    task: of the competition; None: any, and for log_loss and macro_f1, which have a form for each task, that of one
    label per clip. Raises UserError where there is no such metric, or it does not suit the task.
    """
    if is_user_code(name):
        return _own_metric(name)
    check_metric(name, task)
    suitable = (one for one in (*METRICS, *_at_k(name)) if one.name == name and (task is None or task in one.tasks))
    return next(suitable)


def metric_title(name: str, task: Task | None = None) -> str:
    """The title of `find_metric`, for which one's own metric need not be there."""
    return name.rpartition(":")[2] if is_user_code(name) else find_metric(name, task).title


def _mean(per_clip: PerClip) -> Score:
    return lambda probs, truth: float(per_clip(probs, truth).mean())


def _at_k(name: str) -> list[Metric]:
    """The metric named map@5, top@5 or the like."""
    if not (match := AT_K.fullmatch(name)):
        return []
    kind, k = match[1], int(match[2])
    if kind == "map":
        precision = partial(average_precision_at_k, k=k)
        return [Metric(name, f"MAP@{k}", f"map{k}", _mean(precision), precision)]
    hit = partial(hit_at_k, k=k)
    return [Metric(name, f"top-{k} accuracy", f"top{k}", _mean(hit), hit, tasks=("single_label",))]


def _own_metric(name: str) -> Metric:
    function = load_callable(name, "metric", ["probs", "truth"])

    def score(probs: np.ndarray, truth: np.ndarray) -> float:
        check_scores(probs, truth)
        with faults_in_one_line(name, "metric"):
            found: Any = function(probs.copy(), truth.copy())  # it may change what it gets
            value = float(found)
        if not np.isfinite(value):
            raise UserError(f"metric: {name} returns {value}: return a finite number")
        return value

    title = metric_title(name)
    return Metric(name, title, title, score, within="all")


_accuracy = partial(hit_at_k, k=1)

METRICS = (
    Metric("accuracy", "accuracy", "accuracy", _mean(_accuracy), _accuracy, tasks=("single_label",)),
    Metric("lwlrap", "lwlrap", "lwlrap", lwlrap, resample=resampled_lwlrap),
    Metric(
        "macro_roc_auc",
        "macro ROC-AUC",
        "macro_roc_auc",
        macro_roc_auc,
        within="class",
        resample=resampled_macro_roc_auc,
        against=macro_roc_auc_against,
    ),
    Metric(
        "macro_average_precision",
        "macro AP",
        "macro_average_precision",
        macro_average_precision,
        within="class",
        resample=resampled_macro_average_precision,
    ),
    Metric(
        "micro_average_precision",
        "micro AP",
        "micro_average_precision",
        micro_average_precision,
        within="all",
        resample=resampled_micro_average_precision,
    ),
    Metric(
        "padded_cmap",
        "padded cmAP",
        "padded_cmap",
        padded_cmap,
        within="class",
        resample=resampled_padded_cmap,
    ),
    Metric(
        "macro_f1",
        "macro F1",
        "macro_f1",
        macro_f1_of_top,
        tasks=("single_label",),
        resample=resampled_macro_f1_of_top,
    ),
    Metric(
        "macro_f1",
        "macro F1",
        "macro_f1",
        macro_f1,
        tasks=("multi_label",),
        within="class",
        resample=resampled_macro_f1,
        fit_thresholds=fit_thresholds,
    ),
    Metric(
        "log_loss",
        "log loss",
        "log_loss",
        _mean(cross_entropy),
        cross_entropy,
        higher_is_better=False,
        tasks=("single_label",),
    ),
    Metric(
        "log_loss",
        "log loss",
        "log_loss",
        _mean(binary_cross_entropy),
        binary_cross_entropy,
        higher_is_better=False,
        tasks=("multi_label",),
        within="all",
    ),
)
