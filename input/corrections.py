"""Labels that someone heard, in place of the given ones: for training only, never for a score."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from console.errors import UserError, list_some
from input.competition import read_names
from input.names import respell


def read_corrections(file: Path, train: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, str]:
    """fname -> label, '' for a clip to be left out of training; any further columns of the CSV are ignored.

    train: fname of all training clips. Raises UserError where fname or label is absent, a clip is unknown or stands
    twice, or a label is none of `classes`.
    """
    table = read_names(file, ("label",))
    table = table.assign(fname=respell(table["fname"], train["fname"]), label=respell(table["label"], classes))
    if unknown := sorted(set(table["fname"]) - set(train["fname"])):
        raise UserError(f"{file}: names clips that are no training clips: {list_some(unknown)}: take their rows out")
    if strange := sorted(set(table["label"]) - {"", *classes}):
        raise UserError(
            f"{file}: labels that no training clip has: {list_some(map(repr, strange))}: write one of the "
            f"{len(classes)} labels of the competition, or none to leave the clip out"
        )
    return dict(zip(table["fname"], table["label"], strict=True))


def corrections_hash(corrections: Mapping[str, str]) -> str:
    """Twelve hex digits of what is corrected to what, whatever the order of the rows."""
    lines = sorted(f"{fname},{label}" for fname, label in corrections.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def correct(folds: pd.DataFrame, corrections: Mapping[str, str], fold: int) -> pd.DataFrame:
    """The table (fname, label, verified, fold, ...) as the training of that fold sees it.

    Outside of the fold a corrected clip has its new label and counts as verified, and one that is to be left out has no
    row. The fold's own rows, which validate, stay as they were given.
    """
    heard = folds["fname"].map(corrections)  # NaN where nothing is said of a clip
    said = heard.notna() & (folds["fold"] != fold)
    corrected = folds.assign(label=folds["label"].mask(said, heard), verified=folds["verified"] | said)
    return corrected[corrected["label"] != ""]
