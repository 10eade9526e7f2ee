"""Tables as they come: text with any separator and encoding, keyed by the names of the clips."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import pandas as pd

from configs.text import UTF16, is_utf16
from console.errors import UserError, list_some
from input.names import nfc

SEPARATORS = (",", ";", "\t")
UNIT = "(time|times|s|sec|secs|seconds)?"  # of a header, its letters alone
START, END = re.compile(f"(start|begin|onset|tmin|mint){UNIT}"), re.compile(f"(end|stop|offset|tmax|maxt){UNIT}")
ROW, SECONDS = re.compile("rowid"), re.compile("seconds|endtime")  # of BirdCLEF
NO_KEYS: Mapping[str, str] = MappingProxyType({})


def read_table(
    path: Path,
    needed: tuple[str, ...],
    separator: str | None = ",",
    encoding: str = "utf-8",
    keys: Mapping[str, str] = NO_KEYS,
) -> pd.DataFrame:
    """A CSV with every value as text ('None' stays a word). separator: None takes the one that the header has. keys: of
    needed columns that competition.yaml names, the key that does.

    Raises UserError if it cannot be read or a needed column is missing.
    """
    try:
        with path.open("rb") as file:
            if encoding == "utf-8" and is_utf16(file.read(2)):
                raise ValueError(UTF16)
        separator = separator or find_separator(path, encoding)
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding=encoding, sep=separator)
    except OSError as error:
        raise UserError(f"{path}: cannot read the table: {error.strerror or error}") from None
    except (ValueError, LookupError) as error:  # pandas' parser errors are ValueErrors
        name = "latin-1" if encoding == "utf-8" else "utf-8"
        remedy = (
            f": give its encoding in competition.yaml: {{file: {path.name}, encoding: {name}}}, or save it as UTF-8"
        )
        remedy = remedy if isinstance(error, UnicodeError | LookupError) else ""
        raise UserError(f"{path}: cannot read the table: {' '.join(str(error).split())}{remedy}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas makes an index of fields without a header
        raise UserError(f"{path}: rows have more fields than the header {', '.join(map(str, table.columns))}")
    table.columns = table.columns.astype(str).str.strip()
    if double := [column for column in needed if f"{column}.1" in table]:  # pandas' name for the second
        raise UserError(f"{path}: the header has {list_some(double)} twice: keep one column of that name")
    if missing := [column for column in needed if column not in table]:
        raise no_column(path, missing, table.columns, keys)
    return table


def chosen_rows(path: Path, raw: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    """The rows with these values, column -> value, in upper or lower case. Raises UserError on a column that the table
    lacks, and where no row is left."""
    if lacking := [column for column in where if column not in raw]:
        raise no_column(path, lacking, raw.columns, dict.fromkeys(lacking, "where.column"))
    for column, value in where.items():
        bare = raw[column].str.strip()
        there, raw = sorted(set(bare)), raw[bare.str.lower() == value.strip().lower()]  # True, as others write TRUE
        if raw.empty:
            raise UserError(f"{path}: no row has {value!r} in {column}: where: has one of {list_some(there)}")
    return raw.reset_index(drop=True)


def no_column(path: Path, missing: Sequence[str], there: Iterable[str], keys: Mapping[str, str] = NO_KEYS) -> UserError:
    """The error of columns that a table lacks, with the likely ones and the line that names them."""
    columns = list(map(str, there))
    near = {one: likely for one in missing if (likely := likely_column(one, columns))}
    hint = f"; did you mean {', '.join(near.values())}?" if near else ""
    lines = [line for one in missing if one in keys for line in [_line(keys[one], near.get(one, "COLUMN"))]]
    remedy = f"{' correct it' if hint else ';'} in competition.yaml: {', '.join(lines)}" if lines else ""
    return UserError(f"{path}: missing column {list_some(missing)}; it has {', '.join(columns)}{hint}{remedy}")


def time_columns(table: pd.DataFrame) -> list[str]:
    """The columns that say which part of a recording a row is about, as start and end, t_min and t_max, or the row_id
    and seconds of BirdCLEF; none where a row is a clip. UrbanSound8K's name each slice by a file of its own."""
    bare = {re.sub("[^a-z]", "", str(column).lower()): str(column) for column in table.columns}
    if "slicefilename" in bare:
        return []
    for first, last in (START, END), (ROW, SECONDS):
        pair = [next((bare[one] for one in bare if side.fullmatch(one)), None) for side in (first, last)]
        if None not in pair:
            return [one for one in pair if one is not None]
    return []


def no_clips(path: Path, columns: Sequence[str]) -> UserError:
    """The error of a table of parts of recordings."""
    return UserError(
        f"{path}: its rows are parts of recordings ({', '.join(columns)}), and only whole clips with their labels can "
        f"be used: cut each part into a file of its own and list these files; where each row is a whole file already, "
        f"in competition.yaml: columns: {{name: COLUMN}}"
    )


def likely_column(name: str, there: Iterable[str]) -> str | None:
    lower = {str(column).lower(): str(column) for column in there}
    return next((lower[one] for one in difflib.get_close_matches(name.lower(), lower, n=1)), None)


def _line(key: str, column: str) -> str:
    section, _, name = key.partition(".")
    return f"{section}: {{{name}: {column}}}"


def find_separator(path: Path, encoding: str = "utf-8") -> str:
    """The separator that the header has most often, a comma where it has none."""
    with path.open(encoding=encoding, errors="replace") as lines:
        header = lines.readline()
    return max(SEPARATORS, key=header.count)


def read_names(path: Path, needed: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table with one row per clip, keyed by a bare file name, every value as text.

    Raises UserError if a needed column is missing, there are no rows, or an fname appears twice or is a path.
    """
    table = read_table(path, ("fname", *needed))
    check_names(path, table["fname"])
    return table


def check_names(path: Path, names: pd.Series, with_folder: bool = False) -> None:
    """Raises UserError unless these are the names of different clips. with_folder: a name may be folder/file."""
    column = names.name
    if names.empty:
        raise UserError(f"{path}: has no rows")
    if strange := [name for name in names if not is_name(name, with_folder)]:
        inside = any(is_name(name, True) for name in strange)
        remedy = "; in competition.yaml: audio: {names_with_folder: true}" if inside else ""
        what = "a path inside the folder of sounds" if with_folder else "a file name without a path"
        raise UserError(f"{path}: {column} must be {what}: {list_some(map(repr, strange))}{remedy}")
    if duplicate := sorted(set(names[names.duplicated()])):
        raise UserError(f"{path}: {column} appears more than once: {list_some(duplicate)}")
    composed = names.map(nfc)
    if duplicate := sorted(set(composed[composed.duplicated()])):
        raise UserError(f"{path}: {column} appears more than once, in two Unicode forms: {list_some(duplicate)}")


def is_name(name: str, with_folder: bool = False) -> bool:
    """Whether it names a file and leaves no folder."""
    parts = PurePosixPath(name).parts
    if "\\" in name or not parts or name.startswith("/") or {".", ".."} & {*parts, name}:
        return False
    return with_folder or "/" not in name
