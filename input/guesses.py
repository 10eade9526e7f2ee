"""What is found out about a folder that its description does not say, and why; the usual names of columns and files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from configs.competition import TableFile
from input.tables import read_table

LABELS = (
    "label",
    "labels",
    "category",
    "class",
    "primary_label",
    "tags",
    "tag",
    "classes",
    "target",
    "species",
    "species_id",
)
FOLDS = ("fold", "folds")
VERIFIED = ("manually_verified", "verified")
SECONDARY = ("secondary_labels",)
WEIGHTS = ("weight",)
GROUPS = (
    "freesound_id",
    "recorder",
    "recording",
    "recording_id",
    "src_file",
    "fsID",
    "speaker",
    "author",
    "artist",
    "site",
)
TRAIN = (
    "train_curated.csv",
    "train.csv",
    "train_metadata.csv",
    "train_labels.csv",
    "labels.csv",
    "metadata.csv",
    "meta.csv",
)
TRAIN_FOLDERS = ("audio_train", "train_audio", "train", "audio", "wav", "wavs", "clips", "sounds", "data", "")
TEST_FOLDERS = ("audio_test", "test_audio", "test", "audio", "wav", "wavs", "clips", "sounds", "data", "")
FSDKAGGLE2019 = {"Accelerating_and_revving_and_vroom", "Bathtub_(filling_or_washing)"}  # in no other class list


@dataclass
class Guesses:
    """found: values as competition.yaml has them; why: of each guessed key, such as columns.group, the reason."""

    folder: Path
    values: dict[str, Any]  # that were given: never guessed
    found: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def given(self, section: str, key: str) -> bool:
        return key in self.values.get(section, {})

    def value(self, section: str, key: str) -> Any:
        """Given or found."""
        return self.values.get(section, {}).get(key, self.found.get(section, {}).get(key))

    def put(self, section: str, key: str, value: Any, why: str) -> None:
        if not self.given(section, key):
            self.found.setdefault(section, {})[key] = value
            self.why[f"{section}.{key}"] = why

    def top(self, key: str, value: Any, why: str) -> None:
        if key not in self.values:
            self.found[key] = value
            self.why[key] = why

    def table(self, key: str) -> TableFile | None:
        value = self.values[key] if key in self.values else self.found.get(key)
        value = value[0] if isinstance(value, list) and value else value
        return TableFile(**value) if value else None

    def read(self, table: TableFile | dict[str, Any]) -> pd.DataFrame:
        table = TableFile(**table) if isinstance(table, dict) else table
        return read_table(self.folder / table.file, (), table.separator, table.encoding)


def pick(table: pd.DataFrame, names: Sequence[str]) -> str | None:
    lower = {str(column).lower(): str(column) for column in reversed(table.columns)}
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)
