"""Take the bundle to Kaggle: dataset, kernel, its output, and with --submit the score.

python -m submission.push
python -m submission.push --submit -m "mean of three"
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.files import atomic, lock, new_folder, recover
from configs.forms import read_json
from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError
from console.options import command_parser, share
from console.output import say
from input.kaggle_client import Kaggle
from submission import kernel_script as script
from submission.bundle import METADATA, title_of
from submission.kaggle_dataset import digest_of, push_dataset
from submission.kernel_script import MANIFEST_NAME
from submission.upload import check_allowance, submit_file

MACHINE = "NvidiaTeslaT4"  # two of them; the faster P100 is no longer offered
REMEDY = "make the bundle again with submission.bundle"
POLL = 15.0  # seconds
KERNEL_LIMIT = 13 * 3600.0  # seconds; Kaggle stops a kernel after 12 hours, and it may have to queue


@dataclass(frozen=True)
class File:
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The part of kit_manifest.json that a push needs."""

    competition: str
    files: dict[str, File]


@dataclass(frozen=True)
class Metadata:
    """The part of dataset-metadata.json that a push needs."""

    id: str  # owner/slug


def main() -> None:
    parser = command_parser(__doc__.partition("\n")[0], prog="python -m submission.push")
    share(parser, "input", "work")
    parser.add_argument("--machine", default=MACHINE, help="Kaggle's machine_shape, or cpu (%(default)s: two T4s)")
    parser.add_argument("--submit", action="store_true", help="submit the output and wait for the score")
    share(parser, "message")
    args = parser.parse_args()
    push(Paths(args.input, args.work), args.machine, args.submit, args.message or "")


def push(paths: Paths, machine: str = MACHINE, submit: bool = False, message: str = "") -> Path:
    """Bundle -> dataset -> kernel -> <work>/kaggle/submission.csv, validated. Raises UserError where a step fails."""
    bundle = paths.work / "kaggle" / "dataset"
    busy = f"{bundle}: another submission.push is running: wait for it"
    with lock(paths.work / "kaggle" / "push", busy):
        return _push(paths, bundle, machine, submit, message)


def _push(paths: Paths, bundle: Path, machine: str, submit: bool, message: str) -> Path:
    dataset, competition = check_bundle(bundle, paths.options)
    kaggle = Kaggle()
    if kaggle.user.lower() != dataset.partition("/")[0].lower():
        raise UserError(
            f"{bundle}: made for {dataset}, but you are {kaggle.user}: use submission.bundle --owner {kaggle.user}"
        )
    if submit:
        check_allowance(kaggle, competition)  # before hours of work
    digest = digest_of(bundle)
    push_dataset(kaggle, bundle, dataset)
    folder = paths.work / "kaggle" / "kernel"
    kernel = write_kernel(folder, bundle, dataset, competition, machine)
    if digest_of(bundle) != digest:
        raise UserError(f"{bundle}: submission.bundle replaced it during the push: run submission.push again")
    push_kernel(kaggle, folder, kernel)
    wait_for_kernel(kaggle, kernel)
    output = paths.work / "kaggle" / "output"
    with new_folder(output) as fetched:
        kaggle.call(f"fetching the output of {kernel}", kaggle.api.kernels_output, kernel, str(fetched), force=True)
    submission = paths.work / "kaggle" / "submission.csv"
    check_output(output, bundle, paths.input)
    with atomic(submission) as part:
        shutil.copyfile(output / "submission.csv", part)
    say(f"{kernel}: complete -> {submission}")
    if submit:
        submit_file(kaggle, competition, submission, message or f"{dataset} {digest_of(bundle)[:12]}")
    return submission


def check_bundle(bundle: Path, options: str = "") -> tuple[str, str]:
    """The dataset's owner/slug and the competition. Raises UserError where the bundle is absent or changed."""
    recover(bundle)
    if not (bundle / MANIFEST_NAME).exists():
        raise UserError(f"{bundle}: no bundle: run python -m submission.bundle{options}")
    manifest = read_json(bundle / MANIFEST_NAME, Manifest, REMEDY)
    metadata = read_json(bundle / METADATA, Metadata, REMEDY)
    try:
        script.check(bundle, bundle)
    except SystemExit as refusal:
        raise UserError(str(refusal).removeprefix("error: ")) from None
    return metadata.id, manifest.competition


