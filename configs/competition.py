"""What a competition asks for: task, metric and the form of a submission."""

from dataclasses import dataclass
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
