"""competition.yaml: where a competition's tables and sounds lie, and what it asks for."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Task = Literal["single_label", "multi_label"]
LABEL_SEPARATOR = "|"  # joins the labels of a clip in our own tables; no class may contain it


@dataclass(frozen=True)
class SubmissionForm:
    """How a submission is written."""

    kind: Literal["top_labels", "probabilities"] = "top_labels"
    top_labels: int = 3  # labels a clip, of kind 'top_labels'; 1: the most probable one
    separator: str = " "  # between them
    name_column: str = "fname"
    label_column: str = "label"  # of kind 'top_labels'
    columns: tuple[str, ...] = ()  # of kind 'probabilities': the classes in the sample's order; empty: as `classes`


@dataclass(frozen=True)
class TableFile:
    """A table of clips. `train: train.csv` is short for `train: [{file: train.csv}]`."""

    file: str  # within the competition's folder; * stands for any text: meta/esc*.csv
    separator: str | None = None  # between columns; null: of ',', ';' and tab the one that the header has
    encoding: str = "utf-8"
    optional: bool = False  # the competition is complete without it
    verified: bool | None = None  # whether its labels are; null: as columns.verified says, else yes
    weight: float = 1.0  # of its clips in the loss
    where: dict[str, str] = field(default_factory=dict)  # column -> value: only these rows
    audio: str | None = None  # where the sounds of its clips lie; null: as audio.train and audio.test say

    def __post_init__(self) -> None:
        _require(not Path(self.file).is_absolute() and ".." not in Path(self.file).parts, "file", "leaves the folder")
        _require(0 <= self.weight <= 1, "weight", "must be between 0 and 1")


@dataclass(frozen=True)
class ColumnNames:
    """The headers of the columns. null: the tables have no such column."""

    name: str = "fname"  # of the sound file, or what the audio pattern makes a file of
    label: str | None = "label"  # one label or several; null: with audio.class_folders
    secondary_labels: str | None = None  # also heard, less surely; label_separator or a Python list as text
    fold: str | None = None  # the table's own folds
    group: str | None = None  # clips of one recording, recorder or author, which stay in one fold
    verified: str | None = None  # 1 or true: a person checked the label; 0 or false
    weight: str | None = None  # 0 to 1, in the loss


@dataclass(frozen=True)
class AudioFiles:
    """Patterns of paths within the competition's folder: {column} is a clip's value in that column."""

    train: str = "audio_train/{fname}"
    test: str = "audio_test/{fname}"
    class_folders: str | None = None  # a folder with one folder of sounds per class, which needs no table
    names_with_folder: bool = False  # a name may have a folder: afrsil1/XC125458.ogg


@dataclass(frozen=True)
class SubmissionConfig:
    """What differs from what the sample submission shows."""

    kind: Literal["top_labels", "probabilities"] | None = None
    top_labels: int | None = None  # labels a clip; 1: the most probable one
    separator: str | None = None  # between them
    name_column: str | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        _require(self.top_labels is None or self.top_labels > 0, "top_labels", "must be at least 1")


@dataclass(frozen=True)
class CompetitionConfig:
    """A competition. What is not given is taken from what lies in its folder."""

    task: Task | None = None  # null: multi_label where a cell has several labels or none, or a sample many columns
    metric: str | None = None  # see docs/competitions.md; null: as usual for the task and the submission
    classes: tuple[str, ...] = ()  # empty: the sample submission's columns, else the labels of the training tables
    train: tuple[TableFile, ...] = ()
    details: tuple[TableFile, ...] = ()  # tables that only add columns to the training clips, joined by name
    test: TableFile | None = None  # names the test clips where there is no sample submission
    sample_submission: TableFile | None = None  # names and orders the test clips
    columns: ColumnNames = field(default_factory=ColumnNames)
    label_separator: str | None = None  # between the labels of a cell; null: a cell is one label
    no_label: tuple[str, ...] = ()  # words for a clip without any of the classes, like [nocall]
    secondary_weight: float | None = 0.5  # the target of a secondary label; null: left out of the loss
    audio: AudioFiles = field(default_factory=AudioFiles)
    submission: SubmissionConfig = field(default_factory=SubmissionConfig)

    def __post_init__(self) -> None:
        weight = self.secondary_weight
        _require(weight is None or 0 <= weight < 1, "secondary_weight", "must be in [0, 1), or null")
        whole = self.sample_submission is None or not self.sample_submission.where
        _require(whole, "sample_submission.where", "is for other tables: a submission has all of its rows")
        for pattern in (self.audio.train, self.audio.test, *(one.audio for one in self.train if one.audio)):
            _require(
                re.fullmatch(r"([^{}]|\{[^{}]+\})+", pattern) is not None, "audio", f"has a stray brace: {pattern}"
            )


def _require(condition: bool, key: str, fact: str) -> None:
    if not condition:
        raise ValueError(f"{key} {fact}")
