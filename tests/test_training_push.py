"""submission.push --train against the stand-in server, and its kernels in the sandbox: the runs are those made here."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from kaggle_server import Fault, KaggleServer, Refusal
from sandbox import run_kernel, why_not

from configs.load import load_config
from configs.paths import Paths
from console.errors import UserError
from runs.run_folder import FILES, read_run, read_trained
from submission import push
from submission.pull import check_run
from submission.training_push import Wish, pull, train
from submission.training_report import REPORT, OutputFile, TrainingReport, list_files, read_report

ROOT = Path(__file__).parent.parent
SLUG = "tiny-tagging-train"
ONE, TWO = f"tester/{SLUG}-1", f"tester/{SLUG}-2"
RUNS = ("tiny/fold0", "tiny/fold1")
CONFIG = """
features: {sample_rate: 8000, f_max: 4000, hop_length: 160, n_fft: 256, n_mels: 16}
input: {corrections: fixes.csv}
model: {name: resnetish10, width: 8}
augment: {extra: ["my_noise:louder"]}
train: {epochs: 2, batch_size: 4, crop_seconds: 0.5, lr: 4.0e-3}
predict: {window_seconds: 1.0}
folds: {n_folds: 2}
"""
OWN_CODE = """
import os
import time
from pathlib import Path


def louder(x, y, w, rng):
    begun = os.environ.get("PAUSE_AFTER")  # a checkpoint: the epoch after it never ends in time
    if begun and Path(begun).exists():
        time.sleep(3)
    return x + 0.1, y, w
"""
# The kit comes from the dataset alone, and in the process that watches the time it is over once there is a checkpoint.
GATE = """
import os, sys, time

sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
if os.environ.get("PAUSE_AFTER") and "submission.kernel_train" in sys.orig_argv:
    clock = time.monotonic
    time.monotonic = lambda: clock() + (1e6 if os.path.exists(os.environ["PAUSE_AFTER"]) else 0)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a competition, an experiment with code and corrections of one's own, and work/ as trained here."""
    from input.demo import make_demo

    home = tmp_path_factory.mktemp("home")
    with contextlib.redirect_stdout(io.StringIO()):
        make_demo(home / "input" / "tiny-tagging", train_per_class=2, test_per_class=1)
    (home / "tiny.yaml").write_text(CONFIG)
    (home / "my_noise.py").write_text(OWN_CODE)
    first, second = (home / "input" / "tiny-tagging" / "train.csv").read_text().splitlines()[1:3]
    (home / "fixes.csv").write_text(f"fname,label\n{first.split(',')[0]},{second.split(',')[1]}\n")
    command = [sys.executable, ROOT / "train_fold.py", "--fold", "0..1", "--config", "tiny.yaml"]
    command += ["--input", "input/tiny-tagging", "--work", "work"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, command)), cwd=home, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def paths(
    home: Path, kaggle: KaggleServer, tmp_path: Path, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> Paths:
    """An empty work folder; the stand-in has the competition."""
    monkeypatch.chdir(home)
    kaggle.competitions["tiny-tagging"] = {"train.csv": b""}
    return Paths(Path("input/tiny-tagging"), tmp_path / "work")


def wish(**changes: Any) -> Wish:
    cfg = load_config(Path("tiny.yaml"))
    return replace(Wish([cfg], "0..1", "tiny-tagging", SLUG), **changes)


def on_kaggle(root: Path, competition: Path) -> Callable[[KaggleServer, str], None]:
    """Runs what was pushed, in the sandbox; the time of the first kernel is over in its second fold."""

    def run(server: KaggleServer, kernel: str) -> None:
        sent, here = server.kernels[kernel][-1], root / kernel.rpartition("/")[2]
        inputs, working = here / "inputs", here / "working"
        for dataset in sent["datasetDataSources"]:
            server.mount(dataset, inputs / "datasets" / dataset)
        for slug in sent["competitionDataSources"]:
            shutil.copytree(competition, inputs / "competitions" / slug)
        for source in sent.get("kernelDataSources", []):
            server.mount_output(source, inputs / "notebooks" / source)
        (here / "src").mkdir()
        (here / "src" / "kernel.py").write_text(sent["text"])
        (inputs / "gate").mkdir()
        (inputs / "gate" / "sitecustomize.py").write_text(GATE)
        gate = str(inputs / "gate") if why_not() else "/kaggle/input/gate"
        (inputs / "gate" / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: Tesla T4 (UUID: GPU-1)'\n")
        (inputs / "gate" / "nvidia-smi").chmod(0o755)
        variables = {"PYTHONPATH": gate, "OMP_NUM_THREADS": "1", "PATH": f"{gate}:{os.environ['PATH']}"}
        if kernel == ONE:
            place = str(working) if why_not() else "/kaggle/working"
            variables["PAUSE_AFTER"] = f"{place}/runs/tiny/fold1.partial/last.ckpt"
        done = run_kernel(here / "src" / "kernel.py", inputs, working, variables)
        server.kernel_log = json.dumps([{"data": done.stdout + done.stderr}])
        server.kernel_outputs[kernel] = contents(working)
        server.kernel_states = ["QUEUED", "RUNNING", "COMPLETE" if done.returncode == 0 else "ERROR"]

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_a_training_in_two_kernels_gives_the_bytes_that_it_gives_here(
    home: Path,
    paths: Paths,
    kaggle: KaggleServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kaggle.run_kernel = on_kaggle(tmp_path / "kaggle", home / "input" / "tiny-tagging")
    command = ["submission.push", "--train", "--config", "tiny.yaml", "--fold", "0..1", "--limit", "1h"]
    command += ["--input", str(paths.input), "--work", str(paths.work)]
    monkeypatch.setattr(sys, "argv", command)
    push.main()
    first = read_output(kaggle, ONE, tmp_path)
    assert (first.ended, first.finished, first.begun) == ("time limit", RUNS[:1], {RUNS[1]: 1})
    second = read_output(kaggle, TWO, tmp_path)
    assert (second.ended, second.finished, second.begun) == ("finished", RUNS, {})
    assert "tiny fold 1: continuing after epoch 1 of 2" in kaggle.kernel_log
    for run in RUNS:
        for file in FILES:
            assert (paths.runs / run / file).read_bytes() == (home / "work" / "runs" / run / file).read_bytes(), file
        there, here = (read_run(work / run).manifest for work in (paths.runs, home / "work" / "runs"))
        same = {"seconds": 0, "git_revision": ""}
        assert replace(there, **same) == replace(here, **same)
        assert there.git_revision
    out = capsys.readouterr().out
    assert f"{ONE}: time limit: 1 of 2 folds finished, 1 other begun" in out
    assert f"{TWO}: 1 fold fetched, 1 already here" in out

    one, two = kaggle.sent("SaveKernel")
    assert (one["enableGpu"], one["enableInternet"], one["machineShape"], one["isPrivate"]) == (
        True,
        False,
        "NvidiaTeslaT4",
        True,
    )
    assert one.get("kernelDataSources", []) == [] and two["kernelDataSources"] == [ONE]
    assert one["datasetDataSources"] == two["datasetDataSources"] == [f"tester/{SLUG}"]
    assert len(kaggle.datasets[f"tester/{SLUG}"].versions) == 1  # the second kernel needs no new one

    uploads = len(kaggle.requests)
    push.main()  # all is here
    assert [r.name for r in kaggle.requests[uploads:]] == ["ListDataFiles"]
    check_that_the_verbs_take_them(paths)


def read_output(kaggle: KaggleServer, kernel: str, scratch: Path) -> TrainingReport:
    (scratch / "report.json").write_bytes(kaggle.kernel_outputs[kernel][REPORT])
    return read_report(scratch / "report.json", "")


def check_that_the_verbs_take_them(paths: Paths) -> None:
    from ensemble import blend
    from training.train import train_folds

    with contextlib.redirect_stdout(io.StringIO()) as said:
        train_folds(load_config(Path("tiny.yaml")), [0, 1], paths)
        blend(paths, [], "geometric", "default", force=False)
    assert said.getvalue().count("found, out-of-fold") == 2
    assert (paths.work / "ensembles" / "default" / "weights.json").exists()


# The rest needs no kernel: the runs that were made here stand for what it left.


def leave(home: Path, ended: str = "finished", finished: tuple[str, ...] = RUNS, begun: int = 0):  # type: ignore[no-untyped-def]
    """A kernel that leaves these runs of those made here, and of the last one so many epochs."""

    def run(server: KaggleServer, kernel: str) -> None:
        manifest = server.datasets[f"tester/{SLUG}"].versions[-1]["kit_manifest.json"]
        job, digest = json.loads(manifest)["job"], push.script.hashlib.sha256(manifest).hexdigest()
        files = list_files(home / "work", finished, ())
        there = {path: (home / "work" / path).read_bytes() for path in files}
        if begun:  # TensorBoard begins a file in each kernel
            events = f"runs/{RUNS[1]}.partial/events.out.tfevents.{len(server.requests)}"
            there[events], files[events] = b"", OutputFile(0, "0")
        epochs = {RUNS[1]: begun} if begun else {}
        report = TrainingReport(digest, job, ended, RUNS, finished, epochs, files)  # type: ignore[arg-type]
        server.kernel_outputs[kernel] = {REPORT: json.dumps(asdict(report)).encode(), **there}

    return run


def refusal(call: Callable[..., None], *args: Any, **options: Any) -> str:
    with pytest.raises(UserError) as refused:
        call(*args, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the search for modules that were not packed, which the whole test above makes."""
    monkeypatch.setattr("submission.bundle.check_code", lambda *_: None)


def test_pull_fetches_what_a_detached_push_has_finished(
    home: Path, paths: Paths, kaggle: KaggleServer, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.run_kernel = leave(home, "time limit", RUNS[:1])
    kaggle.kernel_states = ["RUNNING", "RUNNING", "COMPLETE"]
    train(paths, wish(), detach=True)
    assert "later fetch what it has finished: python -m submission.push --train --pull" in capsys.readouterr().out
    assert f"{ONE}: still running: fetch it later (https://www.kaggle.com/code/{ONE})" in refusal(pull, paths, SLUG)
    assert f"{ONE}: still running" in refusal(train, paths, wish(), detach=True)
    assert not paths.runs.exists()
    pull(paths, SLUG)
    assert sorted(str(f.relative_to(paths.runs)) for f in paths.runs.glob("*/*")) == ["tiny/.fold0.lock", "tiny/fold0"]
    assert read_trained(paths.runs / RUNS[0]).id == read_trained(home / "work" / "runs" / RUNS[0]).id
    assert "not finished: the command that pushed it goes on with it" in capsys.readouterr().out
    kaggle.run_kernel = leave(home)
    train(paths, wish())
    assert kaggle.sent("SaveKernel")[-1]["slug"] == TWO and (paths.runs / RUNS[1]).exists()
    shutil.rmtree(paths.runs / RUNS[1])
    train(paths, wish())  # it is fetched again, and not trained
    assert len(kaggle.sent("SaveKernel")) == 2 and (paths.runs / RUNS[1]).exists()


def test_a_finished_run_is_not_overwritten(home: Path, paths: Paths, kaggle: KaggleServer, quick: None) -> None:
    kaggle.run_kernel, kaggle.kernel_states = leave(home), ["COMPLETE"]
    train(paths, wish(), detach=True)
    shutil.copytree(home / "work" / "runs" / RUNS[0], paths.runs / RUNS[0])
    manifest = paths.runs / RUNS[0] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seconds": ', '"seconds": 1'))
    own = read_run(paths.runs / RUNS[0]).id
    assert f"is kept: {paths.runs / RUNS[0]}: rename" in refusal(pull, paths, SLUG)
    assert read_run(paths.runs / RUNS[0]).id == own and (paths.runs / RUNS[1]).exists()
    pull(paths, SLUG, force=True)
    assert read_run(paths.runs / RUNS[0]).id == read_run(home / "work" / "runs" / RUNS[0]).id


def test_a_kernel_deleted_after_its_runs_were_fetched_is_pushed_only_for_what_is_missing(
    home: Path, paths: Paths, kaggle: KaggleServer, quick: None
) -> None:
    kaggle.run_kernel, kaggle.kernel_states = leave(home), ["COMPLETE"]
    train(paths, wish())
    kaggle.kernels.clear()
    assert "no such kernel of yours" in refusal(pull, paths, SLUG)
    train(paths, wish())
    assert len(kaggle.sent("SaveKernel")) == 1
    shutil.rmtree(paths.runs / RUNS[1])
    assert "no such kernel of yours on Kaggle: push it again" in refusal(train, paths, wish())
    train(paths, wish())
    assert len(kaggle.sent("SaveKernel")) == 2 and (paths.runs / RUNS[1]).exists()


def test_what_force_began_replaces_runs_also_without_it(
    home: Path, paths: Paths, kaggle: KaggleServer, quick: None
) -> None:
    """After an interruption the same command without --force goes on, as that of `train_fold.py` does."""
    shutil.copytree(home / "work" / "runs" / RUNS[0], paths.runs / RUNS[0])
    manifest = paths.runs / RUNS[0] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seconds": ', '"seconds": 1'))
    kaggle.run_kernel = leave(home)
    train(paths, wish(), force=True, detach=True)
    train(paths, wish())
    assert len(kaggle.sent("SaveKernel")) == 1
    assert read_run(paths.runs / RUNS[0]).id == read_run(home / "work" / "runs" / RUNS[0]).id


def test_a_run_that_a_kill_left_without_its_name_is_not_fetched_over(
    home: Path, paths: Paths, kaggle: KaggleServer, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.run_kernel, kaggle.kernel_states = leave(home), ["COMPLETE"]
    train(paths, wish(), detach=True)
    shutil.copytree(home / "work" / "runs" / RUNS[0], paths.runs / f"{RUNS[0]}.old")
    pull(paths, SLUG)
    assert f"{ONE}: 1 fold fetched, 1 already here" in capsys.readouterr().out
    assert sorted(f.name for f in (paths.runs / "tiny").glob("fold*")) == ["fold0", "fold1"]


def test_a_fetched_run_is_what_its_manifest_says(home: Path, tmp_path: Path) -> None:
    run = tmp_path / "fold0"
    shutil.copytree(home / "work" / "runs" / RUNS[0], run)
    check_run(run, RUNS[0], ONE)
    assert f"{ONE}: its tiny/fold1 is tiny/fold0: push the training again" in refusal(check_run, run, RUNS[1], ONE)
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "model.safetensors" in refusal(check_run, run, RUNS[0], ONE)


@pytest.mark.parametrize("damage", ["cut", "absent", "other"])
def test_a_run_that_does_not_arrive_whole_is_not_placed(
    home: Path, paths: Paths, kaggle: KaggleServer, quick: None, damage: str
) -> None:
    """The client writes an answer of any length and status to the file."""

    def run(server: KaggleServer, kernel: str) -> None:
        leave(home)(server, kernel)
        there, name = server.kernel_outputs[kernel], f"runs/{RUNS[1]}/model.safetensors"
        if damage == "absent":
            del there[name]
        else:
            there[name] = there[name][:-1] if damage == "cut" else there[f"runs/{RUNS[0]}/model.safetensors"]

    kaggle.run_kernel = run
    assert f"{RUNS[1]}: did not arrive whole: model.safetensors: run the same command" in refusal(train, paths, wish())
    assert [f.name for f in (paths.runs / "tiny").glob("fold*")] == ["fold0"]  # whole, and nothing half-written
    leave(home)(kaggle, ONE)
    train(paths, wish())
    assert len(kaggle.sent("SaveKernel")) == 1 and (paths.runs / RUNS[1]).exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Fault(403, "You must accept this competition's rules"),
            "accept the rules at https://www.kaggle.com/competitions/tiny-tagging/rules",
        ),
        (Fault(404, "Competition not found"), "there is no https://www.kaggle.com/competitions/tiny-tagging"),
    ],
)
def test_rules_are_looked_up_before_anything_is_made(
    paths: Paths, kaggle: KaggleServer, fault: Fault, message: str
) -> None:
    kaggle.fail("ListDataFiles", fault)
    assert message in refusal(train, paths, wish())
    assert kaggle.names() == ["ListDataFiles"] and not (paths.work / "kaggle" / SLUG / "dataset").exists()


def test_a_kernel_of_another_kind_is_not_replaced(paths: Paths, kaggle: KaggleServer, quick: None) -> None:
    kaggle.kernels[ONE].append({"text": "print('mine')"})
    assert f"{ONE}: the name is taken by a kernel that is not of this kit: use another with --slug" in refusal(
        train, paths, wish()
    )
    assert "SaveKernel" not in kaggle.names() and kaggle.datasets == {}


def test_what_kaggle_refuses_is_said_with_a_remedy(home: Path, paths: Paths, kaggle: KaggleServer, quick: None) -> None:
    kaggle.kernel_answer = {"error": "You have used up your weekly GPU quota of 30 hours."}
    assert "quota of 30 hours: your GPU hours of the week are used: see https://www.kaggle.com/settings" in refusal(
        train, paths, wish()
    )
    kaggle.kernel_answer = {"invalidKernelSources": ["x"]}
    assert "Kaggle did not attach x" in refusal(train, paths, wish())
    kaggle.kernel_answer = {}
    kaggle.fail("SaveKernel", Fault(409, 'The requested title "Tiny Tagging Train 1" is already in use by a notebook'))
    assert "409" in (text := refusal(train, paths, wish())) and "the name is taken: use another with --slug" in text


def test_a_kernel_that_fails_is_told_by_its_last_words_and_pushed_again(
    home: Path, paths: Paths, kaggle: KaggleServer, quick: None
) -> None:
    kaggle.kernel_states = ["RUNNING", "ERROR"]
    kaggle.kernel_log = json.dumps([{"data": "Traceback ...\n"}, {"data": "error: not installed here: x: bring\n"}])
    assert f"{ONE}: ended with error: error: not installed here: x: bring (https://" in refusal(train, paths, wish())
    kaggle.kernel_states, kaggle.run_kernel = ["COMPLETE"], leave(home)
    train(paths, wish())
    assert [sent["slug"] for sent in kaggle.sent("SaveKernel")] == [ONE, ONE]


def test_a_fold_that_fails_loses_nothing_of_the_others(
    home: Path, paths: Paths, kaggle: KaggleServer, quick: None
) -> None:
    kaggle.run_kernel = leave(home, "failed", RUNS[:1])
    kaggle.kernel_log = "error: out of memory: use a smaller train.batch_size\n"
    text = refusal(train, paths, wish())
    assert f"{ONE}: training failed: error: out of memory: use a smaller train.batch_size (https://" in text
    assert text.endswith(f"/code/{ONE}): correct it, then the same command goes on")
    assert (paths.runs / RUNS[0]).exists() and not (paths.runs / RUNS[1]).exists()
    kaggle.run_kernel = leave(home)
    train(paths, wish())
    last = kaggle.sent("SaveKernel")[-1]
    assert last["kernelDataSources"] == [ONE] and "--limit 30600 --gpu --previous " in last["text"]


def test_a_limit_that_kaggle_does_not_reach_is_refused(paths: Paths, kaggle: KaggleServer) -> None:
    """It would stop the kernel first, and keep nothing."""
    assert "--limit: from 1m to 11h30m" in refusal(train, paths, wish(limit=12 * 3600.0))
    assert kaggle.names() == []


def test_a_kernel_without_a_whole_epoch_is_not_followed_by_another(
    home: Path, paths: Paths, kaggle: KaggleServer, quick: None
) -> None:
    kaggle.run_kernel = leave(home, "time limit", RUNS[:1])
    assert f"{TWO}: not one epoch in its time: raise --limit" in refusal(train, paths, wish())
    assert [sent["slug"] for sent in kaggle.sent("SaveKernel")] == [ONE, TWO]


def test_what_tensorboard_writes_is_no_new_epoch(home: Path, paths: Paths, kaggle: KaggleServer, quick: None) -> None:
    kernels = iter([1, 2, 2])

    def run(server: KaggleServer, kernel: str) -> None:
        leave(home, "time limit", RUNS[:1], begun=next(kernels))(server, kernel)

    kaggle.run_kernel = run
    assert f"{SLUG}-3: not one epoch in its time: raise --limit" in refusal(train, paths, wish())


def test_a_push_whose_answer_was_lost_is_not_repeated(
    home: Path, paths: Paths, kaggle: KaggleServer, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(server: KaggleServer, kernel: str) -> None:
        leave(home)(server, kernel)
        raise Refusal(504, "timed out")

    kaggle.run_kernel, kaggle.kernel_states = run, ["RUNNING", "RUNNING", "COMPLETE"]
    assert "504 timed out" in refusal(train, paths, wish())
    train(paths, wish())
    assert len(kaggle.sent("SaveKernel")) == 1 and (paths.runs / RUNS[1]).exists()
    assert f"{ONE}: pushed before, goes on" in capsys.readouterr().out


def test_what_was_pushed_is_known(home: Path, paths: Paths, kaggle: KaggleServer, quick: None) -> None:
    assert f"no training {SLUG} was pushed from here" in refusal(pull, paths, SLUG)
    train(paths, wish(), detach=True)
    other = wish(folds="0")
    assert f"{ONE}: another training is under way: fetch it with --train --pull" in refusal(train, paths, other)
    kaggle.kernels.clear()
    state = paths.work / "kaggle" / SLUG / "state.json"
    mine = state.read_text()
    state.write_text(mine.replace("tester/", "me-too/"))
    assert f"me-too/{SLUG}-1: you are tester: use a token of me-too" in refusal(pull, paths, SLUG)
    state.write_text(mine)
    assert f"{ONE}: no such kernel of yours on Kaggle: push it again" in refusal(pull, paths, SLUG)
    train(paths, wish(), detach=True)  # as the message says
    assert len(kaggle.sent("SaveKernel")) == 2
    (paths.runs / RUNS[1]).mkdir(parents=True)
    train(paths, other, force=True, detach=True)
    assert f"trained already: {paths.runs / RUNS[1]}" in refusal(train, paths, wish(slug="another-train"))


def test_an_output_of_another_bundle_is_not_taken(home: Path, paths: Paths, kaggle: KaggleServer, quick: None) -> None:
    kaggle.run_kernel, kaggle.kernel_states = leave(home), ["COMPLETE"]
    train(paths, wish(), detach=True)
    report = json.loads(kaggle.kernel_outputs[ONE][REPORT])
    kaggle.kernel_outputs[ONE][REPORT] = json.dumps(report | {"manifest_sha256": "0"}).encode()
    assert f"{ONE}: its output is that of another version" in refusal(pull, paths, SLUG)
    del kaggle.kernel_outputs[ONE][REPORT]
    assert f"{ONE}: its output has no kit_runs.json" in refusal(pull, paths, SLUG)


@pytest.mark.parametrize(
    "change",
    [
        {"finished": ["../fold0"]},
        {"finished": ["tiny/fold0.partial"]},
        {"files": {"runs/tiny/fold0/../../x": {"bytes": 1, "sha256": "0"}}},
        {"files": {"runs/tiny/fold0/..": {"bytes": 1, "sha256": "0"}}},
        {"files": {"/etc/passwd": {"bytes": 1, "sha256": "0"}}},
        {"files": {}, "finished": ["tiny/fold0"]},
        {"ended": "perhaps"},
    ],
)
def test_a_report_names_nothing_outside_its_runs(tmp_path: Path, change: dict[str, Any]) -> None:
    whole = TrainingReport("0", "0", "finished", RUNS, RUNS[:1], {}, {})
    fields = json.loads(json.dumps(asdict(whole)))
    fields["files"] = {"runs/tiny/fold0/manifest.json": {"bytes": 1, "sha256": "0"}}
    (tmp_path / REPORT).write_text(json.dumps(fields))
    read_report(tmp_path / REPORT, "again")
    if change.get("files"):
        change = {"files": fields["files"] | change["files"]}
    (tmp_path / REPORT).write_text(json.dumps(fields | change))
    with pytest.raises(UserError, match="again"):
        read_report(tmp_path / REPORT, "again")


def test_training_options_need_train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--fold", "0"], "--fold: only with --train"),
        (["train.epochs=3"], "train.epochs=3: only with --train"),
        (["--as", "esc50"], "--as: only with --train"),
        (["--limit", "1h"], "--limit: only with --train"),
        (["--train", "--pull", "--limit", "1h"], "--limit: not with --pull"),
        (["--train", "--pull", "--machine", "cpu"], "--machine: not with --pull"),
        (["--train", "--pull", "--fold", "0"], "--fold: not with --pull"),
        (["--train", "--submit"], "--submit and --message are not for --train"),
    ):
        monkeypatch.setattr(sys, "argv", ["submission.push", *words])
        with pytest.raises(SystemExit):
            push.main()
        assert message in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["submission.push", "--train"])
    assert "--train: which folds? Give --fold 0..4" in refusal(push.main)
