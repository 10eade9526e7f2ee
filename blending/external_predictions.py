"""Predictions from elsewhere, as teams swap them: a folder of tables and one .npz a model, checked like our own runs.

classes.txt: the labels, in the order of the columns. train.csv: fname, label, fold; optionally manually_verified and a
group column, one of GROUPS; `labels`, joined by commas, in place of `label` for several labels per clip.
sample_submission.csv: fname of the test clips, and a column per class where probabilities are submitted. <model>.npz:
`oof` (training clips, classes) and `test` (test clips, classes) probabilities, rows in the order of the two tables,
columns in that of classes.txt. An array of text beside them that names clips (fname, say) or classes gives their own
order, and they are put in ours. For several labels the values may also be scores of another scale, such as logits.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from blending.candidates import Candidates
from blending.named_rows import find_orders
from configs.competition import Task
from configs.text import read_text
from console.errors import UserError, count, list_some
from folds.assign import fold_number, group_numbers
from input.competition import read_names, read_table
from input.names import nfc, respell
from input.sample import check_sample, read_sample
from input.zips import is_dropping
from metrics.metric import find_metric

TABLES = ("classes.txt", "train.csv", "sample_submission.csv")
GROUPS = ("freesound_id", "group", "artist", "recorder", "recording", "author", "src_file", "fsID")  # the first there
DEFAULT_METRIC: dict[Task, str] = {"single_label": "map@3", "multi_label": "macro_roc_auc"}
SUM_TOLERANCE = 1e-2  # of a row of probabilities; float16 files are off by some 1e-3


def candidates_from_predictions(folder: Path, names: Sequence[str] = (), metric: str | None = None) -> Candidates:
    """Every model of the folder, or the named ones; columns in sorted order of the labels whatever classes.txt has.

    metric: by its name; None: that of DEFAULT_METRIC.

    Raises UserError that names the file where one is absent or unreadable, rows or columns are missing, a row is no
    distribution, labels, folds and names do not make sense, or the order of a model's rows or columns is not known.
    """
    if lacking := [name for name in TABLES if not (folder / name).is_file()]:
        raise UserError(f"{folder}: lacks {list_some(lacking)}: give a folder of predictions")
    columns = _read_classes(folder / "classes.txt")
    train = _read_train(folder / "train.csv", columns)
    sample = read_sample(folder / TABLES[2])
    test_fnames, form = tuple(sample.fnames), sample.form
    if form.kind == "probabilities":
        form = check_sample(folder / TABLES[2], sample, tuple(columns))
    files = _files(folder, names)
    order = np.argsort(columns)
    axes = {"oof": tuple(train["fname"]), "test": test_fnames, "classes": tuple(columns)}
    task: Task = "multi_label" if "labels" in train else "single_label"
    texts = train["labels" if task == "multi_label" else "label"].tolist()
    read = [_read_model(file, axes, texts, task) for file in files]
    tables = b"".join((folder / name).read_bytes() for name in TABLES)
    classes = tuple(sorted(columns))
    return Candidates(
        names=tuple(file.stem for file in files),
        ids=tuple((hashlib.sha256(tables + file.read_bytes()).hexdigest()[:12],) for file in files),
        classes=classes,
        fnames=tuple(train["fname"]),
        truth=np.array([[name in labels for name in classes] for labels in map(_labels_of(task), texts)]),
        verified=train["manually_verified"].to_numpy() == "1",
        fold=train["fold"].to_numpy(),
        group=group_numbers(train, next((name for name in GROUPS if name in train), None)),
        oof=np.stack([one["oof"][:, order] for one in read]),
        test_fnames=test_fnames,
        test=np.stack([one["test"][:, order] for one in read]),
        test_faults={},
        task=task,
        metric=find_metric(metric or DEFAULT_METRIC[task], task),
        form=form,
    )


def _labels_of(task: Task) -> Callable[[str], set[str]]:
    """What makes the labels of a cell."""
    if task == "single_label":
        return lambda text: {text}
    return lambda text: {label.strip() for label in text.split(",") if label.strip()}


def _files(folder: Path, names: Sequence[str]) -> list[Path]:
    there = {file.stem: file for file in sorted(folder.glob("*.npz")) if not is_dropping(file.name)}
    if not there:
        raise UserError(f"{folder}: holds no <model>.npz with oof and test probabilities")
    names = respell(names, there)
    if unknown := [name for name in names if name not in there]:
        raise UserError(f"{folder}: no model {list_some(unknown)}; there are {list_some(there)}")
    return [file for name, file in there.items() if not names or name in names]


def _read_classes(file: Path) -> list[str]:
    text = read_text(file, "labels")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(lines) > 2 else text.split()  # a label may contain blanks where each has its line


def _read_train(file: Path, columns: list[str]) -> pd.DataFrame:
    column = "labels" if "labels" in read_table(file, ("fname",)) else "label"
    several = column == "labels"
    train = read_names(file, (column, "fold") if several else (column, "manually_verified", "fold"))
    if not several:
        train[column] = respell(train[column], columns)
    if len(set(map(nfc, columns))) < max(3, len(columns)):
        raise UserError(
            f"{file.with_name('classes.txt')}: needs three or more labels, each once; it has {len(columns)}"
        )
    given = set().union(*map(_labels_of("multi_label" if several else "single_label"), train[column]))
    if unknown := sorted(given - set(columns)):
        raise UserError(f"{file}: labels that classes.txt lacks: {list_some(unknown)}")
    if "manually_verified" not in train:
        train["manually_verified"] = "1"
    if strange := sorted(set(train["manually_verified"]) - {"0", "1"}):
        raise UserError(f"{file}: manually_verified must be 0 or 1, found {list_some(map(repr, strange))}")
    if strange := sorted({fold for fold in train["fold"] if fold_number(fold) is None}):
        raise UserError(f"{file}: fold must be a number from 0, found {list_some(map(repr, strange))}")
    train = train.assign(fold=np.array([fold_number(fold) for fold in train["fold"]], dtype=np.int64))
    if train["fold"].nunique() < 2:
        raise UserError(f"{file}: all clips lie in one fold: out-of-fold predictions come from two or more")
    return train


def _read_model(
    file: Path, axes: Mapping[str, Sequence[str]], truth: Sequence[str], task: Task
) -> dict[str, np.ndarray]:
    """oof and test probabilities in our order; axes and truth as in `find_orders`."""
    arrays = _read_arrays(file)
    found = {key: _check_probabilities(file, key, arrays.pop(key), axes, task) for key in ("oof", "test")}
    orders = find_orders(file, arrays, axes, truth)
    for axis, order in orders.items():
        found = {k: v[:, order] if axis == "classes" else v[order] if axis == k else v for k, v in found.items()}
    return found


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file) as data:
            if lacking := [key for key in ("oof", "test") if key not in data]:
                raise ValueError(f"lacks {list_some(lacking)}; it holds {list_some(data)}")
            return {key: data[key] for key in data}
    except Exception as error:  # a damaged npz fails as OSError, ValueError, KeyError, BadZipFile and others
        fact = " ".join(str(error).split())
        if "allow_pickle" in fact:
            fact = "it holds Python objects, which may run code, so none is read: save names as np.array(names, str)"
        raise UserError(f"{file}: cannot read oof and test probabilities: {fact}") from None


def _check_probabilities(
    file: Path, key: str, probs: np.ndarray, axes: Mapping[str, Sequence[str]], task: Task
) -> np.ndarray:
    """As float32 (clips, classes). Raises UserError where rows are missing or, for one label per clip, no
    distributions."""
    shape = (len(axes[key]), len(axes["classes"]))
    if probs.dtype.kind not in "fiu":
        raise UserError(f"{file}: {key} holds {probs.dtype}, not numbers")
    if probs.shape != shape:
        raise UserError(f"{file}: {key} has shape {probs.shape}, the tables say {shape} (clips, classes)")
    with np.errstate(over="ignore"):  # infinity is refused below
        probs = probs.astype(np.float32)
    if bad := int((~np.isfinite(probs)).any(axis=1).sum()):
        raise UserError(
            f"{file}: {key} holds NaN or infinity in {count(bad, 'row')}: predict again, or leave the model out"
        )
    if task == "multi_label":  # rank methods take any scores
        return probs
    off = np.abs(probs.sum(axis=1) - 1) > SUM_TOLERANCE
    if bad := int((off | (probs < 0).any(axis=1)).sum()):
        raise UserError(f"{file}: {key} has no probabilities (below 0, or not of sum 1) in {count(bad, 'row')}")
    return probs
