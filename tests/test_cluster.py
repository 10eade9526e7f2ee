"""Jobs on a Ray cluster of two nodes with a core each, both on this machine."""

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.cluster import QUIET, _needs, look_around, on_cluster
from configs.files import lock
from configs.paths import Paths
from configs.processes import worker_processes
from configs.schema import Config
from console.errors import UserError
from runs.run_folder import _alone
from tests.test_pipeline import ONE, ROOT, refused, run, same_bytes, start, where
from training.parallel import _train

if find_spec("ray") is None:  # not importorskip: Ray reads QUIET when it is imported
    pytest.skip("Ray is not installed: pip install -c constraints.txt -e '.[cluster]'", allow_module_level=True)

NODE: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "memory": 6 << 30, "object_store_memory": 80 << 20}
EPOCHS = "train.epochs=40"  # long enough to be killed in
SLOW = {"RAY_raylet_start_wait_time_s": "180", "RAY_worker_register_timeout_seconds": "240"}  # on a busy machine


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Of two nodes, and a head that no job runs on, so that either can be lost; RAY_ADDRESS names it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SLOW, **QUIET, "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        found = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                found.add_node(**NODE)
            patch.setenv("RAY_ADDRESS", found.address)
            yield found
        finally:
            found.shutdown()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "demo"
    assert run("-m", "input.demo", folder, "--train", 4, "--test", 3).returncode == 0
    return folder


def until(process: subprocess.Popen[str], *texts: str) -> str:
    """Read until every text has been printed; what was read."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if all(text in said for text in texts):
            return said
    raise AssertionError(said + process.communicate()[1])


def has_a_job(node: Any) -> bool:
    """Whether a child of the node's raylet has the title that Ray gives it while it runs a job."""
    raylet = str(node.all_processes["raylet"][0].process.pid)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == raylet and "ray::run_job" in (folder / "cmdline").read_text():
                return True
    return False


def kept_lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


COUNTED = "open({file!r}, 'a').write('begun\\n'); "


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kit as a user has it, with what must not travel: data, a repository, runs."""
    root = tmp_path / "kit"
    for name in ("configs", "console", "input"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train_fold.py", "input/sounds/a.wav", ".git/HEAD", ".venv/bin/python", "work/a", "tests/a.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    monkeypatch.setattr("configs.cluster.ROOT", root)
    return root


def test_lines_errors_and_lost_processes(
    cluster: Any, code: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `worker_processes` promises, of processes that it has not started; and the code that they have."""
    faulty, dying = tmp_path / "faulty", tmp_path / "dying"
    look = "import configs, os, sys; root = os.path.dirname(os.path.dirname(configs.__file__)); "
    look += "print('Gänse', os.environ['OMP_NUM_THREADS'], os.environ['KEY'], *sorted(os.listdir(root)), sep='|'); "
    look += "print('input:', 'sounds' in os.listdir(root + '/input'), file=sys.stderr)"
    with on_cluster("ray", Paths(tmp_path, tmp_path / "work"), {"KEY": "value"}):
        with worker_processes(1, "looks") as pool:
            assert pool.submit(divmod, 7, 2).result() == (3, 1)
            pool.submit(exec, look).result()
            fails = "from console.errors import UserError; raise UserError('a.wav: no')"
            with pytest.raises(UserError, match=r"^a\.wav: no$"):
                pool.submit(exec, COUNTED.format(file=str(faulty)) + fails).result()
        message = (
            r"^a process that dies ended too early 4 times \(WorkerCrashedError\), perhaps because it was out of mem"
        )
        with pytest.raises(UserError, match=message), worker_processes(1, "dies") as pool:
            pool.submit(exec, COUNTED.format(file=str(dying)) + "import os; os._exit(1)").result()
    assert kept_lines(faulty) == 1, "the same input fails again"
    assert kept_lines(dying) == 4
    assert not list((tmp_path / "work").glob(".cluster-*")), "no file is left behind"
    said, warned = capsys.readouterr()
    line = next(line for line in said.splitlines() if line.startswith("Gänse"))
    assert line == "Gänse|1|value|configs|console|input|train_fold.py" and "input: False\n" in warned
    assert "ray: 3 nodes, 2 cores, 0 GPUs" in said and said.count("begun again on node ") == 3
    assert "raylet" not in said + warned


def test_a_node_that_lacks_a_folder_is_named_before_anything_starts(cluster: Any, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    message = rf"^node \S+ \(\S+\): {gone} is not there: put it on storage that all nodes mount at the same path; node"
    with pytest.raises(UserError, match=message), on_cluster("ray", Paths(gone, tmp_path / "work"), {}):
        pytest.fail("it started")


def test_what_a_node_says_of_work(tmp_path: Path) -> None:
    marker = tmp_path / "work" / "cluster-1"
    assert f"{tmp_path}/work is not there, or another folder of that name" in look_around(tmp_path, marker)[1]
    with lock(marker):
        _, fault, versions = look_around(tmp_path, marker)
    assert fault == "" and versions["python"] and versions["torch"]
    fact = "a file that another node has locked can be locked there too: mount it with locks"
    assert fact in look_around(tmp_path, marker)[1], "nobody holds it"


def test_a_job_asks_for_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def needs(threads: int, on_gpu: bool, *nodes: dict[str, float], memory: int = 1) -> dict[str, float]:
        alive = [{"Alive": True, "Resources": node} for node in nodes]
        lost = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0, "memory": 1e12}}
        return _needs(SimpleNamespace(nodes=lambda: [*alive, lost]), threads, on_gpu, memory)

    small, gpus = {"CPU": 4.0, "memory": 8e9}, {"CPU": 16.0, "GPU": 4.0, "memory": 64e9}
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert needs(0, True, small) == {"num_cpus": 1, "num_gpus": 0, "memory": 1}
    assert needs(0, True, small, gpus) == {"num_cpus": 4, "num_gpus": 1, "memory": 1}
    assert needs(0, False, small, gpus) == {"num_cpus": 1, "num_gpus": 0, "memory": 1}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert (needs(0, False, small)["num_cpus"], needs(1, False, small)["num_cpus"]) == (3, 1)
    with pytest.raises(UserError, match=r"the cluster has no node with 3 cores and 9\.3 GB of memory"):
        needs(0, False, small, memory=10**10)
    with pytest.raises(UserError, match="the cluster has no node with 8 cores"):
        needs(8, True, small)


