"""Test clips predicted by jobs on a cluster, folds x shares of the clips, with the same bytes as on one machine."""

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs.processes import room_elsewhere, worker_processes
from console.errors import UserError, count
from console.options import COMPILED
from console.output import progress, say, warn
from features.batches import windows
from features.store import Store
from models.device import memory_kept
from models.engine import EngineChoice
from models.inference import DAMAGED, mean_of_windows, predict_windows, window_frames
from runs.budget import class_prior
from runs.clips import clip_settings, frozen_file_of, open_clips
from runs.forecast import Work
from runs.network_code import network_code
from runs.predict import kind, load_run, prediction_devices
from runs.predictions import Predictions, cached_predictions, replace_predictions
from runs.run_folder import Trained, read_trained

MEMORY = 2 << 30  # bytes
LEAST = 16  # batches of a share: less is not worth loading the network
ROUNDS = 2  # shares for each job that the cluster has room for, so that all end at about the same time


@dataclass(frozen=True)
class Share:
    """What a job answers: (windows, classes) probabilities of each window length, and what computed them."""

    probs: list[np.ndarray]
    precision: str
    engine: str


@dataclass(frozen=True, eq=False)
class Fold:
    """A fold model that is to predict."""

    run: Trained
    clips: pd.DataFrame  # fname and path
    store: Store
    n_batches: int  # of the first window length


def predict_on_cluster(works: Iterable[Work], features: Path, keep: Path, engine: str) -> None:
    """Predict the clips of each work by its folds; `keep` then has them, as `predict_test` would have left them there.

    A fold is kept as soon as it is whole, so an interrupted command continues. Log-mel is made there too, embeddings of
    a frozen network here. Raises UserError as `predict_test`.
    """
    folds = [fold for work in works for fold in _folds(work, features)]
    if not folds:
        return
    on_gpu = None if engine in COMPILED else ()
    least = -(-ROUNDS * room_elsewhere(0, on_gpu, MEMORY) // len(folds))
    shares = {fold: min(max(1, fold.n_batches // LEAST), least) for fold in folds}
    say(f"predicting {count(len(folds), 'fold')} in {count(sum(shares.values()), 'job')}")
    with (
        worker_processes(1, "predicts", 0, on_gpu, MEMORY) as pool,
        progress("predicting", len(folds), "runs") as advance,
    ):
        for fold, answers in _answers(pool, shares, features, engine):
            probs, used = _joined(fold, answers), answers[0].engine
            keep.mkdir(parents=True, exist_ok=True)
            file = cached_predictions(keep, fold.run.id, fold.store.key, used)
            replace_predictions(file, Predictions(fold.store.fnames, probs))
            advance(1)


def _folds(work: Work, features: Path) -> list[Fold]:
    found, stores = [], dict[Any, Store]()
    for run in map(read_trained, work.folders):
        if code := network_code(run):
            say(f"network of your own, {run.config.model.name}: {', '.join(map(str, code.values()))}")
        frozen, cfg = frozen_file_of(run), run.config.predict
        heard = clip_settings(run.config, frozen)
        store = stores[heard] if heard in stores else open_clips(run.config, work.clips, features, frozen)
        stores[heard] = store
        n_frames = window_frames(cfg, store.frame_rate)[0]
        n_windows = len(windows(store.length[store.length > 0], n_frames, cfg.overlap)[0])
        found.append(Fold(run, work.clips, store, -(-n_windows // cfg.batch_size)))
    return found


def _answers(
    pool: Executor, shares: dict[Fold, int], features: Path, engine: str
) -> Iterable[tuple[Fold, list[Share]]]:
    """Each fold with all its shares, in the order in which they are ready. A fold with a probability that is not finite
    is asked again in fp32, as a whole, as on one machine. Raises UserError if that does not help."""
    running: dict[Future[Share], tuple[Fold, int]] = {}
    ready: dict[Fold, dict[int, Share]] = {fold: {} for fold in shares}

    def ask(fold: Fold, precision: str | None) -> None:
        for i in range(shares[fold]):
            call = (fold.run.folder, fold.clips, features, engine, precision, (i, shares[fold]))
            running[pool.submit(predict_share, *call)] = fold, i

    for fold in shares:
        ask(fold, None)
    while running:
        for job in wait(running, return_when=FIRST_COMPLETED).done:
            fold, i = running.pop(job)
            ready[fold][i] = job.result()
            if len(ready[fold]) < shares[fold]:
                continue
            answers = [ready[fold].pop(i) for i in range(shares[fold])]
            if all(np.isfinite(probs).all() for answer in answers for probs in answer.probs):
                yield fold, answers
                continue
            used = sorted({answer.precision for answer in answers})
            warn(f"{', '.join(used)}: a probability is not finite")
            if used == ["fp32"]:
                raise UserError(DAMAGED)
            ask(fold, "fp32")


def _joined(fold: Fold, answers: list[Share]) -> np.ndarray:
    """(clips, classes) float32 probabilities."""
    store, cfg, prior = fold.store, fold.run.config.predict, class_prior([fold.run.folder])
    shares = [answer.probs for answer in answers]
    return mean_of_windows(shares, store.length, store.frame_rate, cfg, prior, answers[0].precision)


def predict_share(
    folder: Path, clips: pd.DataFrame, features: Path, engine: str, precision: str | None, share: tuple[int, int]
) -> Share:
    """In a job: the i-th of n shares of the batches of all clips. precision: None: what suits run and device."""
    run, choice = read_trained(folder), EngineChoice(engine)
    network_code(run)
    store = open_clips(run.config, clips, features, frozen_file_of(run))
    with memory_kept():
        ready = load_run(run, store, prediction_devices(engine)[0], choice)
        given, rows = precision or ready.precision, np.arange(len(store.fnames))
        probs = predict_windows(ready.tagger, ready.batches, rows, ready.cfg, given, forward=ready.forward, share=share)
    return Share(probs, given, choice.chosen[kind(run)])
