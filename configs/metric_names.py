"""The names of the metrics, known without numpy: so a description with a misspelled one fails where it is read."""

import difflib
import re

from configs.competition import Task
from configs.user_code import is_user_code
from console.errors import UserError

NAMES = (  # each is in metrics.metric.METRICS, beside map@K and top@K
    "accuracy",
    "lwlrap",
    "macro_roc_auc",
    "macro_average_precision",
    "micro_average_precision",
    "padded_cmap",
    "macro_f1",
    "log_loss",
)
AT_K = re.compile(r"(map|top)@([1-9][0-9]{0,3})")
SINGLE_LABEL = re.compile(r"accuracy|top@\d+")  # means nothing where a clip has several labels
LIKELY = {name: name for name in NAMES} | {  # what people call them -> name
    "map": "map@3",
    "mapk": "map@3",
    "map@3": "map@3",
    "top": "top@5",
    "topk": "top@5",
    "top@5": "top@5",
    "auc": "macro_roc_auc",
    "roc_auc": "macro_roc_auc",
    "acc": "accuracy",
    "lrap": "lwlrap",
    "average_precision": "macro_average_precision",
    "macro_ap": "macro_average_precision",
    "micro_ap": "micro_average_precision",
    "cmap": "padded_cmap",
    "f1": "macro_f1",
    "bce": "log_loss",
    "binary_cross_entropy": "log_loss",
    "cross_entropy": "log_loss",
}


def check_metric(name: str, task: Task | None = None) -> None:
    """Raises UserError where there is no metric of that name, or it does not suit the task. One's own suits any."""
    if is_user_code(name):
        return
    if name not in NAMES and not AT_K.fullmatch(name):
        near = difflib.get_close_matches(name.lower(), LIKELY, n=1, cutoff=0.5)
        hint = f"did you mean {LIKELY[near[0]]!r}? " if near else ""
        known = ", ".join(("map@K", "top@K", *NAMES))
        raise UserError(f"metric {name!r}: no such metric: {hint}use one of {known}, or your own my_file:function")
    if task == "multi_label" and SINGLE_LABEL.fullmatch(name):
        fit = ", ".join(one for one in NAMES if not SINGLE_LABEL.fullmatch(one))
        raise UserError(
            f"metric {name!r}: is for one label per clip, but clips have several: use one of map@K, {fit}; "
            f"or task: single_label"
        )
