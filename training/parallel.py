"""Several folds at once, each in a process of its own."""

import argparse
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path

from configs.paths import DEFAULT_CONFIG, Paths
from configs.schema import Config
from console.errors import UserError, list_some
from console.output import say


def train_at_once(experiments: list[Config], folds: list[list[int]], args: argparse.Namespace) -> None:
    """Each fold in a process of its own, args.jobs of them at a time. Raises UserError that lists those that failed.

    Small networks gain little from a second thread, much from a second process. Input is checked and features are made
    here, so that a fault is told once; an experiment that learns from others waits for them.
    """
    from training.experiment_data import Data, load_data, prepare
    from training.train import say_all_folds

    paths, running = Paths(args.input, args.work), Children(len(os.sched_getaffinity(0)) // args.jobs)
    jobs: dict[Future[int], str] = {}
    loaded: list[Data] = []
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            for cfg, some in zip(experiments, folds, strict=True):
                if cfg.pseudo.runs:
                    wait(jobs)
                loaded.append(load_data(cfg, some, paths))
                if not all(paths.run(cfg.name, fold).exists() for fold in some) or args.force:
                    prepare(cfg, loaded[-1], paths, some)
                for fold in some:
                    command = [sys.executable, str(VERB), "--fold", str(fold), "--only", cfg.name]
                    command += ["--input", str(args.input), "--work", str(args.work), *["--force"] * args.force]
                    command += ["--config", str(args.config or DEFAULT_CONFIG), *args.overrides]
                    jobs[pool.submit(running.run, command)] = f"{cfg.name} fold {fold}"
            for job in as_completed(jobs):
                job.result()  # it raises where nobody reads what the children say any more
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            running.stop()
            raise
    if failed := [what for job, what in jobs.items() if job.result()]:
        raise UserError(f"not finished: {list_some(failed)}; the reason stands above, the same command goes on")
    for cfg, some, data in zip(experiments, folds, loaded, strict=True):
        if len(some) > 1:
            say_all_folds(cfg, some, data, paths)


VERB = Path(__file__).parents[1] / "train_fold.py"


class Children:
    """Processes with so many threads each; what they say is passed on line by line, so that no bar spoils another."""

    def __init__(self, threads: int) -> None:
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, threads)), "PYTHONUNBUFFERED": "1"}
        self.environment["PYTHONIOENCODING"] = "utf-8"  # as it is read in `run`, whatever the terminal's is
        self.alive: set[subprocess.Popen[str]] = set()
        self.stopped = False

    def run(self, command: list[str]) -> int:
        """The exit status."""
        with subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, encoding="utf-8") as child:
            self.alive.add(child)
            if self.stopped:  # as it was starting
                child.terminate()
            for line in child.stdout or ():
                say(line.rstrip("\n"))
        self.alive.discard(child)
        return child.returncode

    def stop(self) -> None:
        """As Ctrl-C does, which reaches them in a terminal anyway: each keeps its last whole epoch."""
        self.stopped = True
        for child in tuple(self.alive):
            child.terminate()
