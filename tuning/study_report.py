"""What a search found: best.yaml, trials.csv and pictures, beside the journal."""

import csv
import io
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from blending.plots import BLUE, GREY, ORANGE
from configs.files import write
from configs.schema import Config, from_dict, to_dict
from console.errors import UserError
from console.output import say, table
from tuning.study import best_trial, finished, settings_of

FEWEST = 4  # whole trials, of different scores, from which importances are estimated
GRID = "#e2e8f0"


def write_report(folder: Path, study: optuna.Study) -> None:
    """Write the files and say the best trial. Call it in `locked`. Without a whole trial: only trials.csv."""
    if "facts" not in study.user_attrs:  # killed as it was begun
        raise UserError(f"{folder}: this study has no trials yet: go on with it without --report")
    trials, best = finished(study), best_trial(study)
    write(folder / "trials.csv", _csv(trials, study.user_attrs["facts"]["folds"], searched(study)))
    if best is None:
        say(f"{folder}: {len(trials)} trials finished, none of them whole: nothing to report yet")
        return
    file = folder / "best.yaml"
    write(file, best_yaml(file, study, best).encode("utf-8", "backslashreplace"))  # YAML must be UTF-8, a path need not
    importances = parameter_importances(study)
    pictures = {"history": history_picture(trials), "slices": slices_picture(trials, searched(study))}
    if importances:
        pictures["importances"] = importances_picture(importances)
        table(["setting", "share of the scores' variance"], [[k, f"{v:.2f}"] for k, v in importances.items()])
    for name, picture in pictures.items():
        image = io.BytesIO()
        picture.savefig(image, format="png")
        write(folder / f"{name}.png", image.getvalue())
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    say(
        f"best of {len(trials)} trials ({pruned} pruned): trial {best.number}, out-of-fold MAP@3 {best.value:.4f}, "
        f"flattered by the choice -> {file}; its first line trains it with another seed, which tells the truth"
    )


def best_yaml(file: Path, study: optuna.Study, best: FrozenTrial) -> str:
    """An experiment file with the settings of the best trial that differ from the defaults."""
    facts = study.user_attrs["facts"]
    cfg = from_dict(best.user_attrs["config"])
    where = "".join(f" --{key} {shlex.quote(value)}" for key, value in facts["where"].items())
    command = f"train_fold.py --fold 0..{cfg.folds.n_folds - 1} --config {shlex.quote(str(file))}{where}"
    chosen = f"Trial {best.number} of {len(finished(study))}, out-of-fold MAP@3 {best.value:.4f}"
    lines = [
        f"# python {command} train.seed={cfg.train.seed + 1}",
        f"# {chosen} (fold {','.join(map(str, facts['folds']))}, seed {cfg.train.seed}): flattered by the choice.",
        f"name: {study.study_name}-best",
    ]
    return "\n".join([*lines, *_changed(cfg)]) + "\n"


def _changed(cfg: Config) -> list[str]:
    """A line per section with what differs from the defaults, `name` aside."""
    lines = []
    defaults = to_dict(Config())
    for section, values in to_dict(cfg).items():
        if isinstance(values, dict):
            changed = {k: _plain(v) for k, v in values.items() if v != defaults[section][k]}
            if changed:
                lines.append(
                    f"{section}: "
                    + yaml.safe_dump(changed, default_flow_style=True, sort_keys=False, width=10_000).strip()
                )
    return lines


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def searched(study: optuna.Study) -> list[str]:
    """The keys of the search space."""
    return list(study.user_attrs["facts"]["space"])


def _csv(trials: Sequence[FrozenTrial], folds: Sequence[int], keys: Sequence[str]) -> str:
    """A row per finished trial; map3 of a pruned one is its last."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trial", "state", "map3", *(f"fold{k}" for k in folds), "reports", "seconds", *keys, "note"])
    for trial in trials:
        about = trial.user_attrs
        scores = [about.get("scores", {}).get(str(fold)) for fold in folds]
        row = [trial.number, trial.state.name.lower(), trial.value, *scores, len(trial.intermediate_values)]
        writer.writerow([*row, about.get("seconds"), *settings_of(trial, keys).values(), about.get("note")])
    return out.getvalue()


def parameter_importances(study: optuna.Study) -> dict[str, float]:
    """Share of the variance of whole trials' scores that each setting explains, the largest first; empty where there
    are too few. Source: F. Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance", 2014."""
    whole, keys = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)), searched(study)
    if len({trial.value for trial in whole if set(trial.params) == set(keys)}) < FEWEST:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator, params=keys)


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
