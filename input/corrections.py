"""Corrected labels, for training, never for a score; and the targets of clips, corrected or not."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from configs.competition import LABEL_SEPARATOR, Task
from console.errors import UserError, count, list_some
from input.competition import Competition, read_names
from input.names import respell

OTHER_SEPARATORS = (",", ";", " ")  # that a table may have instead of ours


def read_corrections(
    file: Path, train: pd.DataFrame, classes: tuple[str, ...], task: Task = "single_label"
) -> dict[str, str]:
    """fname -> label, '' for a clip to drop from training; other columns of the CSV are ignored.

    For multi_label, labels joined by '|', or by a comma, a semicolon or a blank where all parts are classes then; '|'
    alone for a clip without any. train: fname of all training clips. Raises UserError if the column fname or label is
    missing, a clip is unknown or appears twice, or a label is not in `classes`.
    """
    table = read_names(file, ("label",))
    label = table["label"] if task == "single_label" else table["label"].map(lambda cell: _joined(cell, classes))
    table = table.assign(fname=respell(table["fname"], train["fname"]), label=respell(label, classes))
    if unknown := sorted(set(table["fname"]) - set(train["fname"])):
        raise UserError(f"{file}: clips that are not in the training table: {list_some(unknown)}: remove their rows")
    single = task == "single_label"
    parts = {part for cell in set(table["label"]) for part in ([cell] if single else cell.split(LABEL_SEPARATOR))}
    if strange := sorted(parts - {"", *classes}):
        raise UserError(
            f"{file}: labels that no training clip has: {list_some(map(repr, strange))}: use one of the "
            f"{count(len(classes), 'label')} of the competition, or an empty one to drop the clip"
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
    corrected["label"] = corrected["label"].mask(corrected["label"] == LABEL_SEPARATOR, "")
    return corrected[~(changes & (label == ""))]


def _joined(cell: str, classes: tuple[str, ...]) -> str:
    """The labels of a cell, sorted and joined as in the training table; as it is where they are not all classes."""
    if not cell.strip() or cell.strip() == LABEL_SEPARATOR:
        return cell.strip()
    for separator in (LABEL_SEPARATOR, *OTHER_SEPARATORS):
        parts = respell((part.strip() for part in cell.split(separator)), classes)
        if set(parts) <= set(classes):
            return LABEL_SEPARATOR.join(sorted(set(parts)))
    return cell


def targets_of(table: pd.DataFrame, competition: Competition) -> np.ndarray:
    """(clips, classes) float32 as `Competition.targets`, for clips of the training table (fname, label), some of them
    left out or corrected: a corrected clip has the labels of the table and no others."""
    train, index = competition.train, {name: i for i, name in enumerate(competition.classes)}
    row = pd.Series(np.arange(len(train)), train["fname"]).loc[table["fname"]].to_numpy()
    found = competition.targets[row]
    labels, given = table["label"].to_numpy(), train["label"].to_numpy()[row]
    for i in np.flatnonzero(labels != given):
        found[i] = 0
        names = [labels[i]] if competition.task == "single_label" else labels[i].split(LABEL_SEPARATOR)
        found[i, [index[name] for name in names if name]] = 1
    return found


def targets_hash(competition: Competition) -> str | None:
    """Twelve hex digits of the training targets and weights; None where a label counts as 1 and a clip as any other,
    since the labels say it all then."""
    targets, weight = competition.targets, competition.train.get("weight", pd.Series(1.0))
    if np.isin(targets, (0, 1)).all() and (weight == 1).all():
        return None
    rows = np.argsort(competition.train["fname"].to_numpy())
    digest = hashlib.sha256(np.ascontiguousarray(targets[rows]).tobytes())
    digest.update(np.broadcast_to(weight.to_numpy(np.float64), len(targets))[rows].tobytes())
    return digest.hexdigest()[:12]
