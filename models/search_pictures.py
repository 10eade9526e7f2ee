"""Pictures of a search, each a matplotlib Figure: drawn without a display, saved by the caller."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from models.pictures import BLUE, GREY, ORANGE
from models.search import settings_of

GRID = "#e2e8f0"


def history_picture(trials: Sequence[FrozenTrial]) -> Figure:
    """Scores in the order of the trials, pruned ones as crosses at their last score, and the best so far."""
    fig = Figure(figsize=(8, 4), layout="constrained", dpi=110)
    ax = fig.subplots()
    whole, pruned = _parts(trials)
    ax.plot([t.number for t in pruned], _scores(pruned), "x", color=GREY, label="pruned, last score")
    ax.plot([t.number for t in whole], _scores(whole), "o", color=BLUE, label="whole")
    best = np.maximum.accumulate(_scores(whole))
    ax.step([t.number for t in whole], best, where="post", color=ORANGE, label="best so far")
    ax.set_xlabel("trial")
    ax.set_ylabel("out-of-fold MAP@3")
    ax.grid(color=GRID)
    fig.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return fig


def slices_picture(trials: Sequence[FrozenTrial], keys: Sequence[str]) -> Figure:
    """Score against each of the searched settings; pruned trials as crosses."""
    columns = min(4, max(1, len(keys)))
    rows = math.ceil(max(1, len(keys)) / columns)
    fig = Figure(figsize=(2.6 * columns + 0.6, 2.4 * rows + 0.4), layout="constrained", dpi=110)
    axes = fig.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for ax, key in zip(axes, keys, strict=False):
        ranges = [trial.distributions[key] for trial in trials if key in trial.distributions]  # the base may lack it
        chosen = bool(ranges) and isinstance(ranges[0], CategoricalDistribution)
        for part, marker, color in zip(_parts(trials), "ox", (BLUE, GREY), strict=True):
            xs = [_x(settings_of(trial, [key])[key], chosen) for trial in part]
            ax.plot(xs, _scores(part), marker, color=color, markersize=5)
        if ranges and isinstance(ranges[0], FloatDistribution) and ranges[0].log:
            ax.set_xscale("log")
        ax.set_xlabel(key, fontsize=9)
        ax.grid(color=GRID)
    for ax in axes[len(keys) :]:
        ax.remove()
    axes[0].set_ylabel("out-of-fold MAP@3")
    return fig


def importances_picture(importances: dict[str, float]) -> Figure:
    """A bar per setting: its share of the variance of the scores."""
    fig = Figure(figsize=(7, 0.3 * len(importances) + 1), layout="constrained", dpi=110)
    ax = fig.subplots()
    ax.barh(list(importances), list(importances.values()), color=BLUE)
    ax.invert_yaxis()
    ax.grid(axis="x", color=GRID)
    ax.set_axisbelow(True)
    ax.set_xlabel("share of the variance of the scores of whole trials (fANOVA)")
    return fig


def _parts(trials: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """Whole trials, and pruned ones that have a score."""
    scored = [trial for trial in trials if trial.value is not None]
    whole = [trial for trial in scored if trial.state == TrialState.COMPLETE]
    return whole, [trial for trial in scored if trial.state == TrialState.PRUNED]


def _scores(trials: Sequence[FrozenTrial]) -> np.ndarray:
    return np.array([trial.value for trial in trials], dtype=np.float64)


def _x(value: Any, chosen: bool) -> Any:
    """Numbers as they are; all else as its text among choices, an axis of categories, and nowhere on an axis of
    numbers."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return str(value) if chosen else np.nan
