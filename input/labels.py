"""Label cells as they come -> the labels of every clip and the matrix of targets."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from configs.competition import LABEL_SEPARATOR
from console.errors import UserError, list_some
from console.output import warn
from input.names import nfc, respell

Labels = tuple[str, ...]  # of one clip
NOTHING = "None"  # published label of test clips that are not scored; never a class of a training table


def one_hot(labels: Iterable[str], classes: Labels) -> np.ndarray:
    """(clips, classes) float32 with a 1 at the label of each clip."""
    return targets_of([(label,) for label in labels], classes)


def targets_of(
    labels: Sequence[Labels], classes: Labels, secondary: Sequence[Labels] = (), weight: float | None = 0.5
) -> np.ndarray:
    """(clips, classes) float32: 1 a label, `weight` a secondary label (None: NaN, not known), 0 none. Secondary
    labels that are no class are left out. Raises KeyError of another label that is none."""
    index = {name: i for i, name in enumerate(classes)}
    targets = np.zeros((len(labels), len(classes)), dtype=np.float32)
    for row, names in enumerate(secondary):
        targets[row, [index[name] for name in names if name in index]] = np.nan if weight is None else weight
    for row, names in enumerate(labels):
        targets[row, [index[name] for name in names]] = 1
    return targets


def label_matrix(labels: Iterable[str], classes: Labels) -> np.ndarray:
    """(clips, classes) bool from label text as `Competition.train` and `read_truth` have it: 'Bark|Meow', '' for
    none. Raises KeyError of a label that is no class."""
    texts = list(labels)
    index = {name: i for i, name in enumerate(classes)}
    matrix = np.zeros((len(texts), len(classes)), dtype=bool)
    for row, text in enumerate(texts):
        matrix[row, [index[name] for name in split_text(text)]] = True
    return matrix


def split_text(text: str) -> Labels:
    """The labels of label text in our own form."""
    return tuple(text.split(LABEL_SEPARATOR)) if text else ()


def join_text(labels: Iterable[str]) -> str:
    return LABEL_SEPARATOR.join(sorted(labels))


def split_cell(cell: str, separator: str | None) -> Labels:
    """The labels of a cell, without blanks and quotes round them: a Python list as text, or split at the separator.

    A label appears once. separator: None takes the cell as one label.
    """
    cell = cell.strip()
    if (listed := as_list(cell)) is not None:
        return listed
    parts = [cell] if separator is None else re.split(_pattern(separator), cell)
    bare = (_unquoted(part.strip()) for part in parts)
    return tuple(dict.fromkeys(part for part in bare if part))


def as_list(cell: str) -> Labels | None:
    """The labels of a Python list or set as text; None for other text."""
    if not re.fullmatch(r"\[.*\]|\{.*\}", cell.strip(), re.DOTALL):
        return None
    try:
        value = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    if not isinstance(value, list | set):
        return None
    return tuple(dict.fromkeys(str(item).strip() for item in value if str(item).strip()))


def _pattern(separator: str) -> str:
    return r"\s+" if separator == " " else re.escape(separator)


def _unquoted(text: str) -> str:
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def in_one_form(place: Path, labels: list[Labels]) -> list[Labels]:
    """Merge labels that only differ in their Unicode form into one class."""
    composed = {label: nfc(label) for label in {label for some in labels for label in some}}
    forms = Counter(composed.values())
    if double := sorted(label for label, n in forms.items() if n > 1):
        warn(f"{place}: labels in two Unicode forms count as one class: {list_some(double)}")
    spelling = {label: one if forms[one] > 1 else label for label, one in composed.items()}
    return [tuple(dict.fromkeys(spelling[label] for label in some)) for some in labels]


def spell(labels: list[Labels], classes: Labels) -> list[Labels]:
    """Labels in the Unicode form of the classes."""
    names = sorted({label for some in labels for label in some})
    spelling = dict(zip(names, respell(names, classes), strict=True))
    return [tuple(dict.fromkeys(spelling[label] for label in some)) for some in labels]


def check_single(place: Path, names: pd.Series, cells: pd.Series, separator: str) -> None:
    """Raises UserError unless every cell of a single-label task names one class. separator: of the submission's labels,
    which no class may contain; '' where it names one label a clip."""
    bare = cells.str.strip()
    several = bare.str.contains(r"[\s,;|]" if separator == " " else r"[|]", regex=True)
    nothing = bare.isin(["", NOTHING])
    for bad, fact, line in (
        (several, "several labels in one cell of a single_label task", "task: multi_label, label_separator: ','"),
        (nothing, "a label must be one word", "task: multi_label, where a clip may have none"),
    ):
        if bad.any():
            clips = [f"{name} ({cell!r})" for name, cell in zip(names[bad], cells[bad], strict=True)]
            raise UserError(f"{place}: {fact}: {list_some(clips)}; in competition.yaml: {line}")


def find_label_separator(cells: Iterable[str], classes: Iterable[str] = ()) -> str | None:
    """The separator of cells with several labels: every part of such a cell is a class or appears on its own or in
    other cells too, so that 'Frying, with oil' stays one label. None where cells hold one label each. Where no part is
    on its own, a blank or slash separates nothing: 'left hand', 'right hand', 'left foot', 'right foot'.

    classes: as the sample submission names them; empty where it does not.
    """
    bare = {cell.strip() for cell in cells} - {""}
    known = set(map(nfc, classes))
    if known and {nfc(_unquoted(cell)) for cell in bare} <= known:
        return None
    for separator in (",", ";", LABEL_SEPARATOR, "/", " "):
        several = [parts for cell in bare if len(parts := split_cell(cell, separator)) > 1]
        if not several:
            continue
        seen = Counter(map(nfc, (part for some in several for part in some)))
        alone = {nfc(_unquoted(cell)) for cell in bare}
        held = known or alone | {part for part, n in seen.items() if n > 1}
        good = sum(all(nfc(part) in held for part in some) for some in several)
        on_its_own = set(seen) & alone or (good == len(several) and separator not in "/ ")
        if good == len(several) if known else 2 * good > len(several) and on_its_own:
            return separator
    return None
