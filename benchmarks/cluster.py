"""Point 10: jobs on a Ray cluster of two nodes with a core each, against two local processes, on this machine.

python -m benchmarks.cluster
python -m benchmarks.cluster --quick
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import Row, by_turns, median, quotient
from configs.cluster import QUIET, on_cluster
from configs.load import load_config
from configs.paths import Paths
from configs.processes import ENGINE, worker_processes
from configs.schema import Config
from console.command_line import run_command
from console.options import command_parser
from console.output import muted, say
from training.parallel import MEMORY

PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
NODE = {"num_cpus": 1, "num_gpus": 0, "memory": 6 << 30, "object_store_memory": 80 << 20}
SMALL = ["name=small", "folds.n_folds=4", "train.device=cpu"]  # ResNetish10 and the demo's sounds
GOAL = 0.9  # of the local rate


def main() -> None:
    parser = command_parser(__doc__, prog="python -m benchmarks.cluster")
    parser.add_argument("--quick", action="store_true", help="half a minute: one round of short jobs")
    for row in measure(parser.parse_args().quick):
        cells = (row.ours, row.peer, row.ratio, row.goal, {True: "met", False: "not met", None: ""}[row.met])
        say(f"{row.what}\n   {', '.join(filter(None, cells))}")


def measure(quick: bool) -> list[Row]:
    if find_spec("ray") is None:
        return [Row(10, "jobs on a cluster", "not measured: Ray is not installed")]
    os.environ |= {"OMP_NUM_THREADS": "1"}
    with TemporaryDirectory() as scratch, small_cluster():
        paths = Paths(Path(scratch) / "demo", Path(scratch) / "work")
        with muted():  # what jobs print
            from input.demo import make_demo

            make_demo(paths.input, train_per_class=8 if quick else 20, test_per_class=1)
            rows = list(_rows(quick, paths))
    return rows


def _rows(quick: bool, paths: Paths) -> Iterator[Row]:
    with ExitStack() as stack:
        start = time.perf_counter()
        local = stack.enter_context(worker_processes(2, "trains a fold", 1, None, MEMORY))
        local.submit(divmod, 7, 2).result()
        first = {"local": time.perf_counter() - start}
        start = time.perf_counter()
        stack.enter_context(on_cluster("ray", paths, {}))
        cluster = stack.enter_context(worker_processes(2, "trains a fold", 1, None, MEMORY))
        cluster.submit(divmod, 7, 2).result()
        first["ray"] = time.perf_counter() - start
        what = "seconds until the first job is done, with connecting and a look at the nodes; peer: local processes"
        yield Row(10, what, f"{first['ray']:.1f} s", f"{first['local']:.2f} s")

        pools, n, rounds = {"local": local, "ray": cluster}, 20 if quick else 200, 1 if quick else 3
        times = by_turns({name: partial(_idle, pool, n) for name, pool in pools.items()}, rounds)
        here, there = (f"{median(times, name) / n * 1e3:.1f} ms" for name in ("ray", "local"))
        yield Row(10, f"a job that does nothing, {n} at once on two cores; peer: two local processes", here, there)

        cfg = load_config(Path("configs/demo_resnetish.yaml"), [*SMALL, f"train.epochs={2 if quick else 8}"])
        train = _training(cfg, paths)
        times = by_turns({name: partial(train, pool) for name, pool in pools.items()}, rounds)
    here, there = (f"{4 / median(times, name) * 60:.1f}/min" for name in ("ray", "local"))
    what = "folds trained on two nodes with a core each, four small ones; peer: two local processes"
    ratio = quotient(times, "local", "ray")
    yield Row(10, what, here, there, f"{ratio:.2f}x", f"at least {GOAL}x", ratio >= GOAL)


def _idle(pool: Executor, n: int) -> None:
    for job in [pool.submit(divmod, 7, 2) for _ in range(n)]:
        job.result()


def _training(cfg: Config, paths: Paths) -> Callable[[Executor], None]:
    """Train four folds of `cfg`, from the features that are made here."""
    from training.experiment_data import load_data, prepare
    from training.parallel import _train

    folds = list(range(4))
    before = ENGINE.set(None)  # features are made by local processes
    prepare(cfg, load_data(cfg, folds, paths), paths, folds)
    ENGINE.reset(before)

    def train(pool: Executor) -> None:
        status = [job.result() for job in [pool.submit(_train, cfg, fold, paths, True) for fold in folds]]
        if any(status):
            raise RuntimeError(f"training failed: {status}")

    return train


@contextmanager
def small_cluster(*nodes: dict[str, Any], **head: Any) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` of nodes with a core each, two by default, and a head that no job runs on.
    RAY_ADDRESS names it."""
    before = dict(os.environ)
    os.environ |= {**QUIET, "RAY_worker_register_timeout_seconds": "240"}  # a busy machine takes long to start one
    try:
        from ray.cluster_utils import Cluster

        found = Cluster()
        try:
            for one in ({"num_cpus": 0, "include_dashboard": False, **head}, *(nodes or ({}, {}))):
                _add_node(found, one)
            os.environ["RAY_ADDRESS"] = found.address
            yield found
        finally:
            found.shutdown()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _add_node(cluster: Any, more: dict[str, Any]) -> None:
    """Tried up to five times: a node ends if its agent has not named its ports in 15 s, as on a busy machine."""
    for left in range(4, -1, -1):
        try:
            cluster.add_node(**node(**more))
            return
        except Exception:  # Ray raises no other
            if not left:
                raise


def node(**more: Any) -> dict[str, Any]:
    """With ports that are known: Ray waits only 15 s until its agent has told one that it has chosen."""
    return {**NODE, **dict(zip(PORTS, free_ports(len(PORTS)), strict=True)), **more}


def free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    run_command(main)
