"""Point 4: the whole loop against the bare step on a GPU, and what share of its bf16 rate the step reaches."""

import time
from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.loop import Step, make_tagger, synchronise, whole_loop
from benchmarks.measure import Row
from benchmarks.synthetic import N_MELS

NAMES = ("resnetish18", "vggish", "timm:seresnext50_32x4d")


def measure(quick: bool) -> list[Row]:
    if not torch.cuda.is_available():
        return [Row(4, "the whole loop against the bare step on a GPU", "not measured: no GPU")]
    steps, rounds = (10, 1) if quick else (40, 3)
    return on_device(torch.device("cuda"), NAMES, n_frames=500, batch=128, steps=steps, rounds=rounds, matrix=8192)


def on_device(
    device: torch.device, names: Sequence[str], n_frames: int, batch: int, steps: int, rounds: int, matrix: int
) -> list[Row]:
    """Two rows per network, in bf16 and channels_last; matrix: rows of the product that measures the device."""
    fastest = product_rate(device, matrix, torch.bfloat16)
    rows = []
    for name in names:
        loop, bare = whole_loop(name, n_frames, batch, steps, rounds, device, "bf16")
        what = f"{name} at {N_MELS} x {n_frames}, batch {batch}, bf16, channels_last"
        cells = (f"{batch / loop:,.0f}/s", f"{batch / bare:,.0f}/s", f"{bare / loop:.1%}")
        rows.append(Row(4, f"the whole loop, {what}; peer: the bare step", *cells, "at least 90%", bare / loop >= 0.9))
        rate = step_flops(name, n_frames, batch, device) / bare
        cells = (f"{rate / 1e12:.3g} TFLOP/s", f"{fastest / 1e12:.3g} TFLOP/s", f"{rate / fastest:.1%}")
        rows.append(Row(4, f"the bare step of {name}; peer: a bf16 matrix product of {matrix}", *cells))
    return rows


def step_flops(name: str, n_frames: int, batch: int, device: torch.device) -> float:
    """Counted FLOP of a step, forward and backward."""
    step = Step(make_tagger(name), n_frames, batch, "bf16", device=device)
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def product_rate(device: torch.device, size: int, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Measured FLOP/s of a square matrix product."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    a @ a
    return 2 * size**3 / per_call(lambda: a @ a, device, seconds)


def per_call(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds per call, over as many calls as take `seconds`."""
    synchronise(device)
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(10):
            work()
        synchronise(device)
        calls += 10
    return (time.perf_counter() - start) / calls
