"""The fits of one comparison, which do not depend on each other: side by side where they take long."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass

from blending.apply import Blend
from blending.fit import FitRows, fit_blend
from configs.processes import worker_processes
from console.output import Advance

SLOW = ("temperature", "greedy", "weights", "log_linear", "stack")  # methods whose fits are worth a process,
LARGE = 300_000  # from so many models x clips x classes on
MOST = 4  # processes, each of one thread


@dataclass(frozen=True)
class Fit:
    """A fit to all rows of a weight above 0, without those of the fold `held`; spread as in `fit_blend`."""

    method: str
    rows: FitRows
    held: int | None = None
    spread: float | None = None

    def seen(self) -> FitRows:
        return self.rows.at(self.rows.weight > 0 if self.held is None else self.rows.fold != self.held)


FitAll = Callable[[Sequence[Fit]], list[Blend]]


@contextmanager
def fitting(methods: Sequence[str], rows: FitRows, names: Sequence[str], advance: Advance) -> Iterator[FitAll]:
    """A context that gives the function which makes the blends of fits, in their order. methods, rows: of these fits.

    Raises UserError as `worker_processes`, and as a fit.
    """
    n = min(len(os.sched_getaffinity(0)), MOST)
    size = len(rows.stack) * int((rows.weight > 0).sum()) * rows.stack.shape[2]
    if n > 1 and size >= LARGE and not set(SLOW).isdisjoint(methods):
        with worker_processes(n, "fits a blend") as pool:
            yield lambda fits: _in_processes(pool, 2 * n, fits, names, advance)
    else:
        yield lambda fits: one_by_one(fits, names, advance)


def no_bar(n: int, note: str = "") -> None:
    """For who shows no progress."""


def one_by_one(fits: Sequence[Fit], names: Sequence[str], advance: Advance = no_bar) -> list[Blend]:
    found = []
    for one in fits:
        found.append(fit_blend(one.method, one.seen(), names, one.spread))
        advance(1)
    return found


def _in_processes(
    pool: Executor, most: int, fits: Sequence[Fit], names: Sequence[str], advance: Advance
) -> list[Blend]:
    """No more than `most` fits wait at a time, as each has its own rows. The last, which take longest, begin first."""
    found, waiting = dict[int, Blend](), dict[Future[Blend], int]()
    for i in reversed(range(len(fits))):
        one = fits[i]
        waiting[pool.submit(fit_blend, one.method, one.seen(), names, one.spread)] = i
        while len(waiting) >= most or (i == 0 and waiting):
            for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                found[waiting.pop(done)] = done.result()
                advance(1)
    return [found[i] for i in range(len(fits))]