def test_features_made_on_a_cluster_have_the_same_bytes(
    cluster: Any, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from configs.schema import FeatureConfig
    from features.store import open_features
    from input.competition import load_competition

    monkeypatch.setattr("features.extraction.PART", 8)
    clips = load_competition(demo).train
    cfg = FeatureConfig(sample_rate=8000, f_max=4000, n_fft=256, hop_length=160, n_mels=16)
    with on_cluster("ray", Paths(demo, tmp_path / "cluster"), {}):
        there = open_features(cfg, clips, tmp_path / "cluster", workers=1)
    here = open_features(cfg, clips, tmp_path / "local", workers=1)
    assert there.key == here.key
    files = [sorted((tmp_path / name / here.key).iterdir()) for name in ("cluster", "local")]
    for one, other in zip(*files, strict=True):
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())


def test_a_study_of_8_trials(cluster: Any, demo: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("train.lr: {log: [1.0e-3, 1.0e-2]}\n")
    words = ["--trials", 8, "--workers", 2, "--name", "s", "--space", space, "--on", "ray", "train.epochs=1"]
    done = run("tune.py", *where(demo, tmp_path), *ONE, *words)
    assert done.returncode == 0, done.stderr
    assert "; 8/8 finished" in done.stdout and "best of 8 trials" in done.stdout
    assert (tmp_path / "studies/s/best.yaml").exists()


def test_folds_end_with_the_same_bytes_though_the_driver_and_a_node_are_killed(
    cluster: Any, demo: Path, tmp_path: Path
) -> None:
    words = ["train_fold.py", "--fold", "0..1", "--input", demo, *ONE, EPOCHS]
    local = run(*words, "--work", tmp_path / "local", "--jobs", 2)
    assert local.returncode == 0, local.stderr

    there = [*words, "--work", tmp_path / "there", "--on", "ray"]
    killed = start(*there)
    until(killed, "one fold 0 epoch ", "one fold 1 epoch ")  # both have an epoch to go on from, or one is finished
    killed.kill()
    killed.communicate()
    process = start(*there)
    said = until(process, " epoch ")  # of a fold that goes on
    cluster.remove_node(next(node for node in cluster.worker_nodes if has_a_job(node)), allow_graceful=False)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert ": continuing after epoch " in said
    after = out.partition("begun again on ")[2]
    assert ": continuing after epoch " in after, out
    assert "raylet" not in out + err and "RayTaskError" not in err
    for fold in ("fold0", "fold1"):
        one, other = (tmp_path / work / "runs/one" / fold for work in ("local", "there"))
        assert same_bytes(one, other)
        mine, theirs = (json.loads((f / "manifest.json").read_text()) | {"seconds": 0} for f in (one, other))
        assert mine == theirs


def test_what_on_refuses(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train_fold.py", "--fold", "0..1", *where(demo, tmp_path), *ONE]
    assert "--jobs 2: not with --on" in refused(*words, "--on", "ray", "--jobs", 2)
    with (
        pytest.raises(UserError, match="--on elsewhere: expected ray or ray://host:10001"),
        on_cluster("elsewhere", Paths(demo, tmp_path), {}),
    ):
        pass
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        on, message = "ray" if address[0] == "1" else address, f"^{address}: no Ray cluster answers there"
        with pytest.raises(UserError, match=message), on_cluster(on, Paths(demo, tmp_path), {}):
            pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UserError, match="Ray is not installed: pip install"),
        on_cluster("ray", Paths(demo, tmp_path), {}),
    ):
        pass
    assert not (tmp_path / "runs").exists()


def test_a_job_begun_again_waits_for_the_lock_of_the_lost_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk on the network frees it a while after its machine was lost."""
    final, held, freed = tmp_path / "fold0", threading.Event(), threading.Event()

    def hold() -> None:
        with lock(final):
            held.set()
            freed.wait(20)

    lost = threading.Thread(target=hold)
    lost.start()
    held.wait()
    with pytest.raises(UserError, match="another process is training this fold"), _alone(final):
        pytest.fail("it was held")
    monkeypatch.setattr("configs.cluster_job.begun", 2)
    threading.Timer(0.5, freed.set).start()
    with _alone(final):
        assert freed.is_set()
    lost.join()


@pytest.mark.parametrize(("begun", "has_an_epoch", "restart"), [(1, True, True), (2, True, False), (2, False, True)])
def test_force_does_not_train_again_what_a_lost_machine_has_trained(
    monkeypatch: pytest.MonkeyPatch, begun: int, has_an_epoch: bool, restart: bool
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr("training.train.train_folds", lambda cfg, folds, paths, force, preamble: seen.append(force))
    monkeypatch.setattr("runs.run_folder.is_begun", lambda *_: has_an_epoch)
    monkeypatch.setattr("configs.cluster_job.begun", begun)
    assert _train(Config(), 0, Paths(), True) == 0
    assert seen == [restart]
