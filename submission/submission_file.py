"""The submission file: written, read back, validated, and scored where the truth is known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from configs.files import atomic, write
from console.errors import UserError, list_some
from metrics.map_at_3 import average_precision_at_3, top_3
from runs.predictions import Predictions

HEADER = ["fname", "label"]


def write_submission(file: Path, predictions: Predictions, classes: tuple[str, ...]) -> None:
    """fname,label with three labels a clip, in the order of `predictions`; appears whole and valid or not at all.

    Raises UserError where `file` exists and is no submission, or what was written does not read back as it should.
    """
    check_overwritable(file)
    table = pd.DataFrame({"fname": predictions.fnames, "label": top_3(predictions.probs, classes)})
    with atomic(file) as part:
        table.to_csv(part, index=False, lineterminator="\n")
        validate_submission(part, predictions.fnames, classes)


def check_overwritable(file: Path) -> None:
    """Raises UserError where the file is there, and no submission: nothing else may be replaced."""
    if file.exists() and not _is_submission(file):
        raise UserError(f"{file}: exists and is not a submission: use another --output")


def _is_submission(file: Path) -> bool:
    """By its header and its first clip: three labels tell it from a table of clips or of corrections."""
    if not file.is_file():
        return False
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        header, first = lines.readline().strip(), lines.readline().strip()
    return header == ",".join(HEADER) and (not first or first.count(" ") >= 2)


def validate_submission(file: Path, fnames: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """Raises UserError unless the file names every clip once, in this order, with three distinct known labels."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if list(table.columns) != HEADER:
        raise UserError(f"{file}: columns are {', '.join(table.columns)}, not {', '.join(HEADER)}")
    if tuple(table["fname"]) != fnames:
        odd = sorted(set(table["fname"]) ^ set(fnames)) or ["the order differs, or a clip appears twice"]
        raise UserError(f"{file}: its clips are not those of the sample submission: {list_some(odd)}")
    known = set(classes)
    labels = [text.split(" ") for text in table["label"]]
    if bad := [n for n, row in zip(fnames, labels, strict=True) if len(set(row)) != 3 or not known.issuperset(row)]:
        raise UserError(f"{file}: clips without three distinct known labels: {list_some(bad)}")


def write_report(file: Path, ensemble_folder: Path, faults: dict[str, str], n_clips: int) -> None:
    """Beside the submission: what it was made from, and which clips had a fault, with the reason."""
    report = {"ensemble": str(ensemble_folder), "clips": n_clips, "clips_with_a_fault": faults}
    write(file, json.dumps(report, indent=1) + "\n")


def score_by_usage(predictions: Predictions, truth: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, float]:
    """MAP@3 for every usage of `truth` (fname, label, usage), and for 'all'.

    Raises UserError where a scored clip has no prediction.
    """
    probs = predictions.of(list(truth["fname"]), "scoring")
    label = np.array([classes.index(name) for name in truth["label"]])
    gains = average_precision_at_3(probs, label)
    usages = sorted(set(truth["usage"]), reverse=True)  # Public before Private
    found = {usage: float(gains[truth["usage"] == usage].mean()) for usage in usages}
    return {**found, "all": float(gains.mean())} if len(found) > 1 else found
