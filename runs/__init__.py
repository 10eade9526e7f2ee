"""The folder of a trained fold, which every later stage reads. `load_oof` gives its predictions from Python."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def load_oof(experiment: str | Path) -> "pd.DataFrame":
    """Out-of-fold probabilities of an experiment's finished folds: a row per clip (index fname), fold, then a column
    per class.

    experiment: its folder, such as work/runs/resnetish18. Raises UserError where no fold is finished, or one is
    damaged.
    """
    import pandas as pd

    from console.errors import UserError
    from runs.run_folder import finished_folds, read_run

    found = [read_run(folder) for folder in finished_folds(Path(experiment))]
    if not found:
        raise UserError(f"{experiment}: no finished fold: train some with train_fold.py")
    parts = []
    for run in found:
        part = pd.DataFrame(run.oof.probs, pd.Index(run.oof.fnames, name="fname"), list(run.classes))
        part.insert(0, "fold", run.fold, allow_duplicates=True)
        parts.append(part)
    return pd.concat(parts)
