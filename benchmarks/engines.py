"""Point 5: prediction on the CPU by compiled networks, against PyTorch: the same batches, by turns.

python -m benchmarks.engines timm:resnet18 ced_tiny     which of these networks OpenVINO computes, and how fast
"""

import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from benchmarks.loop import CPU
from benchmarks.measure import Row, by_turns, median, quotient
from configs.load import load_config
from configs.paths import DEFAULT_CONFIG
from console.command_line import run_command
from console.output import say
from models.device import autocast, choose_precision, memory_kept
from models.engine import Forward, Torch
from models.engine_openvino import ConversionError, OpenVino
from models.tagger import Tagger, build_tagger

NETWORKS = ("resnetish18", "vggish", "timm:resnet10t", "timm:tf_efficientnet_b0", "timm:seresnext50_32x4d", "cnn14")
BATCH, N_MELS, N_FRAMES, N_CLASSES = 32, 128, 250, 41
TOP = 3  # classes whose order is compared
FOLDS, CORES = 5, 4
CLIPS, SOUNDSCAPES = 9_400, 700 * 60  # FSDKaggle2018's test clips; seconds of sound


def measure(quick: bool) -> list[Row]:
    if find_spec("openvino") is None:
        return [Row(5, "prediction by OpenVINO", "not measured: pip install '.[fast]'")]
    names, rounds = (NETWORKS[2:3], 1) if quick else (NETWORKS, 5)
    with memory_kept():
        return [row for name in names for row in of_network(name, rounds)]


def of_network(name: str, rounds: int, n_batches: int = 4) -> list[Row]:
    """A row for each precision that this CPU gains from, and one where the network cannot be converted."""
    tagger, x = tagger_of(name), torch.randn(BATCH, 1, N_MELS, N_FRAMES, generator=torch.Generator().manual_seed(0))
    try:
        (compiled := OpenVino(tagger)).prepare(x, "fp32")
    except ConversionError as error:
        return [Row(5, f"prediction with {name} by OpenVINO", f"PyTorch goes on: {error}")]
    precisions = dict.fromkeys(("fp32", choose_precision("auto", CPU)))
    return [row for each in precisions for row in by_engines(name, tagger, compiled, x, each, rounds, n_batches)]


def by_engines(
    name: str, tagger: Tagger, compiled: OpenVino, x: Tensor, precision: str, rounds: int, n_batches: int
) -> list[Row]:
    def one_by_one() -> None:
        with torch.inference_mode(), autocast(precision, CPU):
            for _ in range(n_batches):
                tagger(x)

    ways: dict[str, Callable[[], object]] = {"one by one": one_by_one}
    engines: dict[str, Forward] = {"torch": Torch(tagger), "openvino": compiled}
    ways |= {key: partial(_all_of, forward, x, n_batches, precision) for key, forward in engines.items()}
    times = by_turns(ways, rounds)
    ratio, at_once = quotient(times, "torch", "openvino"), quotient(times, "one by one", "torch")
    here, there = (f"{n_batches * BATCH / median(times, way):.1f} windows/s" for way in ("openvino", "torch"))
    size = f"{name}, {precision}, {BATCH} x {N_MELS} x {N_FRAMES}"
    goal = 1.15 if "efficientnet" not in name else 2.5 if precision == "fp32" else 2.0
    windows_a_core = n_batches * BATCH / median(times, "openvino") / torch.get_num_threads()
    minutes = [FOLDS * seconds / (windows_a_core * CORES * N_FRAMES / 100) / 60 for seconds in (CLIPS * 5, SOUNDSCAPES)]
    other = f"first {TOP} classes that differ from PyTorch's in fp32, {size}"
    whole = f"{CLIPS:,} clips of 5 s; 700 minutes; {FOLDS} folds, {CORES} cores, {size}, projected without decoding"
    return [
        Row(5, f"OpenVINO, {size}; peer: ours", here, there, f"{ratio:.2f}x", f"at least {goal}x", ratio >= goal),
        Row(5, f"a batch per core, {size}; peer: one by one", "", "", f"{at_once:.2f}x"),
        Row(5, other, differing(tagger, compiled, x, precision)),
        Row(5, whole, "; ".join(f"{one:.1f} min" for one in minutes)),
    ]


def differing(tagger: Tagger, compiled: OpenVino, x: Tensor, precision: str) -> str:
    """How many windows have other first classes, or these in another order, and the largest difference."""
    exact, theirs, ours = (
        tagger.probabilities(next(iter(way([x], each)))).numpy()
        for way, each in ((Torch(tagger), "fp32"), (Torch(tagger), precision), (compiled, precision))
    )
    ranks = [np.argsort(-probs, axis=1, kind="stable")[:, :TOP] for probs in (exact, theirs, ours)]
    n = [(ranks[0] != other).any(axis=1).sum() for other in ranks[1:]]
    return f"{n[1]} of {len(x)} windows (PyTorch {n[0]}), by {np.abs(exact - ours).max():.1g}"


def tagger_of(name: str) -> Tagger:
    """With random weights: the time does not depend on them. Networks of timm get three channels."""
    deltas = 2 if name.startswith("timm:") else 0
    cfg = load_config(DEFAULT_CONFIG, [f"model.name={name}", f"model.deltas={deltas}", f"features.n_mels={N_MELS}"])
    torch.manual_seed(0)
    flat = np.full(N_CLASSES, 1 / N_CLASSES, np.float32)
    return build_tagger(cfg, flat, np.zeros(N_MELS, np.float32), np.ones(N_MELS, np.float32)).eval()


def _all_of(forward: Forward, x: Tensor, n_batches: int, precision: str) -> None:
    for _ in forward(repeat(x, n_batches), precision):
        pass


def main() -> None:
    for name in sys.argv[1:]:
        for row in of_network(name, rounds=2, n_batches=2):
            say(" | ".join(text for text in (row.what, row.ours, row.peer, row.ratio) if text))


if __name__ == "__main__":
    run_command(main)
