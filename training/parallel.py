"""Several folds at once, each in a process of its own."""

import os
import traceback
from collections.abc import Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager

from configs import cluster_job
from configs.paths import Paths
from configs.processes import worker_processes
from configs.schema import Config
from console.command_line import run_command
from console.errors import UserError, list_some
from console.output import READER_LEFT

MEMORY = 4 << 30  # bytes
Experiments = list[tuple[Config, list[int]]]  # each with its folds


def number_of_jobs(text: str, experiments: list[Config], n_folds: int) -> int:
    """What --jobs asks for: a number or 'auto'. Raises UserError on anything else."""
    if text == "auto":
        return automatic_jobs(experiments, n_folds) if n_folds > 1 else 1
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--jobs {text}: expected auto or a number from 1 on")
    return int(text)


def automatic_jobs(experiments: list[Config], n_folds: int) -> int:
    """How many of so many folds to train at once: one per GPU, or on a CPU one per core.

    Small networks gain little from a second thread, much from a second process. Where OMP_NUM_THREADS is set, the
    cores are shared out already: one. On a CPU each needs about MEMORY bytes.
    """
    from models.device import visible_cards

    if any(cfg.train.device != "cpu" for cfg in experiments) and (cards := visible_cards()):
        return min(len(cards), n_folds)
    if "OMP_NUM_THREADS" in os.environ:
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), n_folds, available_memory() // MEMORY))


def available_memory() -> int:
    """Bytes that processes can still get: free memory, and what files in the cache of the system occupy."""
    try:
        with open("/proc/meminfo") as info:  # noqa: PTH123
            facts = dict(line.split(":", 1) for line in info)
        return int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def jobs_on(on: str | None, paths: Paths) -> Iterator[Paths]:
    """The cluster of --on, see `configs.cluster`; None: this machine. Gives the paths by which its jobs find them."""
    if on is None:
        yield paths
        return
    from configs.cluster import on_cluster
    from runs.provenance import provenance_for_jobs
    from training.loggers import addresses

    with on_cluster(on, paths.absolute(), provenance_for_jobs() | addresses()):
        yield paths.absolute()


def train_at_once(experiments: list[Config], folds: list[list[int]], paths: Paths, force: bool, n: int) -> None:
    """Each fold in a process of its own, n at a time, on a GPU each where there are GPUs. n 0: on a cluster, see
    `configs.cluster`, as many as it has room for. Raises UserError that lists those that failed.

    Input is checked and features are made here, so that a fault is reported once, and before training; an experiment
    that learns from others waits for them.
    """
    from models.device import visible_cards
    from training.experiment_data import Data, load_data, prepare
    from training.train import say_all_folds

    threads = len(os.sched_getaffinity(0)) // n if n else 0
    cards = visible_cards() if any(cfg.train.device != "cpu" for cfg in experiments) else None
    loaded: list[Data] = []
    failed: list[str] = []
    for side_by_side in _in_turn(list(zip(experiments, folds, strict=True))):
        for cfg, wanted in side_by_side:
            loaded.append(load_data(cfg, wanted, paths))
            if not all(paths.run(cfg.name, fold).exists() for fold in wanted) or force:
                prepare(cfg, loaded[-1], paths, wanted)
        calls = [(cfg, fold) for cfg, wanted in side_by_side for fold in wanted]
        with worker_processes(min(n, len(calls)), "trains a fold", threads, cards, MEMORY) as pool:
            jobs = {pool.submit(_train, *call, paths, force): call for call in calls}
            for job in as_completed(jobs):
                job.result()  # raises at once what ends them all
            failed += [f"{cfg.name} fold {fold}" for job, (cfg, fold) in jobs.items() if job.result()]
    if failed:
        raise UserError(
            f"not finished: {list_some(failed)}: see the errors above, then run the same command again to continue"
        )
    for cfg, some, data in zip(experiments, folds, loaded, strict=True):
        if len(some) > 1:
            say_all_folds(cfg, some, data, paths)


def _in_turn(experiments: Experiments) -> Iterator[Experiments]:
    """Those that can be trained side by side: one with pseudo-labels or a teacher begins when all before have ended."""
    some: Experiments = []
    for experiment in experiments:
        if (experiment[0].pseudo.runs or experiment[0].train.teacher) and some:
            yield some
            some = []
        some.append(experiment)
    yield some


def _train(cfg: Config, fold: int, paths: Paths, force: bool) -> int:
    """In a worker; the exit status that the fold alone would have. Errors are reported here; other folds go on."""
    from runs.run_folder import is_begun
    from training.train import train_folds

    goes_on = cluster_job.begun > 1 and is_begun(paths.run(cfg.name, fold), cfg)  # on another machine

    def train() -> None:
        train_folds(cfg, [fold], paths, force and not goes_on, preamble=False)  # the parent has said it

    try:
        run_command(train)
    except SystemExit as end:
        if end.code == READER_LEFT:
            raise
        return int(end.code or 0)
    except Exception:
        traceback.print_exc()
        return 1
    return 0
