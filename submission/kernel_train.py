"""Train experiments from a bundle until they are finished or the time is over: what the training kernel runs.

python -m submission.kernel_train --bundle DIR --inputs DIR --competition SLUG --output DIR --limit 30600
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from configs.files import write
from configs.forms import read_json
from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError, list_some
from console.options import as_path, command_parser
from console.output import muted, say, warn
from submission.kernel_script import MANIFEST_NAME, folders_with
from submission.training_bundle import DESCRIPTION, EXPERIMENTS, VERB, Job
from submission.training_report import REPORT, Ended, TrainingReport, list_files, read_report, runs_in

AGAIN = "push again with submission.push --train"
POLL = 1.0  # seconds
GRACE = 120.0  # seconds to end by itself; a kill leaves the last whole epoch too
NEEDED = "torch torchaudio numpy pandas scipy yaml pydantic filelock joblib soundfile safetensors timm tensorboard rich"
NEEDED += " pytorch_lightning threadpoolctl"  # what training imports beyond Python's own


def main() -> None:
    parser = command_parser(__doc__.partition("\n")[0], prog="python -m submission.kernel_train")
    parser.add_argument("--bundle", type=as_path, required=True, help="what submission.push --train packed")
    parser.add_argument("--inputs", type=as_path, required=True, help="the competition lies anywhere under it")
    parser.add_argument("--competition", required=True, metavar="SLUG", help="the name of its folder")
    parser.add_argument("--output", type=as_path, required=True, help=f"the folder of runs/ and {REPORT}")
    parser.add_argument("--limit", type=float, required=True, metavar="SECONDS", help="stop after so long")
    parser.add_argument("--gpu", action="store_true", help="refuse a machine without a GPU")
    parser.add_argument("--previous", metavar="SHA256", help=f"go on from the output with this {REPORT}")
    parser.add_argument("--scratch", type=as_path, help="where features go (a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        bundle, output = args.bundle.absolute(), args.output.absolute()  # links lead there, from other folders
        work = Path(scratch).absolute()
        train(bundle, args.inputs.absolute(), args.competition, output, work, args.limit, args.previous, args.gpu)


def train(
    bundle: Path,
    inputs: Path,
    slug: str,
    output: Path,
    scratch: Path,
    limit: float,
    previous: str | None = None,
    gpu: bool = False,
) -> None:
    """Leave runs/, whole or with the last whole epoch, and kit_runs.json in `output`.

    Raises UserError on a library, a GPU, a competition or an earlier output that is missing or does not fit. A fold
    that fails is told in kit_runs.json instead, so that the other ones are kept.
    """
    end = time.monotonic() + limit
    check_libraries()
    check_gpu(print_machine(), gpu)
    job = read_json(bundle / MANIFEST_NAME, Job, AGAIN)
    described_by = str(bundle / DESCRIPTION) if job.described_by == DESCRIPTION else job.described_by
    paths = Paths(find_competition(inputs, slug, scratch), scratch / "work", described_by)
    expected = check_folds(bundle, job, paths)
    if previous:
        fetch_previous(inputs, previous, job, output)
    lay_out(bundle, paths, output, expected, scratch / "here")
    command = [sys.executable, bundle / "code" / VERB, "--config", bundle / EXPERIMENTS, "--fold", job.folds]
    command += ["--input", paths.input, "--work", paths.work, "--jobs", "auto"]
    command += ["--as", described_by] if described_by else []
    status = run_until(end, list(map(str, command)), scratch / "here", job)
    report = report_on(output, job, sha256_of(bundle / MANIFEST_NAME), expected, status)
    write(output / REPORT, json.dumps(asdict(report), indent=1) + "\n")
    say(f"{report.ended}: {report.progress} -> {output / REPORT}")


def check_libraries() -> None:
    """Raises UserError that names what this machine lacks."""
    if lacking := [name for name in NEEDED.split() if importlib.util.find_spec(name) is None]:
        raise UserError(f"not installed here: {list_some(lacking)}: bring their wheels with submission.push --wheel")


def print_machine() -> list[str]:
    """Print the versions, and return the GPUs, before anything that could fail because of them; CUDA is left to the
    processes that train."""
    from runs.provenance import library_versions

    say(", ".join(f"{name} {version}" for name, version in library_versions().items() if version))
    found = ""
    if shutil.which("nvidia-smi"):
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    devices = [line.partition(" (UUID")[0] for line in found.splitlines()]
    say(f"devices: {', '.join(devices) or f'CPU with {len(os.sched_getaffinity(0))} cores'}")
    return devices


def check_gpu(there: list[str], expected: bool) -> None:
    """Raises UserError where Kaggle gave this kernel no GPU: the hours on its CPU would be lost."""
    if expected and not there:
        raise UserError(
            "no GPU here, though one was asked for: confirm your phone number at https://www.kaggle.com/settings, or "
            "push it with --machine cpu"
        )


def find_competition(inputs: Path, slug: str, scratch: Path) -> Path:
    """The competition's folder, wherever Kaggle has mounted it; with links to its content where that holds zips, since
    they are unpacked beside themselves. Raises UserError where there is none."""
    there = (Path(folder) for folder, inner, files in os.walk(inputs) if inner or files)
    named = sorted((folder for folder in there if folder.name == slug), key=lambda folder: len(folder.parts))
    if not named:
        raise UserError(f"{inputs}: no folder {slug}: attach the competition to this kernel")
    found = named[0]
    if not any(found.glob("*.zip")):
        return found
    links = scratch / "input" / slug
    links.mkdir(parents=True)
    for entry in found.iterdir():
        (links / entry.name).symlink_to(entry)
    return links


def check_folds(bundle: Path, job: Job, paths: Paths) -> tuple[str, ...]:
    """The runs that are asked for, <experiment>/fold<k>. Raises UserError where the table of folds is another here than
    where the job comes from: what is trained would fit nothing there."""
    from configs.load import load_configs
    from folds.assign import fold_hash, folds_of, load_folds
    from input.competition import load_competition

    with muted():  # training reads it again and reports it
        competition = load_competition(paths.input, sound=False, described_by=paths.described_by)
        experiments = load_configs(bundle / EXPERIMENTS)
        hashes = {cfg.name: fold_hash(load_folds(cfg.folds, competition, paths.folds)) for cfg in experiments}
    if other := [name for name, digest in job.fold_hashes.items() if hashes[name] != digest]:
        raise UserError(
            f"{paths.input}: other clips, labels or folds than where this was pushed from, for {list_some(other)}: "
            f"download the competition with python -m input.download {job.competition}, then {AGAIN}"
        )
    return tuple(f"{cfg.name}/fold{k}" for cfg in experiments for k in folds_of(job.folds, cfg.folds, competition))


def fetch_previous(inputs: Path, digest: str, job: Job, output: Path) -> None:
    """Copy the runs of an earlier kernel's output. Raises UserError where it is not attached, or is not whole."""
    found = [Path(folder) for folder in folders_with(inputs, REPORT) if sha256_of(Path(folder, REPORT)) == digest]
    if not found:
        raise UserError(f"{inputs}: the output with {REPORT} {digest[:12]} is not attached: {AGAIN}")
    report = read_report(found[0] / REPORT, AGAIN)
    if report.job != job.job:
        raise UserError(f"{found[0]}: the output of another training: {AGAIN}")
    for path, file in report.files.items():
        target = output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (found[0] / path).is_file():
            shutil.copyfile(found[0] / path, target)
        if not target.is_file() or sha256_of(target) != file.sha256:
            raise UserError(f"{found[0] / path}: missing or changed since that kernel ended: {AGAIN}")
    say(f"{found[0]}: going on: {report.progress}")


