"""Predictions from elsewhere, as teams swap them: a folder of tables and one .npz a model, checked like our own runs.

classes.txt: the labels, in the order of the columns. train.csv: fname, label, manually_verified, fold; optionally a
group column, freesound_id. sample_submission.csv: fname of the test clips. <model>.npz: `oof` (training clips, classes)
and `test` (test clips, classes) probabilities, rows in the order of the two tables, columns in that of classes.txt. An
array of text beside them that names clips (fname, say) or classes gives their own order, and they are put in ours.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from blending.candidates import Candidates
from blending.named_rows import find_orders
from configs.text import read_text
from console.errors import UserError, list_some
from folds.assign import fold_number, group_numbers
from input.competition import read_names, read_sample
from input.names import nfc, respell
from input.zips import is_dropping

TABLES = ("classes.txt", "train.csv", "sample_submission.csv")
GROUP = "freesound_id"
SUM_TOLERANCE = 1e-2  # of a row of probabilities; float16 files are off by some 1e-3


def candidates_from_predictions(folder: Path, names: Sequence[str] = ()) -> Candidates:
    """Every model of the folder, or the named ones; columns in sorted order of the labels whatever classes.txt has.

    Raises UserError that names the file where one is absent or unreadable, rows or columns are missing, a row is no
    distribution, labels, folds and names do not make sense, or the order of a model's rows or columns is not known.
    """
    if lacking := [name for name in TABLES if not (folder / name).is_file()]:
        raise UserError(f"{folder}: lacks {list_some(lacking)}: give a folder of predictions")
    columns = _read_classes(folder / "classes.txt")
    train = _read_train(folder / "train.csv", columns)
    sample = read_sample(folder / TABLES[2])
    if sample.form.kind == "probabilities":
        n = len(sample.form.columns)
        raise UserError(f"{folder / TABLES[2]}: expects a number for each of {n} classes, which this cannot blend yet")
    test_fnames = tuple(sample.fnames)
    files = _files(folder, names)
    order = np.argsort(columns)
    axes = {"oof": tuple(train["fname"]), "test": test_fnames, "classes": tuple(columns)}
    read = [_read_model(file, axes, train["label"].tolist()) for file in files]
    tables = b"".join((folder / name).read_bytes() for name in TABLES)
    classes = tuple(sorted(columns))
    return Candidates(
        names=tuple(file.stem for file in files),
        ids=tuple((hashlib.sha256(tables + file.read_bytes()).hexdigest()[:12],) for file in files),
        classes=classes,
        fnames=tuple(train["fname"]),
        truth=np.array([classes.index(label) for label in train["label"]]),
        verified=train["manually_verified"].to_numpy() == "1",
        fold=train["fold"].to_numpy(),
        group=group_numbers(train, GROUP),
        oof=np.stack([one["oof"][:, order] for one in read]),
        test_fnames=test_fnames,
        test=np.stack([one["test"][:, order] for one in read]),
        test_faults={},
    )


def _files(folder: Path, names: Sequence[str]) -> list[Path]:
    there = {file.stem: file for file in sorted(folder.glob("*.npz")) if not is_dropping(file.name)}
    if not there:
        raise UserError(f"{folder}: holds no <model>.npz with oof and test probabilities")
    names = respell(names, there)
    if unknown := [name for name in names if name not in there]:
        raise UserError(f"{folder}: no model {list_some(unknown)}; there are {list_some(there)}")
    return [file for name, file in there.items() if not names or name in names]


def _read_classes(file: Path) -> list[str]:
    return read_text(file, "labels").split()


def _read_train(file: Path, columns: list[str]) -> pd.DataFrame:
    train = read_names(file, ("label", "manually_verified", "fold"))
    train["label"] = respell(train["label"], columns)
    if len(set(map(nfc, columns))) < max(3, len(columns)):
        raise UserError(
            f"{file.with_name('classes.txt')}: needs three or more labels, each once; it has {len(columns)}"
        )
    if unknown := sorted(set(train["label"]) - set(columns)):
        raise UserError(f"{file}: labels that classes.txt lacks: {list_some(unknown)}")
    if strange := sorted(set(train["manually_verified"]) - {"0", "1"}):
        raise UserError(f"{file}: manually_verified must be 0 or 1, found {list_some(map(repr, strange))}")
    if strange := sorted({fold for fold in train["fold"] if fold_number(fold) is None}):
        raise UserError(f"{file}: fold must be a number from 0, found {list_some(map(repr, strange))}")
    train = train.assign(fold=np.array([fold_number(fold) for fold in train["fold"]], dtype=np.int64))
    if train["fold"].nunique() < 2:
        raise UserError(f"{file}: all clips lie in one fold: out-of-fold predictions come from two or more")
    return train


def _read_model(file: Path, axes: Mapping[str, Sequence[str]], truth: Sequence[str]) -> dict[str, np.ndarray]:
    """oof and test probabilities in our order; axes and truth as in `find_orders`."""
    arrays = _read_arrays(file)
    found = {key: _check_probabilities(file, key, arrays.pop(key), axes) for key in ("oof", "test")}
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


def _check_probabilities(file: Path, key: str, probs: np.ndarray, axes: Mapping[str, Sequence[str]]) -> np.ndarray:
    """As float32 (clips, classes). Raises UserError where rows are missing or no distributions."""
    shape = (len(axes[key]), len(axes["classes"]))
    if probs.dtype.kind not in "fiu":
        raise UserError(f"{file}: {key} holds {probs.dtype}, not numbers")
    if probs.shape != shape:
        raise UserError(f"{file}: {key} has shape {probs.shape}, the tables say {shape} (clips, classes)")
    with np.errstate(over="ignore"):  # infinity is refused below
        probs = probs.astype(np.float32)
    if bad := int((~np.isfinite(probs)).any(axis=1).sum()):
        raise UserError(f"{file}: {key} holds NaN or infinity in {bad} rows: predict again, or leave the model out")
    off = np.abs(probs.sum(axis=1) - 1) > SUM_TOLERANCE
    if bad := int((off | (probs < 0).any(axis=1)).sum()):
        raise UserError(f"{file}: {key} has {bad} rows that are no probabilities (below 0, or not of sum 1)")
    return probs
