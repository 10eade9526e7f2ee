"""Probabilities keyed by fname, as every stage writes and reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from configs.files import atomic
from console.errors import UserError, list_faults, list_some
from console.options import COMPILED
from console.output import warn

Sources = dict[str, dict[str, int]]  # fold -> clips that each engine answered for; STORED: training did
STORED = "stored with the run"
TINY = 1e-9  # under the logarithm of a plain geometric mean; a float32 probability can be 0


@dataclass(frozen=True)
class Predictions:
    """probs (clips, classes) float32, row i for fnames[i]. size: (clips,) int64, the bytes of the sound files that they
    were predicted from, -1 of a missing one; None where that is not known. engine: what computed them, see
    `models.engine`; None where that is not known."""

    fnames: tuple[str, ...]
    probs: np.ndarray
    size: np.ndarray | None = None
    engine: str | None = None

    def of(self, fnames: Sequence[str], what: str) -> np.ndarray:
        """Rows in the order of `fnames`. Raises UserError that counts the clips without a prediction."""
        index = {name: i for i, name in enumerate(self.fnames)}
        if lacking := [name for name in fnames if name not in index]:
            raise UserError(f"{what}: clips without a prediction: {list_some(lacking)}")
        return self.probs[[index[name] for name in fnames]]


@dataclass(frozen=True)
class TestPredictions:
    """What experiments answer for the test clips."""

    probs: np.ndarray  # (experiments, test clips, classes) float32, each the mean of its fold models
    faults: dict[str, str]  # clips with a fault -> what is wrong
    not_reached: dict[str, list[str]] = field(default_factory=dict)  # experiment -> clips that time was too short for
    dropped: tuple[str, ...] = ()  # experiments that time was too short for
    sources: dict[str, "Sources"] = field(default_factory=dict)  # of each experiment
    left_out: dict[str, list[str]] = field(default_factory=dict)  # experiment -> folds that a budget left out


def mean_of_folds(probs: Sequence[np.ndarray]) -> np.ndarray:
    """An experiment's test probabilities (clips, classes) float32 from those of its fold models."""
    return np.mean(probs, axis=0).astype(np.float32)


def mean_of_reached(
    answers: Sequence[Predictions], fnames: Sequence[str], prior: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """As `mean_of_folds` where time ran out: for each clip the mean of the fold models that reached it, the prior
    (classes,) where none did. Also these clips."""
    row = {fname: i for i, fname in enumerate(fnames)}
    total, n = np.zeros((len(fnames), len(prior))), np.zeros(len(fnames), np.int64)
    for one in answers:
        there = [i for i, fname in enumerate(one.fnames) if fname in row]
        at = [row[one.fnames[i]] for i in there]
        total[at] += one.probs[there]
        n[at] += 1
    if (n == len(answers)).all() and len(answers):
        return mean_of_folds([one.of(fnames, "test clips") for one in answers]), []
    found = np.where(n[:, None] > 0, total / np.maximum(n, 1)[:, None], prior)
    return found.astype(np.float32), [fname for fname, k in zip(fnames, n, strict=True) if not k]


def geometric(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted geometric mean (clips, classes), each row scaled to sum 1.

    stack (models, clips, classes), weights (models,) that sum to 1.
    """
    return softmax(np.tensordot(weights, np.log(np.maximum(stack, TINY)), axes=1))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of exp(logits), scaled to sum 1. logits (clips, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def save_predictions(file: Path, predictions: Predictions) -> None:
    """fname, probs and the sizes, if known, in one .npz, the same bytes for the same values."""
    more: dict[str, Any] = {} if predictions.size is None else {"size": predictions.size}
    with file.open("wb") as out:
        np.savez(out, fname=np.array(predictions.fnames, dtype=str), probs=predictions.probs.astype(np.float32), **more)


def replace_predictions(file: Path, predictions: Predictions) -> None:
    """As `save_predictions` in a folder that is in use: the file is there whole or not at all."""
    with atomic(file) as part:
        save_predictions(part, predictions)


def load_predictions(file: Path) -> Predictions:
    """The inverse of `save_predictions`. Raises UserError where the file is damaged."""
    try:
        with np.load(file) as data:
            fnames, probs, size = data["fname"], data["probs"], data.get("size")
        _check_predictions(fnames, probs, size)
        return Predictions(tuple(fnames.tolist()), probs, size)
    except Exception as error:  # a damaged npz fails as OSError, ValueError, KeyError or BadZipFile
        raise UserError(f"{file}: cannot read the predictions: {error}") from None


def _check_predictions(fnames: np.ndarray, probs: np.ndarray, size: np.ndarray | None) -> None:
    """Raises ValueError where the arrays are not what `save_predictions` writes."""
    shapes = [fnames.shape, probs.shape[:1], *([] if size is None else [size.shape])]
    if fnames.dtype.kind != "U" or probs.dtype != np.float32 or probs.ndim != 2 or len({(len(fnames),), *shapes}) > 1:
        raise ValueError(f"fname {fnames.dtype} {fnames.shape}, probs {probs.dtype} {probs.shape} do not match")
    if size is not None and size.dtype.kind != "i":
        raise ValueError(f"size is {size.dtype}")


def cached_predictions(folder: Path, run_id: str, store_key: str, engine: str = "torch") -> Path:
    """Where a run's predictions of clips other than those stored with it are cached, in work/predictions, with the name
    of the engine that made them, see `models.engine`; auto: PyTorch's if there are some, else OpenVINO's."""
    start = f"{run_id}-{store_key}"
    files = {"torch": folder / f"{start}.npz"} | {name: folder / f"{start}-{name}.npz" for name in COMPILED}
    if engine == "auto":
        return next((files[name] for name in ("torch", "openvino") if files[name].exists()), files["torch"])
    return files[engine]


def engine_of(file: Path) -> str:
    """The engine that made cached predictions."""
    return next((name for name in COMPILED if file.stem.endswith(f"-{name}")), "torch")


def warn_of_faults(faults: Mapping[str, str]) -> None:
    """Name the test clips that are not predicted from all of their sound. faults: fname -> reason."""
    if faults:
        what = "test clips with a fault, predicted from what can be read of them, else by the class prior"
        warn(f"{what}: {list_faults(faults)}")
