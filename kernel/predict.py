"""Predict a competition's test clips from a bundle: what the script kernel runs, on Kaggle and anywhere else.

python -m kernel.predict --bundle DIR --inputs DIR --competition SLUG --output submission.csv
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from configs.console import run_command, say
from configs.errors import UserError, list_some
from configs.files import write
from configs.forms import read_json
from kernel.script import MANIFEST_NAME, folders_with

SAMPLE = "sample_submission.csv"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m kernel.predict", description=__doc__.partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--bundle", type=Path, required=True, help="what kernel.bundle wrote")
    parser.add_argument("--inputs", type=Path, required=True, help="the competition lies anywhere under it")
    parser.add_argument("--competition", required=True, metavar="SLUG", help="the name of its folder")
    parser.add_argument("--output", type=Path, required=True, help="the submission")
    parser.add_argument("--scratch", type=Path, help="where features go (a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        predict(args.bundle, args.inputs, args.competition, args.output, Path(scratch))


def predict(bundle: Path, inputs: Path, slug: str, output: Path, scratch: Path) -> None:
    """Write the submission and report.json beside it. Raises UserError on a bundle or competition that does not fit."""
    started = time.monotonic()
    surroundings = say_surroundings()

    import numpy as np

    from features.store import open_features
    from input.competition import read_test_clips
    from models.blending import Weights, apply_blend
    from models.predict import predict_test
    from models.run_folder import Predictions, file_sha256, mean_of_folds, read_trained
    from models.submission import write_submission

    weights = read_json(bundle / "weights.json", Weights, "make the bundle again with kernel.bundle")
    runs = {name: sorted((bundle / "weights" / name).glob("fold*")) for name in weights["models"]}
    folders = [folder for folds in runs.values() for folder in folds]
    skip_missing = any(read_trained(folder).config.input.skip_unreadable for folder in folders)
    sample = find_sample(inputs, slug)
    clips = read_test_clips(sample, find_audio(sample, scratch), skip_missing)
    say(f"{sample.parent}: {len(clips)} test clips; {len(folders)} runs of {list_some(runs)}")
    probs = dict(zip(folders, predict_test(folders, clips, scratch / "features"), strict=True))
    means = {name: mean_of_folds([probs[folder].probs for folder in folds]) for name, folds in runs.items()}
    blend = apply_blend(weights, means).astype(np.float32)
    write_submission(output, Predictions(tuple(clips["fname"]), blend), tuple(weights["classes"]))
    report = {"manifest_sha256": file_sha256(bundle / MANIFEST_NAME), "clips": len(clips)}
    report |= {"runs": {name: len(folds) for name, folds in runs.items()}}
    heard = open_features(read_trained(folders[0]).config.features, clips, scratch / "features")
    report["clips_with_a_fault"] = heard.faults
    report |= {"seconds": round(time.monotonic() - started), **surroundings}
    write(output.with_name("report.json"), json.dumps(report, indent=1) + "\n")
    say(f"{len(clips)} clips in {report['seconds']} s -> {output}")


def say_surroundings() -> dict[str, Any]:
    """Print the versions and devices before anything that could fail because of them."""
    from models.run_folder import library_versions

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
    from input.competition import read_table
    from input.layout import unpack_zips

    names = set(read_table(sample, ("fname",))["fname"])
    folder, found = _fullest(sample.parent, names)
    zips = sorted(sample.parent.rglob("*test*.zip"))
    if not found and zips:
        unpacked = scratch / "competition"
        unpacked.mkdir(parents=True)
        for packed in zips:
            (unpacked / packed.name).symlink_to(packed)
        unpack_zips(unpacked)
        folder, found = _fullest(unpacked, names)
    if not found:
        raise UserError(f"{sample.parent}: none of the {len(names)} clips of {SAMPLE} lies there")
    return folder


def _fullest(root: Path, names: set[str]) -> tuple[Path, int]:
    """The folder that holds most of the named files, and how many."""
    counts = {Path(folder): len(names.intersection(files)) for folder, _, files in os.walk(root)}
    best = max(counts, key=lambda folder: counts[folder])
    return best, counts[best]


if __name__ == "__main__":
    run_command(main)
