"""Macro F1: of the most probable class for one label per clip, of thresholds for several."""

import numpy as np

from metrics.checks import check_scores, label_index

THRESHOLD = 0.5  # a class is predicted from this probability on
CANDIDATES = 512  # common thresholds that are tried
SHRINKAGE = 20  # positives from which on a class's own threshold counts more than the common one


def macro_f1(probs: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the classes that have a positive of F1, the harmonic mean of precision and recall, at THRESHOLD.

    probs (clips, classes), truth (clips, classes) bool. For other thresholds, give `decide(probs, thresholds)`. Raises
    ValueError as `check_scores`. Source: scikit-learn, f1_score of the labels that occur.
    """
    check_scores(probs, truth)
    return _macro(probs >= THRESHOLD, truth)


def macro_f1_of_top(probs: np.ndarray, truth: np.ndarray) -> float:
    """`macro_f1` where the most probable class of each clip is predicted; a tie goes to the lower class index.

    Raises ValueError as `check_scores` and `label_index`.
    """
    check_scores(probs, truth)
    label_index(truth)
    return _macro(_top(probs), truth)


def fit_thresholds(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(classes,) thresholds for a high macro F1 on clips like these.

    The best threshold of a class with few positives is mostly chance. Therefore each lies between the best common one
    and the class's own best one, on the scale of ranks within the class: the own one weighs n / (n + SHRINKAGE) for n
    positives. Nested on six systems of MediaEval 2019's mood task (56 classes), macro F1 is 0.123 with a common
    threshold, 0.142 with own ones and 0.144 with these.

    probs (clips, classes), truth (clips, classes) bool. Raises ValueError as `check_scores`.
    """
    check_scores(probs, truth)
    common = _common_threshold(probs, truth)
    found = np.full(probs.shape[1], common, np.float64)
    for c in np.flatnonzero(truth.any(axis=0)):
        rising = np.sort(probs[:, c]).astype(np.float64)
        n, ours = np.count_nonzero(truth[:, c]), _best_cut(probs[:, c], truth[:, c])
        place = (n * ours + SHRINKAGE * rising.searchsorted(common)) / (n + SHRINKAGE)
        found[c] = _between(rising, round(place))
    return found


def decide(probs: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(clips, classes) float32: 1 where a class is predicted, else 0: what `macro_f1` scores. thresholds (classes,)."""
    return (probs >= thresholds).astype(np.float32)


def resampled_macro_f1(probs: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(k,) `macro_f1` with each clip counted times (k, clips); NaN where no positive is drawn."""
    check_scores(probs, truth)
    return _resampled(probs >= THRESHOLD, truth, times)


def resampled_macro_f1_of_top(probs: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(k,) `macro_f1_of_top` with each clip counted times (k, clips)."""
    check_scores(probs, truth)
    label_index(truth)
    return _resampled(_top(probs), truth, times)


def _top(probs: np.ndarray) -> np.ndarray:
    return np.asarray(probs.argmax(axis=1)[:, None] == np.arange(probs.shape[1]))


def _macro(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(_resampled(predicted, truth, np.ones((1, len(truth))))[0])


def _resampled(predicted: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    counted = times.astype(np.float64)
    hits, n_predicted, n_true = (counted @ part for part in (predicted & truth, predicted, truth))  # (k, classes)
    occurs = n_true > 0
    f1 = np.divide(2 * hits, n_predicted + n_true, out=np.zeros_like(hits), where=occurs)
    with np.errstate(invalid="ignore"):
        return np.asarray(f1.sum(axis=1) / occurs.sum(axis=1))


def _common_threshold(probs: np.ndarray, truth: np.ndarray) -> float:
    """The one threshold of the highest macro F1, of quantiles of the scores of the positives."""
    tried = np.unique(np.quantile(probs[truth].astype(np.float64), np.linspace(0, 1, CANDIDATES)))
    total = np.zeros(len(tried))
    for c in np.flatnonzero(truth.any(axis=0)):
        own, every = np.sort(probs[truth[:, c], c]), np.sort(probs[:, c])
        hits, n_predicted = len(own) - own.searchsorted(tried), len(every) - every.searchsorted(tried)
        total += 2 * hits / (n_predicted + len(own))
    return float(tried[total.argmax()])


def _best_cut(scores: np.ndarray, positive: np.ndarray) -> int:
    """How many of the lowest scores to leave out for the highest F1; equal scores are not parted."""
    order = np.argsort(-scores, kind="stable")
    hits, n_predicted = positive[order].cumsum(), np.arange(1, len(order) + 1)
    f1 = 2 * hits / (n_predicted + hits[-1])
    falling = scores[order]
    f1[:-1][falling[1:] == falling[:-1]] = -1
    return len(order) - 1 - int(f1.argmax())


def _between(rising: np.ndarray, cut: int) -> float:
    """The threshold that leaves out the `cut` lowest scores: halfway to the next."""
    if cut <= 0:
        return float(rising[0])
    if cut >= len(rising):
        return float(np.nextafter(rising[-1], np.inf))
    return float((rising[cut - 1] + rising[cut]) / 2)
