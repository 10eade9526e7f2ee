"""The submission file: written, read back, validated, and scored where the truth is known."""

import csv
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs.competition import LABEL_SEPARATOR, SubmissionForm
from configs.files import atomic, write
from console.errors import UserError, count, list_some
from metrics.metric import Metric
from runs.predictions import Predictions

DEFAULT = SubmissionForm()


def write_submission(
    file: Path, predictions: Predictions, classes: tuple[str, ...], form: SubmissionForm = DEFAULT
) -> None:
    """A row per clip, in the order of `predictions`; appears whole and valid or not at all.

    Raises UserError where `file` exists and is no submission, the form does not fit the classes, a value is not finite,
    or what was written does not read back as it should.
    """
    check_form(form, classes)
    check_overwritable(file, form, predictions.fnames)
    probs = predictions.probs
    if bad := [name for name, row in zip(predictions.fnames, np.isfinite(probs), strict=True) if not row.all()]:
        raise UserError(f"{file}: clips with NaN or infinity among their probabilities: {list_some(bad)}")
    if form.kind == "top_labels":
        table = pd.DataFrame({form.label_column: top_labels(probs, classes, form)})
    else:  # float32 is written with the digits that tell it from its neighbours, no more
        order = [classes.index(name) for name in form.columns or classes]
        table = pd.DataFrame(probs[:, order], columns=list(form.columns or classes))
    table.insert(0, form.name_column, predictions.fnames)
    with atomic(file) as part:
        table.to_csv(part, index=False, lineterminator="\n")
        read = validate_submission(part, predictions.fnames, classes, form)
        if form.kind == "probabilities" and not np.array_equal(_numbers(read).astype(probs.dtype), probs[:, order]):
            raise UserError(f"{file}: the probabilities do not read back as they were written")


def top_labels(probs: np.ndarray, classes: tuple[str, ...], form: SubmissionForm = DEFAULT) -> list[str]:
    """The labels of every row of probs (clips, classes), most probable first; a tie ranks the lower class index
    first."""
    best = np.argsort(-probs, axis=1, kind="stable")[:, : form.top_labels]
    return [form.separator.join(classes[i] for i in row) for row in best]


def check_form(form: SubmissionForm, classes: tuple[str, ...]) -> None:
    """Raises UserError where the classes cannot be submitted in this form."""
    if form.kind == "top_labels":
        if not 1 <= form.top_labels <= len(classes):
            raise UserError(
                f"submission: {count(form.top_labels, 'label')} per clip, but there are {count(len(classes), 'class')}"
            )
        if form.top_labels > 1 and (bad := [name for name in classes if form.separator in name]):
            raise UserError(
                f"submission: classes contain {form.separator!r}, which separates labels: {list_some(bad)}: "
                f"set another submission separator in competition.yaml"
            )
        return
    columns = form.columns or classes
    for fact, names in (
        ("no column for the classes", set(classes) - set(columns)),
        ("columns that are no class", set(columns) - set(classes)),
        ("columns that appear twice", {name for name in columns if columns.count(name) > 1}),
        ("the column of clip names is also a class", {form.name_column} & set(columns)),
    ):
        if names:
            raise UserError(f"submission: {fact}: {list_some(sorted(names))}: compare the sample submission")


def check_overwritable(file: Path, form: SubmissionForm = DEFAULT, fnames: Collection[str] = ()) -> None:
    """Raises UserError where the file exists and is no submission of this form: nothing else may be replaced.

    fnames: the test clips. They tell a submission of one label per clip, or of probabilities, from a table of labels.
    """
    if file.exists() and not (file.is_file() and _is_submission(file, form, fnames)):
        raise UserError(f"{file}: exists and is not a submission: use another --output")


