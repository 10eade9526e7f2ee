"""What a folder says of itself: every key of competition.yaml that nobody gave, found out from tables and folders."""

from pathlib import Path
from typing import Any

import pandas as pd

from configs.competition import TableFile
from input.guess_sounds import NO_SOUND, guess_sounds
from input.guess_tables import (
    check_no_parts,
    guess_columns,
    guess_details,
    guess_sample,
    guess_test,
    guess_train,
    tables_of,
)
from input.guesses import FSDKAGGLE2019, Guesses
from input.labels import as_list, find_label_separator, split_cell
from input.sample import NAMES


def guess(folder: Path, values: dict[str, Any]) -> Guesses:
    """Everything that `values` does not say. Raises UserError where the folder shows no training clips."""
    it = Guesses(folder, values)
    there = tables_of(folder)
    guess_sample(it, there)
    train = guess_train(it, there)
    if train is not None:
        guess_columns(it, train)
        guess_details(it, there, train)
    guess_test(it, there)
    guess_sounds(it, train)
    if it.why.get("audio.train") == NO_SOUND and "train" not in values:  # the table that was taken lists something else
        check_no_parts(it, there)
    _guess_task(it, train)
    return it


def _guess_task(it: Guesses, train: pd.DataFrame | None) -> None:
    """Label separator, task, metric and the form of a submission."""
    columns: list[str] = []
    if (sample := it.table("sample_submission")) is not None:
        columns = list(map(str, it.read(sample).columns))
        name = next((one for one in (*columns[:1], *columns) if one.lower() in NAMES), columns[0])
        columns.remove(name)
    many = len(columns) > 1
    label = it.value("columns", "label")
    cells = train[label] if train is not None and label in train else pd.Series([], dtype=object)
    separator = find_label_separator(cells, columns if many else ())
    it.top("label_separator", separator, "its parts are labels too" if separator else "a cell is one label")
    several = separator is not None or it.values.get("label_separator") is not None
    several |= bool(it.value("columns", "secondary_labels")) or (many and bool(cells.str.strip().eq("").any()))
    several |= bool(cells.map(lambda cell: as_list(cell) is not None).any())
    task = it.values.get("task") or it.found.get("task") or ("multi_label" if several else "single_label")
    it.top("task", task, "cells with several labels or none" if task == "multi_label" else "one label a cell")
    kind = "probabilities" if many or (sample is None and task == "multi_label") else "top_labels"
    it.put("submission", "kind", kind, "as the sample submission" if sample else "as usual for the task")
    separator = it.values.get("label_separator", separator)
    _guess_form(it, sample, columns, {label for cell in set(cells) for label in split_cell(cell, separator)})
    _guess_metric(it, columns)


def _guess_form(it: Guesses, sample: TableFile | None, columns: list[str], known: set[str]) -> None:
    """How many labels a clip has in the sample submission, and what joins them. known: the labels of the clips."""
    if it.value("submission", "kind") != "top_labels":
        return
    cells = it.read(sample)[columns[0]].head(50).tolist() if sample and columns else []
    separator = it.value("submission", "separator") or find_label_separator(cells, known)
    if separator is None and not known.issuperset(cell.strip() for cell in cells):
        separator = " "  # placeholders
    counts = {len(split_cell(cell, separator)) for cell in cells} - {0}
    default = 3 if sample is not None and not columns else 1
    why = "as the sample submission" if sample is not None else "one label a clip: there is no sample submission"
    it.put("submission", "top_labels", counts.pop() if len(counts) == 1 else default, why)
    if separator is not None:
        it.put("submission", "separator", separator, "as the sample submission")


def _guess_metric(it: Guesses, columns: list[str]) -> None:
    task = it.values.get("task", it.found.get("task"))
    if it.value("submission", "kind") == "top_labels":
        k = it.value("submission", "top_labels") or 1
        it.top("metric", f"map@{k}" if k > 1 or task == "multi_label" else "accuracy", "as usual for such a submission")
    elif set(columns) >= FSDKAGGLE2019:
        it.top("metric", "lwlrap", "the classes are those of FSDKaggle2019")
    else:
        it.top("metric", "macro_roc_auc" if task == "multi_label" else "log_loss", "usual for probabilities")
