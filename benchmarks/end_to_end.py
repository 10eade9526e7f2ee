"""Point 5: clips from sound files to probabilities, by what `submit.py` and `predict.py` call, for each engine."""

import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import soundfile
import torch

from benchmarks.engines import CLIPS, CORES, FOLDS, SOUNDSCAPES
from benchmarks.loop import CPU
from benchmarks.measure import Row
from benchmarks.synthetic import RATE, SECONDS, write_clips
from blending.apply import Blend, Model
from blending.loaded_blend import LoadedBlend
from configs.load import load_config
from configs.paths import DEFAULT_CONFIG, Paths
from configs.schema import Config
from console.output import muted
from features.store import Store, open_features
from input.competition import Competition
from models.device import choose_precision, memory_kept
from models.engine import EngineChoice
from models.tagger import build_tagger, save_tagger
from runs.predict import load_run
from runs.predictions import Predictions
from runs.run_folder import Manifest, Run, finish_run, read_run, read_trained
from runs.test_predictions import forecast_test, test_predictions

NETWORK, N_MELS, HOP = "timm:tf_efficientnet_b0", 128, 882  # 250 frames of 5 s
FILES = 64  # different ones; the others are links to them
CLASSES = tuple(f"class{i:02d}" for i in range(41))
SHARE = 4  # of the clips, one in so many is predicted too, to tell what does not grow with them


@dataclass(frozen=True)
class Taken:
    """Seconds."""

    elapsed: float
    busy: float  # of all CPUs, of other processes too that were started

    def __sub__(self, other: "Taken") -> "Taken":
        return Taken(self.elapsed - other.elapsed, self.busy - other.busy)


def measure(quick: bool) -> list[Row]:
    n, folds, network = (16, 2, "timm:resnet10t") if quick else (1_000, FOLDS, NETWORK)
    engines, rows = ("torch", "openvino") if find_spec("openvino") else ("torch",), list[Row]()
    with TemporaryDirectory() as name, memory_kept():
        folder = Path(name)
        files = linked(write_clips(folder / "wav", min(n, FILES)), folder / "clips", n)
        precisions = dict.fromkeys(("fp32", choose_precision("auto", CPU)))
        for precision in precisions:
            # in fp32, which takes longer, fewer folds: each is predicted like the first
            n_folds = folds if precision != "fp32" or len(precisions) == 1 else 1
            cfg = config(network, precision)
            runs = [write_run(folder / precision, cfg, k, n_folds) for k in range(n_folds)]
            rows += by_engines(cfg, runs, files, folder / precision, engines)
        rows += sections(runs, folder, n)
    return rows


