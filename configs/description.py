"""Descriptions of competitions as files: competition.yaml, the ready ones, and what --as names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.competition import CompetitionConfig
from configs.metric_names import check_metric
from console.errors import UserError, list_some
from console.options import expand_home

FILE_NAME = "competition.yaml"  # in the competition's folder
READY = Path(__file__).parent / "competitions"
USUAL_NAMES = {  # of our keys elsewhere, where spelling alone does not find ours
    "columns.name": ("fname", "filename", "file_name", "file", "id"),
    "columns.label": ("labels", "category", "class", "target"),
    "columns.group": ("group_column", "recording", "recorder"),
    "label_separator": ("separator", "sep", "delimiter"),
    "train.separator": ("sep", "delimiter"),
    "sample_submission": ("sample", "submission_file"),
    "submission.top_labels": ("top_k", "k"),
    "metric": ("score", "evaluation"),
}


@dataclass(frozen=True)
class Given:
    """A description as somebody wrote it: the keys that are there are facts, all others are to be found out."""

    values: dict[str, Any]
    places: dict[tuple[str, ...], str]  # where each key was given
    path: Path


def read_description(path: Path) -> Given:
    """A competition.yaml, checked. Raises UserError that names line and key."""
    from configs.strict_yaml import build, read_yaml  # here: the kernel has no yaml

    values, places = read_yaml(path, "description of a competition", "task: multi_label")
    for key in ("train", "details", "test", "sample_submission"):
        if key in values:
            values[key] = _as_table(values[key], key in ("train", "details"))
    build(CompetitionConfig, values, places, path, USUAL_NAMES)
    return Given(values, places, path)


def complete(given: Given, found: dict[str, Any]) -> CompetitionConfig:
    """The description, with what was found out where nothing is given. A section given in part is completed."""
    from configs.strict_yaml import build, place_of

    merged = dict(found)
    for key, value in given.values.items():
        merged[key] = found.get(key, {}) | value if isinstance(value, dict) and _is_section(key) else value
    built = build(CompetitionConfig, merged, given.places, given.path, USUAL_NAMES)
    if built.metric is not None:
        try:
            check_metric(built.metric, built.task)
        except UserError as error:
            raise UserError(f"{place_of(('metric',), given.places, given.path)}: {error}") from None
    return built


def ready_descriptions() -> dict[str, Path]:
    """The descriptions that come with the kit, by name."""
    return {file.stem: file for file in sorted(READY.glob("*.yaml"))}


def find_description(name: str, folder: Path) -> list[Path]:
    """The files that --as NAME_OR_FILE means: of a name also those for other releases of the data, NAME_zenodo.

    Raises UserError where there is none.
    """
    ready = ready_descriptions()
    if name in ready:
        return [ready[name], *(file for other, file in ready.items() if other.startswith(f"{name}_"))]
    for file in (expand_home(name), folder / name):
        if file.is_file():
            return [file]
    raise UserError(f"--as {name}: no such file, and no ready description: use a file, or {list_some(ready)}")


def _is_section(key: str) -> bool:
    return key in ("columns", "audio", "submission")


def _as_table(value: Any, several: bool) -> Any:
    """A file's name as the mapping that it is short for; of `train` also one table as a list."""
    if isinstance(value, list) and several:
        return [_as_table(one, False) for one in value]
    value = {"file": value} if isinstance(value, str) else value
    return [value] if several and isinstance(value, dict) else value
