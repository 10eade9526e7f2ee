"""Where every file lies."""

from dataclasses import dataclass
from pathlib import Path

from configs.schema import require_plain
from console.errors import UserError
from console.options import INPUT, WORK

DEFAULT_CONFIG = Path(__file__).parent / "resnetish18.yaml"  # the experiment of a command that names none


@dataclass(frozen=True)
class Paths:
    """The competition's folder (read) and the work folder (written, everything in it can be made again)."""

    input: Path = INPUT
    work: Path = WORK

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
