"""What a command prints: lines, warnings, tables, a progress bar on a terminal and plain lines elsewhere."""

import io
import os
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import zip_longest
from pathlib import Path
from typing import Protocol, TextIO

WIDTH = 80  # columns of a terminal
NARROWEST = 12  # columns of a table cell that is wrapped
READER_LEFT = 128 + signal.SIGPIPE  # exit status of a command whose reader closed the pipe, as the shell reports it


class Advance(Protocol):
    """Called with the number of units just done. note: shown on a bar instead of the count."""

    def __call__(self, n: int, note: str = "") -> None: ...


def say(line: str) -> None:
    """Print a line of progress or a result to standard output."""
    _print(line, sys.stdout)


def warn(line: str) -> None:
    """Print a warning to standard error."""
    complain("warning:", line)


def complain(prefix: str, line: str) -> None:
    """Print to standard error. On a terminal the prefix is coloured, unless NO_COLOR is set."""
    if sys.stderr is not None and sys.stderr.isatty():
        from rich.console import Console  # here: most commands never need it

        console = Console(file=sys.stderr)
        with console.capture() as coloured:
            console.print(prefix, style="red" if prefix == "error:" else "yellow", end="", highlight=False)
        prefix = coloured.get()
    _print(f"{prefix} {line}", sys.stderr)


def _print(line: str, stream: TextIO | None) -> None:
    """stream: None if the process was started without it (>&-). Characters outside its encoding become escapes."""
    if stream is None:
        return
    try:
        print(_encodable(line, stream), file=stream, flush=True)
    except BrokenPipeError:
        _end_unread(stream)


def _encodable(text: str, stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _end_unread(stream: TextIO) -> None:
    """The reader closed the pipe (| head): exit quietly as other commands do, also in Python's last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(READER_LEFT)


@contextmanager
def muted() -> Iterator[None]:
    """Discard output and warnings, because the parent process printed the same ones already."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def table(header: list[str], rows: list[list[str]]) -> None:
    """Aligned columns, the first to the left and the others to the right. Long cells are wrapped to fit 80 columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    for row in (header, *rows):
        cells = (textwrap.wrap(cell, width) for cell, width in zip(row, widths, strict=True))
        for first, *others in zip_longest(*cells, fillvalue=""):
            aligned = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
            say("  ".join([first.ljust(widths[0]), *aligned]).rstrip())


def _prepare_streams() -> None:
    """Open missing standard streams on /dev/null: the next opened file would get their number, and with it the output
    of C libraries. Escape what the encoding lacks, because argparse prints too."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, this one
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  never closed
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _end_unread(sys.stdout)


@contextmanager
def progress(what: str, total: int, unit: str, every: float = 10.0) -> Iterator[Advance]:
    """A context that gives a function to call with the number of units just done, see `Advance`.

    On a terminal a rich bar shows rate and time left, in one line of 80 columns; elsewhere a plain line appears at most
    every `every` seconds.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        texts = (TextColumn(f"{{task.fields[{name}]}}") for name in ("note", "rate"))
        left = TimeRemainingColumn(table_column=Column(no_wrap=True))  # so that the bar alone shrinks
        own = Console()  # NNCF may have made rich's shared one, for an output that is no terminal
        with Progress(TextColumn("{task.description}"), BarColumn(), *texts, left, transient=True, console=own) as bar:
            task = bar.add_task(_encodable(what, sys.stdout), total=total, note=f"0/{total}", rate="")

            def advance(n: int, note: str = "") -> None:
                speed, done = bar.tasks[0].speed or 0.0, int(bar.tasks[0].completed) + n
                rate = f"{speed:.{0 if speed >= 10 else 1}f} {unit}/s" if speed else ""
                bar.update(task, advance=n, note=note or f"{done}/{total}", rate=rate)

            yield advance
    else:
        yield _plain_lines(what, total, unit, every)


def _plain_lines(what: str, total: int, unit: str, every: float) -> Advance:
    start = last = time.monotonic()
    done = 0

    def advance(n: int, note: str = "") -> None:
        nonlocal last, done
        done += n
        now = time.monotonic()
        if now - last >= every and 0 < done < total:
            last = now
            rate = done / max(now - start, 1e-9)
            say(f"{what}: {done}/{total} {unit}, {rate:.1f} {unit}/s, {(total - done) / rate:.0f} s left")

    return advance
