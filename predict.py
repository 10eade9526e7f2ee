"""Probabilities of any sound files by a finished blend, of whole files or of sections of long recordings."""

from pathlib import Path
from typing import TYPE_CHECKING

from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError, count, list_faults
from console.options import as_path, as_seconds, command_parser, share
from console.output import say, warn

if TYPE_CHECKING:
    import pandas as pd

    from blending.loaded_blend import LoadedBlend

SHOWN = 20  # rows on the terminal
EXAMPLES = """examples:
  python predict.py recording.wav
  python predict.py sounds/ --output probabilities.csv
  python predict.py soundscape.ogg --every 5s --output soundscape.txt

A name that ends in .csv gets all probabilities, one that ends in .txt the
labels of a recording in sections, which Audacity reads (File, Import, Labels).
"""


def main() -> None:
    parser = command_parser(__doc__, EXAMPLES)
    parser.add_argument("paths", nargs="+", type=as_path, metavar="FILE_OR_FOLDER", help="sound; folders are searched")
    share(parser, "work", "ensemble")
    parser.add_argument(
        "--every", type=as_seconds, metavar="TIME", help="a row for each 5s (or 0.5s, 1min) of every recording"
    )
    share(parser, "engine")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="classes that are printed (%(default)s)")
    parser.add_argument("--output", type=as_path, metavar="FILE", help="a new .csv or .txt, see below")
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    args = parser.parse_args()
    if args.top < 1:
        raise UserError(f"--top {args.top}: must be at least 1")
    if args.output:
        check_output(args.output, args.every, args.force)

    from blending import load_blend
    from blending.loaded_blend import check_one_recording, summary
    from input.sound_files import sounds_under

    if args.output and args.output.suffix.lower() == ".txt":
        check_one_recording(sounds_under(args.paths))  # before hours of work
    blend = load_blend(Paths(work=args.work).ensemble(args.ensemble))
    found = blend.predict(args.paths, args.every, args.engine)
    for line in summary(found.head(SHOWN), blend.classes, args.top):
        say(line)
    if len(found) > SHOWN:
        say(
            f"and {count(len(found) - SHOWN, 'more row')}"
            + ("" if args.output else ": --output FILE.csv has all of them")
        )
    faults = found.attrs["faults"]
    if args.output and len(found):
        write(args.output, found, blend)
        say(f"{count(len(found), 'row')} -> {args.output}")
    report(faults, set(found["file"]))


def check_output(file: Path, every: float | None, force: bool) -> None:
    """Raises UserError where it cannot be written, before anything is predicted."""
    if file.suffix.lower() not in (".csv", ".txt"):
        raise UserError(f"{file}: expected a name that ends in .csv (probabilities) or .txt (labels for Audacity)")
    if file.suffix.lower() == ".txt" and every is None:
        raise UserError(f"{file}: labels for Audacity are of sections: add --every 5s, or use a .csv")
    if file.is_dir():
        raise UserError(f"{file}: is a folder: give the name of a file")
    if file.exists() and not force:
        raise UserError(f"{file}: exists: give another --output, or overwrite it with --force")


def write(file: Path, found: "pd.DataFrame", blend: "LoadedBlend") -> None:
    """All probabilities, or the labels; the file appears whole or not at all."""
    from blending.loaded_blend import audacity_labels
    from configs.files import atomic

    with atomic(file) as part:
        if file.suffix.lower() == ".csv":
            found.to_csv(part, index=False, lineterminator="\n")
        else:
            part.write_text(audacity_labels(found, blend.classes, blend.blend.task == "multi_label"), encoding="utf-8")


def report(faults: dict[str, str], answered: set[str]) -> None:
    """Warn of files that were damaged. Raises UserError that names those without an answer."""
    if heard := {file: fault for file, fault in faults.items() if file in answered}:
        warn(f"files with a fault, predicted from what can be read of them: {list_faults(heard)}")
    if silent := {file: fault for file, fault in faults.items() if file not in answered}:
        raise UserError(
            f"files without a prediction: {list_faults(silent)}" + (": the others are done" if answered else "")
        )


if __name__ == "__main__":
    run_command(main)
