"""Pictures of a blend, each a matplotlib Figure: drawn without a display, saved by the caller."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from blending.bootstrap import MethodScore

BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#a0aec0"


def scores_picture(
    models: dict[str, tuple[float, float]], methods: dict[str, MethodScore], chosen: str, title: str
) -> Figure:
    """The metric, called `title`, with 95 % intervals: models (score, standard error) above, methods of `compare`
    (nested, and fitted as a cross) below."""
    names = [*models, *methods]
    fig, ax = _figure(8, 0.3 * len(names) + 1.4)
    rows = np.arange(len(names))
    for row, (score, se) in zip(rows, models.values(), strict=False):
        ax.errorbar(score, row, xerr=1.96 * se, fmt="o", color=GREY, capsize=3)
    for row, (name, one) in zip(rows[len(models) :], methods.items(), strict=True):
        low, high = one.interval
        error = [[max(0.0, one.score - low)], [max(0.0, high - one.score)]]
        ax.errorbar(one.score, row, xerr=error, fmt="o", color=ORANGE if name == chosen else BLUE, capsize=3)
        ax.plot(one.fitted, row, "x", color=BLUE, label="on the rows it was fitted to" if row == rows[-1] else None)
    ax.axhline(len(models) - 0.5, color=GREY, linewidth=0.8)
    ax.set_yticks(rows, [f"{name}  (chosen)" if name == chosen and name in methods else name for name in names])
    ax.invert_yaxis()
    ax.grid(axis="x", color="#e2e8f0")
    ax.set_xlabel(f"{title} of the rows that decide, with 95 % interval (models: out-of-fold; methods: nested)")
    ax.legend(loc="lower left", frameon=False, fontsize=8)
    return fig


def error_correlation_picture(names: Sequence[str], gains: np.ndarray, what: str) -> Figure:
    """Correlation of the models' errors. gains (models, values), described by `what`."""
    spread = gains.std(axis=1)
    centred = (gains - gains.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)[:, None]
    matrix = centred @ centred.T / gains.shape[1]
    size = 0.55 * len(names) + 2.2
    fig, ax = _figure(size + 0.8, size)
    image = ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(matrix):
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="w" if value > 0.6 else "k")
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.set_yticks(range(len(names)), names)
    fig.colorbar(image, ax=ax, shrink=0.8, label=f"correlation of the {what}")
    return fig


def greedy_path_picture(path: Sequence[tuple[str, float]], title: str) -> Figure:
    """Fitted score after each step of the greedy selection, and which model each step took. path: (model, score)."""
    names = list(dict.fromkeys(name for name, _ in path))
    fig, (above, below) = _figures(8, 3 + 0.25 * len(names), 2, [3, 0.3 * len(names) + 0.6])
    steps = np.arange(1, len(path) + 1)
    scores = [score for _, score in path]
    above.plot(steps, scores, color=BLUE)
    best = int(np.argmax(scores))
    above.plot(steps[best], scores[best], "o", color=ORANGE)
    above.set_title(f"best: {scores[best]:.4f} after {steps[best]} steps", fontsize=10)
    above.set_ylabel(f"fitted {title}")
    below.plot(steps, [names.index(name) for name, _ in path], "s", color=BLUE, markersize=4)
    below.set_yticks(range(len(names)), names)
    below.invert_yaxis()
    below.margins(y=0.2)
    below.set_xlabel("step: the model it added")
    for ax in (above, below):
        ax.grid(color="#e2e8f0")
    return fig


def weights_picture(weights: dict[str, float], offsets: dict[str, float]) -> Figure:
    """A bar per model; beside it, where the method has them, one per class for its offset."""
    height = max(2.2, 0.3 * len(weights) + 1, 0.17 * len(offsets) + 1)
    fig, axes = _figures(8 if offsets else 6, height, 1, [1], 2 if offsets else 1)
    axes[0].barh(list(weights), list(weights.values()), color=BLUE, height=min(0.8, 4 / height))
    axes[0].set_xlabel("weight")
    if offsets:
        ordered = dict(sorted(offsets.items(), key=lambda item: item[1]))
        axes[1].barh(list(ordered), list(ordered.values()), color=[BLUE if v > 0 else ORANGE for v in ordered.values()])
        axes[1].tick_params(axis="y", labelsize=7)
        axes[1].margins(y=0.01)
        axes[1].set_xlabel("offset (above 0: favoured)")
    axes[0].invert_yaxis()
    for ax in axes:
        ax.grid(axis="x", color="#e2e8f0")
        ax.set_axisbelow(True)
    return fig


def class_scores_picture(
    classes: Sequence[str], blend: np.ndarray, single: np.ndarray, counts: np.ndarray, what: str
) -> Figure:
    """The score of each class, described by `what`, of the blend (bar) and of the best single model (tick), (classes,)
    each, the worst first; NaN where no clip has the class."""
    order = np.argsort(np.where(np.isnan(blend), 2, blend), kind="stable")
    fig, ax = _figure(8, 0.2 * len(classes) + 1.2)
    rows = np.arange(len(classes))
    ax.barh(rows, np.nan_to_num(blend[order]), color=BLUE, label="blend, nested")
    ax.plot(single[order], rows, "|", color=ORANGE, markersize=9, markeredgewidth=2, label="best single model")
    ax.set_yticks(rows, [f"{classes[i]} ({counts[i]})" for i in order], fontsize=8)
    ax.set_xlim(0, 1)
    ax.margins(y=0.01)
    ax.invert_yaxis()
    ax.grid(axis="x", color="#e2e8f0")
    ax.set_axisbelow(True)
    ax.set_xlabel(f"{what} (number of clips in brackets)")
    ax.legend(loc="lower left", fontsize=8)
    return fig


def confusion_picture(classes: Sequence[str], matrix: np.ndarray) -> Figure:
    """Share of each true class (row) that the blend puts first as each class (column). matrix: counts."""
    share = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    size = 0.2 * len(classes) + 2.5
    fig, ax = _figure(size + 0.9, size - 0.4)
    image = ax.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)  # the root shows the rare confusions
    ax.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
    ax.set_yticks(range(len(classes)), classes, fontsize=7)
    ax.set_xlabel("put first by the blend")
    ax.set_ylabel("true class")
    bar = fig.colorbar(image, ax=ax, shrink=0.7, ticks=np.sqrt([0, 0.02, 0.1, 0.25, 0.5, 1]), label="share of the row")
    bar.ax.set_yticklabels(["0", "2 %", "10 %", "25 %", "50 %", "100 %"])
    return fig


def confused_pairs_picture(pairs: list[tuple[str, str, int, int]]) -> Figure:
    """The most frequent confusions: (true class, class put first, clips, clips of the true class)."""
    fig, ax = _figure(8, 0.27 * max(1, len(pairs)) + 1)
    rows = np.arange(len(pairs))
    ax.barh(rows, [n for _, _, n, _ in pairs], color=BLUE)
    for row, (_, _, n, of) in zip(rows, pairs, strict=True):
        ax.text(n, row, f" {n} of {of}", va="center", fontsize=8)
    ax.set_yticks(rows, [f"{true} → {taken}" for true, taken, _, _ in pairs], fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlabel("clips (true class → put first)")
    return fig


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    fig = Figure(figsize=(width, height), layout="constrained", dpi=110)
    return fig, fig.subplots()


def _figures(width: float, height: float, rows: int, ratios: list[float], columns: int = 1) -> tuple[Figure, Any]:
    fig = Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = fig.subplots(rows, columns, squeeze=False, sharex=rows > 1, gridspec_kw={"height_ratios": ratios})
    return fig, axes.ravel()
