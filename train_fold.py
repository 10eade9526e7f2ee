"""Train folds of an experiment: out-of-fold and test probabilities in work/runs/<experiment>/fold<k>/."""

import argparse
import os
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait

from configs.console import run_command, say
from configs.errors import UserError, list_some
from configs.paths import DEFAULT_CONFIG, Paths, add_folders, as_path
from configs.schema import Config

EXAMPLES = """examples:
  python train_fold.py --fold 0..4
  python train_fold.py --fold 0 --config configs/vggish.yaml train.epochs=3 name=quick
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--fold", required=True, metavar="FOLDS", help="which folds: 3, 0..4 or 0,2,4")
    parser.add_argument("--config", type=as_path, metavar="FILE", help="experiment file (configs/resnetish18.yaml)")
    parser.add_argument("--only", metavar="NAMES", help="of a file with several experiments these: a or a,b")
    add_folders(parser)
    parser.add_argument("--force", action="store_true", help="train again what is finished or was begun")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        default=1,
        help="so many folds at once, each with its share of the cores: faster on a CPU",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a config value: train.epochs=3")
    args = parser.parse_intermixed_args()

    from configs.load import load_configs
    from folds.assign import parse_folds
    from models.fold_training import train_folds

    experiments = load_configs(args.config or DEFAULT_CONFIG, args.overrides)
    experiments = experiments if args.only is None else chosen(experiments, args.only)
    folds = [parse_folds(args.fold, cfg.folds.n_folds) for cfg in experiments]
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: at least 1")
    if args.jobs > 1 and sum(map(len, folds)) > 1:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the children hear of it
        train_at_once(experiments, folds, args)
        return
    for cfg, some in zip(experiments, folds, strict=True):
        train_folds(cfg, some, Paths(args.input, args.work), args.force)


def train_at_once(experiments: list[Config], folds: list[list[int]], args: argparse.Namespace) -> None:
    """Each fold in a process of its own, args.jobs of them at a time. Raises UserError that lists those that failed.

    Small networks gain little from a second thread, much from a second process. Input is checked and features are made
    here, so that a fault is told once; an experiment that learns from others waits for them.
    """
    from models.fold_training import say_all_folds
    from models.preparation import Data, load_data, prepare

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
                    command = [sys.executable, __file__, "--fold", str(fold), "--only", cfg.name]
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


class Children:
    """Processes with so many threads each; what they say is passed on line by line, so that no bar spoils another."""

    def __init__(self, threads: int) -> None:
        self.surroundings = {**os.environ, "OMP_NUM_THREADS": str(max(1, threads)), "PYTHONUNBUFFERED": "1"}
        self.surroundings["PYTHONIOENCODING"] = "utf-8"  # as it is read in `run`, whatever the terminal's is
        self.alive: set[subprocess.Popen[str]] = set()
        self.stopped = False

    def run(self, command: list[str]) -> int:
        """The exit status."""
        with subprocess.Popen(command, env=self.surroundings, stdout=subprocess.PIPE, encoding="utf-8") as child:
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


def chosen(experiments: list[Config], names: str) -> list[Config]:
    """The experiments whose names 'a,b' lists. Raises UserError on a name that is not among them."""
    known = {cfg.name: cfg for cfg in experiments}
    wanted = names.split(",")
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"--only: no experiment {list_some(unknown)} in the file; there are {list_some(known)}")
    return [known[name] for name in wanted]


if __name__ == "__main__":
    run_command(main)
