"""How a process that computes on the CPU keeps its memory."""

import ctypes

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def keep_freed_memory() -> None:
    """From now on freed memory stays with the process. Call it where a network is about to run; twice does no harm.

    glibc gives every block of 32 MB or more back to the system as soon as it is freed, and an activation of a batch is
    larger: each step would let the system clear gigabytes anew, page by page (man 3 mallopt). ResNetish18 in batches of
    64 x 64 mels x 128 frames trained in 0.82 of the time, in batches of 32 x 500 frames in 0.63. The price is memory:
    a third to a half as much again, 0.7 where every batch has another length. Another C library keeps its own ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)  # no blocks of their own for large tensors
        mallopt(TRIM_THRESHOLD, -1)  # nor is the end of the heap given back
        mallopt(ARENA_MAX, 1)  # the heap of a thread is too small for large tensors: all use the first one's
