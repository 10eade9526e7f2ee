"""The sample submission: the test clips in their order, and the form of what is handed in."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from configs.competition import CompetitionConfig, SubmissionConfig, SubmissionForm
from console.errors import UserError, list_some
from console.output import warn
from input.names import nfc
from input.tables import check_names, no_column, read_table

NAMES = (
    "fname",
    "filename",
    "file_name",
    "slice_file_name",
    "file",
    "clip",
    "recording_id",
    "itemid",
    "id",
    "path",
    "name",
)


@dataclass(frozen=True)
class Sample:
    """A sample submission."""

    fnames: pd.Series  # of the test clips, in their order
    form: SubmissionForm
    labels: pd.Series | None = None  # of kind 'top_labels': placeholders


def read_sample(
    path: Path,
    submission: SubmissionConfig | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
    with_folder: bool = False,
) -> Sample:
    """Test clips and form of a sample submission: names in the first column, then one column of labels, or one per
    class. What `submission` says goes before what the table shows.

    Raises UserError as `read_names`, and if the table is of another form than `submission` says.
    """
    given = submission or SubmissionConfig()
    table = read_table(path, (), separator, encoding)
    columns = list(map(str, table.columns))
    name = given.name_column or next((one for one in (*columns[:1], *columns) if one.lower() in NAMES), columns[0])
    if name not in columns:
        raise no_column(path, [name], columns, {name: "submission.name_column"})
    others = [one for one in columns if one != name]
    check_names(path, table[name], with_folder)
    kind = given.kind or ("probabilities" if len(others) > 1 else "top_labels")
    if kind == "top_labels" and len(others) > 1:
        raise UserError(
            f"{path}: one column of labels expected, found {len(others)} ({list_some(others, 3)}); in "
            f"competition.yaml: submission: {{kind: probabilities}}"
        )
    if kind == "probabilities" and not others:
        raise UserError(
            f"{path}: a column per class expected, found {name} alone; in competition.yaml: "
            f"submission: {{kind: top_labels}}"
        )
    if given.label_column and others and given.label_column != others[0] and kind == "top_labels":
        raise no_column(path, [given.label_column], columns, {given.label_column: "submission.label_column"})
    if kind == "probabilities":
        return Sample(table[name], SubmissionForm(kind, name_column=name, columns=tuple(others)))
    form = SubmissionForm(
        kind,
        given.top_labels or 3,
        " " if given.separator is None else given.separator,
        name,
        others[0] if others else given.label_column or "label",
    )
    return Sample(table[name], form, table[others[0]] if others else None)


def form_without_sample(cfg: CompetitionConfig) -> SubmissionForm:
    """Named as in the tables of clips."""
    given, columns = cfg.submission, cfg.columns
    return SubmissionForm(
        given.kind or "top_labels",
        given.top_labels or 1,
        " " if given.separator is None else given.separator,
        given.name_column or columns.name,
        given.label_column or columns.label or "label",
    )


def check_sample(path: Path, sample: Sample, classes: tuple[str, ...]) -> SubmissionForm:
    """The form with the classes' own spelling. Raises UserError where classes and columns differ; labels of the sample
    are placeholders, but an unknown one suggests a wrong folder."""
    if sample.form.kind == "probabilities":
        known, there = {nfc(name) for name in classes}, {nfc(name) for name in sample.form.columns}
        for odd, fact in (
            (sorted(known - there), "has no column for classes of the training clips"),
            (sorted(there - known), "has columns that are no class"),
        ):
            if odd:
                raise UserError(
                    f"{path}: {fact}: {list_some(odd)}; in competition.yaml: classes: [...] names those to learn"
                )
    elif sample.labels is not None:
        lower = {nfc(name).lower() for name in classes}  # the real one spells Hi-Hat where the classes say Hi-hat
        cells = set(sample.labels)
        words = {word for text in cells if nfc(text).lower() not in lower for word in text.split(sample.form.separator)}
        if strange := sorted(word for word in words - {""} if nfc(word).lower() not in lower):
            warn(f"{path}: labels that no training clip has: {list_some(strange)}")
    return sample.form
