"""Work in several processes, or on a cluster (configs.cluster): for extraction, --jobs, a search and the ablation."""

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing import Pipe, resource_tracker
from multiprocessing.connection import Connection

from console.errors import UserError
from console.output import READER_LEFT, say

SIGNALS = {signal.SIGINT, signal.SIGTERM}
DEALT = 4096  # cards in the deck: a worker that is replaced takes the next; a pipe holds as much
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Engine:
    """What runs jobs instead of processes here. A job has threads, may gain from a GPU and needs bytes of memory."""

    jobs: Callable[[str, int, bool, int], AbstractContextManager[Executor]]  # the first: what the jobs do
    room: Callable[[int, bool, int], int]  # how many such jobs run at once


ENGINE: ContextVar[Engine | None] = ContextVar("engine", default=None)


@contextmanager
def worker_processes(
    n: int, what: str, threads: int = 1, cards: Sequence[str] | None = None, memory: int = 0
) -> Iterator[Executor]:
    """An executor with n processes of that many threads. what: what each process does, for error messages.

    cards: GPUs as CUDA_VISIBLE_DEVICES names them, dealt out in turn: each process sees one. Empty: all see all. None:
    the work gains nothing from one. memory: bytes that a job needs.

    In `on_cluster` jobs run there, as many at once as its nodes have room for; threads 0: as it decides.

    Lines that a worker prints are printed here by `say`, never mixed. Ctrl-C and SIGTERM raise KeyboardInterrupt here,
    and any exception here ends the workers at once. They also end when this process is killed. Raises UserError if a
    worker is killed, and SystemExit if the reader of the output closes the pipe.
    """
    if (engine := ENGINE.get()) is not None:
        with engine.jobs(what, threads, cards is not None, memory) as pool:
            yield pool
        return
    from joblib.externals.loky import ProcessPoolExecutor  # joblib.Parallel runs a single worker in this process

    warnings.filterwarnings("ignore", module=r"joblib\.externals")  # that pgrep is missing, or a worker was replaced
    (lines, out), (alive, parent) = Pipe(duplex=False), Pipe(duplex=False)
    (deck, dealer) = Pipe(duplex=False)
    os.write(dealer.fileno(), bytes(i % len(cards) for i in range(DEALT)) if cards else b"")
    unread = threading.Event()
    reader = threading.Thread(target=_print_lines, args=(lines, parent, unread), daemon=True)
    environment = dict.fromkeys(THREADS, str(max(1, threads)))
    pool = ProcessPoolExecutor(n, initializer=_prepare_worker, initargs=(alive, out, deck, cards), env=environment)
    resource_tracker.ensure_running()  # Python 3.11 unblocks the signals that are blocked below when it starts
    with sigterm_interrupts():
        try:
            with _signals_blocked():  # workers start now and inherit it: only this process handles a signal
                reader.start()
                pool.submit(os.getpid)
            yield pool
            pool.shutdown()  # waits for the remaining work
        except BrokenProcessPool:
            if not unread.is_set():
                raise UserError(
                    f"a process that {what} ended too early: unless an error above says why, it was killed, perhaps "
                    "because it was out of memory: run the same command to continue"
                ) from None
        finally:
            dealer.close()
            deck.close()
            parent.close()  # ends the workers; kill_workers=True prints a traceback if calls wait (loky 3.6)
            pool.shutdown()
            out.close()
            reader.join(5)  # seconds; a child of a worker may hold the pipe a moment longer
    if unread.is_set():
        sys.exit(READER_LEFT)


def runs_elsewhere() -> bool:
    """Whether jobs run on a cluster: its machines may have another device, and share no memory with this process."""
    return ENGINE.get() is not None


def room_elsewhere(threads: int = 1, cards: Sequence[str] | None = None, memory: int = 0) -> int:
    """How many such jobs, see `worker_processes`, run at once on the cluster. Raises LookupError without one."""
    if (engine := ENGINE.get()) is None:
        raise LookupError("no cluster")
    return engine.room(threads, cards is not None, memory)


def _prepare_worker(alive: Connection, out: Connection, deck: Connection, cards: Sequence[str] | None) -> None:
    """Run first in a worker. Its output goes to the parent through a pipe, where no progress bar is shown.

    deck: holds the numbers of `cards` in turn, a byte each, for as many workers as there may ever be."""
    if cards:  # before CUDA starts in this process
        os.environ["CUDA_VISIBLE_DEVICES"] = cards[os.read(deck.fileno(), 1)[0]]
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
    os.dup2(out.fileno(), 1)
    out.close()
    # the encoding that `_print_lines` reads, whatever the terminal's is; line buffering makes a line one write
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]


def _end_with_parent(alive: Connection) -> None:
    """Only the parent has the other end of this pipe, which is closed by it, or by the system if it is killed."""
    with contextlib.suppress(EOFError, OSError):
        alive.recv_bytes()
    os._exit(1)


def _print_lines(lines: Connection, parent: Connection, unread: threading.Event) -> None:
    """Print each line. If the reader of our output closes the pipe, end the workers, and with them the pool."""
    with open(lines.fileno(), closefd=False, encoding="utf-8", errors="replace") as text:
        try:
            for line in text:
                say(line.rstrip("\n"))
        except SystemExit:  # would only end this thread
            unread.set()
            parent.close()
    lines.close()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end of the context."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
