"""Memory that was freed is not asked for again."""

import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import torch
from models.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def work():  # the pattern of a training step: activations in one order, gradients in the other
    x = [torch.ones(BLOCK, requires_grad=True)]
    for _ in range(5):
        x.append(x[-1].sigmoid().exp())
    x[-1].sum().backward()

BLOCK = 10_000_000  # 40 MB: glibc alone gives it back at once
if "kept" in sys.argv:
    keep_freed_memory()
    keep_freed_memory()
if "thread" in sys.argv:
    from threading import Thread
    run = work
    def work():
        thread = Thread(target=run)
        thread.start()
        thread.join()
for _ in range(5):
    work()
print(sum(faults() for _ in range(5)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_later_steps_get_the_memory_of_earlier_ones(where: str) -> None:
    plain, kept = (_page_faults(way, where) for way in ("plain", "kept"))
    assert kept < plain / 5


def _page_faults(*args: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT, *args], capture_output=True, text=True, check=True)
    return int(done.stdout)
