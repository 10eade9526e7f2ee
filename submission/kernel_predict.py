"""Predict a competition's test clips from a bundle: what the script kernel runs, on Kaggle and anywhere else.

python -m submission.kernel_predict --bundle DIR --inputs DIR --competition SLUG --output submission.csv
"""

import json
import os
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

from configs.files import write
from configs.forms import read_json
from console.command_line import run_command
from console.errors import UserError, count, list_some
from console.options import as_path, command_parser, share
from console.output import say, warn
from submission.kernel_script import MANIFEST_NAME, folders_with

if TYPE_CHECKING:
    from configs.competition import CompetitionConfig, SubmissionForm

SAMPLE = "sample_submission.csv"
AGAIN = "make the bundle again with submission.bundle"
NAMES = {"torch": "PyTorch", "openvino": "OpenVINO", "int8": "OpenVINO in eight bits"}
Match = Callable[[Collection[str], Collection[str]], Mapping[str, object]]  # names and files -> a file for each name


@dataclass(frozen=True)
class File:
    sha256: str


@dataclass(frozen=True)
class Wishes:
    """The part of kit_manifest.json that says how to predict."""

    engine: Literal["torch", "openvino", "auto", "int8"] = "auto"
    budget: float | None = None  # seconds
    converted: tuple[str, ...] | None = None  # experiments whose networks are there as OpenVINO's; None: convert there
    files: dict[str, File] = field(default_factory=dict)