def _is_submission(file: Path, form: SubmissionForm, fnames: Collection[str]) -> bool:
    """By its header and its first clip: a table of labels has fewer labels per clip, other clips, or only 0 and 1."""
    header, first = list[str](), list[str]()
    with suppress(csv.Error), file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        header, first = [*islice(csv.reader(lines), 2), [], []][:2]
    if form.kind == "top_labels":
        if header != [form.name_column, form.label_column] or (first and len(first) != 2):
            return False
        n_separators = first[1].count(form.separator) if first else 0
        return not first or (n_separators >= form.top_labels - 1 if form.top_labels > 1 else first[0] in fnames)
    if header[:1] != [form.name_column] or (form.columns and sorted(header[1:]) != sorted(form.columns)):
        return False
    return not first or (first[0] in fnames and any(text not in ("0", "1", "0.0", "1.0") for text in first[1:]))


def validate_submission(
    file: Path, fnames: tuple[str, ...], classes: tuple[str, ...], form: SubmissionForm = DEFAULT
) -> pd.DataFrame:
    """The file as a table of text.

    Raises UserError unless it names every clip once, in this order, with distinct known labels in the number that the
    form asks for, or with a finite number for every class.
    """
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    names, values = form.name_column, (form.label_column,) if form.kind == "top_labels" else form.columns or classes
    if list(table.columns) != [names, *values]:
        raise UserError(f"{file}: columns are {list_some(table.columns)}, not {list_some([names, *values])}")
    if tuple(table[names]) != fnames:
        odd = sorted(set(table[names]) ^ set(fnames)) or ["the order differs, or a clip appears twice"]
        raise UserError(f"{file}: its clips are not those of the sample submission: {list_some(odd)}")
    if form.kind == "top_labels":
        n, known = form.top_labels, set(classes)
        rows = [text.split(form.separator) if n > 1 else [text] for text in table[form.label_column]]
        good = [len(row) == len(set(row)) == n and known.issuperset(row) for row in rows]
        expected = f"{n} distinct known labels" if n > 1 else "a known label"
    else:
        good, expected = np.isfinite(_numbers(table)).all(axis=1).tolist(), "a finite number for every class"
    if bad := [name for name, is_good in zip(fnames, good, strict=True) if not is_good]:
        raise UserError(f"{file}: clips without {expected}: {list_some(bad)}")
    return table


def _numbers(table: pd.DataFrame) -> np.ndarray:
    """(clips, columns) float64 of all columns but the first; NaN for what is no number."""
    text = table.iloc[:, 1:].to_numpy(dtype=object)
    try:
        return text.astype(np.float64)  # by Python's float: exact, unlike the fast parser of pandas
    except ValueError:
        return table.iloc[:, 1:].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)


def write_report(
    file: Path,
    ensemble_folder: Path,
    faults: dict[str, str],
    n_clips: int,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Beside the submission: what it was made from, and which clips had a fault, with the reason. more: what else is
    known, as far as there is something to say."""
    report = {"ensemble": str(ensemble_folder), "clips": n_clips, "clips_with_a_fault": faults}
    report |= {key: value for key, value in (more or {}).items() if value}
    write(file, json.dumps(report, indent=1) + "\n")


def score_by_usage(
    predictions: Predictions, truth: pd.DataFrame, classes: tuple[str, ...], metric: Metric
) -> dict[str, float]:
    """The metric for every usage of `truth` (fname, label, usage), and for 'all'; NaN for a usage whose clips cannot be
    scored, as where none of them has a label.

    label: one, or several joined by LABEL_SEPARATOR. Raises UserError where a scored clip has no prediction, and where
    all clips together cannot be scored.
    """
    probs = predictions.of(list(truth["fname"]), "scoring")
    labels = [set(text.split(LABEL_SEPARATOR)) for text in truth["label"]]
    is_true = np.array([[name in row for name in classes] for row in labels])
    usages = sorted(set(truth["usage"]), reverse=True)  # Public before Private
    rows = {usage: (truth["usage"] == usage).to_numpy() for usage in usages}
    try:
        whole = metric.score(probs, is_true)
    except ValueError as error:
        raise UserError(f"scoring: the test labels have no {metric.title}: {error}: use another metric") from None
    found = {}
    for usage, row in rows.items():
        try:
            found[usage] = metric.score(probs[row], is_true[row])
        except ValueError:
            found[usage] = float("nan")
    return {**found, "all": whole} if len(found) > 1 else found
