"""The clips of a page: what is known of each training clip, and which of them get a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from blending.candidates import Candidates

SHOWN = 5  # classes of the blend
Clip = dict[str, Any]


def clip_rows(candidates: Candidates, probs: np.ndarray, found: pd.DataFrame) -> list[Clip]:
    """What the page shows of every training clip, in the order of the candidates.

    probs (clips, classes): the blend, out-of-fold. found: likely label errors, as `suspects` lists them. A clip has its
    `name`; `truth`, class indices; `verified`; `first`, [class, probability] of the blend's best SHOWN; `models`,
    [class, probability] of each model's best; `wrong`, the largest distance of a probability from what the label says
    (0 to 1); `differ`, the largest difference of two models' probabilities of one class; `doubt`, its place among the
    likely errors, else -1; `proposed`, its classes if the list is right.
    """
    c = candidates
    wrong = np.abs(probs - c.truth).max(axis=1)
    differ = np.ptp(c.oof, axis=0).max(axis=1)
    best = np.argsort(-probs, axis=1, kind="stable")[:, :SHOWN]
    tops = c.oof.argmax(axis=2)
    doubt, proposed = _doubts(c, found)
    return [
        {
            "name": fname,
            "truth": np.flatnonzero(c.truth[i]).tolist(),
            "verified": bool(c.verified[i]),
            "first": [[int(k), round(float(probs[i, k]), 3)] for k in best[i]],
            "models": [[int(top[i]), round(float(one[i, top[i]]), 3)] for top, one in zip(tops, c.oof, strict=True)],
            "wrong": round(float(wrong[i]), 3),
            "differ": round(float(differ[i]), 3),
            "doubt": doubt.get(fname, -1),
            "proposed": proposed.get(fname, []),
        }
        for i, fname in enumerate(c.fnames)
    ]


def _doubts(c: Candidates, found: pd.DataFrame) -> tuple[dict[str, int], dict[str, list[int]]]:
    """fname -> place in the list, and class indices once `given` is taken away and `suggested` is added."""
    index, row = {name: k for k, name in enumerate(c.classes)}, {name: i for i, name in enumerate(c.fnames)}
    place, labels = dict[str, int](), dict[str, set[int]]()
    for fname, given, suggested in zip(found["fname"], found["given"], found["suggested"], strict=True):
        place.setdefault(fname, len(place))
        now = labels.setdefault(fname, set(np.flatnonzero(c.truth[row[fname]]).tolist()))
        now -= {index[given]} if given else set()
        now |= {index[suggested]} if suggested else set()
    return place, {fname: sorted(some) for fname, some in labels.items()}


def most_telling(clips: Sequence[Clip], most: int) -> list[int]:
    """The numbers of at most `most` clips: by turns the likeliest label error, the worst and the most disputed one."""
    n = len(clips)
    doubted = sorted((i for i in range(n) if clips[i]["doubt"] >= 0), key=lambda i: clips[i]["doubt"])
    orders = [doubted, *(sorted(range(n), key=lambda i: -clips[i][key]) for key in ("wrong", "differ"))]
    turns = (order[k] for k in range(n) for order in orders if k < len(order))
    return list(dict.fromkeys(turns))[:most]
