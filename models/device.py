"""Which device and precision a network runs on, and what keeps its memory."""

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from console.errors import UserError

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


def choose_device(wanted: str) -> torch.device:
    """'auto' takes the GPU where there is one. Raises UserError where 'cuda' is wanted and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device=cuda, but PyTorch sees no GPU here: use train.device=auto")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(wanted: str, device: torch.device) -> str:
    """'auto' -> what the hardware gains from: bf16 on newer GPUs and on CPUs that multiply faster in it, fp16 on older
    GPUs, else fp32. Raises UserError on fp16 for a CPU, which has none."""
    if wanted == "fp16" and device.type == "cpu":
        raise UserError("train.precision=fp16 is for GPUs, and this trains on a CPU: use train.precision=auto")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if _cpu_gains_from_bf16() else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """The context in which the network runs in that precision."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, dtype=kinds.get(precision), enabled=precision in kinds)


def _cpu_gains_from_bf16() -> bool:
    """AMX and AMD's AVX-512 bf16 do more multiplications a cycle in bf16 than in fp32: on AMD training was 1.7 to 2.1
    times as fast. Intel's AVX-512 bf16 does not, and training took 1.4 to 1.5 times as long. Without any of them bf16
    is emulated, 20 times slower than fp32."""
    try:
        with open("/proc/cpuinfo") as info:  # noqa: PTH123
            facts = dict(line.split(":", 1) for line in info if line.startswith(("flags", "vendor_id")))
    except OSError:
        return False
    found = {key.strip(): value.split() for key, value in facts.items()}
    flags = found.get("flags", [])
    return "amx_bf16" in flags or ("avx512_bf16" in flags and found.get("vendor_id") == ["AuthenticAMD"])
