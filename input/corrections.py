"""Corrected labels: for training, never for a score."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from console.errors import UserError, list_some
from input.competition import read_names
from input.names import respell


def read_corrections(file: Path, train: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, str]:
    """fname -> label, '' for a clip to drop from training; other columns of the CSV are ignored.

    train: fname of all training clips. Raises UserError if the column fname or label is missing, a clip is unknown or
    appears twice, or a label is not in `classes`.
    """
    table = read_names(file, ("label",))
    table = table.assign(fname=respell(table["fname"], train["fname"]), label=respell(table["label"], classes))
    if unknown := sorted(set(table["fname"]) - set(train["fname"])):
        raise UserError(f"{file}: clips that are not in the training table: {list_some(unknown)}: remove their rows")
    if strange := sorted(set(table["label"]) - {"", *classes}):
        raise UserError(
            f"{file}: labels that no training clip has: {list_some(map(repr, strange))}: use one of the "
            f"{len(classes)} labels of the competition, or an empty one to drop the clip"
        )
    return dict(zip(table["fname"], table["label"], strict=True))


def corrections_hash(corrections: Mapping[str, str]) -> str:
    """Twelve hex digits: a hash of all corrections, independent of the order of the rows."""
    lines = sorted(f"{fname},{label}" for fname, label in corrections.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def correct(folds: pd.DataFrame, corrections: Mapping[str, str], fold: int) -> pd.DataFrame:
    """The table (fname, label, verified, fold, ...) as the training of that fold sees it.

    Outside of the fold, corrected clips get their new label and count as verified, and dropped clips have no row. The
    rows of the fold itself, the validation clips, stay unchanged.
    """
    label = folds["fname"].map(corrections)  # NaN without a correction
    changes = label.notna() & (folds["fold"] != fold)
    corrected = folds.assign(label=folds["label"].mask(changes, label), verified=folds["verified"] | changes)
    return corrected[corrected["label"] != ""]
