"""The report of a search: best.yaml, trials.csv and pictures, next to the journal."""

import csv
import io
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances, plot_slice

from configs.files import write
from configs.schema import Config, from_dict, to_dict
from console.errors import UserError, count
from console.output import say, table
from metrics.metric import Metric, find_metric
from tuning.study import DEFAULT_METRIC, NO_TRIALS, best_trial, finished, settings_of

FEWEST = 4  # complete trials with different scores that importances need


def write_report(folder: Path, study: optuna.Study) -> None:
    """Write the files and print the best trial. Call it in `locked`. Without a complete trial: only trials.csv."""
    if "facts" not in study.user_attrs:  # killed at its start
        raise UserError(f"{folder}: {NO_TRIALS}")
    trials, best = finished(study), best_trial(study)
    write(folder / "trials.csv", _csv(study, trials))
    if best is None:
        say(f"{folder}: {count(len(trials), 'trial')} finished, none complete: nothing to report yet")
        return
    file = folder / "best.yaml"
    write(file, best_yaml(file, study, best).encode("utf-8", "backslashreplace"))  # YAML must be UTF-8, a path need not
    importances = parameter_importances(study)
    if importances:
        table(["setting", "share of the variance of scores"], [[k, f"{v:.2f}"] for k, v in importances.items()])
    for name, image in _pictures(study, bool(importances)).items():
        write(folder / f"{name}.png", image)
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    say(
        f"best of {count(len(trials), 'trial')} ({pruned} pruned): trial {best.number}, "
        f"{score_of(study)} {best.value:.4f}\n"
        f"this score is {biased(study)}, because it was selected: the first line of\n"
        f"{file} trains with another seed, without this bias"
    )


def best_yaml(file: Path, study: optuna.Study, best: FrozenTrial) -> str:
    """An experiment file with the settings of the best trial that differ from the defaults."""
    facts = study.user_attrs["facts"]
    cfg = from_dict(best.user_attrs["config"])
    where = "".join(f" --{key} {shlex.quote(value)}" for key, value in facts["where"].items())
    last = facts.get("n_folds", cfg.folds.n_folds) - 1  # the competition may have its own number
    command = f"train_fold.py --fold 0..{last} --config {shlex.quote(str(file))}{where}"
    chosen = f"Trial {best.number} of {len(finished(study))}, {score_of(study)} {best.value:.4f}"
    folds = ",".join(map(str, facts["folds"]))
    lines = [
        f"# python {command} train.seed={cfg.train.seed + 1}",
        f"# {chosen} (fold {folds}, seed {cfg.train.seed}): {biased(study)} by selection.",
        f"name: {study.study_name}-best",
    ]
    return "\n".join([*lines, *_changed(cfg)]) + "\n"


def _changed(cfg: Config) -> list[str]:
    """A line per section with what differs from the defaults, `name` aside."""
    lines, defaults = [], to_dict(Config())
    for section, values in to_dict(cfg).items():
        own = values.items() if isinstance(values, dict) else ()
        if changed := {k: list(v) if isinstance(v, tuple) else v for k, v in own if v != defaults[section][k]}:
            text = yaml.safe_dump(changed, default_flow_style=True, sort_keys=False, width=10_000)
            lines.append(f"{section}: {text.strip()}")
    return lines


def metric_of(study: optuna.Study) -> Metric:
    facts = study.user_attrs["facts"]  # older studies name neither
    return find_metric(facts.get("metric", DEFAULT_METRIC), facts.get("task"))


def score_of(study: optuna.Study) -> str:
    """How the report calls the score."""
    return f"out-of-fold {metric_of(study).title}"


def biased(study: optuna.Study) -> str:
    return "biased upwards" if metric_of(study).higher_is_better else "biased downwards"


def searched(study: optuna.Study) -> list[str]:
    """The keys of the search space."""
    return list(study.user_attrs["facts"]["space"])


def _csv(study: optuna.Study, trials: Sequence[FrozenTrial]) -> str:
    """A row per finished trial; the score of a pruned one is its last."""
    out, keys, folds = io.StringIO(), searched(study), study.user_attrs["facts"]["folds"]
    writer = csv.writer(out, lineterminator="\n")
    columns = ["trial", "state", metric_of(study).key, *(f"fold{k}" for k in folds), "reports", "seconds"]
    writer.writerow([*columns, *keys, "note"])
    for trial in trials:
        about = trial.user_attrs
        scores = [about.get("scores", {}).get(str(fold)) for fold in folds]
        row = [trial.number, trial.state.name.lower(), trial.value, *scores, len(trial.intermediate_values)]
        writer.writerow([*row, about.get("seconds"), *settings_of(trial, keys).values(), about.get("note")])
    return out.getvalue()


def parameter_importances(study: optuna.Study) -> dict[str, float]:
    """The share of the variance of scores that each setting explains, the largest first; empty with too few
    complete trials. Source: F. Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance", 2014."""
    complete, keys = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)), searched(study)
    if len({trial.value for trial in complete if set(trial.params) == set(keys)}) < FEWEST:
        return {}
    return optuna.importance.get_param_importances(study, evaluator=_fanova(), params=keys)


def _fanova() -> optuna.importance.FanovaImportanceEvaluator:
    return optuna.importance.FanovaImportanceEvaluator(seed=0)


def _pictures(study: optuna.Study, with_importances: bool) -> dict[str, bytes]:
    """PNG by name, drawn by Optuna from complete trials."""
    found, keys, score = {}, searched(study), score_of(study)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    # Optuna's functions change the global style, and warn that they are experimental
    with matplotlib.rc_context({"figure.constrained_layout.use": True}), warnings.catch_warnings():
        matplotlib.use("agg")  # needs no display
        warnings.simplefilter("ignore")
        drawn: dict[str, Any] = {"history": plot_optimization_history(study, target_name=score)}
        # the base config may lie outside the space: then it has none of its settings
        if known := [key for key in keys if any(key in trial.params for trial in complete)]:
            drawn["slices"] = plot_slice(study, known, target_name=score)
        if with_importances:
            drawn["importances"] = plot_param_importances(study, _fanova(), keys, target_name=score)
        for name, axes in drawn.items():
            figure = np.asarray(axes).flat[0].figure
            image = io.BytesIO()
            figure.savefig(image, format="png", dpi=110, bbox_inches="tight")
            found[name] = image.getvalue()
            plt.close(figure)
    return found
