"""Point 3, on the CPU: a training step with our settings against PyTorch's defaults, and the loop around the step."""

import io
import math
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.gpu import product_rate, step_flops
from benchmarks.loop import CPU, Step, make_tagger, whole_loop
from benchmarks.measure import Row, Work, by_turns, median, quotient, separate
from benchmarks.synthetic import N_MELS
from configs.load import load_config
from configs.paths import Paths
from models.device import choose_precision, memory_kept
from training.train import train_folds

MATRIX = 2048  # rows of the product that measures the processor
PRODUCTS = 20  # at a time: about a second
NAMES = {"resnetish18": "ResNetish18", "vggish": "VGGish"}


def measure(quick: bool, competition: Path) -> list[Row]:
    # frames, batch: train.batch_size is 64 by default; with smaller batches page faults cost the peer less
    sizes = [(128, 4)] if quick else [(128, 16), (128, 64), (500, 8), (500, 32)]
    dtype = max((torch.float32, torch.bfloat16), key=lambda dtype: product_rate(CPU, MATRIX, dtype))
    rows = [row for name in NAMES for size in sizes for row in against_default(name, *size, 1 if quick else 4, dtype)]
    rows.append(keeping_memory("resnetish18", *sizes[-1], 1 if quick else 4))
    rows.append(loop_on_cpu(quick))
    if not quick:
        rows.append(validation(competition))
    return rows


def against_default(name: str, n_frames: int, batch: int, rounds: int, dtype: torch.dtype) -> list[Row]:
    """Clips per second of forward, backward and AdamW's step: PyTorch's defaults and ours, each in its own process; and
    the rate of a matrix product in the same rounds, as a measure of the machine."""
    precision = choose_precision("auto", CPU)
    with (
        separate(step_of, name, n_frames, batch, "fp32", False, False) as default,
        separate(step_of, name, n_frames, batch, precision, True, True) as ours,
    ):
        matrix = torch.randn(MATRIX, MATRIX, dtype=dtype)
        ways: dict[str, Work] = {"default": default, "ours": ours}
        ways["product"] = lambda: [matrix @ matrix for _ in range(PRODUCTS)]
        times = by_turns(ways, rounds)
    ratio = quotient(times, "default", "ours")
    here, there = (f"{batch / median(times, way):.1f}/s" for way in ("ours", "default"))
    size = f"{NAMES[name]} at {batch} x {N_MELS} x {n_frames}"
    what = f"training {size}, {precision}, channels_last, fused, memory kept; peer: PyTorch's defaults"
    found = Row(3, what, here, there, f"{ratio:.2f}x", "at least 1.8x", ratio >= 1.8)
    flops = step_flops(name, n_frames, batch, CPU)
    rate = PRODUCTS * 2 * MATRIX**3 / median(times, "product")
    shares = {way: flops / median(times, way) / rate for way in ("default", "ours")}
    what = f"the same in shares of the FLOP rate of a matrix product of {MATRIX}, the better of fp32 and bf16"
    cells = (f"{shares['ours']:.0%}", f"{shares['default']:.0%}", f"at most {1 / shares['default']:.2f}x")
    return [found, Row(3, what, *cells)]


def keeping_memory(name: str, n_frames: int, batch: int, rounds: int) -> Row:
    """The part of this gain that comes from keeping a step's memory for the next."""
    step = (step_of, name, n_frames, batch, choose_precision("auto", CPU), True)
    with separate(*step, True) as kept, separate(*step, False) as given_back:
        times = by_turns({"kept": kept, "given back": given_back}, rounds)
    here, there = (f"{batch / median(times, way):.1f}/s" for way in times)
    what = f"training {NAMES[name]} at {batch} x {N_MELS} x {n_frames}, ours; peer: the same, memory not kept"
    return Row(3, what, here, there, f"{quotient(times, 'given back', 'kept'):.2f}x")


def step_of(name: str, n_frames: int, batch: int, precision: str, ours: bool, keep: bool) -> Step:
    """Run in a separate process."""
    with memory_kept() if keep else nullcontext():  # its settings stay
        return Step(make_tagger(name, channels_last=ours), n_frames, batch, precision, fused=ours)


def loop_on_cpu(quick: bool) -> Row:
    n_frames, batch, steps, rounds = (64, 4, 4, 1) if quick else (128, 16, 8, 3)
    loop, step = whole_loop("resnetish18", n_frames, batch, steps, rounds, CPU, choose_precision("auto", CPU))
    cells = (f"{loop * 1e3:.0f} ms", f"{step * 1e3:.0f} ms", f"{loop / step - 1:+.1%}")
    what = f"a step of the whole loop, ResNetish18 at {N_MELS} x {n_frames}, batch {batch}; peer: the bare step"
    return Row(3, what, *cells, "at most +3%", loop / step <= 1.03)


def validation(competition: Path) -> Row:
    """Out-of-fold MAP@3 of one fold after three epochs, in our precision and layout and in the default ones."""
    precision = choose_precision("auto", CPU)
    what = f"MAP@3 of us8k-mini, fold 0, 3 epochs, {precision}, channels_last; peer: fp32, default layout"
    if not competition.is_dir():
        return Row(3, what, f"not measured: no {competition}")
    with TemporaryDirectory() as work:
        scores: list[float] = []
        for changes in ("train.precision=auto", "train.precision=fp32 train.channels_last=false"):
            name = f"name=run{len(scores)}"
            cfg = load_config(Path("configs/us8k_mini.yaml"), [name, "train.epochs=3", *changes.split()])
            with redirect_stdout(io.StringIO()):
                scores += train_folds(cfg, [0], Paths(competition, Path(work)))
    noise = math.sqrt(0.25 / 200)  # of about 200 validation clips
    here, there = (f"{score:.4f}" for score in scores)
    return Row(3, what, here, there, "", f"equal within {2 * noise:.2f}", abs(scores[0] - scores[1]) < 2 * noise)
