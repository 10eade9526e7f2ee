"""The output of a training kernel as run folders in work/runs: whole, atomically, never over another finished run."""

import re
import shutil
from pathlib import Path

from configs.files import lock, new_folder, recover
from configs.paths import Paths
from console.errors import UserError, count, list_some
from console.output import say
from input.kaggle_client import Kaggle
from submission.training_report import REPORT, OutputFile, TrainingReport, read_report

AGAIN = "run the same command again"
PAGE = 100  # files


def fetch_report(kaggle: Kaggle, kernel: str, folder: Path) -> tuple[TrainingReport, str]:
    """kit_runs.json of a kernel that is complete, and its sha256. Raises UserError where it has none."""
    from runs.provenance import file_sha256

    _download(kaggle, kernel, f"^{re.escape(REPORT)}$", folder)
    if not (folder / REPORT).is_file():
        raise UserError(f"{kernel}: its output has no {REPORT}: see its log, then push it again")
    return read_report(folder / REPORT, AGAIN), file_sha256(folder / REPORT)


def pull_runs(kaggle: Kaggle, kernel: str, report: TrainingReport, paths: Paths, force: bool = False) -> None:
    """Every finished run of the output in work/runs, each whole or not at all; those that are there are not fetched.

    Raises UserError on files that did not arrive as they left, and after all others at other runs of these names, which
    are kept unless `force`.
    """
    kept: list[str] = []
    placed = 0
    for run in report.finished:
        final, files = paths.runs / run, report.of_run(run)
        recover(final)
        if _has(final, files):
            continue
        if final.exists() and not force:
            kept.append(str(final))
            continue
        pull_run(kaggle, kernel, run, files, final, force)
        placed += 1
    here = len(report.finished) - placed - len(kept)
    say(f"{kernel}: {count(placed, 'fold')} fetched" + (f", {here} already here" if here else "") + f" -> {paths.runs}")
    if kept:
        raise UserError(
            f"another finished run has this name, and is kept: {list_some(kept)}: rename its experiment's folder, or "
            f"replace it with submission.push --train --pull --force"
        )


def _has(final: Path, files: dict[str, OutputFile]) -> bool:
    """Whether the run folder is that of the output, by its manifest, which names the other files with their sha256."""
    from runs.provenance import file_sha256

    manifest = final / "manifest.json"
    return manifest.is_file() and file_sha256(manifest) == files["manifest.json"].sha256


def pull_run(
    kaggle: Kaggle, kernel: str, run: str, files: dict[str, OutputFile], final: Path, force: bool = False
) -> None:
    """Fetch one run. Raises UserError where it is not whole, or somebody trains it here."""

    def check_still_free() -> None:
        if final.exists() and not force:
            raise UserError(f"{final}: finished here meanwhile: it is kept")

    final.parent.mkdir(parents=True, exist_ok=True)
    with lock(final, f"{final}: another process is training this fold: wait for it, or stop it"):
        pass
    with new_folder(final, check_still_free) as partial:
        inner = partial / "download"
        _download(kaggle, kernel, f"^runs/{re.escape(run)}/", inner)
        _take(inner / "runs" / run, files, partial, f"{kernel}: {run}")
        shutil.rmtree(inner)
        check_run(partial, run, kernel)


def _download(kaggle: Kaggle, kernel: str, pattern: str, folder: Path) -> None:
    method = kaggle.api.kernels_output
    what = f"fetching the output of {kernel}"
    kaggle.call(what, method, kernel, str(folder), file_pattern=pattern, force=True, page_size=PAGE)


def _take(source: Path, files: dict[str, OutputFile], target: Path, what: str) -> None:
    """Move the listed files. Raises UserError where one did not arrive: the client writes what it is sent, and asks for
    no status."""
    from runs.provenance import file_sha256

    there = {name: source / name for name in files}
    if lost := [name for name, file in there.items() if not file.is_file() or file_sha256(file) != files[name].sha256]:
        raise UserError(f"{what}: did not arrive whole: {list_some(sorted(lost))}: {AGAIN}")
    for name, file in there.items():
        file.rename(target / name)


def check_run(folder: Path, run: str, kernel: str) -> None:
    """Raises UserError unless the folder is the finished run of that name, as its own manifest says."""
    from runs.run_folder import read_run, read_trained

    found = read_run(folder)
    read_trained(folder)  # the weights too
    if f"{found.experiment}/fold{found.fold}" != run:
        raise UserError(f"{kernel}: its {run} is {found.experiment}/fold{found.fold}: push the training again")
