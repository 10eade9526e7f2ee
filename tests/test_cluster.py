"""Jobs on a Ray cluster of two nodes with a core each, both on this machine."""

import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_frozen import make_onnx

import features.embeddings
from benchmarks.cluster import free_ports, small_cluster
from configs.cluster import _check_nodes, _needs, look_around, on_cluster
from configs.files import lock
from configs.load import load_config
from configs.paths import Paths
from configs.processes import ENGINE, room_elsewhere, worker_processes
from configs.schema import Config, FeatureConfig
from console.errors import UserError
from features.store import open_features
from input.competition import load_competition
from input.demo import make_demo
from runs.clips import frozen_file, open_clips
from runs.run_folder import _alone
from submit import submit
from tests.test_pipeline import ONE, ROOT, refused, run, same_bytes, start, where
from training.parallel import _train
from tune import tune
from tuning.search_space import load_space
from tuning.study import Plan

if find_spec("ray") is None:  # not importorskip: Ray reads QUIET when it is imported
    pytest.skip("Ray is not installed: pip install -c constraints.txt -e '.[cluster]'", allow_module_level=True)

EPOCHS = "train.epochs=25"  # long enough to be killed in
CPU = "train.device=cpu"  # jobs that go to any node


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Of two nodes with a core each, one of them with a GPU that is only said to be there, and a head that no job runs
    on, so that either can be lost; RAY_ADDRESS names it, and CLIENT its server for ray://."""
    (client,) = free_ports(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CLIENT", f"ray://127.0.0.1:{client}")
        with small_cluster({"num_gpus": 1}, {"num_gpus": 0}, ray_client_server_port=client) as found:
            yield found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "demo"
    with contextlib.redirect_stdout(io.StringIO()):
        make_demo(folder, train_per_class=4, test_per_class=3)
    return folder


@pytest.fixture(scope="module")
def local(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of two folds that were trained on this machine."""
    work = tmp_path_factory.mktemp("cluster") / "local"
    done = run("train_fold.py", "--fold", "0..1", *where(demo, work), *ONE, CPU, EPOCHS, "--jobs", 2)
    assert done.returncode == 0, done.stderr
    return work


@pytest.fixture(scope="module")
def connected(cluster: Any, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """This process is a driver; the work folder that it named."""
    work = tmp_path_factory.mktemp("cluster") / "work"
    with on_cluster("ray", Paths(demo, work), {}):
        yield work


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
    assert "ray: 3 nodes, 2 cores, 1 GPU" in said and said.count("begun again on node ") == 3
    assert "raylet" not in said + warned


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


def test_a_node_that_lacks_a_folder_is_named_before_anything_starts(connected: Path, tmp_path: Path) -> None:
    import ray

    gone = tmp_path / "gone"
    message = rf"^node \S+ \(\S+\): {gone} is not there: put it on storage that all nodes mount at the same path; node"
    with pytest.raises(UserError, match=message):
        _check_nodes(ray, Paths(gone, connected), connected / "cluster-1")


MEET = """
import os, ray, time; from pathlib import Path
folder, me = Path({folder!r}), ray.get_runtime_context().get_node_id()
(folder / me).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
while len(list(folder.iterdir())) < {nodes}:
    time.sleep(0.05)
"""


def test_jobs_that_gain_from_a_gpu_go_where_one_is(connected: Path, tmp_path: Path) -> None:
    """Each has a whole one, and others have none."""
    found = []
    for n_jobs, nodes, cards in ((3, 1, []), (2, 2, None)):
        (folder := tmp_path / str(nodes)).mkdir()
        with worker_processes(1, "meets others", cards=cards) as pool:
            for _ in range(n_jobs):
                pool.submit(exec, MEET.format(folder=str(folder), nodes=nodes))
        found.append([file.read_text() for file in folder.iterdir()])
    assert found == [["0"], ["", ""]]
    assert room_elsewhere(1, []) == 1 and room_elsewhere(1) == 2


def test_features_made_on_a_cluster_have_the_same_bytes(
    connected: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.extraction.PART", 8)
    clips = load_competition(demo).train
    cfg = FeatureConfig(sample_rate=8000, f_max=4000, n_fft=256, hop_length=160, n_mels=16)
    there = open_features(cfg, clips, tmp_path / "cluster", workers=1)
    with here():
        assert open_features(cfg, clips, tmp_path / "local", workers=1).key == there.key
    files = [sorted((tmp_path / name / there.key).iterdir()) for name in ("cluster", "local")]
    for one, other in zip(*files, strict=True):
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())


def test_embeddings_made_on_a_cluster_have_the_same_bytes(
    connected: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In parts, each by a job: this process makes none of them."""
    monkeypatch.setattr("features.embeddings.PART", 8)
    settings = ["features.sample_rate=8000", "features.f_max=4000", "predict.window_seconds=0.1"]
    cfg = load_config(None, [f"model.name=embedding:{make_onnx(tmp_path / 'tiny.onnx')}", *settings])
    clips, frozen, saved = load_competition(demo).train, frozen_file(cfg), list[Path]()
    save = features.embeddings.save_part
    monkeypatch.setattr("features.embeddings.save_part", lambda file, clips: (saved.append(file), save(file, clips)))
    there = open_clips(cfg, clips, tmp_path / "cluster", frozen)
    assert not saved
    with here():
        assert open_clips(cfg, clips, tmp_path / "local", frozen).key == there.key
    assert len(saved) == -(-len(clips) // 8) > 2
    one, other = (tmp_path / name / there.key / "embeddings.npz" for name in ("cluster", "local"))
    assert one.read_bytes() == other.read_bytes()
    Path(str(cfg.model.frozen)).write_bytes(b"changed")
    with pytest.raises(UserError, match=r"tiny\.onnx: is not the file"):
        open_clips(cfg, clips[:20], tmp_path / "cluster", frozen)


@contextlib.contextmanager
def here() -> Iterator[None]:
    """Without the cluster."""
    before = ENGINE.set(None)
    try:
        yield
    finally:
        ENGINE.reset(before)


def test_a_study_of_8_trials(
    connected: Path,
    demo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many workers as there is room for."""
    asked: list[int] = []

    def workers(n: int, *args: Any, **more: Any) -> Any:
        asked.append(n)
        return worker_processes(n, *args, **more)

    monkeypatch.setattr("tune.worker_processes", workers)
    (tmp_path / "space.yaml").write_text("train.lr: {log: [1.0e-3, 1.0e-2]}\n")
    config, overrides = Path(ONE[1]), (*ONE[2:], CPU, "train.epochs=1")
    space = load_space(tmp_path / "space.yaml", config, overrides)
    tune(Plan(config, overrides, space, (0,), 8), "s", Paths(demo, tmp_path), None)
    said = capsys.readouterr().out
    assert "; 8/8 finished" in said and "best of 8 trials" in said
    assert asked == [2] and (tmp_path / "studies/s/best.yaml").exists()


def test_folds_x_shares_of_the_test_clips_are_predicted_with_the_same_bytes(
    connected: Path,
    demo: Path,
    local: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On the node that has a GPU."""
    monkeypatch.setattr("runs.predict_shares.LEAST", 1)  # batch
    monkeypatch.setattr("runs.predict_shares.ROUNDS", 4)  # so two shares of each fold
    written = []
    for name, place in (("cluster", contextlib.nullcontext), ("local", here)):
        paths = Paths(demo, tmp_path / name)
        shutil.copytree(local / "runs", paths.runs)
        with place():
            submit(paths, "default", tmp_path / f"{name}.csv", None, refresh=True)
        written.append([tmp_path / f"{name}.csv", *sorted(paths.predictions.iterdir())])
    assert [len(files) for files in written] == [3, 3] and "predicting 2 folds in 4 jobs" in capsys.readouterr().out
    for one, other in zip(*written, strict=True):
        assert one.read_bytes() == other.read_bytes()


HOLD = """
import time; from pathlib import Path; from configs.schema import FeatureConfig
from features.store import open_features
from input.competition import load_competition
from runs.clips import frozen_file, open_clips
from runs.run_folder import _alone
from submit import submit
with _alone(Path({fold!r})):
    print("held", flush=True)
    while not Path({end!r}).exists():
        time.sleep(0.1)
"""


def test_a_second_driver_is_refused_a_fold_that_another_node_trains(
    connected: Path, demo: Path, tmp_path: Path
) -> None:
    """Each driver has a job on another node, since each node has one core."""
    fold, end = tmp_path / "runs/one/fold0", tmp_path / "end"
    with worker_processes(1, "holds a fold") as pool:
        held = pool.submit(exec, HOLD.format(fold=str(fold), end=str(end)))
        try:
            wait_for(lambda: fold.with_name(".fold0.lock").exists())
            done = run("train_fold.py", "--fold", "0", *where(demo, tmp_path), *ONE, CPU, "--on", "ray")
        finally:
            end.touch()
        held.result()
    assert done.returncode == 2, done.stderr
    assert f"{fold}: another process is training this fold: wait for it, or stop it" in done.stderr
    assert "not finished: one fold 0" in done.stderr and not fold.exists()


def wait_for(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it does not come")


CLIENT = """
import os, sys; from pathlib import Path
from configs.cluster import on_cluster; from configs.paths import Paths; from configs.processes import worker_processes
with on_cluster(os.environ["CLIENT"], Paths(Path(sys.argv[1]), Path(sys.argv[2])), {"KEY": "value"}):
    with worker_processes(1, "divides") as pool:
        print("found", *[pool.submit(divmod, 7, i).result() for i in (2, 3)])
        pool.submit(exec, "import os; print('in a job', os.environ['KEY'])").result()
"""


def test_a_client_outside_of_the_cluster(connected: Path, demo: Path) -> None:
    done = run("-c", CLIENT, demo, connected)
    assert done.returncode == 0, done.stderr
    assert "ray: 3 nodes" in done.stdout and "found (3, 1) (2, 1)" in done.stdout and "in a job value" in done.stdout


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
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"ray://127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setattr("ray.init", lambda *_, **__: exec("raise ConnectionError('connection timeout')"))
        message = "connection timeout: where it asks for a token, set RAY_AUTH_MODE=token here too$"
        with pytest.raises(UserError, match=message), on_cluster(address, Paths(demo, tmp_path), {}):
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


def test_folds_end_with_the_same_bytes_though_the_driver_and_a_node_are_killed(
    cluster: Any, demo: Path, local: Path, tmp_path: Path
) -> None:
    there = ["train_fold.py", "--fold", "0..1", *where(demo, tmp_path / "there"), *ONE, CPU, EPOCHS, "--on", "ray"]
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
        one, other = (work / "runs/one" / fold for work in (local, tmp_path / "there"))
        assert same_bytes(one, other)
        mine, theirs = (json.loads((f / "manifest.json").read_text()) | {"seconds": 0} for f in (one, other))
        assert mine == theirs