def main() -> None:
    parser = command_parser(__doc__.partition("\n")[0], prog="python -m submission.kernel_predict")
    parser.add_argument("--bundle", type=as_path, required=True, help="what submission.bundle wrote")
    parser.add_argument("--inputs", type=as_path, required=True, help="the competition lies anywhere under it")
    parser.add_argument("--competition", required=True, metavar="SLUG", help="the name of its folder")
    parser.add_argument("--output", type=as_path, required=True, help="the submission")
    share(parser, engine="what predicts on a CPU (what submission.bundle was told)")
    share(parser, "budget")
    parser.set_defaults(engine=None)
    parser.add_argument("--scratch", type=as_path, help="where features go (a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        predict(args.bundle, args.inputs, args.competition, args.output, Path(scratch), args.engine, args.budget)


def predict(
    bundle: Path,
    inputs: Path,
    slug: str,
    output: Path,
    scratch: Path,
    engine: str | None = None,
    budget: float | None = None,
) -> None:
    """Write the submission and report.json beside it. engine: what predicts, budget: seconds that it may take; None:
    what the bundle says.

    Raises UserError on a bundle or competition that does not fit.
    """
    started = time.monotonic()
    environment = print_environment()

    import numpy as np
    import pandas as pd

    from blending.apply import apply_blend, read_blend
    from blending.needs import needs, without
    from input.competition import list_test, read_test_clips
    from input.sound_files import fill_pattern, sound_folder
    from models.engine import EngineChoice
    from runs.budget import Deadline, Plan, make_plan, tell_forecast, warn_of_lateness
    from runs.clips import frozen_file_of, open_clips
    from runs.forecast import Work, forecast, predict_planned
    from runs.predictions import Predictions, warn_of_faults
    from runs.provenance import file_sha256
    from runs.run_folder import read_trained
    from submission.packed_competition import read_packed
    from submission.submission_file import write_submission

    wishes = read_json(bundle / MANIFEST_NAME, Wishes, AGAIN)
    asked, budget, converted = engine or wishes.engine, budget or wishes.budget, None
    if wishes.converted is not None and asked != "torch" and (asked == "int8") == (wishes.engine == "int8"):
        from runs.converted import find_converted

        converted = find_converted(bundle, {name: file.sha256 for name, file in wishes.files.items()}, AGAIN)
    choice = EngineChoice(asked, converted=converted)
    end = Deadline(budget - (time.monotonic() - started)) if budget else None
    packed = read_packed(bundle)
    blend = read_blend(bundle / "weights.json", AGAIN)
    runs = {name: sorted((bundle / "weights" / name).glob("fold*")) for name in blend.models}
    folders = [folder for folds in runs.values() for folder in folds]
    skip_missing = any(read_trained(folder).config.input.skip_unreadable for folder in folders)
    folder, config = find_competition(inputs, slug, packed.config)
    check_sample_fits(folder, config, packed.form)
    fnames = list_test(folder, config)["fname"]
    pattern = packed.test_pattern.removeprefix(f"{sound_folder(packed.test_pattern)}/")  # it may lie elsewhere there
    files = set(fill_pattern(pattern, pd.DataFrame({"name": fnames})))
    clips = read_test_clips(fnames, find_audio(folder, files, scratch), skip_missing, pattern)
    say(f"{folder}: {count(len(clips), 'test clip')}; {count(len(folders), 'run')} of {list_some(runs)}")
    works = {name: Work(tuple(folds), clips) for name, folds in runs.items()}
    costs = forecast(works, scratch / "features", choice)
    tell_forecast(costs)
    plan = make_plan(costs, needs(blend), end) if end else Plan(costs.folds)
    found = predict_planned(works, plan, scratch / "features", choice)
    used = sorted({name for folds in found.sources.values() for engines in folds.values() for name in engines})
    say(f"predicted by {' and '.join(NAMES[name] for name in used) or 'no network'}")
    warn_of_lateness(found.not_reached)
    blended = apply_blend(without(blend, plan.dropped), found.probs).astype(np.float32)
    write_submission(output, Predictions(tuple(clips["fname"]), blended), blend.classes, packed.form)
    report = {"manifest_sha256": file_sha256(bundle / MANIFEST_NAME), "clips": len(clips), "engines": used}
    report |= {"runs": found.folds, "predicted_by": found.sources, "clips_not_reached": found.not_reached}
    first = read_trained(folders[0])
    heard = open_clips(first.config, plan.first(clips), scratch / "features", frozen_file_of(first))
    report["clips_with_a_fault"] = heard.faults
    warn_of_faults(heard.faults)
    report |= {"seconds": round(time.monotonic() - started), **environment}
    write(output.with_name("report.json"), json.dumps(report, indent=1) + "\n")
    say(f"{count(len(clips), 'clip')} in {report['seconds']} s -> {output}")


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


def find_competition(inputs: Path, slug: str, config: "CompetitionConfig") -> tuple[Path, "CompetitionConfig"]:
    """The competition's folder, wherever Kaggle has mounted it, and the description that fits what lies there.

    The description may be that of another release, whose test clips stand in another table: Kaggle has a sample
    submission. Raises UserError where no folder is found.
    """
    from configs.competition import TableFile

    table = config.sample_submission or config.test
    if table is None:  # the test clips are the sounds of a folder
        named = sorted(Path(folder) for folder, _, _ in os.walk(inputs) if Path(folder).name == slug)
        if not named:
            raise UserError(f"{inputs}: no folder {slug}: attach the competition to this kernel")
        return named[0], config
    for file in dict.fromkeys((table.file, SAMPLE)):
        for folder in _folders_with(inputs, file):
            if slug in folder.relative_to(inputs).parts:
                sample = TableFile(SAMPLE)
                return folder, config if file == table.file else replace(config, sample_submission=sample, test=None)
    found = _folders_with(inputs, table.file)
    there = f"; there is {list_some(found)}" if found else ""
    raise UserError(f"{inputs}: no {table.file} in a folder {slug}{there}: attach the competition to this kernel")


def check_sample_fits(folder: Path, config: "CompetitionConfig", form: "SubmissionForm") -> None:
    """Raises UserError where the sample submission that lies there has other columns than the bundle would write: it is
    another competition's, or has other classes. A sample may name the clips alone."""
    from input.names import nfc
    from input.tables import read_table

    if (table := config.sample_submission) is None:
        return
    path, values = folder / table.file, form.columns if form.kind == "probabilities" else (form.label_column,)
    columns = list(map(str, read_table(path, (), table.separator, table.encoding).columns))
    there, ours = {nfc(name) for name in columns}, {nfc(name) for name in (form.name_column, *values)}
    alone = form.kind == "top_labels" and there == {nfc(form.name_column)}
    if there != ours and not alone:
        raise UserError(
            f"{path}: its columns do not fit the bundle: there alone {list_some(sorted(there - ours))}; in the bundle "
            f"alone {list_some(sorted(ours - there))}: attach the competition of the bundle, or bundle this one with "
            f"submission.bundle --input DIR"
        )


def _folders_with(inputs: Path, file: str) -> list[Path]:
    """Folders under `inputs` that hold a file of this relative path."""
    *inner, name = PurePath(file).parts
    ends = [Path(folder).relative_to(inputs).parts for folder in folders_with(inputs, name)]
    return sorted(
        Path(inputs, *parts[: len(parts) - len(inner)])
        for parts in ends
        if parts[-len(inner) :] == tuple(inner) or not inner
    )


def find_audio(root: Path, files: Collection[str], scratch: Path) -> Path:
    """The folder under which the test clips lie, unpacked into `scratch` where the competition comes as zips.

    files: their paths within that folder.
    """
    from input.names import likely_files, match_files
    from input.zips import unpack_zips

    roots = [root]
    if folder := _fullest(root, files, match_files):
        return folder
    if zips := sorted(f for f in root.rglob("*") if re.search(r"test.*\.zip$", f.name, re.IGNORECASE)):
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
        for place in roots:
            if folder := _fullest(place, files, match):
                return folder
    raise UserError(f"{root}: none of the {count(len(files), 'test clip')} lies there, such as {min(files)}")


def _fullest(root: Path, files: Collection[str], match: Match) -> Path | None:
    """The folder under which most of the files lie, by what `match` finds among the names; None where none lies."""
    names: dict[tuple[str, ...], set[str]] = defaultdict(set)  # inner folder -> names
    for file in files:
        *inner, name = PurePath(file).parts
        names[tuple(inner)].add(name)
    counts: Counter[Path] = Counter()
    for folder, _, there in os.walk(root):
        parts = Path(folder).parts
        for depth in {len(inner) for inner in names}:
            outer, below = parts[: len(parts) - depth], parts[len(parts) - depth :]
            if below in names and len(outer) >= len(root.parts):
                counts[Path(*outer)] += len(match(names[below], there))
    best = max(counts, key=lambda folder: counts[folder], default=root)
    return best if counts[best] else None


if __name__ == "__main__":
    run_command(main)