def by_engines(cfg: Config, runs: list[Run], files: list[str], folder: Path, engines: Sequence[str]) -> list[Row]:
    """By turns; the forecast of each comes first."""
    folds, rows = len(runs), list[Row]()
    found: dict[str, tuple[Taken, Taken]] = {}
    for engine in engines:
        told, whole = submitted(runs, files, folder / engine, engine)
        _, part = submitted(runs, files[: len(files) // SHARE], folder / f"{engine}-part", engine)
        heard = timed(partial(features_of, runs[0], files, folder / f"{engine}-heard"))
        bare = bare_calls(runs[0], files, folder / engine, engine)
        found[engine] = whole, part
        what = f"{len(files):,} clips of {SECONDS:g} s, WAV to probabilities, {folds} x {cfg.model.name}, "
        what += f"{cfg.train.precision}, {engine}"
        rows.append(over_bare(what, whole, bare, len(files), folds))
        rows.append(by_the_clip(what, whole - part, heard, bare, folds))
        off = told / whole.elapsed - 1
        cells = (f"{whole.elapsed:.1f} s", f"{told:.1f} s", f"{off:+.1%}", "within 10%")
        rows.append(Row(5, f"{what}; peer: the forecast", *cells, abs(off) <= 0.1))
        rows.append(projected(what, whole, part, len(files), len(files) // SHARE, folds))
    if len(found) > 1:
        rows.append(between_engines(found, cfg, folds))
    return rows


def over_bare(what: str, whole: Taken, bare: Taken, n: int, folds: int) -> Row:
    """What everything but the engine costs. bare: one fold of all clips."""
    cores = torch.get_num_threads()
    here, there = n * folds / whole.elapsed / cores, n / bare.elapsed / cores
    over, busy = (whole.elapsed / (folds * bare.elapsed) - 1, whole.busy / (folds * bare.busy) - 1)
    cells = (f"{here:.1f} clips/s and core", f"{there:.1f}", f"{over:+.1%} (CPU {busy:+.1%})", "at most +5%")
    return Row(5, f"{what}, clips of all folds; peer: the engine's bare calls", *cells, over <= 0.05)


def by_the_clip(what: str, more: Taken, heard: Taken, bare: Taken, folds: int) -> Row:
    """What a further clip costs beyond its log-mel and the engine. more: of all clips but one in SHARE."""
    share = 1 - 1 / SHARE
    seconds = more.elapsed / share - heard.elapsed
    each = (heard.elapsed, folds * bare.elapsed)
    over, busy = seconds / each[1] - 1, (more.busy / share - heard.busy) / (folds * bare.busy) - 1
    what = f"{what}, a further clip without its log-mel ({each[0] / sum(each):.0%}); peer: the engine's bare calls"
    return Row(5, what, f"{seconds:.1f} s", f"{each[1]:.1f} s", f"{over:+.1%} (CPU {busy:+.1%})")


def projected(what: str, whole: Taken, part: Taken, n: int, few: int, folds: int) -> Row:
    """Minutes on CORES cores: what grows with the clips is shared out among them, the rest is as long as here."""
    each = (whole - part).elapsed / (n - few)  # with all folds
    fixed = max(whole.elapsed - each * n, 0.0)
    scale = FOLDS / folds
    minutes = [
        (fixed + each * torch.get_num_threads() / CORES * clips) * scale / 60 for clips in (CLIPS, SOUNDSCAPES / 5)
    ]
    about = f"{fixed / folds:.1f} s a fold whatever the number of clips"
    cells = f"{minutes[0]:.1f} min; {minutes[1]:.1f} min"
    return Row(5, f"{what}, projected: {CLIPS:,} clips; 700 minutes; {FOLDS} folds, {CORES} cores; {about}", cells)


def between_engines(found: dict[str, tuple[Taken, Taken]], cfg: Config, folds: int) -> Row:
    """How much sooner OpenVINO ends by what grows with the clips."""
    ours, theirs = (whole - part for whole, part in (found["openvino"], found["torch"]))
    goal = 2.5 if cfg.train.precision == "fp32" else 2.0
    ratio, busy = theirs.elapsed / ours.elapsed, theirs.busy / ours.busy
    what = f"end to end by OpenVINO, {cfg.model.name}, {cfg.train.precision}, {folds} folds, without what is the same "
    what += "for any number of clips; peer: ours"
    return Row(5, what, "", "", f"{ratio:.2f}x (CPU {busy:.2f}x)", f"at least {goal}x", ratio >= goal)


def submitted(runs: list[Run], files: list[str], work: Path, engine: str) -> tuple[float, Taken]:
    """Seconds that `submit.py --force --forecast` says, and that `submit.py --force` takes to predict."""
    paths = Paths(work / "input", work)
    there = competition(paths.input, files)
    with muted():
        told = forecast_test([runs], there, paths, True, engine).seconds()
        return told, timed(lambda: test_predictions([runs], there, paths, True, engine))


def bare_calls(run: Run, files: list[str], work: Path, engine: str) -> Taken:
    """The engine's calls for all windows of one fold, on batches that are ready."""
    with muted():
        store = features_of(run, files, work)
        choice = EngineChoice(engine)
        ready = load_run(read_trained(run.folder), store, CPU, choice)
    forward = ready.forward
    assert forward is not None  # on the CPU
    size = run.config.predict.batch_size
    n_batches = -(-ready.n_windows // size)
    x = ready.batches.at(np.arange(min(size, len(files))), np.zeros(min(size, len(files)), np.int64), 250)
    list(forward(repeat(x, 2), ready.precision))  # the first are slower
    taken = timed(lambda: list(forward(repeat(x, n_batches), ready.precision)))
    share = ready.n_windows / (n_batches * len(x))  # the last batch is not full
    return Taken(taken.elapsed * share, taken.busy * share)


def features_of(run: Run, files: list[str], work: Path) -> Store:
    with muted():
        return open_features(run.config.features, clip_table(files), work / "features")


def sections(runs: list[Run], folder: Path, n: int) -> list[Row]:
    """`predict.py --every 5s` of recordings in Ogg Vorbis, by PyTorch."""
    minutes = max(n // 12, 1)
    rng, t = np.random.default_rng(0), np.arange(60 * RATE) / RATE
    wave = 0.3 * np.sin(2 * np.pi * 900 * t) + 0.05 * rng.standard_normal(len(t))
    first = folder / "soundscape.ogg"
    soundfile.write(first, wave[: RATE // 10], RATE, format="OGG", subtype="VORBIS")
    with soundfile.SoundFile(first, "w", RATE, 1, format="OGG", subtype="VORBIS") as out:
        for part in np.array_split(wave, 60):  # libsndfile fails on long blocks of Vorbis
            out.write(part)
    files = linked([str(first)], folder / "soundscapes", minutes)
    cfg, name = runs[0].config, runs[0].experiment
    blend = Blend("arithmetic", {name: Model(1.0)}, classes=CLASSES)
    loaded = LoadedBlend(folder, blend, {name: [read_trained(run.folder) for run in runs]})
    with muted():
        taken = timed(lambda: loaded.predict(files, every=5.0))
    rate = 12 * minutes * len(runs) / taken.elapsed / torch.get_num_threads()
    what = f"predict.py --every 5s, {minutes} minutes of Ogg Vorbis, {len(runs)} x {cfg.model.name}, "
    return [Row(5, f"{what}{cfg.train.precision}, torch, sections of all folds", f"{rate:.1f} sections/s and core")]


def config(network: str, precision: str, *more: str) -> Config:
    """Networks of timm get three channels. more: settings."""
    deltas = 2 if network.startswith("timm:") else 0
    settings = [f"model.name={network}", f"model.deltas={deltas}", f"features.n_mels={N_MELS}", "features.n_fft=2048"]
    settings += [f"features.hop_length={HOP}", "predict.window_seconds=5", f"train.precision={precision}", "name=bench"]
    return load_config(DEFAULT_CONFIG, [*settings, *more])


def write_run(runs: Path, cfg: Config, fold: int, n_folds: int) -> Run:
    """A finished fold with random weights, which has an answer to no clip."""
    flat = np.full(len(CLASSES), 1 / len(CLASSES), np.float32)
    torch.manual_seed(fold)
    tagger = build_tagger(cfg, flat, np.full(N_MELS, -8, np.float32), np.full(N_MELS, 4, np.float32), start=False)
    final = runs / cfg.name / f"fold{fold}"
    partial = final.with_name(final.name + ".partial")
    partial.mkdir(parents=True)
    save_tagger(tagger.state_dict(), partial / "model.safetensors")
    (partial / "metrics.csv").write_text("-\n")
    none = Predictions((), np.zeros((0, len(CLASSES)), np.float32))
    manifest = Manifest(experiment=cfg.name, fold=fold, n_folds=n_folds, fold_hash="benchmark")
    finish_run(partial, final, cfg, CLASSES, none, none, {"map3": 0.0}, manifest)
    return read_run(final)


def competition(folder: Path, files: list[str]) -> Competition:
    """Test clips alone."""
    train = pd.DataFrame({"fname": [], "label": [], "verified": [], "path": []})
    targets = np.zeros((0, len(CLASSES)), np.float32)
    return Competition(folder, CLASSES, train, clip_table(files), targets)


def clip_table(files: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"fname": [Path(file).name for file in files], "path": files})


def linked(files: list[str], folder: Path, n: int) -> list[str]:
    """n files, links to these in turn."""
    folder.mkdir()
    found = [folder / f"{i:05d}{Path(files[0]).suffix}" for i in range(n)]
    for i, file in enumerate(found):
        os.link(files[i % len(files)], file)
    return [str(file) for file in found]


def timed(work: Callable[[], object]) -> Taken:
    start, busy = time.perf_counter(), _busy()
    work()
    return Taken(time.perf_counter() - start, _busy() - busy)


def _busy() -> float:
    """CPU seconds of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
