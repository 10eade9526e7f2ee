"""Scores of one ranking with its clips counted several times: sorted once, then sums between the positives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

CELLS = 1 << 20  # counts gathered at once: they stay in the cache


@dataclass(frozen=True)
class Counts:
    """Each (groups, k): clips in falling order of the scores, counted as often as each of k resamples has them. A group
    is all clips of one score, where at least one of them is positive."""

    positive: np.ndarray  # positives in the group
    until: np.ndarray  # clips up to the end of the group
    within: np.ndarray  # clips in the group
    total: np.ndarray  # (k,) clips


def count_groups(scores: np.ndarray, positive: np.ndarray, clip: np.ndarray, times: np.ndarray) -> Counts:
    """scores, positive (rows,) with at least one positive; clip (rows,): the row of `times` that counts each;
    times (clips, k) float32, whose sums are below 2**24 and therefore exact."""
    order = np.argsort(-scores, kind="stable")
    falling, is_positive = scores[order], positive[order]
    begins = np.flatnonzero(np.append(True, falling[1:] != falling[:-1]))  # of each run of equal scores
    ends = np.append(begins[1:], len(order))
    run = np.searchsorted(begins, np.flatnonzero(is_positive), side="right") - 1  # of each positive
    runs, first = np.unique(run, return_index=True)
    cuts = np.unique(np.concatenate([[0], begins[runs], ends[runs]]))
    inner = cuts[cuts < len(order)]
    counted = times[clip[order]]
    sums = np.add.reduceat(counted, inner, axis=0)
    before = np.concatenate([np.zeros_like(sums[:1]), np.cumsum(sums, axis=0)])  # at each cut, and at the end
    begin, until = (before[np.searchsorted(inner, at[runs])] for at in (begins, ends))
    return Counts(np.add.reduceat(counted[is_positive], first, axis=0), until, until - begin, before[-1])


def resampled_macro(
    of_class: Callable[[Counts], np.ndarray], probs: np.ndarray, truth: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """(k,) mean over the classes of what `of_class` (k,) gives for each, NaN left out; NaN where there is no class.

    probs (clips, classes), truth (clips, classes) bool, times (k, clips): how often each clip counts.
    """
    rows = np.arange(len(probs))
    columns = [c for c in range(probs.shape[1]) if truth[:, c].any()]
    found = []
    for part in _parts(times, len(probs)):
        values = np.stack([of_class(count_groups(probs[:, c], truth[:, c], rows, part)) for c in columns])
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            found.append(np.where(known, values, 0).sum(axis=0) / known.sum(axis=0))
    return np.concatenate(found)


def resampled_micro(
    of_ranking: Callable[[Counts], np.ndarray], probs: np.ndarray, truth: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """(k,) what `of_ranking` gives for all cells in one ranking; arguments as in `resampled_macro`."""
    rows = np.repeat(np.arange(len(probs)), probs.shape[1])
    parts = _parts(times, probs.size)
    return np.concatenate([of_ranking(count_groups(probs.ravel(), truth.ravel(), rows, part)) for part in parts])


def _parts(times: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """(clips, some) float32, a few resamples at a time."""
    step = max(16, CELLS // rows)
    for start in range(0, len(times), step):
        yield np.ascontiguousarray(times[start : start + step].T, dtype=np.float32)
