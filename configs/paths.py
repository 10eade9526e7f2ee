"""Where every file lies."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from configs.schema import require_plain
from console.errors import UserError

DEFAULT_CONFIG = Path(__file__).parent / "resnetish18.yaml"  # the experiment of a command that names none


def expand_home(text: str) -> Path:
    """The path, with a leading ~ or ~user as that home folder. Raises UserError where there is no such home.

    A shell leaves the ~ in --work=~/w as it is, and pathlib would make a folder of that name. ./~ is a folder named ~.
    """
    path = Path(text)
    if not text.startswith("~"):
        return path.absolute() if path.parts[:1] and path.parts[0].startswith("~") else path  # no library expands it
    if path.parts[0] == "~" and not Path(os.environ.get("HOME", "/")).is_absolute():
        raise UserError(f"{text}: the environment variable HOME is {os.environ['HOME']!r}: write the path in full")
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no home folder {path.parts[0]}: write the path in full") from None


def as_path(text: str) -> Path:
    """`expand_home` for argparse, the type of every path option."""
    try:
        return expand_home(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@dataclass(frozen=True)
class Paths:
    """The competition's folder (read) and the work folder (written, everything in it can be made again)."""

    input: Path = Path("input/freesound-audio-tagging")
    work: Path = Path("work")

    @property
    def features(self) -> Path:
        return self.work / "features"

    @property
    def folds(self) -> Path:
        return self.work / "folds"

    @property
    def runs(self) -> Path:
        return self.work / "runs"

    @property
    def ensembles(self) -> Path:
        return self.work / "ensembles"

    @property
    def predictions(self) -> Path:
        """Of test clips that the runs were not trained beside."""
        return self.work / "predictions"

    @property
    def studies(self) -> Path:
        return self.work / "studies"

    def ensemble(self, name: str) -> Path:
        """Raises UserError on a name that would lead elsewhere."""
        try:
            require_plain(name, f"blend {name!r}: a name")
        except ValueError as error:
            raise UserError(str(error)) from None
        return self.ensembles / name

    def run(self, experiment: str, fold: int) -> Path:
        return self.runs / experiment / f"fold{fold}"


def add_folders(parser: argparse.ArgumentParser) -> None:
    """The options --input and --work, which most commands have."""
    parser.add_argument(
        "--input", type=as_path, metavar="DIR", default=Paths.input, help="the competition (%(default)s)"
    )
    parser.add_argument(
        "--work", type=as_path, metavar="DIR", default=Paths.work, help="all that is made (%(default)s)"
    )
