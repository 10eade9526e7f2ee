"""How long folds x experiments take on 1, 8 and 64 nodes, from measured times: a discrete-event simulation.

A job starts (a process, import torch), reads the feature store, whose checksums
it verifies, then trains. The first job on a node reads it from the shared disk,
whose rate all readers share, the next ones from memory if it fits there; where
it does not, every epoch reads it again. Before the first fold one machine reads
and checks the tables, and joins the store from the parts that all nodes make.
"""

import argparse
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from console.command_line import run_command
from console.errors import UserError
from console.options import as_path, command_parser
from console.output import say, table

EXAMPLES = """examples:
  python -m benchmarks.cluster_simulation --run work/runs/NAME/fold0 \\
    --store work/features/KEY
  python -m benchmarks.cluster_simulation --fold-minutes 20 --disk 100"""


@dataclass(frozen=True)
class Load:
    """What is to be done, and on what. Times are seconds, sizes bytes, rates bytes per second."""

    experiments: int
    folds: int
    fold: float  # training one fold, but for its start and for reading
    epochs: int
    start: float  # of a job
    prepare: float  # an experiment before its first fold, on the driver alone
    extract: float  # of all features, on one core
    store: float  # size
    disk: float  # rate of the shared disk
    link: float  # rate at which a node can read from it
    memory: float  # of a node, for the store
    slots: int  # jobs at once on a node
    cores: int  # of a node


@dataclass
class Job:
    """One that runs."""

    node: int
    phases: list[tuple[bool, float]]  # whether it reads; what is left: bytes, or seconds


@dataclass(frozen=True)
class Result:
    """Seconds."""

    total: float
    before: float  # the first fold began then
    waiting: float  # all jobs together: longer than reading alone from an idle disk would take


def simulate(load: Load, nodes: int) -> Result:
    """Folds in turn to the slot that is free first; readers share the disk evenly."""
    now = before = preparing(load, nodes)
    free = [node for _ in range(load.slots) for node in range(nodes)]  # one job on every node, then a second
    cached, running, waiting = set[int](), list[Job](), 0.0
    left = load.experiments * load.folds
    while left or running:
        while left and free:
            running.append(_job(load, free.pop(0), cached))
            left -= 1
        readers = sum(job.phases[0][0] for job in running)
        rate = min(load.link, load.disk / max(readers, 1))  # of each reader
        step = min(amount / (rate if reads else 1) for reads, amount in (job.phases[0] for job in running))
        now += step
        waiting += readers * step * (1 - rate / min(load.link, load.disk))
        for job in running:
            reads, amount = job.phases[0]
            amount -= step * (rate if reads else 1)
            job.phases[:1] = [(reads, amount)] if amount > 1e-6 else []
        free += [job.node for job in running if not job.phases]
        running = [job for job in running if job.phases]
    return Result(now, before, waiting)


def preparing(load: Load, nodes: int) -> float:
    """Tables and checks; features, by all cores; the parts are written and read once more, and the store written."""
    return load.experiments * load.prepare + load.extract / (nodes * load.cores) + 3 * load.store / load.disk


def _job(load: Load, node: int, cached: set[int]) -> Job:
    reading, training = (True, load.store), (False, load.fold)
    if load.store > load.memory:
        epoch = [reading, (False, load.fold / load.epochs)]
        return Job(node, [(False, load.start), *epoch * load.epochs])
    phases = [(False, load.start), training] if node in cached else [(False, load.start), reading, training]
    cached.add(node)
    return Job(node, phases)


def rows(load: Load, nodes: Iterable[int]) -> list[list[str]]:
    """A line of the table for each number of nodes; the efficiency is against one node."""
    one, found, n_jobs = simulate(load, 1).total, [], load.experiments * load.folds
    for n in nodes:
        result = simulate(load, n)
        ideal, hours = n_jobs * load.fold / (n * load.slots), n * result.total / 3600
        cells = (result.total / 60, ideal / 60, result.before / 60, result.waiting / n_jobs, hours)
        found.append([str(n), *(f"{cell:.1f}" for cell in cells), f"{one / (n * result.total):.0%}"])
    return found


