"""Point 3, on the CPU: a training step as we set it up against PyTorch's defaults, and the loop around the step."""

import io
import math
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.loop import CPU, Step, make_tagger, whole_loop
from benchmarks.measure import Row, by_turns, median, quotient
from benchmarks.synthetic import N_MELS
from configs.load import load_config
from configs.paths import Paths
from models.fold_training import train_folds
from models.tagger import choose_precision

NAMES = {"resnetish18": "ResNetish18", "vggish": "VGGish"}


def measure(quick: bool, competition: Path) -> list[Row]:
    sizes = [(128, 4)] if quick else [(128, 16), (500, 8)]  # frames, batch
    rows = [against_default(name, *size, 1 if quick else 4) for name in NAMES for size in sizes]
    rows.append(loop_on_cpu(quick))
    if not quick:
        rows.append(validation(competition))
    return rows


def against_default(name: str, n_frames: int, batch: int, rounds: int) -> Row:
    """Clips per second of forward, backward and AdamW's step: PyTorch's defaults and ours."""
    precision = choose_precision("auto", CPU)
    default = Step(make_tagger(name, channels_last=False), n_frames, batch, "fp32", fused=False)
    ours = Step(make_tagger(name), n_frames, batch, precision)
    times = by_turns({"default": default, "ours": ours}, rounds)
    ratio = quotient(times, "default", "ours")
    here, there = (f"{batch / median(times, way):.1f}/s" for way in ("ours", "default"))
    what = (
        f"training {NAMES[name]} at {N_MELS} x {n_frames}, {precision}, channels_last, fused; peer: PyTorch's defaults"
    )
    return Row(3, what, here, there, f"{ratio:.2f}x", "at least 1.8x", ratio >= 1.8)


def loop_on_cpu(quick: bool) -> Row:
    n_frames, batch, steps, rounds = (64, 4, 4, 1) if quick else (128, 16, 8, 3)
    loop, step = whole_loop("resnetish18", n_frames, batch, steps, rounds, CPU, choose_precision("auto", CPU))
    told = (f"{loop * 1e3:.0f} ms", f"{step * 1e3:.0f} ms", f"{loop / step - 1:+.1%}")
    what = f"a step of the whole loop, ResNetish18 at {N_MELS} x {n_frames}, batch {batch}; peer: the bare step"
    return Row(3, what, *told, "at most +3%", loop / step <= 1.03)


def validation(competition: Path) -> Row:
    """Out-of-fold MAP@3 of one fold after three epochs, in our precision and layout and in the default ones."""
    what = "MAP@3 of us8k-mini, fold 0, 3 epochs; peer: fp32, default layout"
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
