"""Times a few batches of each experiment, to say how long all its predictions take on this machine."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from console.output import muted, say
from features.extraction import FEW, part_size
from features.store import Store, files_of
from models.device import memory_kept
from models.engine import EngineChoice
from runs.budget import Budget, Forecast, Plan, class_prior, duration, make_plan, tell_forecast
from runs.clips import clip_key, clip_settings, frozen_file_of, open_clips
from runs.predict import load_run, predict_test, prediction_devices
from runs.predictions import Sources, mean_of_reached
from runs.run_folder import Trained, read_trained

SAMPLE = 64  # clips that are heard, at most
LEAST = 8  # clips, as far as there are so many
SHARE = 20  # and no more than one clip in so many
ROUNDS = 2  # batches for each stream of the CPU that are timed, after as many that are not
POOL = 3.0  # seconds in which several processes start to make features of more than FEW clips

Clock = Callable[[], float]


@dataclass(frozen=True)
class Work:
    """What is yet to predict of an experiment."""

    folders: tuple[Path, ...]  # its folds; none where all is stored
    clips: pd.DataFrame  # fname and path of each


def forecast(
    works: Mapping[str, Work], features: Path, choice: EngineChoice, now: Clock = time.perf_counter
) -> Forecast:
    """What the predictions of these experiments take, by a sample of their clips. Nothing is stored.

    features: the folder of stores: what lies there takes no time. choice: notes the engines that were chosen. now: the
    clock. Raises UserError as `predict_test`.
    """
    folds = {name: len(work.folders) if len(work.clips) else 0 for name, work in works.items()}
    fold, hears, heard = dict.fromkeys(works, 0.0), dict[str, Any](dict.fromkeys(works)), dict[Any, float]()
    devices = prediction_devices(choice.asked)
    with memory_kept(), tempfile.TemporaryDirectory(prefix="forecast-") as scratch:
        for name, work in works.items():
            if not folds[name]:
                continue
            run = read_trained(work.folders[0])
            sample = sample_of(work.clips)
            store, seconds = _hear(run, work.clips, sample, features, Path(scratch), now)
            hears[name] = clip_settings(run.config, frozen_file_of(run)), tuple(work.clips["fname"])
            heard.setdefault(hears[name], seconds)
            fold[name] = _seconds_of_fold(run, store, len(work.clips), devices[0], choice, now)
    return Forecast(folds, fold, hears, heard, len(devices))


def sample_of(clips: pd.DataFrame) -> pd.DataFrame:
    """Clips at even steps through all of them in the order of their files' sizes, shuffled: as long as all on average;
    none that is missing, where there are others."""
    there = clips[clips["path"].notna()] if clips["path"].notna().any() else clips
    sizes = [Path(path).stat().st_size if isinstance(path, str) else 0 for path in there["path"]]
    n = min(len(there), SAMPLE, max(LEAST, len(there) // SHARE))
    at = ((np.arange(n) + 0.5) * len(there) / n).astype(np.int64)
    chosen = np.argsort(sizes, kind="stable")[at]
    return there.iloc[np.random.default_rng(0).permutation(chosen)].reset_index(drop=True)


def _hear(
    run: Trained, clips: pd.DataFrame, sample: pd.DataFrame, features: Path, scratch: Path, now: Clock
) -> tuple[Store, float]:
    """The store of a sample, and how long that of all clips takes: log-mel by several workers, embeddings one after
    the other. The first clip is not timed, and the second one tells what a store takes without any clips."""
    cfg, frozen = run.config, frozen_file_of(run)
    parts = [sample[:1], sample[1:2], sample[2:]] if len(sample) > 3 else [sample]

    def timed(part: pd.DataFrame) -> tuple[Store, float]:
        start = now()
        return open_clips(cfg, part.reset_index(drop=True), scratch, frozen, workers=1), now() - start

    workers = 1 if frozen else min(len(os.sched_getaffinity(0)), -(-len(clips) // part_size(len(clips))))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if workers == 1 else 1)  # as each of several workers has it
    try:
        with muted():
            stores, times = zip(*map(timed, parts), strict=True)
    finally:
        torch.set_num_threads(threads)
    store = stores[-1]
    if (features / clip_key(cfg, clips["fname"].tolist(), files_of(clips), frozen)).exists():
        return store, 0.0
    if len(parts) == 1:
        return store, times[0] * len(clips) / max(len(sample), 1)
    each = max(times[2] - times[1], 0.0) / (len(sample) - 3)
    if workers == 1:
        return store, max(times[1] - each, 0.0) + each * len(clips)
    return store, (POOL if len(clips) > FEW else 0.0) + each * len(clips) / workers


def _seconds_of_fold(
    run: Trained, store: Store, n_clips: int, device: torch.device, choice: EngineChoice, now: Clock
) -> float:
    """Loading and preparing a network, and all of its batches."""
    more = n_clips / len(store.fnames)
    load_run(run, store, device, choice, more)  # the first of an experiment chooses the engine for the others
    start = now()
    ready = load_run(run, store, device, choice, more)
    before = now() - start
    if not ready.n_windows:
        return before
    rows = np.resize(np.arange(len(store.fnames)), min(ROUNDS * ready.few, n_clips))  # the same clips several times
    ready(rows)  # the first batches are slower
    start = now()
    ready(rows)
    return before + (now() - start) * n_clips / len(rows)


@dataclass(frozen=True)
class Room:
    """What a budget has room for, of one experiment."""

    folders: tuple[Path, ...]  # runs without an answer that predict
    without: tuple[Path, ...]  # runs without an answer that do not
    plan: Plan
    choice: EngineChoice


def make_rooms(works: Mapping[str, Work], features: Path, engine: str, budget: Budget) -> Iterator[Room]:
    """What each experiment has room for: its share of the time that is left when its turn comes."""
    choice = EngineChoice(engine)
    before = budget.end.left()
    costs = forecast(works, features, choice)
    tell_forecast(costs)
    say(f"forecast: made in {duration(before - budget.end.left())}, out of the budget")
    plan = make_plan(costs, budget.needs, budget.end)
    takes = {name: costs.seconds({name: n}) for name, n in plan.kept.items()}
    for name, work in works.items():
        n, left = plan.kept[name], sum(takes.values())
        end = plan.end.part(takes[name] / left) if plan.end and left else plan.end
        yield Room(work.folders[:n], work.folders[n:], replace(plan, end=end), choice)
        del takes[name]


@dataclass(frozen=True)
class Predicted:
    """What experiments answer where time may have run out."""

    probs: dict[str, np.ndarray]  # experiment -> (clips, classes)
    folds: dict[str, int]  # experiment -> its folds that reached a clip
    not_reached: dict[str, list[str]]  # experiment -> clips that none of its folds reached
    sources: dict[str, Sources]  # of each experiment, of the folds that reached a clip


def predict_planned(works: Mapping[str, Work], plan: Plan, features: Path, choice: EngineChoice) -> Predicted:
    """The clips, the same for all, by the folds that were planned: first one of each experiment, then a second one."""
    clips = next(iter(works.values())).clips
    rounds = range(max(plan.kept.values()))
    folders = [works[name].folders[k] for k in rounds for name, n in plan.kept.items() if k < n]
    answers = predict_test(folders, plan.first(clips), features, engine=choice, end=plan.end)
    found, predicted = dict(zip(folders, answers, strict=True)), Predicted({}, {}, {}, {})
    for name, work in works.items():
        kept = [found[folder] for folder in work.folders if folder in found]
        reached = {folder.name: found[folder] for folder in work.folders if folder in found and found[folder].fnames}
        predicted.folds[name] = len(reached)
        predicted.sources[name] = {fold: {str(one.engine): len(one.fnames)} for fold, one in reached.items()}
        probs, late = mean_of_reached(kept, list(clips["fname"]), class_prior(work.folders))
        predicted.probs[name] = probs
        if late and name not in plan.dropped:
            predicted.not_reached[name] = late
    return predicted
