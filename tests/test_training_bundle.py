"""What a training's dataset holds, and what it refuses to hold; and the kernel's own checks."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_wheels import make_wheel

from configs.load import load_configs
from configs.paths import Paths
from configs.schema import Config, InputConfig, ModelConfig, PseudoConfig, TrainConfig
from console.errors import UserError
from submission import kernel_train, wheels
from submission.training_bundle import Job, bundle_training, learned_from

SMALL = Config(name="small")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; the competition is not downloaded. The search for missing modules has its test elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("submission.bundle.check_code", lambda *_: None)
    return tmp_path


def pack(*experiments: Config, folds: str = "0..4", **options: Any) -> tuple[Path, Job]:
    return bundle_training(Paths(), list(experiments), folds, "me", "some-train", "some", **options)


def refused(*experiments: Config) -> str:
    with pytest.raises(UserError) as error:
        pack(*experiments)
    assert not Path("work/kaggle/some-train/dataset").exists()
    return str(error.value)


def test_it_holds_experiments_code_and_files(here: Path) -> None:
    (here / "input" / "weights").mkdir(parents=True)
    (here / "input" / "weights" / "start.pth").write_bytes(b"some weights")
    (here / "fixes.csv").write_text("fname,label\n")
    (here / "mine").mkdir()
    (here / "mine" / "loss.py").write_text("from mine import more\ndef loss(logits, y): ...\n")
    (here / "mine" / "more.py").write_text("")
    several = [
        replace(
            SMALL,
            name="one",
            model=ModelConfig(weights="input/weights/start.pth"),
            train=TrainConfig(loss="mine.loss:loss"),
        ),
        replace(SMALL, name="2", input=InputConfig(corrections="fixes.csv"), model=ModelConfig(dropout=1e-6)),
    ]
    folder, job = pack(*several, wheels=[make_wheel(here, "tiny")])
    assert load_configs(folder / "experiments.yaml") == several
    assert (folder / "files" / "input" / "weights" / "start.pth").read_bytes() == b"some weights"
    assert (folder / "files" / "fixes.csv").exists() and (folder / "wheels" / "tiny-1.0-py3-none-any.whl").exists()
    there = {str(file.relative_to(folder / "code")) for file in (folder / "code").rglob("*") if file.is_file()}
    assert {
        "mine/loss.py",
        "mine/more.py",
        "train_fold.py",
        "training/train.py",
        "configs/pretrained/mn10_as.yaml",
    } <= there
    assert not any(name.startswith(("tuning/", "pages/", "tests/", "input/weights/")) for name in there)
    assert (job.folds, job.competition, job.internet, job.described_by) == ("0..4", "some", False, None)
    assert json.loads((folder / "kit_manifest.json").read_bytes())["job"] == job.job
    (here / "mine" / "more.py").write_text("# repaired\n")
    folder, again = pack(*several)
    assert again.job == job.job  # wheels and code may change between two kernels of a training
    assert (folder / "code" / "mine" / "more.py").read_text() == "# repaired\n"
    (here / "fixes.csv").write_text("fname,label\na.wav,Bark\n")
    assert pack(*several)[1].job != job.job
    assert pack(SMALL)[1].job != pack(SMALL, folds="0")[1].job


def test_code_of_a_package_is_brought_by_its_wheel(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "mine.py").write_text("def loss(logits, y): ...\n")
    cfg = replace(SMALL, train=TrainConfig(loss="mine:loss"))
    assert (pack(cfg)[0] / "code" / "mine.py").exists()
    monkeypatch.setattr("configs.user_code.is_installed", lambda file: True)
    assert not (pack(cfg)[0] / "code" / "mine.py").exists()


def test_wheel_auto_brings_what_reads_a_frozen_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "bird.tflite").write_bytes(b"a network")
    asked: list[str] = []
    monkeypatch.setattr(
        wheels, "download", lambda needs, target, _: asked.extend(needs) or make_wheel(target, "ai_edge_litert")
    )
    cfg = replace(SMALL, model=ModelConfig(name="embedding:bird.tflite"))
    folder, _ = pack(cfg, wheels=[wheels.AUTO])
    assert [one.partition("==")[0] for one in asked] == ["ai-edge-litert"]
    assert (folder / "wheels" / "ai_edge_litert-1.0-py3-none-any.whl").exists()


def test_the_internet_is_on_only_for_weights_that_timm_downloads(here: Path) -> None:
    assert pack(replace(SMALL, model=ModelConfig(name="timm:resnet18", pretrained=True)))[1].internet


def test_loggers_that_write_elsewhere_are_refused(here: Path) -> None:
    """A kernel reaches no server, and of the work folder only runs come back."""
    for name in ("wandb", "mlflow"):
        text = refused(SMALL, replace(SMALL, name="two", train=TrainConfig(logger=f"csv, {name}")))
        assert f"two: train.logger=csv, {name}: {name} is reached by no kernel: use train.logger=csv," in text
    pack(replace(SMALL, train=TrainConfig(logger="csv")))


def test_a_file_that_has_another_name_there_is_refused(here: Path) -> None:
    (here / "start.pth").write_bytes(b"")
    for name in (str(here / "start.pth"), f"../{here.name}/start.pth"):
        text = refused(replace(SMALL, model=ModelConfig(weights=name)))
        assert f"model.weights={name}: has no such name on Kaggle: put it below the current folder" in text
    assert "model.weights=no.pth: no such file" in refused(replace(SMALL, model=ModelConfig(weights="no.pth")))
    assert "model.name=no.onnx: no such file" in refused(replace(SMALL, model=ModelConfig(name="embedding:no.onnx")))


def test_weights_of_a_run_bring_what_they_have_learned_from(here: Path) -> None:
    run = here / "work" / "runs" / "x" / "fold0"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(b"weights")
    digest = kernel_train.sha256_of(run / "model.safetensors")
    (run / "manifest.json").write_text(json.dumps({"files": {"model.safetensors": digest}}))
    named = "work/runs/x/fold0/model.safetensors"
    folder, _ = pack(replace(SMALL, model=ModelConfig(weights=named)))
    assert (folder / "files" / "work/runs/x/fold0/manifest.json").exists()
    (here / "copy.safetensors").write_bytes(b"weights")
    with pytest.raises(UserError, match=f"copy.safetensors: are those of a run: name them {named}"):
        pack(replace(SMALL, model=ModelConfig(weights="copy.safetensors")))


def test_who_teaches_travels_unless_it_is_trained_before(here: Path) -> None:
    student = replace(SMALL, train=TrainConfig(teacher="a"), pseudo=PseudoConfig(("a", "b")))
    assert learned_from([replace(SMALL, name="a"), student]) == ["b"]
    assert learned_from([student, replace(SMALL, name="a")]) == ["a", "b"]
    assert "work/runs/a: no finished fold, but an experiment learns from it: train it first" in refused(student)


def test_the_competition_is_found_and_its_zips_get_a_place(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    (inputs / "datasets" / "me" / "other" / "some").mkdir(parents=True)  # empty
    with pytest.raises(UserError, match="no folder some: attach the competition"):
        kernel_train.find_competition(inputs, "some", tmp_path)
    (inputs / "competitions" / "some").mkdir(parents=True)
    (inputs / "competitions" / "some" / "train.csv").write_text("fname,label\n")
    assert kernel_train.find_competition(inputs, "some", tmp_path) == inputs / "competitions" / "some"
    (inputs / "competitions" / "some" / "audio_train.zip").write_bytes(b"")
    links = kernel_train.find_competition(inputs, "some", tmp_path / "scratch")
    assert sorted(file.name for file in links.iterdir()) == ["audio_train.zip", "train.csv"]
    (links / "audio_train").mkdir()
    assert not (inputs / "competitions" / "some" / "audio_train").exists()


def test_other_folds_than_at_home_are_refused_before_training(tmp_path: Path, here: Path) -> None:
    from input.demo import make_demo

    make_demo(tmp_path / "some", train_per_class=2, test_per_class=1)
    cfg = replace(SMALL, folds=replace(SMALL.folds, n_folds=2))
    paths = Paths(tmp_path / "some", tmp_path / "work")
    folder, job = bundle_training(paths, [cfg], "0,1", "me", "some-train", "some")
    assert kernel_train.check_folds(folder, job, replace(paths, work=tmp_path / "there")) == (
        "small/fold0",
        "small/fold1",
    )
    table = tmp_path / "some" / "train.csv"
    first, second, *more = table.read_text().splitlines(keepends=True)
    table.write_text(
        "".join([first, second.replace(",1", ",0") if ",1" in second else second.replace(",0", ",1"), *more])
    )
    with pytest.raises(UserError, match="other clips, labels or folds than where this was pushed from, for small"):
        kernel_train.check_folds(folder, job, replace(paths, work=tmp_path / "there2"))


def test_an_earlier_output_that_changed_is_refused(tmp_path: Path) -> None:
    from dataclasses import asdict

    from submission.training_report import REPORT, TrainingReport, list_files

    left = tmp_path / "inputs" / "notebooks" / "left"
    (left / "runs" / "a" / "fold0").mkdir(parents=True)
    (left / "runs" / "a" / "fold0" / "manifest.json").write_text("{}")
    files = list_files(left, ["a/fold0"], ())
    report = TrainingReport("0", "job", "time limit", ("a/fold0",), ("a/fold0",), {}, files)
    (left / REPORT).write_text(json.dumps(asdict(report)))
    digest, job = kernel_train.sha256_of(left / REPORT), Job("job", "some", "0")
    kernel_train.fetch_previous(tmp_path / "inputs", digest, job, tmp_path / "out")
    assert (tmp_path / "out" / "runs" / "a" / "fold0" / "manifest.json").read_text() == "{}"
    with pytest.raises(UserError, match="the output of another training"):
        kernel_train.fetch_previous(tmp_path / "inputs", digest, replace(job, job="x"), tmp_path / "out")
    with pytest.raises(UserError, match="is not attached"):
        kernel_train.fetch_previous(tmp_path / "inputs", "0" * 64, job, tmp_path / "out")
    (left / "runs" / "a" / "fold0" / "manifest.json").write_text("{} ")
    with pytest.raises(UserError, match="missing or changed since that kernel ended"):
        kernel_train.fetch_previous(tmp_path / "inputs", digest, job, tmp_path / "out")


def test_what_is_worth_nothing_elsewhere_is_not_left(tmp_path: Path) -> None:
    """Locks, and a fold without a whole epoch; one that was whole when it was stopped takes its name."""
    runs = tmp_path / "runs" / "a"
    for k, files in enumerate((["manifest.json"], ["last.ckpt", "metrics.csv"], ["config.json"])):
        (folder := runs / f"fold{k}.partial").mkdir(parents=True)
        for name in files:
            (folder / name).write_text("epoch,loss\n1,2\n" if name == "metrics.csv" else "{}")
    (runs / ".fold0.lock").write_text("")
    expected = tuple(f"a/fold{k}" for k in range(3))
    report = kernel_train.report_on(tmp_path, Job("job", "some", "0..2"), "0", expected, None)
    assert sorted(file.name for file in runs.iterdir()) == ["fold0", "fold1.partial"]
    assert (report.ended, report.finished, report.begun) == ("time limit", ("a/fold0",), {"a/fold1": 1})
    names = ["fold0/manifest.json", "fold1.partial/last.ckpt", "fold1.partial/metrics.csv"]
    assert sorted(report.files) == [f"runs/a/{name}" for name in names]
    assert kernel_train.report_on(tmp_path, Job("job", "some", "0"), "0", expected, 2).ended == "failed"
    assert kernel_train.report_on(tmp_path, Job("job", "some", "0"), "0", expected[:1], None).ended == "finished"


def test_the_kernel_finds_runs_and_files_by_their_names(tmp_path: Path) -> None:
    bundle, paths = tmp_path / "bundle", Paths(tmp_path / "in", tmp_path / "work")
    for place in ("runs/teacher/fold0/manifest.json", "runs/own/fold0/manifest.json", "files/input/weights/x.pth"):
        (bundle / place).parent.mkdir(parents=True)
        (bundle / place).write_text(place)
    kernel_train.lay_out(bundle, paths, tmp_path / "out", ("own/fold1",), tmp_path / "here")
    assert (paths.run("teacher", 0) / "manifest.json").read_text() == "runs/teacher/fold0/manifest.json"
    assert (tmp_path / "here" / "input" / "weights" / "x.pth").read_text() == "files/input/weights/x.pth"
    (paths.runs / "own" / "fold1").mkdir()
    assert (tmp_path / "out" / "runs" / "own" / "fold1").is_dir()


def test_training_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_train, "GRACE", 0.1)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    kernel_train.stop(process)
    assert process.returncode == -signal.SIGKILL
    monkeypatch.setattr(kernel_train, "POLL", 0.01)
    job = Job("job", "some", "0")
    assert (
        kernel_train.run_until(time.monotonic() + 600, [sys.executable, "-c", "raise SystemExit(2)"], tmp_path, job)
        == 2
    )
    assert kernel_train.run_until(time.monotonic(), [sys.executable, "-c", "input()"], tmp_path, job) is None


def test_a_kernel_without_the_gpu_that_it_needs_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_train.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match="no GPU here, though one was asked for: confirm your phone number"):
        kernel_train.train(tmp_path, tmp_path, "some", tmp_path, tmp_path, 60, gpu=True)
    kernel_train.check_gpu(kernel_train.print_machine(), expected=False)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_train.check_libraries()
    monkeypatch.setattr(kernel_train, "NEEDED", "numpy no_such_library")
    with pytest.raises(UserError, match="not installed here: no_such_library: bring their wheels"):
        kernel_train.check_libraries()