def write_kernel(folder: Path, bundle: Path, dataset: str, competition: str, machine: str) -> str:
    """The script with the manifest's hash, and kernel-metadata.json; the kernel's owner/slug."""
    owner, slug = dataset.split("/")
    kernel = f"{owner}/{slug[:42].strip('-')}-predict"
    text = Path(script.__file__).read_text()
    for name, value in (("MANIFEST_SHA256", digest_of(bundle)), ("COMPETITION", competition)):
        empty = f'{name} = ""\n'
        assert text.count(empty) == 1
        text = text.replace(empty, f'{name} = "{value}"\n')
    metadata = {
        "id": kernel,
        "title": title_of(kernel.split("/")[1]),  # the client only warns where title and id disagree
        "code_file": "predict.py",
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": machine != "cpu",
        "enable_tpu": False,
        "enable_internet": False,  # the client sends true where this is absent
        "machine_shape": "" if machine == "cpu" else machine,
        "dataset_sources": [dataset],
        "competition_sources": [competition],
        "kernel_sources": [],
        "model_sources": [],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predict.py").write_text(text)
    (folder / "kernel-metadata.json").write_text(json.dumps(metadata, indent=1))
    return kernel


def push_kernel(kaggle: Kaggle, folder: Path, kernel: str) -> None:
    """Raises UserError where Kaggle refuses the kernel or does not attach one of its inputs."""
    answer = kaggle.call(f"pushing {kernel}", kaggle.api.kernels_push, str(folder), tries=1)
    if answer.error:
        raise UserError(f"{kernel}: Kaggle refuses it: {kaggle.redact(answer.error)}")
    refused = [*answer.invalid_dataset_sources, *answer.invalid_competition_sources]
    if refused:  # the client only prints this, and the kernel runs without its input
        raise UserError(
            f"{kernel}: Kaggle did not attach {', '.join(refused)}: join the competition, check the names, push again"
        )
    say(f"{kernel}: version {answer.version_number} pushed: {answer.url}")


def wait_for_kernel(kaggle: Kaggle, kernel: str) -> None:
    """Wait until the kernel is complete. Raises UserError with the kernel's own message where it fails, or takes too
    long."""
    last = ""
    for _ in range(round(KERNEL_LIMIT / POLL)):
        answer = kaggle.call(f"looking up the status of {kernel}", kaggle.api.kernels_status, kernel)
        status = answer.status.name.lower()
        if status != last:
            say(f"{kernel}: {status}")
        last = status
        if status == "complete":
            return
        if status in ("error", "cancel_requested", "cancel_acknowledged"):
            log = kaggle.call(f"reading the log of {kernel}", kaggle.api.kernels_logs, kernel)
            message = kaggle.redact(last_message(log) or answer.failure_message or "no message")
            raise UserError(f"{kernel}: ended with {status}: {message} (https://www.kaggle.com/code/{kernel})")
        time.sleep(POLL)
    raise UserError(f"{kernel}: not done after {KERNEL_LIMIT / 3600:.0f} hours: https://www.kaggle.com/code/{kernel}")


def last_message(log: str) -> str:
    """The kernel's first 'error:' line, else its last one. A log is a JSON list of {stream_name, time, data}."""
    try:
        text = "".join(str(part.get("data", "")) for part in json.loads(log))
    except (ValueError, AttributeError):
        text = log
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "")


def check_output(output: Path, bundle: Path, competition_folder: Path) -> None:
    """Raises UserError unless the output was made from this bundle and is a valid submission."""
    from blending.apply import read_blend
    from input.competition import list_test
    from submission.packed_competition import read_packed
    from submission.submission_file import validate_submission

    try:
        report: dict[str, Any] = json.loads((output / "report.json").read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{output}: no report of the kernel ({error}): run submission.push again") from None
    if report.get("manifest_sha256") != digest_of(bundle):
        raise UserError(f"{output}: made from another bundle than {bundle}: run submission.push again")
    packed, blend = read_packed(bundle), read_blend(bundle / "weights.json", REMEDY)
    fnames = tuple(list_test(competition_folder, packed.config)["fname"])
    validate_submission(output / "submission.csv", fnames, blend.classes, packed.form)


if __name__ == "__main__":
    run_command(main)
