"""How the kit speaks: lines, warnings, a progress bar on a terminal and plain lines elsewhere."""

import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Protocol, TextIO

READER_LEFT = 128 + signal.SIGPIPE  # the status of a command whose output nobody reads any more, as the shell has it


class Advance(Protocol):
    """Called with the number of units just done; note: what else a bar shows, the units' count then makes room."""

    def __call__(self, n: int, note: str = "") -> None: ...


def say(line: str) -> None:
    """A line of progress or a result, to standard output."""
    _print(line, sys.stdout)


def warn(line: str) -> None:
    """Something the user should know but need not act on, to standard error."""
    _print(f"warning: {line}", sys.stderr)


def _print(line: str, stream: TextIO | None) -> None:
    """stream: None where we were started without it (>&-). A character that its encoding lacks becomes an escape."""
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
    """The reader has what it asked for (| head): end as quietly as other commands do, also in Python's last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(READER_LEFT)


@contextmanager
def muted() -> Iterator[None]:
    """Nothing is said or warned of here: the process that started this one has done so already."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def table(header: list[str], rows: list[list[str]]) -> None:
    """Aligned columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join([first, *others]).rstrip())


def _prepare_streams() -> None:
    """Where we were started without a standard stream, the next file to be opened would get its number, and with it
    whatever a C library prints. An ASCII terminal must not stop what others print, such as argparse."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  for good
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
    """A context whose value is called with the number of units just done, see `Advance`.

    On a terminal a rich bar shows rate and time left, in one line of 80 columns; elsewhere a plain line appears at most
    every `every` seconds.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        texts = (TextColumn(f"{{task.fields[{name}]}}") for name in ("note", "rate"))
        left = TimeRemainingColumn(table_column=Column(no_wrap=True))  # so that the bar alone shrinks
        with Progress(TextColumn("{task.description}"), BarColumn(), *texts, left, transient=True) as bar:
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