def lay_out(bundle: Path, paths: Paths, output: Path, expected: tuple[str, ...], here: Path) -> None:
    """The work folder, whose runs of these experiments lie in the output, and the current folder `here`, in which the
    files have the names that the experiments know."""
    paths.runs.mkdir(parents=True)
    for name in {run.partition("/")[0] for run in expected}:
        (output / "runs" / name).mkdir(parents=True, exist_ok=True)
        (paths.runs / name).symlink_to(output / "runs" / name)
    for source in sorted((bundle / "runs").glob("*")):
        if not (paths.runs / source.name).exists():
            (paths.runs / source.name).symlink_to(source)
    here.mkdir()
    for entry in sorted((bundle / "files").glob("*")):
        (here / entry.name).symlink_to(entry)


def run_until(end: float, command: list[str], folder: Path, job: Job) -> int | None:
    """The exit status of the command; None where the time was over before it ended, and it was stopped."""
    from runs.provenance import REVISION

    process = subprocess.Popen(command, cwd=folder, env={**os.environ, REVISION: job.git_revision or ""})
    while process.poll() is None:
        if time.monotonic() >= end:
            say("the time is over: training stops, the last whole epoch of each fold is kept")
            stop(process)
            return None
        time.sleep(POLL)
    if process.returncode:
        warn(f"{VERB} ended with status {process.returncode}, see its messages above")
    return process.returncode


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()  # its workers end with it
        process.wait()


def report_on(
    output: Path, job: Job, manifest_sha256: str, expected: tuple[str, ...], status: int | None
) -> TrainingReport:
    """What lies in the output, once what is worth nothing elsewhere was removed. status: that of training, None where
    it was stopped."""
    tidy(output, expected)
    finished, begun = runs_in(output)
    ended: Ended = "time limit" if status is None else "failed"
    if set(expected) <= set(finished):
        ended = "finished"
    files = list_files(output, finished, begun)
    return TrainingReport(manifest_sha256, job.job, ended, expected, finished, begun, files)


def tidy(output: Path, expected: tuple[str, ...]) -> None:
    """Remove locks and folds without a whole epoch; a fold that was stopped when it was whole takes its name."""
    from runs.run_folder import CHECKPOINT, partial_of, recover

    for run in expected:
        recover(final := output / "runs" / run)
        if (partial := partial_of(final)).exists() and not (partial / CHECKPOINT).exists():
            shutil.rmtree(partial)
    for left in list((output / "runs").rglob(".*")):
        if left.is_file():
            left.unlink()


def sha256_of(file: Path) -> str:
    from runs.provenance import file_sha256

    return file_sha256(file)


if __name__ == "__main__":
    run_command(main)
