"""Work in several processes, for all that needs them: extraction, --jobs, a search and the ablation."""

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import Pipe, resource_tracker
from multiprocessing.connection import Connection

from console.errors import UserError
from console.output import READER_LEFT, say

STOPS = {signal.SIGINT, signal.SIGTERM}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def worker_processes(n: int, what: str, threads: int = 1) -> Iterator[Executor]:
    """An executor with n processes, which have so many threads each; `what` each of them does, for a message.

    Lines that a worker prints go through `say` here, each of them whole. Ctrl-C and SIGTERM raise KeyboardInterrupt
    here, and whatever is raised here ends the workers at once. They end too when this process is killed. Raises
    UserError where a worker is killed, and SystemExit where nobody reads what they print any more.
    """
    from joblib.externals.loky import ProcessPoolExecutor  # joblib.Parallel would do a single worker's work in here

    warnings.filterwarnings("ignore", module=r"joblib\.externals")  # that pgrep is missing, or a worker was replaced
    (lines, out), (held, hold) = Pipe(duplex=False), Pipe(duplex=False)
    unread = threading.Event()
    reader = threading.Thread(target=_pass_on, args=(lines, hold, unread), daemon=True)
    environment = dict.fromkeys(THREADS, str(max(1, threads)))
    pool = ProcessPoolExecutor(n, initializer=_begin, initargs=(held, out), env=environment)
    resource_tracker.ensure_running()  # as it starts, Python 3.11's lets through the stops that are blocked below
    with _sigterm_interrupts():
        try:
            with _stops_blocked():  # workers start now and inherit it: a stop is for this process, which kills them
                reader.start()
                pool.submit(os.getpid)
            yield pool
            pool.shutdown()  # waits for what is still to be done
        except BrokenProcessPool:
            if not unread.is_set():
                raise UserError(
                    f"a process that {what} ended too early: if nothing above says why, it was killed, perhaps because "
                    "memory ran out; the same command goes on"
                ) from None
        finally:
            hold.close()  # and not kill_workers=True, which prints a traceback where calls wait (loky 3.6)
            pool.shutdown()
            out.close()
            reader.join(5)  # seconds; what a worker started may hold the pipe for a moment longer
    if unread.is_set():
        sys.exit(READER_LEFT)


def _begin(held: Connection, out: Connection) -> None:
    """In a worker, before any work. What it prints goes to the parent: a pipe shows no bar, whatever prints."""
    threading.Thread(target=_end_when_let_go, args=(held,), daemon=True).start()
    os.dup2(out.fileno(), 1)
    out.close()
    # as `_pass_on` reads it, whatever the terminal's encoding is; with both, a line is one write
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]


def _end_when_let_go(held: Connection) -> None:
    """The parent alone has the other end of this pipe: it closes it, or the system does when the parent is killed."""
    with contextlib.suppress(EOFError, OSError):
        held.recv_bytes()
    os._exit(1)


def _pass_on(lines: Connection, hold: Connection, unread: threading.Event) -> None:
    """Say each line. Where the reader of ours has left, the workers end at once, and with them the pool."""
    with open(lines.fileno(), closefd=False, encoding="utf-8", errors="replace") as text:
        try:
            for line in text:
                say(line.rstrip("\n"))
        except SystemExit:  # of a thread, which nobody would hear of
            unread.set()
            hold.close()
    lines.close()


@contextmanager
def _stops_blocked() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end of the context."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does; without this, the process would end and leave the workers to their watch."""
    if threading.current_thread() is not threading.main_thread():  # which alone may ask for signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
