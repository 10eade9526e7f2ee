"""Point 5: prediction on the CPU by each engine, and by eager PyTorch and ONNX Runtime: the same batches, by turns.

python -m benchmarks.engines timm:resnet18 ced_tiny     which of these networks OpenVINO computes, and how fast
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.loop import CPU
from benchmarks.measure import Row, Times, Work, by_both_clocks, median, quotient
from configs.load import load_config
from configs.paths import DEFAULT_CONFIG
from console.command_line import run_command
from console.output import say
from models.device import autocast, choose_precision, memory_kept, streams
from models.engine import Forward, Torch
from models.engine_openvino import OpenVino
from models.export import write_onnx
from models.openvino_conversion import ConversionError
from models.tagger import Tagger, build_tagger

# network -> windows in a batch: fewer where one takes long
NETWORKS = {
    "resnetish18": 16,
    "vggish": 16,
    "timm:resnet10t": 32,
    "timm:tf_efficientnet_b0": 32,
    "timm:seresnext50_32x4d": 16,
    "cnn14": 8,
}
N_MELS, N_FRAMES, N_CLASSES = 128, 250, 41
TOP = 3  # classes whose order is compared
FOLDS, CORES = 5, 4
CLIPS, SOUNDSCAPES = 9_400, 700 * 60  # FSDKaggle2018's test clips; seconds of sound


def measure(quick: bool) -> list[Row]:
    if find_spec("openvino") is None:
        return [Row(5, "prediction by OpenVINO", "not measured: pip install '.[fast]'")]
    networks, rounds = ({"timm:resnet10t": 8}, 1) if quick else (NETWORKS, 3)
    with memory_kept():
        return [row for name, batch in networks.items() for row in of_network(name, batch, rounds)]


@dataclass(frozen=True)
class Ways:
    """The ways of one network to predict n_batches like x, and why there are no others."""

    size: str  # of the network and a batch, in words
    precisions: tuple[str, ...]  # fp32, and what this CPU gains from
    engines: dict[str, Forward]
    pieces: dict[str, Work]
    lacking: list[Row]


def of_network(name: str, batch: int, rounds: int) -> list[Row]:
    """Rows for each precision that this CPU gains from, and one where an engine cannot compute the network."""
    tagger, x = tagger_of(name), torch.randn(batch, 1, N_MELS, N_FRAMES, generator=torch.Generator().manual_seed(0))
    ways = ways_of(name, tagger, x, n_batches=streams())
    times = by_both_clocks(ways.pieces, rounds)
    windows = streams() * batch
    rows = [row for each in ways.precisions for row in compared(name, ways, each, times, windows)]
    for each in ways.precisions if "openvino" in ways.engines else ():
        what = f"first {TOP} classes that differ from PyTorch's in fp32, {ways.size}, {each}"
        rows.append(Row(5, what, differing(tagger, ways.engines["openvino"], x, each)))
    return rows + ways.lacking


def ways_of(name: str, tagger: Tagger, x: Tensor, n_batches: int) -> Ways:
    precisions = tuple(dict.fromkeys(("fp32", choose_precision("auto", CPU))))
    engines: dict[str, Forward] = {"torch": Torch(tagger)}
    plain = tagger_of(name, channels_last=False)
    pieces: dict[str, Work] = {"eager fp32": partial(eager, plain, x, n_batches, "fp32")}
    lacking = []
    peers: dict[str, Callable[[Tagger], Forward]] = {"openvino": partial(openvino_way, x=x), "onnxruntime": OnnxRuntime}
    if find_spec("nncf"):
        peers["int8"] = partial(openvino_way, x=x, int8=True)
    for peer, make in peers.items():
        try:
            engines[peer] = make(tagger)
        except ConversionError as error:
            lacking.append(Row(5, f"prediction with {name} by {peer}", f"not there: {error}"))
    for engine, way in engines.items():
        for each in precisions if engine in ("torch", "openvino") else ("fp32",):
            pieces[engine if engine == "int8" else f"{engine} {each}"] = partial(_all_of, way, x, n_batches, each)
    return Ways(f"{name}, {len(x)} x {N_MELS} x {N_FRAMES}", precisions, engines, pieces, lacking)


def openvino_way(tagger: Tagger, x: Tensor, int8: bool = False) -> OpenVino:
    """Raises ConversionError."""
    (way := OpenVino(tagger, int8=int8)).prepare(x, "fp32")
    return way


class OnnxRuntime:
    """A `Forward` of ONNX Runtime in fp32, with a batch per core as ours. Raises ConversionError."""

    def __init__(self, tagger: Tagger) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() // streams()
        with TemporaryDirectory() as folder:
            write_onnx(tagger, N_FRAMES, False, Path(folder))
            file = str(Path(folder) / "network.onnx")
            self.session: Any = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def __call__(self, batches: Iterable[Tensor], precision: str) -> Iterator[Tensor]:
        with ThreadPoolExecutor(streams()) as pool:
            yield from pool.map(lambda x: torch.from_numpy(self.session.run(None, {self.name: x.numpy()})[0]), batches)


def compared(name: str, ways: Ways, precision: str, times: tuple[Times, Times], windows: int) -> list[Row]:
    """What is faster of ours against the others."""
    elapsed, _ = times
    ours, rows = [f"{engine} {precision}" for engine in ("torch", "openvino") if engine in ways.engines], []
    best = min(ours, key=lambda way: median(elapsed, way))
    goal = 1.15 if "efficientnet" not in name else 2.5 if precision == "fp32" else 2.0
    for here, there, least in (
        (ours[-1], ours[0], goal),
        (best, "eager fp32", None),
        (best, "onnxruntime fp32", None),
        (ours[0], "eager fp32", None),
        ("int8", best, None),
    ):
        if not {here, there} <= set(elapsed) or here == there:
            continue
        ratio = quotient(elapsed, there, here)
        rate, other = (f"{windows / median(elapsed, way):.1f} windows/s" for way in (here, there))
        met = None if least is None else ratio >= least
        what = f"{here}, {ways.size}; peer: {there}"
        rows.append(Row(5, what, rate, other, in_both(times, there, here), f"at least {least}x" if least else "", met))
    a_core = windows / median(elapsed, best) / torch.get_num_threads()
    minutes = [FOLDS * seconds / (a_core * CORES * 5) / 60 for seconds in (CLIPS * 5, SOUNDSCAPES)]
    whole = f"{CLIPS:,} clips of 5 s; 700 minutes; {FOLDS} folds, {CORES} cores, {best}, {ways.size}, without decoding"
    return [*rows, Row(5, whole, "; ".join(f"{one:.1f} min" for one in minutes))]


def in_both(times: tuple[Times, Times], over: str, under: str) -> str:
    """'2.31x (CPU 2.10x)'."""
    return "{:.2f}x (CPU {:.2f}x)".format(*(quotient(each, over, under) for each in times))


def differing(tagger: Tagger, compiled: Forward, x: Tensor, precision: str) -> str:
    """How many windows have other first classes, or these in another order, and the largest difference."""
    exact, theirs, ours = (
        tagger.probabilities(next(iter(way([x], each)))).numpy()
        for way, each in ((Torch(tagger), "fp32"), (Torch(tagger), precision), (compiled, precision))
    )
    ranks = [np.argsort(-probs, axis=1, kind="stable")[:, :TOP] for probs in (exact, theirs, ours)]
    n = [(ranks[0] != other).any(axis=1).sum() for other in ranks[1:]]
    return f"{n[1]} of {len(x)} windows (PyTorch {n[0]}), by {np.abs(exact - ours).max():.1g}"


def tagger_of(name: str, channels_last: bool = True) -> Tagger:
    """With random weights: the time does not depend on them. Networks of timm get three channels."""
    deltas = 2 if name.startswith("timm:") else 0
    settings = [f"model.name={name}", f"model.deltas={deltas}", f"features.n_mels={N_MELS}"]
    cfg = load_config(DEFAULT_CONFIG, [*settings, f"train.channels_last={str(channels_last).lower()}"])
    torch.manual_seed(0)
    flat = np.full(N_CLASSES, 1 / N_CLASSES, np.float32)
    return build_tagger(cfg, flat, np.zeros(N_MELS, np.float32), np.ones(N_MELS, np.float32)).eval()


def eager(tagger: Tagger, x: Tensor, n_batches: int, precision: str) -> None:
    """As PyTorch does it where nothing is said: a batch after the other on all threads."""
    with torch.inference_mode(), autocast(precision, CPU):
        for _ in range(n_batches):
            tagger(x)


def _all_of(forward: Forward, x: Tensor, n_batches: int, precision: str) -> None:
    for _ in forward(repeat(x, n_batches), precision):
        pass


def main() -> None:
    for name in sys.argv[1:]:
        for row in of_network(name, NETWORKS.get(name, 32), rounds=2):
            say(" | ".join(text for text in (row.what, row.ours, row.peer, row.ratio) if text))


if __name__ == "__main__":
    run_command(main)
