"""Which of the ready descriptions a folder fits: by the names of its files and the headers of its tables."""

from collections.abc import Callable
from pathlib import Path

from console.errors import UserError
from input.guesses import FSDKAGGLE2019
from input.names import is_sound
from input.sound_files import list_files
from input.tables import read_table
from input.zips import is_file


def recognise(folder: Path) -> str | None:
    """The name of the description. A folder without any table gets that of 2018, whose missing parts are then named."""
    return next((name for name, fits in SHAPES.items() if fits(folder)), None)


def header(file: Path) -> list[str]:
    """The columns of a table; none where it is not there or not readable."""
    try:
        return [str(column) for column in read_table(file, (), None).columns]
    except UserError:
        return []


def _has(folder: Path, *names: str) -> bool:
    """Whether one of these is there, as a folder or as its zip."""
    return any((folder / name).exists() or (folder / f"{name}.zip").exists() for name in names)


def _is_2018(folder: Path) -> bool:
    train, sample = folder / "train.csv", folder / "sample_submission.csv"
    if is_file(sample) and header(sample)[:2] not in ([], ["fname"], ["fname", "label"]):
        return False
    if len(header(sample)) > 2:
        return False
    if is_file(train) and not {"fname", "label"} <= set(header(train)):
        return False
    if is_file(train) and not is_file(sample) and not _has(folder, "audio_test"):
        return False  # a competition without a test set
    tables = is_file(train) and is_file(sample) and not _sounds_elsewhere(folder)
    return tables or _has(folder, "audio_train", "audio_test") or not _any_table_or_sound(folder)


def _sounds_elsewhere(folder: Path) -> bool:
    """Whether the clips are not where those of 2018 are, but somewhere else."""
    inner = [one for one in folder.iterdir() if one.is_dir()]
    return not _has(folder, "audio_train") and any(map(_holds_sound, (folder, *inner)))


def _holds_sound(folder: Path) -> bool:
    try:
        return any(map(is_sound, list_files(folder)))
    except UserError:
        return False


def _any_table_or_sound(folder: Path) -> bool:
    if any(folder.glob("*.csv")) or any(folder.glob("*/*.csv")):
        return True
    inner = [one for one in (*folder.iterdir(), *folder.glob("*/*")) if one.is_dir()]
    return any(map(_holds_sound, (folder, *inner)))


def _is_2018_zenodo(folder: Path) -> bool:
    return (folder / "FSDKaggle2018.meta").is_dir() and not is_file(folder / "train.csv")


def _is_2019(folder: Path) -> bool:
    if not {"fname", "labels"} <= set(header(folder / "train_curated.csv")):
        return False
    sample = set(header(folder / "sample_submission.csv"))
    return is_file(folder / "train_noisy.csv") or sample >= FSDKAGGLE2019


def _is_2019_zenodo(folder: Path) -> bool:
    return is_file(folder / "FSDKaggle2019.meta" / "train_curated_post_competition.csv")


def _is_esc(folder: Path) -> bool:
    tables = [file for file in sorted(folder.glob("meta/esc*.csv")) if not file.stem.endswith("_test")]
    return len(tables) == 1 and {"filename", "fold", "category"} <= set(header(tables[0]))


def _is_urbansound(folder: Path) -> bool:
    return {"slice_file_name", "fold", "class"} <= set(header(folder / "metadata" / "UrbanSound8K.csv"))


def _is_birdclef(folder: Path) -> bool:
    return {"filename", "primary_label", "secondary_labels"} <= set(header(folder / "train_metadata.csv"))


SHAPES: dict[str, Callable[[Path], bool]] = {  # the first that fits
    "fsdkaggle2018_zenodo": _is_2018_zenodo,
    "fsdkaggle2019_zenodo": _is_2019_zenodo,
    "fsdkaggle2019": _is_2019,
    "esc50": _is_esc,
    "urbansound8k": _is_urbansound,
    "birdclef": _is_birdclef,
    "fsdkaggle2018": _is_2018,
}
