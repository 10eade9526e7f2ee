"""At which place each label of a clip is ranked among all classes, by counting: no sort, no loop over clips."""

from typing import Literal

import numpy as np

from metrics.map_at_3 import count_true

CELLS = 1 << 22  # compared at once


def label_ranks(
    probs: np.ndarray, truth: np.ndarray, ties: Literal["lower_class_first", "all_above"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels,) each: the clip of every label, the number of other classes ranked above it, and how many of these are
    labels of the clip too.

    probs (clips, classes), truth (clips, classes) bool. ties: a class of the same probability is above if its index is
    lower, or always.
    """
    clip, label = np.nonzero(truth)
    above, true_above = np.empty(len(clip), np.int64), np.empty(len(clip), np.int64)
    step = max(1, CELLS // probs.shape[1])
    for start in range(0, len(clip), step):
        part = slice(start, start + step)
        rows, own = probs[clip[part]], probs[clip[part], label[part]][:, None]
        if ties == "all_above":
            before = rows >= own
            before[np.arange(len(rows)), label[part]] = False
        else:
            before = (rows > own) | ((rows == own) & (np.arange(probs.shape[1]) < label[part][:, None]))
        above[part], true_above[part] = count_true(before), count_true(before & truth[clip[part]])
    return clip, above, true_above
