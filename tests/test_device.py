"""Freed memory is reused."""

import subprocess
import sys

import pytest

COUNT = """
import resource, sys
from contextlib import nullcontext
from threading import Thread
import torch
from models.device import memory_kept

BLOCK = 20_000_000  # 80 MB: more than a thread's own heap can hold

def step():  # like training: activations come in one order, their gradients in the other
    x = [torch.ones(BLOCK, requires_grad=True)]
    for _ in range(3):
        x.append(x[-1].sigmoid().exp())
    x[-1].sum().backward()
    del x
    torch.ones(3 * BLOCK)  # the end of the heap, which glibc would give back first

def count():
    seen = []
    for _ in range(9):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        step()
        seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    print(sorted(seen)[4])  # the median: now and then a hole is too small for the next tensor

def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 10**6

empty = megabytes()
with memory_kept() if "kept" in sys.argv else nullcontext():
    if "thread" in sys.argv:
        thread = Thread(target=count)
        thread.start()
        thread.join()
    else:
        count()
print(megabytes() - empty)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_later_steps_reuse_memory_and_the_end_returns_it(where: str) -> None:
    (plain, _), (kept, left) = (_faults_and_megabytes(way, where) for way in ("plain", "kept"))
    assert kept < plain / 4
    assert left < 80


def _faults_and_megabytes(*args: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", COUNT, *args], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]
