"""How a process that computes on the CPU keeps its memory."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # glibc's malloc.h


@contextmanager
def memory_kept() -> Iterator[None]:
    """What is freed within stays with the process for the next tensor; at the end it goes back to the system.

    glibc gives every block of 32 MB or more back as soon as it is freed, and an activation of a batch is larger: each
    step would let the system clear gigabytes anew, page by page (man 3 mallopt). `make bench` has what training gains.
    The price is memory, most where every batch has another length: holes remain that the next tensor does not fit.
    Enter it in the main thread before others start: a thread that has a heap of its own keeps to it, and that one is
    too small for large tensors. glibc cannot be asked for its settings, so they stay. Another C library keeps its ways.
    """
    libc = ctypes.CDLL(None)
    mallopt, trim = getattr(libc, "mallopt", None), getattr(libc, "malloc_trim", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)  # no blocks of their own for large tensors
        mallopt(TRIM_THRESHOLD, -1)  # nor is the end of the heap given back
        mallopt(ARENA_MAX, 1)  # threads that start from now on use the first heap
    try:
        yield
    finally:
        if trim is not None:
            trim(0)
