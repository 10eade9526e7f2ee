"""Measure the kit against usual alternatives; print one table and write it to benchmarks/RESULTS.md.

python -m benchmarks.run
python -m benchmarks.run --quick
"""

import importlib
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import growth, starting
from benchmarks.machine import describe
from benchmarks.measure import Row, in_child
from configs.files import atomic
from console.command_line import run_command
from console.options import FOLDER, command_parser
from console.output import say

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADER = ["point", "what", "ours", "peer", "ratio", "goal", "met"]
POINTS = """Points are the targets: 1 extraction, 2 loading, 3 training on the CPU, 4 training on a GPU, 5 prediction,
6 scores and blending, 7 starting, 8 growth, 9 pages, 10 a cluster. Ours and the peer ran in turn in the same run; times
are medians."""


def main() -> None:
    parser = command_parser(__doc__, prog="python -m benchmarks.run")
    parser.add_argument("--quick", action="store_true", help="a minute: few rounds, small sizes, nothing written")
    parser.add_argument(
        "--input",
        **FOLDER,
        default=Path("../shared/data/us8k-mini"),
        help="optional: a copy of us8k-mini, to compare scores; left out where it is absent (%(default)s)",
    )
    args = parser.parse_args()
    begun = time.monotonic()
    rows = list(measure(args.quick, args.input))
    cells = [cells_of(row) for row in rows]
    for point, what, *numbers in cells:
        say(textwrap.fill(f"{point}  {what}", 79, subsequent_indent="   "))
        say("   " + ", ".join(f"{name} {cell}" for name, cell in zip(HEADER[2:], numbers, strict=True) if cell))
    if not args.quick:
        about = describe(round(time.monotonic() - begun))
        write(RESULTS, about, cells)
        say(f"{len(rows)} rows -> {RESULTS}")


def measure(quick: bool, competition: Path) -> Iterator[Row]:
    """All rows, each section in its own process, so that imports and memory of one do not slow another."""
    sections: list[tuple[str, Callable[[], list[Row]]]] = [
        ("extraction", lambda: section("extraction", quick)),
        ("loading", lambda: section("loading", quick)),
        ("training", lambda: section("training", quick, competition)),
        ("gpu", lambda: section("gpu", quick)),
        ("prediction", lambda: section("prediction", quick)),
        ("engines", lambda: section("engines", quick)),
        ("scoring", lambda: section("scoring", quick)),
        ("first_paint", lambda: section("first_paint", quick)),
        ("starting", lambda: starting.measure(quick)),
        ("growth", lambda: growth.measure(quick)),  # asks for the memory of its own children
        ("cluster", lambda: section("cluster", quick)),
    ]
    for name, work in sections:
        start = time.monotonic()
        yield from work()
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


def write(file: Path, about: str, cells: Sequence[Sequence[str]]) -> None:
    lines = ["| " + " | ".join(line) + " |" for line in (HEADER, ["---"] * len(HEADER), *cells)]
    with atomic(file) as part:
        part.write_text(f"# Benchmark\n\n{about}\n\n{POINTS}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
