"""The report of a blend: pictures as PNG, and one HTML file that holds them and the tables and needs nothing else."""

import base64
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from blending import plots as pictures
from blending.bootstrap import bootstrap_means
from blending.candidates import Candidates
from blending.ensemble_folder import Ensemble
from metrics.map_at_3 import average_precision_at_3

CAPTIONS = {
    "scores": "Score of every model and method",
    "weights": "Weights",
    "error_correlation": "Correlation of the models' errors",
    "greedy_path": "The path of the greedy selection (over all models and rows, unbagged)",
    "class_scores": "AP@3 per class",
    "confused_pairs": "The labels most often confused",
    "confusion": "Confusion matrix of the blend (nested)",
}


def write_report(folder: Path, ensemble: Ensemble, candidates: Candidates) -> None:
    """<picture>.png for every one of CAPTIONS, and report.html, into the ensemble's folder."""
    for name, figure in draw(ensemble, candidates).items():
        figure.savefig(folder / f"{name}.png")
    (folder / "report.html").write_text(_html(folder, ensemble), encoding="utf-8")


def draw(ensemble: Ensemble, candidates: Candidates) -> dict[str, Figure]:
    """Every picture, by the names of CAPTIONS, of the rows that decide."""
    c, blend, compared = candidates, ensemble.blend, ensemble.comparison
    judged = c.verified if compared.decide == "verified" else np.ones(len(c.truth), dtype=bool)
    truth, probs = c.truth[judged], ensemble.oof.probs[judged]
    gains = np.stack([average_precision_at_3(one, truth) for one in c.oof[:, judged]])
    errors = bootstrap_means(gains, c.group[judged]).std(axis=1)
    models = {name: (float(g.mean()), float(e)) for name, g, e in zip(c.names, gains, errors, strict=True)}
    best = gains[int(np.argmax(gains.mean(axis=1)))]
    nested = average_precision_at_3(probs, truth)
    counts = np.bincount(truth, minlength=len(c.classes))
    confusion = np.zeros((len(c.classes), len(c.classes)), dtype=np.int64)
    np.add.at(confusion, (truth, probs.argmax(axis=1)), 1)
    weights = {name: model.weight for name, model in blend.models.items()}
    offsets = dict(zip(c.classes, blend.offsets or (), strict=False))
    return {
        "scores": pictures.scores_picture(models, compared.methods, compared.chosen),
        "weights": pictures.weights_picture(weights, offsets),
        "error_correlation": pictures.error_correlation_picture(c.names, gains),
        "greedy_path": pictures.greedy_path_picture(compared.greedy_path),
        "class_scores": pictures.class_scores_picture(
            c.classes, _by_class(nested, truth, counts), _by_class(best, truth, counts), counts
        ),
        "confused_pairs": pictures.confused_pairs_picture(most_confused(c.classes, confusion)),
        "confusion": pictures.confusion_picture(c.classes, confusion),
    }


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


def _by_class(gains: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> np.ndarray:
    sums = np.bincount(truth, weights=gains, minlength=len(counts))
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def _html(folder: Path, ensemble: Ensemble) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found = [
        {"caption": caption, "png": base64.b64encode((folder / f"{name}.png").read_bytes()).decode()}
        for name, caption in CAPTIONS.items()
    ]
    return environment.get_template("report.html.j2").render(
        compared=ensemble.comparison, n_models=len(ensemble.blend.models), pictures=found
    )
