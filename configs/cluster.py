"""Jobs on the nodes of a Ray cluster: `on_cluster` makes it the engine of `worker_processes`. See docs/scaling.md."""

import logging
import os
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from configs.cluster_job import Lines, node_name, run_job
from configs.files import lock
from configs.paths import Paths
from configs.processes import ENGINE, THREADS, Engine, sigterm_interrupts
from configs.user_code import KIT
from console.errors import UserError, count, list_some
from console.output import complain, say, warn

ROOT = Path(__file__).parents[1]
TRAVELS = ["/*", "!.", "!/*.py", *(f"!/{name}" for name in sorted(KIT)), "/input/*", "!/input/*.py", "__pycache__"]
LIBRARIES = ("ray", "torch", "torchaudio", "timm", "pytorch-lightning", "numpy", "pandas", "soundfile", "filelock")
RETRIES = 3  # of a job whose process or node is lost
QUIET = {  # for Ray, which reads it when imported: no usage statistics, no warning of a new rule, no log of a lost node
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".?",
}
POLL = 0.2  # seconds between looks at what the jobs print


@contextmanager
def on_cluster(on: str, paths: Paths, environment: Mapping[str, str]) -> Iterator[None]:
    """A context in which `worker_processes` runs its jobs on a cluster.

    on: 'ray' (RAY_ADDRESS, else a running one here, else a new one on this machine) or 'ray://host:port'.

    paths: absolute, on storage that all nodes share. environment: variables of the jobs. The kit's code travels with
    them. Ctrl-C and SIGTERM raise KeyboardInterrupt here; the end of the context ends all jobs. Raises UserError where
    there is no such cluster, or a node lacks a folder, a library, or locks that other nodes respect.
    """
    with sigterm_interrupts():
        ray = _connect(on, environment)
        try:
            with sigterm_interrupts(), _marker(paths.work) as marker:  # again: Ray has set a handler of its own
                _check_nodes(ray, paths, marker)
                before = ENGINE.set(Engine(partial(_jobs, ray, marker), partial(_room, ray)))
                try:
                    yield
                finally:
                    ENGINE.reset(before)
        finally:
            ray.shutdown()


