"""Measure the kit against usual alternatives; print one table and write it to benchmarks/RESULTS.md."""

import importlib
import textwrap
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import growth, starting
from benchmarks.machine import describe, of_points
from benchmarks.measure import Row, in_child
from configs.files import atomic
from console.command_line import run_command
from console.errors import UserError
from console.options import FOLDER, command_parser
from console.output import say

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADER = ["point", "what", "ours", "peer", "ratio", "goal", "met"]
SECTIONS_OF = {  # point -> modules of benchmarks
    1: ("extraction", "compressed"),
    2: ("loading",),
    3: ("training", "heads"),
    4: ("gpu",),
    5: ("prediction", "engines", "end_to_end"),
    6: ("scoring",),
    7: ("starting",),
    8: ("growth",),
    9: ("first_paint",),
    10: ("cluster",),
}
POINTS = """Points are the targets: 1 extraction, 2 loading, 3 training on the CPU, 4 training on a GPU, 5 prediction,
6 scores and blending, 7 starting, 8 growth, 9 pages, 10 a cluster. Ours and the peer ran in turn in the same run; times
are medians."""

EXAMPLES = """examples:
  python -m benchmarks.run
  python -m benchmarks.run --quick
  python -m benchmarks.run --points 5"""


def main() -> None:
    parser = command_parser(__doc__, EXAMPLES, "python -m benchmarks.run")
    parser.add_argument("--quick", action="store_true", help="few rounds, small sizes, nothing written")
    parser.add_argument(
        "--points",
        type=int,
        nargs="+",
        metavar="N",
        help="measure these points alone; the other rows of the table stay",
    )
    parser.add_argument(
        "--input",
        **FOLDER,
        default=Path("../shared/data/us8k-mini"),
        help="optional: a copy of us8k-mini, to compare scores; left out where it is absent (%(default)s)",
    )
    args = parser.parse_args()
    begun = time.monotonic()
    points = sorted(set(args.points or SECTIONS_OF))
    if unknown := set(points) - set(SECTIONS_OF):
        raise UserError(f"--points {min(unknown)}: there are {', '.join(map(str, SECTIONS_OF))}")
    rows = list(measure(args.quick, args.input, points))
    cells = [cells_of(row) for row in rows]
    for point, what, *numbers in cells:
        say(textwrap.fill(f"{point}  {what}", 79, subsequent_indent="   "))
        say("   " + ", ".join(f"{name} {cell}" for name, cell in zip(HEADER[2:], numbers, strict=True) if cell))
    if not args.quick:
        about = describe(round(time.monotonic() - begun), points if args.points else ())
        write(RESULTS, about, cells, points if args.points else ())
        say(f"{len(rows)} rows -> {RESULTS}")


def measure(quick: bool, competition: Path, points: Sequence[int] = tuple(SECTIONS_OF)) -> Iterator[Row]:
    """All rows of these points, each section in its own process, so that imports and memory of one do not slow
    another."""
    here: dict[str, Callable[[], list[Row]]] = {
        "training": lambda: section("training", quick, competition),
        "starting": lambda: starting.measure(quick),
        "growth": lambda: growth.measure(quick),  # asks for the memory of its own children
    }
    for name in (name for point in points for name in SECTIONS_OF[point]):
        start = time.monotonic()
        yield from here[name]() if name in here else section(name, quick)
        say(f"{name}: measured in {time.monotonic() - start:.0f} s")


def section(name: str, *args: Any) -> list[Row]:
    rows: list[Row] = in_child(call, name, *args)[0]
    return rows


def call(name: str, *args: Any) -> list[Row]:
    """In the child: benchmarks.<name>.measure(*args)."""
    rows: list[Row] = importlib.import_module(f"benchmarks.{name}").measure(*args)
    return rows


def cells_of(row: Row) -> list[str]:
    met = "" if row.met is None else "yes" if row.met else "no"
    return [str(row.point), row.what, row.ours, row.peer, row.ratio, row.goal, met]


def write(file: Path, about: str, cells: Sequence[Sequence[str]], points: Collection[int] = ()) -> None:
    """The table; where it is of some points alone, the rows of the others and what is said about them stay."""
    title = of_points(points)
    paragraphs, kept = read(file) if points else ([], [])
    there = [line for line in kept if int(line[0]) not in points]
    cells = sorted([*there, *cells], key=lambda line: int(line[0]))  # in each point as they come
    paragraphs = [text for text in paragraphs if not (title and text.startswith(title))] + [about]
    lines = ["| " + " | ".join(line) + " |" for line in (HEADER, ["---"] * len(HEADER), *cells)]
    with atomic(file) as part:
        text = "\n\n".join(["# Benchmark", *paragraphs, POINTS])
        part.write_text(text + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def read(file: Path) -> tuple[list[str], list[list[str]]]:
    """The paragraphs about a file's measurements, and the cells of its rows; nothing where there is none."""
    if not file.exists():
        return [], []
    about, _, table = file.read_text(encoding="utf-8").partition(POINTS.partition("\n")[0])
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines() if line[:1] == "|"]
    return about.strip().split("\n\n")[1:], rows[2:]


if __name__ == "__main__":
    run_command(main)
