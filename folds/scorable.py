"""Whether the competition's metric can be computed from the validation clips of each fold."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from configs.user_code import is_user_code
from console.errors import UserError
from input.competition import Competition
from metrics.metric import find_metric


def check_scorable(of: Competition, folds: pd.DataFrame, which: Iterable[int]) -> None:
    """Raises UserError where the metric does not exist, or has no value for the validation clips of one of these folds,
    such as a ROC-AUC of clips that all have the same labels. folds: as `load_folds` gives them."""
    metric = find_metric(of.metric, of.task)
    if is_user_code(of.metric):  # it may have no value for clips that all score alike
        return
    for fold in which:
        truth = of.targets[folds["fold"].to_numpy() == fold] == 1
        try:
            metric.score(np.zeros(truth.shape), truth)
        except ValueError as error:
            raise UserError(
                f"fold {fold}: its clips have no {of.metric}: {error}: use fewer folds (folds.n_folds), another "
                f"folds.seed or another metric"
            ) from None
