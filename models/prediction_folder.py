"""Predictions from elsewhere, as teams swap them: a folder of tables and one .npz a model, checked like our own runs.

classes.txt: the labels, in the order of the columns. train.csv: fname, label, manually_verified, fold; optionally a
group column, freesound_id. sample_submission.csv: fname of the test clips. <model>.npz: `oof` (training clips, classes)
and `test` (test clips, classes) probabilities, rows in the order of the two tables.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from configs.errors import UserError, list_some
from configs.text import read_text
from input.competition import read_names, read_sample
from input.layout import is_dropping
from input.names import nfc, respell
from models.candidates import Candidates, group_numbers

TABLES = ("classes.txt", "train.csv", "sample_submission.csv")
GROUP = "freesound_id"
SUM_TOLERANCE = 1e-2  # of a row of probabilities; float16 files are off by some 1e-3


def candidates_from_predictions(folder: Path, names: Sequence[str] = ()) -> Candidates:
    """Every model of the folder, or the named ones; columns in sorted order of the labels whatever classes.txt has.

    Raises UserError that names the file where one is absent or unreadable, rows or columns are missing, a row is no
    distribution, or labels, folds and names do not make sense.
    """
    if lacking := [name for name in TABLES if not (folder / name).is_file()]:
        raise UserError(f"{folder}: lacks {list_some(lacking)}: give a folder of predictions")
    columns = _read_classes(folder / "classes.txt")
    train = _read_train(folder / "train.csv", columns)
    test_fnames = tuple(read_sample(folder / TABLES[2])["fname"])
    files = _files(folder, names)
    order = np.argsort(columns)
    shapes = {"oof": (len(train), len(columns)), "test": (len(test_fnames), len(columns))}
    read = [_read_model(file, shapes) for file in files]
    tables = b"".join((folder / name).read_bytes() for name in TABLES)
    classes = tuple(sorted(columns))
    return Candidates(
        names=tuple(file.stem for file in files),
        ids=tuple((hashlib.sha256(tables + file.read_bytes()).hexdigest()[:12],) for file in files),
        classes=classes,
        fnames=tuple(train["fname"]),
        truth=np.array([classes.index(label) for label in train["label"]]),
        verified=train["manually_verified"].to_numpy() == "1",
        fold=train["fold"].astype(int).to_numpy(),
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
    if strange := sorted({fold for fold in train["fold"] if not fold.isdigit()}):
        raise UserError(f"{file}: fold must be a number from 0, found {list_some(map(repr, strange))}")
    if train["fold"].nunique() < 2:
        raise UserError(f"{file}: all clips lie in one fold: out-of-fold predictions come from two or more")
    return train


def _read_model(file: Path, shapes: dict[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    try:
        with np.load(file) as data:
            found = {key: data[key].astype(np.float32) for key in shapes}
    except Exception as error:  # a damaged npz fails as OSError, ValueError, KeyError or BadZipFile
        raise UserError(f"{file}: cannot read oof and test probabilities: {error}") from None
    for key, probs in found.items():
        if probs.shape != shapes[key]:
            raise UserError(f"{file}: {key} has shape {probs.shape}, the tables say {shapes[key]} (clips, classes)")
        if bad := int((~np.isfinite(probs)).any(axis=1).sum()):
            raise UserError(f"{file}: {key} holds NaN or infinity in {bad} rows: predict again, or leave the model out")
        off = np.abs(probs.sum(axis=1) - 1) > SUM_TOLERANCE
        if bad := int((off | (probs < 0).any(axis=1)).sum()):
            raise UserError(f"{file}: {key} has {bad} rows that are no probabilities (below 0, or not of sum 1)")
    return found
