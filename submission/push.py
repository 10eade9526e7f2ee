"""Take the bundle to Kaggle: dataset, kernel, its output, and with --submit the score. With --train: train there.

python -m submission.push
python -m submission.push --submit -m "mean of three"
python -m submission.push --train --config configs/resnetish18.yaml --fold 0..4
"""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.files import atomic, lock, new_folder, recover
from configs.forms import read_json
from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError
from console.options import FILE, as_seconds, command_parser, share
from console.output import say
from input.kaggle_client import Kaggle
from submission import kernel
from submission import kernel_script as script
from submission.bundle import METADATA
from submission.kaggle_dataset import digest_of, push_dataset
from submission.kernel import MACHINE, push_kernel, wait_for_kernel
from submission.kernel_script import MANIFEST_NAME
from submission.upload import check_allowance, submit_file

REMEDY = "make the bundle again with submission.bundle"
OF_TRAINING = ("pull", "detach", "config", "only", "fold", "slug", "competition", "limit", "wheel", "force")
OF_PULLING = ("--pull", "--slug", "--competition", "--force")


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
    parser.add_argument("--machine", help=f"Kaggle's machine_shape, or cpu ({MACHINE}: two T4s)")
    parser.add_argument("--submit", action="store_true", help="submit the output and wait for the score")
    share(parser, "message")
    add_training(parser)
    args = parser.parse_intermixed_args()
    check_arguments(parser, args)
    paths = Paths(args.input, args.work, args.described_by)
    if args.train:
        train_or_pull(args, paths)
    else:
        push(paths, args.machine or MACHINE, args.submit, args.message or "")


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends with a usage error on options that would be ignored."""
    given = [f"--{name}" for name in OF_TRAINING if getattr(args, name)] + ["--as"] * bool(args.described_by)
    given += args.overrides
    if not args.train and given:
        parser.error(f"{given[0]}: only with --train")
    given += ["--machine"] * bool(args.machine)
    if args.pull and (wrong := [name for name in given if name not in OF_PULLING]):
        parser.error(f"{wrong[0]}: not with --pull, which only fetches")
    if args.train and (args.submit or args.message):
        parser.error("--submit and --message are not for --train: submit.py does that with the runs")


def add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--train", action="store_true", help="train on Kaggle; the run folders come to <work>/runs")
    group.add_argument("--pull", action="store_true", help="only fetch what an earlier --train has finished")
    group.add_argument("--detach", action="store_true", help="push, and do not wait; the same command goes on later")
    group.add_argument("--fold", metavar="FOLDS", help="which folds: 3, 0..4 or 0,2,4")
    share(group, "config")
    group.add_argument("--only", metavar="NAMES", help="of a file with several experiments these: a or a,b")
    share(group, "as", competition="its address on Kaggle (the name of the input folder)")
    group.add_argument("--slug", help="the name of dataset and kernels (<competition>-train)")
    group.add_argument("--limit", type=as_seconds, metavar="TIME", help="of a run on Kaggle (8h30m)")
    wheels = FILE | {"metavar": "auto|FILE"}
    group.add_argument(
        "--wheel", **wheels, nargs="+", default=[], help="wheels that Kaggle lacks; auto: pip brings them"
    )
    share(group, "overrides", force="train or fetch again what is there, and replace it")


def train_or_pull(args: argparse.Namespace, paths: Paths) -> None:
    from submission.training_push import Wish, pull, train

    competition = args.competition or paths.input.resolve().name
    slug = args.slug or f"{competition[:40].strip('-')}-train"
    if args.pull:
        pull(paths, slug, args.force)
        return
    if args.fold is None:
        raise UserError("--train: which folds? Give --fold 0..4, or --pull to fetch what was trained")

    from configs.load import chosen, load_configs
    from configs.paths import DEFAULT_CONFIG

    experiments = load_configs(args.config or DEFAULT_CONFIG, args.overrides)
    experiments = experiments if args.only is None else chosen(experiments, args.only)
    machine, limit = args.machine or MACHINE, args.limit or Wish.limit
    wish = Wish(experiments, args.fold, competition, slug, machine, limit, tuple(args.wheel))
    train(paths, wish, args.force, args.detach)


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
    ref = write_kernel(folder, bundle, dataset, competition, machine)
    if digest_of(bundle) != digest:
        raise UserError(f"{bundle}: submission.bundle replaced it during the push: run submission.push again")
    push_kernel(kaggle, folder, ref)
    wait_for_kernel(kaggle, ref)
    output = paths.work / "kaggle" / "output"
    with new_folder(output) as fetched:
        kaggle.call(f"fetching the output of {ref}", kaggle.api.kernels_output, ref, str(fetched), force=True)
    submission = paths.work / "kaggle" / "submission.csv"
    check_output(output, bundle, paths.input)
    with atomic(submission) as part:
        shutil.copyfile(output / "submission.csv", part)
    say(f"{ref}: complete -> {submission}")
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
    ref = f"{owner}/{slug[:42].strip('-')}-predict"
    constants = {"MANIFEST_SHA256": digest_of(bundle), "COMPETITION": competition}
    kernel.write_kernel(folder, ref, constants, dataset, competition, machine)
    return ref


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
