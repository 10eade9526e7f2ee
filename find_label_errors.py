"""Training clips whose label is likely wrong, by the out-of-fold probabilities of the finished experiments."""

import codecs
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blending.label_errors import suspects
from configs.competition import LABEL_SEPARATOR
from configs.files import atomic
from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError, count
from console.options import FILE, command_parser, share
from console.output import say

if TYPE_CHECKING:
    import pandas as pd


LIST_NAME = "label_errors.csv"
AFTER = "fname,label"
LIST = "fname,given,suggested,"  # how a list begins
EXAMPLES = f"""Found by confident learning (C. Northcutt et al., 2021), like cleanlab's filter
of that name. Nothing is trained with the list itself: listen, write the clips that
are wrong into a file, with the label that you heard (no label: the clip is left
out of training), and train a new experiment with that file:
  {AFTER}
  00044347.wav,Cello
  001ca53d.wav,

Of several labels per clip, `given` is one that is likely wrong and `suggested` one
that is likely missing: a row has one of the two. In your file a clip has all its
labels, joined by | (Cello|Flute), or | alone where it has none.

examples:
  python find_label_errors.py
  python train_fold.py --fold 0..4 input.corrections=FILE name=corrected
"""


def main() -> None:
    parser = command_parser(__doc__, EXAMPLES)
    share(parser, "input", "as", "work", "runs")
    parser.add_argument("--verified", action="store_true", help="doubt the verified labels too")
    parser.add_argument("--corrections", **FILE, help="leave out the clips that it corrects already")
    parser.add_argument("--out", **FILE, help=f"the list (work/{LIST_NAME})")
    share(parser, force="overwrite an older list")
    args = parser.parse_args()
    paths = Paths(args.input, args.work, args.described_by)
    list_label_errors(paths, args.runs, args.out or paths.work / LIST_NAME, args.verified, args.corrections, args.force)


def list_label_errors(
    paths: Paths,
    runs: list[str],
    out: Path,
    verified: bool = False,
    corrections: Path | None = None,
    force: bool = False,
) -> "pd.DataFrame":
    """Write the list to `out` and return it, the most suspicious first; see `suspects` for its columns.

    runs: experiments whose mean counts, all finished ones where none is named. Raises UserError where `out` exists,
    unless `force`, or is a folder, and as the reading of runs and competition does.
    """
    from blending.candidates import align, finished_runs
    from input.competition import load_competition
    from input.corrections import read_corrections
    from runs.test_predictions import test_predictions

    check_overwritable(out, force)
    competition = load_competition(paths.input, skip_missing=True, described_by=paths.described_by)
    known = (
        read_corrections(corrections, competition.train, competition.classes, competition.task) if corrections else {}
    )
    competition = replace(competition, test=competition.test[:0])  # nothing is asked of test clips
    experiments = finished_runs(paths.runs, runs, competition)
    candidates = align(experiments, test_predictions(experiments, competition, paths), competition)
    found = suspects(candidates, competition)
    if not verified and candidates.verified.all():
        say("every label counts as verified: all are checked, as with --verified")
        verified = True
    corrected = found["fname"].isin(known)
    kept = found["verified"] & ~corrected & (not verified)
    write_list(listed := found[~corrected & ~kept], out)
    more = [f"{kept.sum()} verified ones, which --verified lists"] if kept.any() else []
    more += [f"{corrected.sum()} that are corrected already"] if corrected.any() else []
    rest = f", without {' and '.join(more)}" if more else ""
    several, clips = candidates.task == "multi_label", len(candidates.fnames)
    part = f"{len(listed)} of {count(clips, 'label')}"
    part = f"{count(len(listed), 'label')} of {count(clips, 'clip')}" if several else part
    wrong = "wrong (given) or missing (suggested)" if several else "wrong"
    say(f"{out}: {part} are likely {wrong} by the mean of {', '.join(candidates.names)}{rest}")
    if several:
        sign = LABEL_SEPARATOR
        say(f"in your file a clip has all its labels, joined by {sign}; {sign} alone: it has none")
    say(
        f"listen, copy those that are wrong, with the label that you heard, into a file with the columns {AFTER} (no "
        f"label: the clip is left out), then: python train_fold.py --fold 0..4{paths.options} "
        f"input.corrections=FILE name=NEW"
    )
    return listed


def check_overwritable(out: Path, force: bool) -> None:
    """Raises UserError where a file would be lost."""
    if out.is_dir():
        raise UserError(f"{out}: is a folder: name a file with --out")
    if out.exists() and not out.read_bytes().removeprefix(codecs.BOM_UTF8).startswith(LIST.encode()):
        raise UserError(f"{out}: exists and is no list of label errors: name another with --out")
    if out.exists() and not force:
        raise UserError(f"{out}: exists: name another with --out, or overwrite it with --force")


def write_list(found: "pd.DataFrame", out: Path) -> None:
    """A CSV, there whole or not at all."""
    with atomic(out) as part:  # a path that is no UTF-8 keeps its bytes
        found.to_csv(part, index=False, float_format="%.4f", lineterminator="\n", errors="surrogateescape")


if __name__ == "__main__":
    run_command(main)
