"""Point 6: MAP@3, macro ROC-AUC, greedy selection on both; peers: loops, a sort, scikit-learn, recomputation."""

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.measure import Row, by_turns, median, quotient
from blending.greedy import greedy_weights
from blending.metric_greedy import metric_greedy_path
from metrics.map_at_3 import map_at_3
from metrics.metric import find_metric
from metrics.roc_auc import macro_roc_auc

CLIPS, CLASSES, MODELS = 9_473, 41, 20
SEVERAL_CLASSES = 80  # of the competition with several labels per clip
MOODS = (15, 2_571, 56)  # models, clips, classes: the size of MediaEval 2019's mood task


def measure(quick: bool) -> list[Row]:
    rounds = 5 if quick else 30
    rng = np.random.default_rng(0)
    truth = rng.integers(0, CLASSES, CLIPS)
    stack = np.stack([random_probs(rng, truth) for _ in range(MODELS)])
    return [
        *scores(stack[0], truth, rounds),
        roc_auc(rng, rounds),
        greedy(stack, truth, quick),
        greedy_on_roc_auc(rng, quick),
    ]


def random_probs(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """(clips, classes) float32 of a model that is right about half of the time."""
    logits = rng.normal(0, 1.5, (len(truth), CLASSES))
    logits[np.arange(len(truth)), truth] += 3
    odds = np.exp(logits)
    return np.asarray((odds / odds.sum(axis=1, keepdims=True)).astype(np.float32))


def scores(probs: np.ndarray, truth: np.ndarray, rounds: int) -> list[Row]:
    ways = {
        "ours": lambda: map_at_3(probs, truth),
        "argsort": lambda: map_at_3_by_sorting(probs, truth),
        "a Python loop": lambda: map_at_3_in_a_loop(probs, truth),
    }
    times = by_turns(ways, rounds)
    rows = []
    for peer, goal in (("argsort", 5), ("a Python loop", 38)):
        ratio = quotient(times, peer, "ours")
        here, there = (f"{median(times, way) * 1e3:.2f} ms" for way in ("ours", peer))
        what = f"MAP@3 of {CLIPS:,} x {CLASSES}; peer: {peer}"
        rows.append(Row(6, what, here, there, f"{ratio:.1f}x", f"at least {goal}x", ratio >= goal))
    return rows


def roc_auc(rng: np.random.Generator, rounds: int) -> Row:
    """About 1.2 labels per clip, as in FSDKaggle2019."""
    truth = rng.random((CLIPS, SEVERAL_CLASSES)) < 1.2 / SEVERAL_CLASSES
    logits = rng.normal(0, 1.5, truth.shape) + 2 * truth
    probs = (1 / (1 + np.exp(-logits))).astype(np.float32)
    ways = {
        "ours": lambda: macro_roc_auc(probs, truth),
        "scikit-learn": lambda: float(roc_auc_score(truth, probs, average="macro")),
    }
    times = by_turns(ways, rounds)
    ratio = quotient(times, "scikit-learn", "ours")
    here, there = (f"{median(times, way) * 1e3:.1f} ms" for way in ways)
    what = f"macro ROC-AUC of {CLIPS:,} x {SEVERAL_CLASSES}; peer: scikit-learn"
    return Row(6, what, here, there, f"{ratio:.1f}x", "at least 10x", ratio >= 10)


def greedy(stack: np.ndarray, truth: np.ndarray, quick: bool) -> Row:
    steps = 3 if quick else 100
    ways = {
        "ours": lambda: greedy_weights(stack, truth, np.ones(len(truth)), steps),
        "peer": lambda: greedy_recomputed(stack, truth, steps),
    }
    times = by_turns(ways, 1 if quick else 3, warm_up=False)
    ratio = quotient(times, "peer", "ours")
    here, there = (f"{median(times, way):.2f} s" for way in ways)
    what = f"greedy selection, {MODELS} models x {CLIPS:,} x {CLASSES}, {steps} steps; peer: a new blend per candidate"
    return Row(6, what, here, there, f"{ratio:.1f}x", "at least 10x", ratio >= 10)


def greedy_on_roc_auc(rng: np.random.Generator, quick: bool) -> Row:
    """The peer's path must be ours: what both choose is the same."""
    n_models, n_clips, n_classes = MOODS
    steps = 1 if quick else 30
    truth = rng.random((n_clips, n_classes)) < rng.uniform(0.01, 0.08, n_classes)
    shared = rng.normal(size=truth.shape) + truth  # models err alike
    logits = shared + rng.normal(size=MOODS) * rng.uniform(0.5, 1.5, (n_models, 1, 1)) - 3
    stack = (1 / (1 + np.exp(-logits))).astype(np.float32)
    metric, paths = find_metric("macro_roc_auc"), dict[str, list[int]]()

    def ours() -> None:
        paths["ours"] = metric_greedy_path(metric, stack, truth, np.ones(n_clips), steps)[0]

    def peer() -> None:
        paths["peer"] = greedy_by_scikit_learn(stack, truth, steps)

    times = by_turns({"ours": ours, "peer": peer}, 1 if quick else 3, warm_up=False)
    ratio = quotient(times, "peer", "ours")
    here, there = f"{median(times, 'ours'):.2f} s", f"{median(times, 'peer'):.1f} s"
    chosen = "the same" if paths["ours"] == paths["peer"] else "other"
    what = f"greedy on macro ROC-AUC, {n_models} models x {n_clips:,} x {n_classes}, {steps} steps, {chosen} models"
    met = ratio >= 20 and chosen == "the same"
    return Row(6, f"{what} chosen; peer: scikit-learn", here, there, f"{ratio:.1f}x", "at least 20x", met)


def greedy_by_scikit_learn(stack: np.ndarray, truth: np.ndarray, steps: int) -> list[int]:
    """The same path as `metric_greedy_path`, with scikit-learn's macro ROC-AUC of every candidate."""
    total, path = np.zeros_like(stack[0]), list[int]()
    for step in range(steps):
        found = [roc_auc_score(truth, (total + one) / (step + 1), average="macro") for one in stack]
        path.append(int(np.argmax(found)))
        total += stack[path[-1]]
    return path


def map_at_3_by_sorting(probs: np.ndarray, truth: np.ndarray) -> float:
    best = np.argsort(-probs, axis=1, kind="stable")[:, :3]
    return float(((best == truth[:, None]) / np.array([1, 2, 3])).sum(axis=1).mean())


def map_at_3_in_a_loop(probs: np.ndarray, truth: np.ndarray) -> float:
    total = 0.0
    for row, label in zip(probs, truth, strict=True):
        best = np.argsort(-row, kind="stable")[:3].tolist()
        if label in best:
            total += 1 / (best.index(label) + 1)
    return total / len(truth)


def greedy_recomputed(stack: np.ndarray, truth: np.ndarray, steps: int) -> np.ndarray:
    """Weights (models,) of the same selection as `greedy_weights`, the plain way: a weighted mean per candidate."""
    counts = np.zeros(len(stack), stack.dtype)
    best_score, best = -1.0, counts
    for _ in range(steps):
        tried = [counts + one for one in np.eye(len(stack), dtype=stack.dtype)]
        found = [map_at_3(np.tensordot(c / c.sum(), stack, axes=1), truth) for c in tried]
        pick = int(np.argmax(found))
        counts = tried[pick]
        if found[pick] > best_score:
            best_score, best = found[pick], counts
    return np.asarray(best / best.sum())
