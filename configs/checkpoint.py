"""The section `checkpoint` of an experiment file: where published weights come from, and what is known about them."""

from dataclasses import dataclass
from pathlib import Path

from configs.strict_yaml import Places, build, read_yaml
from console.errors import UserError, list_some

PRETRAINED = Path(__file__).parent / "pretrained"
WEIGHTS = Path("input/weights")  # where downloaded checkpoints go, and where model.weights of these files points
ALGORITHMS = ("md5", "sha256")


@dataclass(frozen=True)
class Checkpoint:
    """Published weights."""

    file: str  # its name in input/weights
    page: str  # where its authors describe it
    licence: str  # of the weights
    megabytes: float  # about
    parameters: float  # millions
    mean_ap: float  # mean average precision on AudioSet's evaluation clips, as its authors report
    seconds: float  # length of the clips that it was trained with
    url: str | None = None  # of the file; null: its authors have no direct address that works
    checksum: str | None = None  # 'sha256:<hex digits>' or 'md5:<hex digits>'; null: none is published

    def __post_init__(self) -> None:
        if self.checksum is not None and self.checksum.partition(":")[0] not in ALGORITHMS:
            raise ValueError("checksum must start with sha256: or md5:")
        if Path(self.file).name != self.file:
            raise ValueError("file must be a name without a folder")


@dataclass(frozen=True)
class _Described:
    checkpoint: Checkpoint


def checkpoint_of(section: object, places: Places, path: Path | None) -> Checkpoint:
    """The section as read from a file. Raises UserError on an unknown or missing key, or a value of the wrong type."""
    return build(_Described, {"checkpoint": section}, places, path, {}).checkpoint


def known_checkpoints() -> list[str]:
    return sorted(file.stem for file in PRETRAINED.glob("*.yaml"))


def fetched_as(file: str) -> str | None:
    """The name by which models.fetch downloads a file of published weights; None if it does not."""
    return next((name for name in known_checkpoints() if load_checkpoint(name).file == file), None)


def load_checkpoint(name: str) -> Checkpoint:
    """The checkpoint of configs/pretrained/<name>.yaml. Raises UserError, with the known names, if there is none."""
    if name not in (known := known_checkpoints()):
        raise UserError(f"{name!r}: no such checkpoint: use one of {list_some(known, len(known))}")
    path = PRETRAINED / f"{name}.yaml"
    values, places = read_yaml(path)
    return checkpoint_of(values.get("checkpoint"), places, path)
