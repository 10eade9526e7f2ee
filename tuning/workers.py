"""A search in several processes, which end with the one that started them."""

import contextlib
import multiprocessing
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError
from console.output import READER_LEFT
from tuning.objective import Training

if TYPE_CHECKING:
    from training.experiment_data import Data
    from tuning.study import Plan


PATIENCE = 30.0  # seconds that a process has to end its trial


def side_by_side(plan: "Plan", data: "Data", paths: Paths, name: str, workers: int) -> None:
    """Search in several processes with a thread each. They end with this one, however it ends."""
    from tuning.study import finished, open_study

    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=(plan, data, paths, name)) for _ in range(workers)]
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which they inherit: one line on Ctrl-C is enough
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        for process in processes:
            process.start()
        signal.signal(signal.SIGINT, handler)
        for process in processes:
            process.join()
    finally:
        begun = [process for process in processes if process.pid is not None]
        for process in begun:
            process.terminate()
        for process in begun:
            process.join(PATIENCE)
            process.kill()  # whatever holds it up: a study survives that
            process.join()
    for status in (2, READER_LEFT):  # it said why, or nobody listens
        if any(process.exitcode == status for process in processes):
            sys.exit(status)
    if (done := len(finished(open_study(paths.studies / name)))) < plan.trials:
        ends = ", ".join(str(process.exitcode) for process in processes)
        raise UserError(
            f"{done} of {plan.trials} trials finished, the workers ended with {ends}: the same command goes on"
        )


def work(plan: "Plan", data: "Data", paths: Paths, name: str) -> None:
    """One of several processes: Ctrl-C is its parent's business, which then sends SIGTERM."""
    import torch

    from tuning.study import open_study, search

    def until_interrupted() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            search(folder, open_study(folder, plan=plan), plan, Training(data, paths, plan.folds))

    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(1)
    folder = paths.studies / name
    run_command(until_interrupted)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