def _connect(on: str, environment: Mapping[str, str]) -> Any:
    """The module `ray`, connected. Nothing about its use is sent anywhere."""
    if on != "ray" and not on.startswith("ray://"):
        raise UserError(f"--on {on}: expected ray or ray://host:10001")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UserError(f"--on {on}: Ray is not installed: pip install -c constraints.txt -e '.[cluster]'") from None
    _check_answers(os.environ.get("RAY_ADDRESS", "") if on == "ray" else on)
    code = {"working_dir": str(ROOT), "excludes": TRAVELS, "env_vars": dict(environment)}
    try:
        ray.init(None if on == "ray" else on, runtime_env=code, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:  # none there, or of another version
        at = os.environ.get("RAY_ADDRESS", "a new one") if on == "ray" else on
        token = "" if "RAY_AUTH_MODE" in os.environ else ": where it asks for a token, set RAY_AUTH_MODE=token here too"
        raise UserError(f"--on {on}: no cluster ({at}): {' '.join(str(error).split())[:300]}{token}") from None
    return ray


def _check_answers(address: str) -> None:
    """Raises UserError where nothing listens at host:port or ray://host:port: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rstrip("/").rpartition(":")
    if not host or not port.isdecimal():
        return  # Ray's own words, such as auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{address}: no Ray cluster answers there ({error}): start it, or correct the address"
        ) from None


@contextmanager
def _marker(work: Path) -> Iterator[Path]:
    """A file in `work` that this process has locked, so that a node can tell whether it sees the same folder, and the
    same locks. Those of killed drivers are removed."""
    for file in work.glob(".cluster-*.lock"):
        with suppress(UserError), lock(work / file.name[1:-5], "its driver runs"):
            file.unlink(missing_ok=True)
    thing = work / f"cluster-{uuid4().hex[:12]}"
    with lock(thing):
        try:
            yield thing
        finally:
            thing.with_name(f".{thing.name}.lock").unlink(missing_ok=True)


def _check_nodes(ray: Any, paths: Paths, marker: Path) -> None:
    """Ask every node at once. Raises UserError that names each with a fault; warns of other versions."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = _nodes(ray)
    probe = ray.remote(num_cpus=0, max_retries=1)(look_around)
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    asked = [probe.options(scheduling_strategy=at).remote(paths.input, marker) for at in there]
    try:
        answers: list[tuple[str, str, dict[str, str | None]]] = ray.get(asked)
    except ray.exceptions.RayError as error:
        raise UserError(f"a node of the cluster does not answer: {' '.join(str(error).split())[:300]}") from None
    if faults := [f"{name}: {fault}" for name, fault, _ in answers if fault]:
        raise UserError("; ".join(faults))
    here = library_versions()
    for name, _, versions in answers:
        if other := [f"{key} {found}, here {here[key]}" for key, found in versions.items() if found != here[key]]:
            warn(f"{name}: {list_some(other)}: its results may differ: install the same versions")
    total = {key: sum(int(node["Resources"].get(key, 0)) for node in nodes) for key in ("CPU", "GPU")}
    say(f"ray: {count(len(nodes), 'node')}, {count(total['CPU'], 'core')}, {count(total['GPU'], 'GPU')}")


def look_around(folder: Path, marker: Path) -> tuple[str, str, dict[str, str | None]]:
    """Run on a node: its name, what it lacks ('' if nothing), and its versions."""
    name = node_name()
    versions = library_versions()
    held = marker.with_name(f".{marker.name}.lock")
    remedy = "put it on storage that all nodes mount at the same path"
    if lacking := [library for library, found in versions.items() if found is None]:
        return name, f"lacks {list_some(lacking)}: install the kit's requirements there", versions
    if not folder.is_dir():
        return name, f"{folder} is not there: {remedy}", versions
    if not held.exists():
        return name, f"{marker.parent} is not there, or another folder of that name: {remedy}", versions
    with suppress(UserError), lock(marker, "as it must be"):
        fact = f"{marker.parent}: a file that another node has locked can be locked there too"
        return name, f"{fact}: mount it with locks that all nodes share (NFS 4; Lustre: -o flock)", versions
    return name, "", versions


def library_versions() -> dict[str, str | None]:
    """Of Python and the libraries that jobs need; None: not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _nodes(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _needs(ray: Any, threads: int, on_gpu: bool, memory: int) -> dict[str, float]:
    """Cores, GPUs and memory of a job. threads 0: OMP_NUM_THREADS, else a GPU's share of the cores, or one, because
    small networks gain little from a second. Raises UserError where no node has so much: the job would wait for ever.
    """
    nodes = [node["Resources"] for node in _nodes(ray)]
    gpu_nodes = [node for node in nodes if node.get("GPU", 0) >= 1] if on_gpu else []
    share = min((int(node.get("CPU", 1) // node["GPU"]) for node in gpu_nodes), default=1)
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    threads = threads or (int(given) if given.isdecimal() else max(1, share))
    if not any(node.get("CPU", 0) >= threads and node.get("memory", 0) >= memory for node in gpu_nodes or nodes):
        raise UserError(
            f"the cluster has no node with {count(threads, 'core')} and {memory / (1 << 30):.1f} GB of memory, which a "
            "job needs: add a larger one, or set OMP_NUM_THREADS to fewer threads"
        )
    return {"num_cpus": threads, "num_gpus": 1 if gpu_nodes else 0, "memory": memory}


def _room(ray: Any, threads: int, on_gpu: bool, memory: int) -> int:
    """How many such jobs run at once."""
    needs = _needs(ray, threads, on_gpu, memory)
    named = {"CPU": needs["num_cpus"], "GPU": needs["num_gpus"], "memory": needs["memory"]}
    nodes = [node["Resources"] for node in _nodes(ray)]
    return sum(min(int(node.get(name, 0) // n) for name, n in named.items() if n) for node in nodes)


@contextmanager
def _jobs(ray: Any, marker: Path, what: str, threads: int, on_gpu: bool, memory: int) -> Iterator[Executor]:
    """What `worker_processes` gives: see there."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    needs = _needs(ray, threads, on_gpu, memory)
    environment = {"env_vars": dict.fromkeys(THREADS, str(needs["num_cpus"]))}
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # this one is not lost
    lines = ray.remote(num_cpus=0)(Lines).options(scheduling_strategy=here).remote()
    run = ray.remote(run_job).options(**needs, max_retries=RETRIES, retry_exceptions=False, runtime_env=environment)
    jobs = ClusterJobs(ray, lines, partial(run.remote, lines, str(Path.cwd()), marker))
    try:
        yield jobs
        jobs.shutdown()
    except BrokenProcessPool as error:
        raise UserError(
            f"a process that {what} ended too early {RETRIES + 1} times ({error}), perhaps because it was out of "
            "memory: run the same command to continue"
        ) from None
    finally:
        jobs.end()
        ray.kill(lines)


class ClusterJobs(Executor):
    """Ray's jobs as futures. One thread prints what they print and then settles them, so that the order is kept."""

    def __init__(self, ray: Any, lines: Any, run: Callable[..., Any]) -> None:
        self._ray, self._lines, self._run = ray, lines, run
        self._running: dict[Any, Future[Any]] = {}
        self._number, self._end = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._number += 1
        future = Future[Any]()
        self._running[self._run(self._number, function, args, kwargs)] = future
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the remaining work."""
        while wait and self._running and self._thread.is_alive():
            time.sleep(POLL)

    def end(self) -> None:
        """Now, whatever still runs."""
        self._end.set()
        self._thread.join(5)  # seconds
        for job in self._running:
            with suppress(Exception):
                self._ray.cancel(job, force=True)

    def _watch(self) -> None:
        try:
            while not self._end.is_set():
                running = list(self._running)
                ended = self._ray.wait(running, timeout=POLL)[0] if running else []
                if ended:  # all of them at once: what follows asks for lines each time
                    ended = self._ray.wait(running, num_returns=len(running), timeout=0)[0]
                if not running:
                    self._end.wait(POLL)
                for stream, line in self._ray.get(self._lines.take.remote()):
                    say(line) if stream == "out" else complain(*line.partition(" ")[::2])
                for job in ended:
                    self._settle(job)
        except BaseException as error:  # the cluster is lost, or the reader of our output closed the pipe
            lost = UserError(f"the cluster is lost ({type(error).__name__}): run the same command to continue")
            for future in self._running.values():
                future.set_exception(error if isinstance(error, SystemExit) else lost)

    def _settle(self, job: Any) -> None:
        future = self._running.pop(job)
        try:
            future.set_result(self._ray.get(job))
        except self._ray.exceptions.RayTaskError as error:  # raised by the job itself
            future.set_exception(error.cause)
        except self._ray.exceptions.RayError as error:
            future.set_exception(BrokenProcessPool(type(error).__name__))
