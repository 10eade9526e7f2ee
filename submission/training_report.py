"""kit_runs.json: what a training kernel leaves behind, file by file, so that nothing of it is taken unseen."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from configs.forms import read_json
from console.errors import UserError, count
from runs.run_folder import CHECKPOINT

REPORT = "kit_runs.json"
Ended = Literal["finished", "time limit", "failed"]
RUN = re.compile(r"([\w.-]+)/fold(\d{1,5})")  # <experiment>/fold<k>
FILE = re.compile(r"\w[\w.-]*")  # a name in such a folder


@dataclass(frozen=True)
class OutputFile:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class TrainingReport:
    """The file itself. Runs are named <experiment>/fold<k>."""

    manifest_sha256: str  # of the bundle that it was made by
    job: str  # which experiments and folds of which competition
    ended: Ended
    expected: tuple[str, ...]  # runs that were asked for
    finished: tuple[str, ...] = ()
    begun: dict[str, int] = field(default_factory=dict)  # run -> whole epochs behind its checkpoint
    files: dict[str, OutputFile] = field(default_factory=dict)  # path -> content, all under runs/

    @property
    def progress(self) -> str:
        """'3 of 10 folds finished, 1 other begun'."""
        begun = f", {count(len(self.begun), 'other')} begun" if self.begun else ""
        return f"{len(self.finished)} of {count(len(self.expected), 'fold')} finished{begun}"

    def of_run(self, run: str) -> dict[str, OutputFile]:
        """The files of a finished run, by their name in its folder."""
        start = f"runs/{run}/"
        return {path.removeprefix(start): file for path, file in self.files.items() if path.startswith(start)}


def read_report(file: Path, remedy: str) -> TrainingReport:
    """Raises UserError where it is damaged, or names a file outside its runs."""
    report = read_json(file, TrainingReport, remedy)
    if wrong := [run for run in (*report.expected, *report.finished, *report.begun) if not is_run(run)]:
        raise UserError(f"{file}: {wrong[0]!r} is no run: {remedy}")
    known = {f"runs/{run}" for run in report.finished} | {f"runs/{run}.partial" for run in report.begun}
    places = {path: PurePosixPath(path) for path in report.files}
    if wrong := [path for path, at in places.items() if str(at.parent) not in known or not FILE.fullmatch(at.name)]:
        raise UserError(f"{file}: {wrong[0]!r} is in none of its runs: {remedy}")
    if lacking := [run for run in report.finished if "manifest.json" not in report.of_run(run)]:
        raise UserError(f"{file}: lists no manifest.json of {lacking[0]}: {remedy}")
    return report


def is_run(name: str) -> bool:
    found = RUN.fullmatch(name)
    return found is not None and not found[1].startswith(".") and not found[1].endswith((".partial", ".old"))


def runs_in(folder: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """The finished runs under <folder>/runs, and of the unfinished ones those with a checkpoint, with their epochs."""
    finished, begun = list[str](), dict[str, int]()
    for one in sorted((folder / "runs").glob("*/fold*")):
        name = f"{one.parent.name}/{one.name}"
        if is_run(name) and (one / "manifest.json").is_file():
            finished.append(name)
        elif one.suffix == ".partial" and (one / CHECKPOINT).is_file():
            lines = (one / "metrics.csv").read_text().splitlines()
            begun[name.removesuffix(".partial")] = len(lines) - 1
    return tuple(finished), begun


def list_files(folder: Path, finished: Iterable[str], begun: Iterable[str]) -> dict[str, OutputFile]:
    """The files of these runs under <folder>/runs, with their content."""
    from runs.provenance import file_sha256

    runs = [*finished, *(f"{run}.partial" for run in begun)]
    there = sorted(file for run in runs for file in (folder / "runs" / run).iterdir() if file.is_file())
    return {file.relative_to(folder).as_posix(): OutputFile(file.stat().st_size, file_sha256(file)) for file in there}
