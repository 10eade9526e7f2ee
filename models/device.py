"""The device and precision of a network, and faster reuse of memory on a CPU."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from console.errors import UserError

STREAMS = 4  # at most: each batch needs memory of its own
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # glibc's malloc.h


@contextmanager
def memory_kept() -> Iterator[None]:
    """Keep freed memory in the process for the next tensor; return it to the system at the end.

    glibc returns each freed block of 32 MB or more at once, and activations are larger: in each step the system would
    clear gigabytes again, page by page (man 3 mallopt). `make bench` measures the gain in training. The process needs
    more memory, mostly if batches differ in length and leave holes that the next tensor does not fit. Use it in the
    main thread before other threads start: existing threads keep their own heaps, too small for large tensors. The
    settings stay changed, because glibc does not report the old ones. Other C libraries are not affected.
    """
    libc = ctypes.CDLL(None)
    mallopt, trim = getattr(libc, "mallopt", None), getattr(libc, "malloc_trim", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)  # no separate blocks for large tensors
        mallopt(TRIM_THRESHOLD, -1)  # keep the end of the heap
        mallopt(ARENA_MAX, 1)  # new threads use the first heap
    try:
        yield
    finally:
        if trim is not None:
            trim(0)


def choose_device(name: str) -> torch.device:
    """'auto' uses a GPU if there is one. Raises UserError if 'cuda' is not available."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device=cuda, but PyTorch finds no GPU: use train.device=auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def visible_cards() -> list[str]:
    """The GPUs that PyTorch sees, each as CUDA_VISIBLE_DEVICES names it: a number, a GPU's UUID or a part of one (MIG).

    A list that the environment has narrowed already is kept to.
    """
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [str(i) for i in range(count)])[:count]


def choose_precision(name: str, device: torch.device) -> str:
    """'auto' is the fastest: bf16 on newer GPUs and on CPUs that multiply faster in it, fp16 on older GPUs, else fp32.
    Raises UserError on fp16 for a CPU."""
    if name == "fp16" and device.type == "cpu":
        raise UserError("train.precision=fp16 needs a GPU, but the device is a CPU: use train.precision=auto")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if _cpu_gains_from_bf16() else "fp32"


def streams() -> int:
    """How many batches a CPU should predict at once, with its threads shared out: fewer wait for one another."""
    return min(torch.get_num_threads(), STREAMS)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """A context in which networks run in that precision."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, dtype=kinds.get(precision), enabled=precision in kinds)


def _cpu_gains_from_bf16() -> bool:
    """AMX and AMD's AVX-512 bf16 multiply faster in bf16 than in fp32: on AMD training was 1.7 to 2.1 times as fast.
    With Intel's AVX-512 bf16 it took 1.4 to 1.5 times as long. Without these bf16 is emulated, 20 times slower."""
    try:
        with open("/proc/cpuinfo") as info:  # noqa: PTH123
            facts = dict(line.split(":", 1) for line in info if line.startswith(("flags", "vendor_id")))
    except OSError:
        return False
    found = {key.strip(): value.split() for key, value in facts.items()}
    flags = found.get("flags", [])
    return "amx_bf16" in flags or ("avx512_bf16" in flags and found.get("vendor_id") == ["AuthenticAMD"])
