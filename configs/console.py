"""How the kit speaks: lines, warnings, a progress bar on a terminal and plain lines elsewhere."""

import errno
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from configs.errors import UserError

Advance = Callable[[int], None]


def say(line: str) -> None:
    """A line of progress or a result, to standard output."""
    print(line, flush=True)


def warn(line: str) -> None:
    """Something the user should know but need not act on, to standard error."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def table(header: list[str], rows: list[list[str]]) -> None:
    """Aligned columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join([first, *others]).rstrip())


def run_command(main: Callable[[], None]) -> None:
    """Run a verb's main(): a UserError becomes one line and exit status 2, Ctrl-C becomes 130.

    So does what the operating system refuses, such as a folder that cannot be written or a full disk, and a want of
    memory, on a GPU too.
    """
    same = "the same command without --force" if "--force" in sys.argv else "the same command"
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.strerror is None:  # not the system's: a library's own
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        remedy = f": make room, {same} goes on" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        print(f"error: {where}{error.strerror}{remedy}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not _wants_memory(error):
            raise
        fact = " ".join(str(error).split())[:200]
        less = "a smaller train.batch_size, predict.batch_size, crop or window needs less"
        print(f"error: out of memory ({fact}): {less}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"interrupted: {same} goes on from here", file=sys.stderr)
        sys.exit(130)


def _wants_memory(error: Exception) -> bool:
    """Also of PyTorch's errors, by name and words: it must not be imported for this."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


@contextmanager
def progress(what: str, total: int, unit: str, every: float = 10.0) -> Iterator[Advance]:
    """A context whose value is called with the number of units just done.

    On a terminal a rich bar shows rate and time left; elsewhere a plain line appears at most every `every` seconds.
    """
    if sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        rate = TextColumn("{task.fields[rate]}")
        with Progress(*columns, rate, TimeRemainingColumn(), transient=True) as bar:
            task = bar.add_task(what, total=total, rate="")

            def advance(n: int) -> None:
                speed = bar.tasks[0].speed
                bar.update(task, advance=n, rate=f"{speed:.1f} {unit}/s" if speed else "")

            yield advance
    else:
        yield _plain_lines(what, total, unit, every)


def _plain_lines(what: str, total: int, unit: str, every: float) -> Advance:
    start = last = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal last, done
        done += n
        now = time.monotonic()
        if now - last >= every and 0 < done < total:
            last = now
            rate = done / max(now - start, 1e-9)
            say(f"{what}: {done}/{total} {unit}, {rate:.1f} {unit}/s, {(total - done) / rate:.0f} s left")

    return advance
