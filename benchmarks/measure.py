"""How the benchmark measures: pieces of work in turn, medians over the rounds, memory of separate processes.

Nothing heavy is imported here, because the memory of a child process starts at that of its parent.
"""

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

Work = Callable[[], object]
Times = dict[str, list[float]]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    point: int  # the target that it belongs to, see POINTS in benchmarks/run.py
    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None  # None without a goal or a measurement


def by_turns(
    pieces: Mapping[str, Work], rounds: int, clock: Callable[[], float] = time.perf_counter, warm_up: bool = True
) -> Times:
    """Seconds of every piece in every round, after one that is not counted. Other load on the machine slows all pieces
    alike."""
    times: Times = {name: [] for name in pieces}
    for i in range(-warm_up, rounds):
        for name, work in pieces.items():
            start = clock()
            work()
            if i >= 0:
                times[name].append(clock() - start)
    return times


def by_both_clocks(pieces: Mapping[str, Work], rounds: int) -> tuple[Times, Times]:
    """As `by_turns`: elapsed seconds, and CPU seconds of all threads of this process. Under other load only the second
    say much."""
    elapsed: Times = {name: [] for name in pieces}
    busy: Times = {name: [] for name in pieces}
    for i in range(-1, rounds):
        for name, work in pieces.items():
            start = time.perf_counter(), time.process_time()
            work()
            if i >= 0:
                elapsed[name].append(time.perf_counter() - start[0])
                busy[name].append(time.process_time() - start[1])
    return elapsed, busy


def cpu_times(pieces: Mapping[str, Callable[..., object]], rounds: int, *args: Any) -> Times:
    """CPU seconds of every piece, called with args, in every round, after one that is not counted.

    Each piece runs in its own process, whose libraries are limited to one thread before they are loaded: otherwise idle
    threads of one library would spin, and count, while another works.
    """
    times: Times = {name: [] for name in pieces}
    with ExitStack() as stack, _environment(dict.fromkeys(THREADS, "1")):
        spawn = get_context("spawn")
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn)) for name in pieces}
        for i in range(-1, rounds):
            for name, work in pieces.items():
                seconds = pools[name].submit(_cpu_seconds, work, args).result()
                if i >= 0:
                    times[name].append(seconds)
    return times


@contextmanager
def separate(make: Callable[..., Work], *args: Any) -> Iterator[Work]:
    """Work in a separate process: make(*args), called there, returns the work. The process ends with the context."""
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_make, initargs=(make, args)) as pool:
        pool.submit(_do, 0).result()  # starts the process
        yield lambda: pool.submit(_do, 1).result()


def median(times: Times, name: str) -> float:
    return statistics.median(times[name])


def quotient(times: Times, over: str, under: str) -> float:
    """Median over the rounds of one piece's time divided by the other's."""
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))


def in_child(work: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """work(*args) in a new process: its result, and the peak memory in MiB of that process or its largest child."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result: tuple[Any, float] = pool.submit(_with_peak, work, args).result()
    return result


_made: list[Work] = []  # in the process of `separate`: its work


def _make(make: Callable[..., Work], args: tuple[Any, ...]) -> None:
    _made.append(make(*args))


def _do(times: int) -> None:
    for _ in range(times):
        _made[0]()


def _cpu_seconds(work: Callable[..., object], args: tuple[Any, ...]) -> float:
    start = time.process_time()
    work(*args)
    return time.process_time() - start


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes started within."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _with_peak(work: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, float]:
    result = work(*args)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return result, peak / 1024  # Linux counts in KiB