HEADER = ["nodes", "minutes", "ideal", "before the folds", "s a fold waits for the disk", "node hours", "efficiency"]


def main() -> None:
    args = parser().parse_args()
    check(args)
    minutes, epochs = args.fold_minutes, args.epochs
    if args.run:
        minutes, epochs = measured(args.run)
    if minutes is None:
        raise UserError("how long does a fold take? --run FOLDER of one that was trained, or --fold-minutes")
    size = sum(file.stat().st_size for file in args.store.iterdir()) if args.store else args.store_gb * 1e9
    load = Load(
        experiments=args.experiments,
        folds=args.folds,
        fold=minutes * 60,
        epochs=epochs,
        start=args.start,
        prepare=args.prepare,
        extract=args.extract_minutes * 60,
        store=size,
        disk=args.disk * 1e6,
        link=args.link * 1e6,
        memory=args.memory_gb * 1e9,
        slots=args.slots,
        cores=args.cores,
    )
    say(f"{load.experiments} x {load.folds} folds of {minutes:.1f} min, a store of {size / 1e9:.2f} GB")
    table(HEADER, rows(load, args.nodes))


def check(args: argparse.Namespace) -> None:
    """Raises UserError on numbers with which nothing would ever end."""
    may_be_zero = ("store_gb", "extract_minutes", "start", "prepare", "memory_gb")
    for name, value in vars(args).items():
        numbers = value if name == "nodes" else [value] if isinstance(value, int | float) else []
        for number in numbers:
            if not 0 <= number < math.inf or (number == 0 and name not in may_be_zero):
                least = "at least 0" if name in may_be_zero else "above 0"
                raise UserError(f"--{name.replace('_', '-')} {number:g}: must be {least}")


def measured(run: Path) -> tuple[float, int]:
    """Minutes and epochs of a fold that was trained without an interruption."""
    try:
        manifest, config = (json.loads((run / name).read_text()) for name in ("manifest.json", "config.json"))
        return manifest["seconds"] / 60, config["train"]["epochs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run}: not a finished fold ({error}): name work/runs/NAME/fold0") from None


def parser() -> argparse.ArgumentParser:
    found = command_parser(__doc__, EXAMPLES, "python -m benchmarks.cluster_simulation")
    found.add_argument("--run", type=as_path, metavar="DIR", help="a trained fold: its minutes and epochs")
    found.add_argument("--store", type=as_path, metavar="DIR", help="a feature store: its size")
    numbers = {
        "fold-minutes": (None, "of one fold, without --run"),
        "store-gb": (1.7, "size of the store, without --store"),
        "extract-minutes": (1.0, "all features on one core"),
        "start": (10.0, "seconds until a job trains: its process, import torch, tables"),
        "prepare": (3.0, "seconds that the driver needs for an experiment before its folds"),
        "disk": (500.0, "MB/s of the shared disk, all readers together"),
        "link": (1000.0, "MB/s that one node can read"),
        "memory-gb": (16.0, "memory of a node that may hold the store"),
    }
    for name, (default, text) in numbers.items():
        found.add_argument(
            f"--{name}",
            type=float,
            default=default,
            metavar="N",
            help=f"{text}{f' ({default})' if default is not None else ''}",
        )
    counts = {
        "epochs": (80, "of a fold, without --run"),
        "experiments": (6, "to be trained"),
        "folds": (5, "of each"),
        "slots": (1, "folds at once on a node: its GPUs, or cores divided by threads"),
        "cores": (8, "of a node, for features"),
    }
    for name, (number, text) in counts.items():
        found.add_argument(f"--{name}", type=int, default=number, metavar="N", help=f"{text} (%(default)s)")
    found.add_argument("--nodes", type=int, nargs="+", default=[1, 8, 64], metavar="N", help="(1 8 64)")
    return found


if __name__ == "__main__":
    run_command(main)
