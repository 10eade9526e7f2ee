"""Point 5: prediction over all windows of many clips, against the bare forward pass on prepared windows."""

import numpy as np
import torch

from benchmarks.loop import CPU, make_tagger
from benchmarks.measure import Row, by_turns, median, quotient
from benchmarks.synthetic import N_MELS, make_store
from configs.schema import PredictConfig
from features.batches import Batches, windows
from models.device import autocast, choose_precision, memory_kept
from models.inference import predict_clips

N_FRAMES = 128
TEST_CLIPS = 9_400  # of FSDKaggle2018


def measure(quick: bool) -> list[Row]:
    n, rounds = (8, 2) if quick else (16, 15)  # many short rounds: other load in one of them hardly moves the median
    batches = Batches(make_store(n, 500))
    cfg = PredictConfig(window_seconds=N_FRAMES / 100, batch_size=32)
    precision = choose_precision("auto", CPU)
    tagger = make_tagger("resnetish18").eval()
    clip, first = windows(batches.store.length, N_FRAMES)
    ready = batches.at(clip, first, N_FRAMES).split(cfg.batch_size)

    def bare() -> None:
        with torch.inference_mode(), autocast(precision, CPU):
            for x in ready:
                tagger(x)

    rows = np.arange(n)
    with memory_kept():
        times = by_turns({"ours": lambda: predict_clips(tagger, batches, rows, cfg, precision), "bare": bare}, rounds)
    over = quotient(times, "ours", "bare") - 1
    here, there = (f"{len(clip) / median(times, way):.1f} windows/s" for way in ("ours", "bare"))
    what = f"prediction with ResNetish18, {len(clip)} windows of {N_MELS} x {N_FRAMES}; peer: the bare forward pass"
    minutes = TEST_CLIPS / n * median(times, "ours") / 60
    return [
        Row(5, what, here, there, f"{over:+.1%}", "at most +5%", over <= 0.05),
        Row(5, f"{TEST_CLIPS:,} clips of 5 s in such windows, projected", f"{minutes:.1f} min"),
    ]
