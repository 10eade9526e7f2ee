"""The report of a blend: pictures as PNG, and one HTML file that holds them and the tables and needs nothing else."""

import base64
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from blending import plots as pictures
from blending.bootstrap import bootstrap_means
from blending.candidates import Candidates
from blending.ensemble_folder import Ensemble
from metrics.map_at_3 import average_precision_at_3

STYLE = """body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1a202c}
table{border-collapse:collapse;font-size:13px}td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #e2e8f0}
td:first-child,th:first-child{text-align:left}tr.chosen{font-weight:bold;background:#fffaf0}img{max-width:100%}"""
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
    c, about, compared = candidates, ensemble.weights, ensemble.comparison
    judged = c.verified if compared["decide"] == "verified" else np.ones(len(c.truth), dtype=bool)
    truth, probs = c.truth[judged], ensemble.oof.probs[judged]
    gains = np.stack([average_precision_at_3(one, truth) for one in c.oof[:, judged]])
    errors = bootstrap_means(gains, c.group[judged]).std(axis=1)
    models = {name: (float(g.mean()), float(e)) for name, g, e in zip(c.names, gains, errors, strict=True)}
    best = gains[int(np.argmax(gains.mean(axis=1)))]
    blend = average_precision_at_3(probs, truth)
    counts = np.bincount(truth, minlength=len(c.classes))
    confusion = np.zeros((len(c.classes), len(c.classes)), dtype=np.int64)
    np.add.at(confusion, (truth, probs.argmax(axis=1)), 1)
    weights = {name: model["weight"] for name, model in about["models"].items()}
    offsets = dict(zip(c.classes, about.get("offsets", []), strict=False))
    return {
        "scores": pictures.scores_picture(models, compared["methods"], compared["chosen"]),
        "weights": pictures.weights_picture(weights, offsets),
        "error_correlation": pictures.error_correlation_picture(c.names, gains),
        "greedy_path": pictures.greedy_path_picture(compared["greedy_path"]),
        "class_scores": pictures.class_scores_picture(
            c.classes, _by_class(blend, truth, counts), _by_class(best, truth, counts), counts
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
    compared, n_models = ensemble.comparison, len(ensemble.weights["models"])
    expected = compared["expected"]
    low, high = expected["interval"]
    parts = [
        f"<!DOCTYPE html><html lang='en'><meta charset='utf-8'><title>Blend: {escape(compared['chosen'])}</title>",
        f"<style>{STYLE}</style><h1>Blend of {n_models} models: {escape(compared['chosen'])}</h1>",
        f"<p>Expected MAP@3 on {expected['clips']} test clips, if like the {compared['rows']} rows that decide "
        f"({compared['decide']}): <b>{expected['score']:.4f}</b>, with 95 % between {low:.4f} and {high:.4f}. Nested: "
        "the blend of a fold was fitted to the other folds, its own settings chosen there too.</p>",
        _methods_table(compared),
    ]
    if tried := compared["unverified_weight"]:
        rows = [[weight, f"{score:.4f}"] for weight, score in tried.items()]
        parts.append(
            "<h2>Noisy labels</h2><p>Log-linear pool, by the weight of unverified rows in the fit: each fold "
            "by a fit to the others, but the spread of the offsets was chosen on all rows.</p>"
        )
        parts.append(_table(["weight", "MAP@3"], rows))
    for name, caption in CAPTIONS.items():
        data = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
        parts.append(f"<h2>{escape(caption)}</h2><img alt='{escape(caption)}' src='data:image/png;base64,{data}'>")
    return "\n".join(parts) + "\n</html>\n"


def _methods_table(compared: dict[str, Any]) -> str:
    header = [
        "method",
        "fitted",
        "nested",
        "standard error",
        "to the best single model",
        "to the plain mean",
        "all rows",
    ]
    rows, marked = [], -1
    for i, (name, one) in enumerate(compared["methods"].items()):
        marked = i if name == compared["chosen"] else marked
        cells = [name, f"{one['fitted']:.4f}", f"{one['score']:.4f}", f"{one['se']:.4f}"]
        for key in ("to_single", "to_mean"):
            low, high = one[key]["interval"]
            cells.append(f"{one[key]['difference']:+.4f} ({low:+.4f} to {high:+.4f})")
        rows.append([*cells, f"{one['nested_all']:.4f}"])
    return _table(header, rows, marked)


def _table(header: list[str], rows: list[list[str]], marked: int = -1) -> str:
    def line(cells: list[str], tag: str) -> str:
        return "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)

    body = "".join(
        f"<tr{' class=chosen' if i == marked else ''}>{line(cells, 'td')}</tr>" for i, cells in enumerate(rows)
    )
    return f"<table><tr>{line(header, 'th')}</tr>{body}</table>"
