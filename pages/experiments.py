"""The finished experiments side by side: scores of their folds, seconds, size, and what differs in their settings."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open

from configs.schema import Config, differences
from configs.user_code import is_user_code
from console.errors import UserError
from console.output import warn
from metrics.metric import find_metric
from runs.run_folder import Run, finished_folds, read_run

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of normalisation: not learned
MEASURED = ("mean", "std", "prior")  # of the training clips: buffers of `models.tagger.Tagger`


def read_experiments(runs: Path) -> dict[str, list[Run]]:
    """The finished folds of every experiment that has one; a damaged one is named and left out."""
    found = dict[str, list[Run]]()
    for folder in sorted(f for f in runs.glob("*") if f.is_dir()) if runs.is_dir() else []:
        try:
            if folds := [read_run(one) for one in finished_folds(folder)]:
                found[folder.name] = folds
        except UserError as error:
            warn(f"left out: {error}")
    return found


def compare_experiments(found: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """A row per experiment, the best first within a metric: name, folds, metric, score (mean of the folds), error (its
    standard error over the folds; None of a single fold), seconds, parameters, and `differs`, the settings that are not
    the defaults and not the same in all experiments."""
    changed = {
        name: dict(line.split(": ", 1) for line in differences(Config(), runs[0].config))
        for name, runs in found.items()
    }
    counts = Counter((key, value) for one in changed.values() for key, value in one.items())
    folds = Counter(runs[0].manifest.fold_hash for runs in found.values())
    usual = max(folds, key=lambda key: folds[key], default="")
    rows = []
    for name, runs in found.items():
        key, title, higher = _metric(runs[0])
        scores = np.array([run.scores.get(key, np.nan) for run in runs])
        own = {k: v for k, v in changed[name].items() if counts[k, v] < len(found) and k != "name"}
        notes = [] if runs[0].manifest.fold_hash == usual else ["other clips, labels or folds than most"]
        rows.append(
            {
                "name": name,
                "folds": f"{len(runs)} of {runs[0].manifest.n_folds}",
                "metric": title,
                "score": round(float(scores.mean()), 4),
                "error": round(float(scores.std(ddof=1) / np.sqrt(len(runs))), 4) if len(runs) > 1 else None,
                "seconds": round(sum(run.manifest.seconds or 0.0 for run in runs), 1),
                "parameters": parameters(runs[0].folder / "model.safetensors"),
                "differs": [f"{k}: {v.partition(' -> ')[2]}" for k, v in own.items()] + notes,
                "order": float(-scores.mean() if higher else scores.mean()),
            }
        )
    return sorted(rows, key=lambda row: (row["metric"], row["order"], row["name"]))


def _metric(run: Run) -> tuple[str, str, bool]:
    """Its key in scores.json, its title, and whether more is better. The user's own is not run for a name."""
    if is_user_code(run.manifest.metric):
        key = next(iter(run.scores), "")
        return key, key, True
    metric = find_metric(run.manifest.metric, run.manifest.task)
    return metric.key, metric.title, metric.higher_is_better


def parameters(weights: Path) -> int | None:
    """How many numbers a network has learned; None where the file is not there."""
    if not weights.is_file():
        return None
    with safe_open(weights, framework="numpy") as file:
        keys = [key for key in file.keys() if key not in MEASURED and not key.endswith(STATISTICS)]  # noqa: SIM118
        shapes = [file.get_slice(key).get_shape() for key in keys]
    return sum(int(np.prod(shape)) for shape in shapes)


def curves(experiments: Sequence[list[Run]]) -> list[dict[str, Any]]:
    """Of every run that has epochs: experiment, fold, epoch and the values of metrics.csv, None for NaN."""
    found = []
    for run in (run for runs in experiments for run in runs):
        table = pd.read_csv(run.folder / "metrics.csv")
        if "epoch" not in table:
            continue  # a head on embeddings is fitted at once
        kept = [name for name in table if name not in ("epoch", "lr") and pd.api.types.is_numeric_dtype(table[name])]
        values = {str(name): [round(float(v), 5) if np.isfinite(v) else None for v in table[name]] for name in kept}
        found.append(
            {"experiment": run.experiment, "fold": run.fold, "epoch": table["epoch"].tolist(), "values": values}
        )
    return found
