"""Predict a competition's test clips from a bundle: what the script kernel runs, on Kaggle and anywhere else.

python -m submission.kernel_predict --bundle DIR --inputs DIR --competition SLUG --output submission.csv
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from configs.files import write
from console.command_line import run_command
from console.errors import UserError, list_some
from console.options import as_path, command_parser
from console.output import say, warn
from submission.kernel_script import MANIFEST_NAME, folders_with

SAMPLE = "sample_submission.csv"
Match = Callable[[Collection[str], Collection[str]], Mapping[str, object]]  # names and files -> a file for each name


def main() -> None:
    parser = command_parser(__doc__.partition("\n")[0], prog="python -m submission.kernel_predict")
    parser.add_argument("--bundle", type=as_path, required=True, help="what submission.bundle wrote")
    parser.add_argument("--inputs", type=as_path, required=True, help="the competition lies anywhere under it")
    parser.add_argument("--competition", required=True, metavar="SLUG", help="the name of its folder")
    parser.add_argument("--output", type=as_path, required=True, help="the submission")
    parser.add_argument("--scratch", type=as_path, help="where features go (a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        predict(args.bundle, args.inputs, args.competition, args.output, Path(scratch))


def predict(bundle: Path, inputs: Path, slug: str, output: Path, scratch: Path) -> None:
    """Write the submission and report.json beside it. Raises UserError on a bundle or competition that does not fit."""
    started = time.monotonic()
    environment = print_environment()

    import numpy as np

    from blending.apply import apply_blend, read_blend
    from features.store import open_features
    from input.competition import read_test_clips
    from runs.predict import predict_test
    from runs.predictions import Predictions, mean_of_folds, warn_of_faults
    from runs.provenance import file_sha256
    from runs.run_folder import read_trained
    from submission.submission_file import write_submission

    blend = read_blend(bundle / "weights.json", "make the bundle again with submission.bundle")
    runs = {name: sorted((bundle / "weights" / name).glob("fold*")) for name in blend.models}
    folders = [folder for folds in runs.values() for folder in folds]
    skip_missing = any(read_trained(folder).config.input.skip_unreadable for folder in folders)
    sample = find_sample(inputs, slug)
    clips = read_test_clips(sample, find_audio(sample, scratch), skip_missing)
    say(f"{sample.parent}: {len(clips)} test clips; {len(folders)} runs of {list_some(runs)}")
    probs = dict(zip(folders, predict_test(folders, clips, scratch / "features"), strict=True))
    means = {name: mean_of_folds([probs[folder].probs for folder in folds]) for name, folds in runs.items()}
    blended = apply_blend(blend, means).astype(np.float32)
    write_submission(output, Predictions(tuple(clips["fname"]), blended), blend.classes)
    report = {"manifest_sha256": file_sha256(bundle / MANIFEST_NAME), "clips": len(clips)}
    report |= {"runs": {name: len(folds) for name, folds in runs.items()}}
    heard = open_features(read_trained(folders[0]).config.features, clips, scratch / "features")
    report["clips_with_a_fault"] = heard.faults
    warn_of_faults(heard.faults)
    report |= {"seconds": round(time.monotonic() - started), **environment}
    write(output.with_name("report.json"), json.dumps(report, indent=1) + "\n")
    say(f"{len(clips)} clips in {report['seconds']} s -> {output}")


def print_environment() -> dict[str, Any]:
    """Print the versions and devices before anything that could fail because of them."""
    from runs.provenance import library_versions

    versions = library_versions()
    say(", ".join(f"{name} {version}" for name, version in versions.items() if version))

    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    devices = names or [f"CPU with {len(os.sched_getaffinity(0))} cores"]
    say(f"devices: {', '.join(devices)}")
    return {"versions": versions, "devices": devices}


def find_sample(inputs: Path, slug: str) -> Path:
    """The competition's sample submission, wherever Kaggle has mounted it: it names and orders the test clips."""
    found = [Path(folder) for folder in folders_with(inputs, SAMPLE)]
    for folder in sorted(found):
        if slug in folder.relative_to(inputs).parts:
            return folder / SAMPLE
    there = f"; there is {list_some(found)}" if found else ""
    raise UserError(f"{inputs}: no {SAMPLE} in a folder {slug}{there}: attach the competition to this kernel")


def find_audio(sample: Path, scratch: Path) -> Path:
    """The folder with the test clips, unpacked into `scratch` where the competition comes as zips."""
    from input.competition import read_sample
    from input.names import likely_files, match_files
    from input.zips import unpack_zips

    names, roots = set(read_sample(sample, with_folder=True).fnames), [sample.parent]
    if folder := _fullest(sample.parent, names, match_files):
        return folder
    if zips := sorted(f for f in sample.parent.rglob("*") if re.search(r"test.*\.zip$", f.name, re.IGNORECASE)):
        roots.insert(0, scratch / "competition")
        roots[0].mkdir(parents=True)
        for packed in zips:
            if not (link := roots[0] / packed.name).is_symlink():
                link.symlink_to(packed.absolute())
        try:
            unpack_zips(roots[0])
        except UserError as error:
            warn(str(error))  # a missing clip is reported later
    both: tuple[Match, ...] = (match_files, likely_files)
    for match in both:  # `read_test_clips` reports what they are called instead
        for root in roots:
            if folder := _fullest(root, names, match):
                return folder
    raise UserError(f"{sample.parent}: none of the {len(names)} clips of {SAMPLE} lies there")


def _fullest(root: Path, names: set[str], match: Match) -> Path | None:
    """The folder with most of the clips, by what `match` finds among its files; None where none has any."""
    counts = {Path(folder): len(match(names, files)) for folder, _, files in os.walk(root)}
    best = max(counts, key=lambda folder: counts[folder])
    return best if counts[best] else None


if __name__ == "__main__":
    run_command(main)
