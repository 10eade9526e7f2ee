"""Training clips whose label is likely wrong, by the out-of-fold probabilities of the finished experiments."""

import codecs
import os
import sys
import webbrowser
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from blending.label_errors import Doubts, find_doubts
from configs.competition import LABEL_SEPARATOR
from configs.files import atomic, lock
from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError, count
from console.options import FILE, command_parser, share
from console.output import say

if TYPE_CHECKING:
    import pandas as pd


LIST_NAME, PAGE_NAME, CORRECTIONS_NAME = "label_errors.csv", "label_errors.html", "corrections.csv"
AFTER = "fname,label"
LIST = "fname,given,suggested,"  # how a list begins
EXAMPLES = f"""Found by confident learning (C. Northcutt et al., 2021), like cleanlab's filter
of that name. Nothing is trained with the list itself: listen, write the clips
that are wrong into a file, with the label that you heard (no label: the clip is
left out of training), and train a new experiment with that file:
  {AFTER}
  00044347.wav,Cello
  001ca53d.wav,

Of several labels per clip, `given` is one that is likely wrong and `suggested`
one that is likely missing: a row has one of the two. In your file a clip has
all its labels, joined by | (Cello|Flute), or | alone where it has none.

examples:
  python find_label_errors.py
  python find_label_errors.py --open
  python find_label_errors.py --serve
  python train_fold.py --fold 0..4 input.corrections=FILE name=corrected
"""


def main() -> None:
    parser = command_parser(__doc__, EXAMPLES)
    share(parser, "input", "as", "work", "runs")
    parser.add_argument("--verified", action="store_true", help="doubt the verified labels too")
    parser.add_argument("--corrections", **FILE, help="leave out the clips that it corrects; --serve saves in it")
    parser.add_argument("--out", **FILE, help=f"the list (work/{LIST_NAME})")
    share(parser, force="overwrite an older list")
    parser.add_argument("--open", action="store_true", help="no list: a page to hear and repair them, in the browser")
    parser.add_argument(
        "--serve", nargs="?", type=int, const=0, metavar="PORT", help="the page on this machine; it saves by itself"
    )
    parser.add_argument(
        "--with-sound", action="store_true", help="short Ogg copies for the page, of what the browser cannot play"
    )
    args = parser.parse_args()
    paths = Paths(args.input, args.work, args.described_by)
    if not args.open and args.serve is None:
        if args.with_sound:
            raise UserError("--with-sound is of the page: add --open or --serve")
        out = args.out or paths.work / LIST_NAME
        list_label_errors(paths, args.runs, out, args.verified, args.corrections, args.force)
        return
    if args.out or args.force:
        raise UserError("--out and --force are of the list, which --open and --serve do not write: leave them out")
    if args.serve is not None and not 0 <= args.serve <= 65_535:
        raise UserError(f"--serve {args.serve}: a port is 1 to 65535, or leave it out for any free one")
    file = args.corrections or paths.work / CORRECTIONS_NAME
    known = file if (args.corrections if args.serve is None else file.exists()) else None  # --serve may begin it
    found = find_doubts(paths, args.runs, args.verified, known)
    if args.serve is not None:
        serve(paths, found, file, args.serve, open_browser if args.open else lambda address: None, args.with_sound)
    else:
        open_browser(repair(paths, found, args.with_sound).resolve().as_uri())


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
    check_overwritable(out, force)
    found = find_doubts(paths, runs, verified, corrections)
    listed, candidates = found.listed, found.candidates
    write_list(listed, out)
    several, clips = candidates.task == "multi_label", len(candidates.fnames)
    part = f"{len(listed)} of {count(clips, 'label')}"
    part = f"{count(len(listed), 'label')} of {count(clips, 'clip')}" if several else part
    wrong = "wrong (given) or missing (suggested)" if several else "wrong"
    say(f"{out}: {part} are likely {wrong} by the mean of {', '.join(candidates.names)}{found.rest}")
    if several:
        sign = LABEL_SEPARATOR
        say(f"in your file a clip has all its labels, joined by {sign}; {sign} alone: it has none")
    say(
        f"listen, copy those that are wrong, with the label that you heard, into a file with the columns {AFTER} (no "
        f"label: the clip is left out), then: python train_fold.py --fold {candidates.all_folds}{paths.options} "
        f"input.corrections=FILE name=NEW"
    )
    return listed


def repair(paths: Paths, found: Doubts, with_sound: bool = False) -> Path:
    """Write the page that plays the likely errors and saves corrections as a download; its path. with_sound: short
    copies beside it, for a browser that cannot play the originals."""
    from pages.repair import repair_data, write_page

    data = repair_data(found.listed, found.competition, found.candidates, found.runs, paths)
    data["before"] = list(found.known.items())
    write_page(data, found.competition, page := paths.work / PAGE_NAME, with_sound)
    say(f"{count(len(data['clips']), 'clip')} to hear{found.rest} -> {page}")
    again = f"python train_fold.py --fold {found.candidates.all_folds}{paths.options}"
    say(f"it saves corrections.csv: {again} input.corrections=FILE name=NEW")
    return page


def serve(
    paths: Paths, found: Doubts, file: Path, port: int, show: Callable[[str], None], with_sound: bool = False
) -> None:
    """Offer that page on this machine until Ctrl-C; every decision is saved in `file` at once. show: gets its address.
    with_sound: as in `repair`; the copies go with the server.

    Raises UserError where another process serves this file, or the port is taken.
    """
    from pages.repair import page_server, repair_data

    data = repair_data(found.listed, found.competition, found.candidates, found.runs, paths)
    busy = f"{file}: another process saves corrections in it: stop that one, or name another --corrections"
    with ExitStack() as stack:
        stack.enter_context(lock(file, busy))
        copies = Path(stack.enter_context(TemporaryDirectory(prefix="sound-"))) if with_sound else None
        server = stack.enter_context(page_server(data, found.competition, file, port, copies))
        say(f"{count(len(data['clips']), 'clip')} to hear{found.rest} -> {server.address}")
        say(f"decisions are saved in {file} at once; Ctrl-C ends this")
        show(server.address)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    again = f"python train_fold.py --fold {found.candidates.all_folds}{paths.options}"
    say(f"{again} input.corrections={file} name=NEW")


def open_browser(address: str) -> None:
    """In the person's browser, where there is a screen to show one."""
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
    else:
        say("no screen here: open that address in a browser")


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
