"""The report of a blend: pictures as PNG, and one HTML file that holds them and the tables and needs nothing else."""

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from blending import plots as pictures
from blending.bootstrap import Judge
from blending.candidates import Candidates
from blending.ensemble_folder import Ensemble
from metrics.metric import Metric, find_metric

CAPTIONS = {
    "scores": "Score of every model and method",
    "weights": "Weights",
    "error_correlation": "Correlation of the models' errors",
    "greedy_path": "The path of the greedy selection (over all models and rows, unbagged)",
    "class_scores": "Score per class",
    "confused_pairs": "The labels most often confused",
    "confusion": "Confusion matrix of the blend (nested)",
}


def write_report(folder: Path, ensemble: Ensemble, candidates: Candidates) -> None:
    """<picture>.png for those of CAPTIONS that suit the task, and report.html, into the ensemble's folder."""
    for name, figure in draw(ensemble, candidates).items():
        figure.savefig(folder / f"{name}.png")
    (folder / "report.html").write_text(_html(folder, ensemble), encoding="utf-8")


def draw(ensemble: Ensemble, candidates: Candidates) -> dict[str, Figure]:
    """Every picture, by the names of CAPTIONS, of the rows that decide; a confusion matrix for one label per clip."""
    c, blend, compared = candidates, ensemble.blend, ensemble.comparison
    judged = c.verified if compared.decide == "verified" else np.ones(len(c.truth), dtype=bool)
    truth, probs, oof = c.truth[judged], ensemble.oof.probs[judged], c.oof[:, judged]
    judge = Judge(c.metric, c.truth, c.group).at(judged)
    gains = [judge.gain(one) for one in oof]
    errors = np.nanstd(judge.drawn(list(oof)), axis=1)
    models = {n: (judge.sign * g, float(e)) for n, g, e in zip(c.names, gains, errors, strict=True)}
    losses, what = losses_of(oof, truth, c.metric)
    what_of_class, of_class = by_class(c.metric)
    best = oof[int(np.argmax(gains))]
    offsets = dict(zip(c.classes, blend.offsets or (), strict=False))
    weights = {name: model.weight for name, model in blend.models.items()}
    title = c.metric.title
    drawn = {
        "scores": pictures.scores_picture(models, compared.methods, compared.chosen, title),
        "weights": pictures.weights_picture(weights, offsets),
        "error_correlation": pictures.error_correlation_picture(c.names, losses, what),
        "greedy_path": pictures.greedy_path_picture(compared.greedy_path, title),
        "class_scores": pictures.class_scores_picture(
            c.classes, of_class(probs, truth), of_class(best, truth), truth.sum(axis=0), what_of_class
        ),
    }
    if c.task == "single_label":
        confusion = np.zeros((len(c.classes), len(c.classes)), dtype=np.int64)
        np.add.at(confusion, (c.label_index[judged], probs.argmax(axis=1)), 1)
        drawn["confused_pairs"] = pictures.confused_pairs_picture(most_confused(c.classes, confusion))
        drawn["confusion"] = pictures.confusion_picture(c.classes, confusion)
    return drawn


def losses_of(oof: np.ndarray, truth: np.ndarray, metric: Metric) -> tuple[np.ndarray, str]:
    """(models, values) whose correlation shows which models err alike, and what they are: the metric of each clip, else
    the share of its class's clips that score higher than a labelled one, on any scale."""
    if metric.per_clip is not None:
        return np.stack([metric.per_clip(one, truth) for one in oof]), f"1 - {metric.title} of a clip"
    places = oof.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return places[:, truth] / len(truth), "rank of the labelled clips in their class"


def by_class(metric: Metric) -> tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """What is shown for each class, and the function of blend and truth (clips, classes) that gives it (classes,); NaN
    for a class without a clip."""
    per_clip = metric.per_clip
    if per_clip is not None and metric.tasks != ("multi_label",):

        def mean_of_clips(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
            gains, counts = per_clip(probs, truth) @ truth, truth.sum(axis=0)
            return np.divide(gains, counts, out=np.full(len(counts), np.nan), where=counts > 0)

        return f"{metric.title}, mean over the class's clips", mean_of_clips
    shown = metric if metric.within == "class" and metric.fit_thresholds is None else find_metric("macro_roc_auc")

    def of_class(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
        mixed = [bool(one.any() and not one.all()) for one in truth.T]
        columns = [slice(c, c + 1) for c in range(truth.shape[1])]
        return np.array(
            [shown.score(probs[:, c], truth[:, c]) if ok else np.nan for c, ok in zip(columns, mixed, strict=True)]
        )

    return f"{shown.title.removeprefix('macro ')} of the class", of_class


def most_confused(classes: tuple[str, ...], confusion: np.ndarray, most: int = 20) -> list[tuple[str, str, int, int]]:
    """(true class, class put first, clips, clips of the true class), the most frequent first; ties by name.

    confusion (classes, classes): counts, a row per true class.
    """
    pairs = [
        (classes[i], classes[j], int(confusion[i, j]), int(confusion[i].sum()))
        for i, j in zip(*np.nonzero(confusion), strict=True)
        if i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))[:most]


def _html(folder: Path, ensemble: Ensemble) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found = [
        {"caption": caption, "png": base64.b64encode((folder / f"{name}.png").read_bytes()).decode()}
        for name, caption in CAPTIONS.items()
        if (folder / f"{name}.png").exists()
    ]
    return environment.get_template("report.html.j2").render(
        compared=ensemble.comparison,
        n_models=len(ensemble.blend.models),
        pictures=found,
        metric=find_metric(ensemble.blend.metric, ensemble.blend.task).title,
    )
