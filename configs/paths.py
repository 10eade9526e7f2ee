"""Where every file is."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from configs.schema import require_plain
from console.errors import UserError
from console.options import INPUT, WORK

DEFAULT_CONFIG = Path(__file__).parent / "resnetish18.yaml"  # used without --config


@dataclass(frozen=True)
class Paths:
    """The competition's folder (only read) and the work folder (written; all of it can be made again)."""

    input: Path = INPUT
    work: Path = WORK
    described_by: str | None = None  # the competition: a ready description or a file, as --as names it; None: found

    @property
    def options(self) -> str:
        """' --input DIR --as NAME --work DIR' without the defaults: what a command that follows this one needs too."""
        given = {"input": self.input, "as": self.described_by, "work": self.work}
        usual = {"input": INPUT, "as": None, "work": WORK}
        return "".join(f" --{key} {shlex.quote(str(one))}" for key, one in given.items() if one != usual[key])

    def absolute(self) -> "Paths":
        """For jobs whose current folder is another."""
        return replace(self, input=self.input.absolute(), work=self.work.absolute())

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
        """Cached predictions of test clips that were not part of the runs' competition."""
        return self.work / "predictions"

    @property
    def studies(self) -> Path:
        return self.work / "studies"

    def ensemble(self, name: str) -> Path:
        """Raises UserError if the name would point to another folder."""
        try:
            require_plain(name, f"blend {name!r}: a name")
        except ValueError as error:
            raise UserError(str(error)) from None
        return self.ensembles / name

    def run(self, experiment: str, fold: int) -> Path:
        return self.runs / experiment / f"fold{fold}"
