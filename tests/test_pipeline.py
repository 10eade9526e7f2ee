"""The commands that people type, as subprocesses, on a tiny demo competition."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from runs.run_folder import FILES, read_run

ROOT = Path(__file__).parent.parent
TINY = [
    *("folds.n_folds=2", "features.sample_rate=8000", "features.f_max=4000", "features.n_fft=256"),
    *("features.hop_length=160", "features.n_mels=16", "train.epochs=3", "train.batch_size=16"),
    *("train.crop_seconds=1.0", "predict.window_seconds=1.0", "model.width=8"),
]
ONE = ["--config", "configs/demo_resnetish.yaml", "name=one", *TINY]
TWO = ["--config", "configs/demo_vggish.yaml", "name=two", "train.keep=best", *TINY]
MANY_JOBS: list[object] = ["--jobs", 64]  # a thread each, however many cores there are
SAME = [name for name in FILES if name != "config.json"]  # bytes that seeds fix
HEAVY = ("torch", "pytorch_lightning", "timm")
OURS = "warning: "  # how the kit's own warnings begin; Python's begin with a file's name


def command(*words: object) -> dict[str, object]:
    """How a command is started: from the root, on one core, its lines at once."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return {"args": [sys.executable, *map(str, words)], "cwd": ROOT, "env": env, "text": True}


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(*words), capture_output=True)  # type: ignore[call-overload,no-any-return]


def start(*words: object) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(**command(*words), **pipes)  # type: ignore[call-overload,no-any-return]


def stop_at(process: subprocess.Popen[str], text: str, how: signal.Signals) -> tuple[str, str]:
    """Send a signal as soon as a line with that text appears; what the process said."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            process.send_signal(how)
            break
    out, err = process.communicate()
    assert text in said, said + err
    return said + out, err


def refused(*words: object) -> str:
    """The one line of a command that stops with exit status 2."""
    found = run(*words)
    lines = [line for line in found.stderr.splitlines() if not line.startswith(OURS)]
    assert found.returncode == 2, found
    assert len(lines) == 1 and lines[0].startswith("error: "), found.stderr
    return lines[0]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input") / "demo"
    made = run("-m", "input.demo", folder, "--train", 4, "--test", 3)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="session")
def trained(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str, str]]:
    """work folder, stdout and stderr of three trainings at once: one and two share a work folder, again has its own and
    a process per fold."""
    work = tmp_path_factory.mktemp("work")
    jobs = {"one": (ONE, work / "a"), "two": (TWO, work / "a"), "again": ([*MANY_JOBS, *ONE], work / "b")}
    running = {
        name: start("train_fold.py", "--fold", "0..1", "--input", demo, "--work", folder, *words)
        for name, (words, folder) in jobs.items()
    }
    found = {}
    for name, process in running.items():
        out, err = process.communicate()
        assert process.returncode == 0, err
        found[name] = (jobs[name][1], out, err)
    return found


@pytest.fixture(scope="session")
def work(trained: dict[str, tuple[Path, str, str]]) -> Path:
    """Two finished experiments; not to be changed."""
    return trained["one"][0]


@pytest.fixture
def own_work(work: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(work, tmp_path / "work"))


def where(demo: Path, work: Path) -> list[object]:
    return ["--input", demo, "--work", work]


def same_bytes(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in SAME)


def test_training_says_what_it_does(trained: dict[str, tuple[Path, str, str]], demo: Path) -> None:
    _, out, err = trained["one"]
    table, sample = (pd.read_csv(demo / name) for name in ("train.csv", "sample_submission.csv"))
    assert f"{len(table)} training clips, {len(sample)} test clips, {table['label'].nunique()} classes" in out
    for fold in (0, 1):
        for epoch in (1, 2, 3):
            assert f"one fold {fold} epoch {epoch}/3: loss " in out
        assert f"one fold {fold}: out-of-fold MAP@3 " in out
    assert all(line.startswith(OURS) for line in err.splitlines()), err  # and no word of Lightning's
    assert "predicted from what can be read of them, else by the class prior: 2: " in err
    assert "empty.wav (empty)" in err and "silent.wav (silent)" in err
    made = f"features: log-mel of {len(table)} clips"
    assert out.count(made) + trained["two"][1].count(made) == 1  # the second of the two waited for the first


def test_run_folders_are_whole(work: Path, demo: Path) -> None:
    table = pd.read_csv(demo / "train.csv")
    runs = [read_run(work / "runs" / name / f"fold{k}") for name in ("one", "two") for k in (0, 1)]
    for fold in (0, 1):
        one, two = (run for run in runs if run.fold == fold)
        assert one.manifest.fold_hash == two.manifest.fold_hash
        assert set(one.oof.fnames) == set(two.oof.fnames)
    assert sorted(runs[0].oof.fnames + runs[1].oof.fnames) == sorted(table["fname"])
    for run_ in runs:
        assert run_.classes == tuple(sorted(set(table["label"])))
        assert run_.test.fnames == tuple(pd.read_csv(demo / "sample_submission.csv")["fname"])
        assert (abs(run_.oof.probs.sum(axis=1) - 1) < 1e-5).all() and (
            abs(run_.test.probs.sum(axis=1) - 1) < 1e-5
        ).all()
        epochs = pd.read_csv(run_.folder / "metrics.csv")
        kept = {"one": 3, "two": epochs["map3"].idxmax() + 1}[run_.experiment]  # the last by default, or the best
        assert run_.scores["epoch"] == kept
        assert epochs["map3"][kept - 1] == pytest.approx(run_.scores["map3"], abs=1e-5)
        assert list(run_.folder.glob("events.*"))
    left = [f.name for f in (work / "runs" / "one").iterdir()]
    assert sorted(left) == [".fold0.lock", ".fold1.lock", "fold0", "fold1"]


def test_nothing_stray_is_left_in_the_current_folder(work: Path) -> None:
    assert not [name for name in ("lightning_logs", "checkpoints", "runs/events") if list(ROOT.glob(f"{name}*"))]


def test_two_fresh_runs_of_one_seed_give_the_same_bytes(trained: dict[str, tuple[Path, str, str]]) -> None:
    one, again = trained["one"][0], trained["again"][0]
    for fold in ("fold0", "fold1"):
        assert same_bytes(one / "runs/one" / fold, again / "runs/one" / fold)
    assert not same_bytes(one / "runs/one/fold0", one / "runs/two/fold0")


def test_a_second_run_says_what_it_found_and_stops(work: Path, demo: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in work.rglob("*") if file.is_file() and file.suffix != ".lock"}
    found = run("-X", "importtime", "train_fold.py", "--fold", "0..1", *where(demo, work), *ONE)
    assert found.returncode == 0
    assert found.stdout.count(": found, out-of-fold MAP@3 ") == 2 and "epoch" not in found.stdout
    assert not imported(found.stderr, *HEAVY)
    after = {file: file.stat().st_mtime_ns for file in work.rglob("*") if file.is_file() and file.suffix != ".lock"}
    assert before == after


def test_finished_folds_are_found_without_their_features(own_work: Path, demo: Path) -> None:
    shutil.rmtree(own_work / "features")
    found = run("train_fold.py", "--fold", "0..1", *where(demo, own_work), *ONE)
    assert found.stdout.count(": found, out-of-fold MAP@3 ") == 2, found.stderr
    assert not (own_work / "features").exists()


def test_stopped_at_any_moment_it_ends_with_the_same_bytes(work: Path, demo: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "features", tmp_path / "features")
    words = ["train_fold.py", "--fold", "0", *where(demo, tmp_path), *ONE]
    stop_at(start(*words), "one fold 0 epoch 1/3", signal.SIGKILL)  # in the middle of the second epoch
    assert [f.name for f in (tmp_path / "runs/one").glob("fold*")] == ["fold0.partial"]

    interrupted = start(*words)
    said, err = stop_at(interrupted, "one fold 0 epoch 2/3", signal.SIGINT)
    assert "one fold 0: continuing after epoch 1 of 3" in said and "epoch 1/3" not in said
    lines = [line for line in err.splitlines() if not line.startswith(OURS)]
    assert lines == ["interrupted: run the same command to continue"] and interrupted.returncode == 130

    stop_at(start(*words), "one fold 0 epoch 3/3", signal.SIGKILL)  # the epochs are done, the folder is not whole
    last = run(*words)
    assert last.returncode == 0, last.stderr
    assert same_bytes(work / "runs/one/fold0", tmp_path / "runs/one/fold0")
    assert sorted(f.name for f in (tmp_path / "runs/one").iterdir()) == [".fold0.lock", "fold0"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_folds_side_by_side_stop_and_go_on(work: Path, demo: Path, tmp_path: Path, how: signal.Signals) -> None:
    shutil.copytree(work / "features", tmp_path / "features")
    words = ["train_fold.py", "--fold", "0..1", *MANY_JOBS, *where(demo, tmp_path), *ONE]
    process = start(*words)
    out, err = stop_at(process, "epoch 1/3", how)  # waits for the children too, which have its standard error
    assert process.returncode == 130, out + err
    assert "interrupted: run the same command to continue" in err
    assert [f.name for f in (tmp_path / "runs/one").glob("fold?")] == [], "the children heard of it"
    if how == signal.SIGTERM:  # it goes on as after the other
        return
    assert run(*words).returncode == 0
    for fold in ("fold0", "fold1"):
        assert same_bytes(tmp_path / "runs" / "one" / fold, work / "runs" / "one" / fold)


def test_folds_side_by_side_tell_a_fault_once(demo: Path, tmp_path: Path) -> None:
    words = ["train_fold.py", "--fold", "0..1", *MANY_JOBS, *where(demo, tmp_path), *ONE]
    assert "no network 'none'" in refused(*words, "model.name=none")
    assert "--jobs 0: expected auto or a number from 1 on" in refused(
        "train_fold.py", "--fold", 0, "--jobs", 0, *where(demo, tmp_path)
    )


def test_ensemble_and_submit(own_work: Path, demo: Path) -> None:
    blended = run("-X", "importtime", "ensemble.py", *where(demo, own_work))
    assert blended.returncode == 0, blended.stderr
    assert not imported(blended.stderr, *HEAVY)
    first_words = [line.split()[0] for line in blended.stdout.splitlines() if line]
    assert {"model", "one", "two", "method", "arithmetic", "auto"} <= set(first_words)
    assert "a little too high because of two: their epochs were chosen by these out-of-fold scores" in blended.stdout
    assert (own_work / "ensembles/default/weights.json").exists()
    again = run("ensemble.py", *where(demo, own_work))
    assert again.returncode == 0 and "found" in again.stdout

    truth = ["--truth", demo / "test_labels.csv"]
    submitted = run("-X", "importtime", "submit.py", *where(demo, own_work), *truth)
    assert submitted.returncode == 0, submitted.stderr
    assert not imported(submitted.stderr, *HEAVY)
    header = next(line for line in submitted.stdout.splitlines() if line.startswith("MAP@3"))
    assert header.split("  ")[-3:] == ["test Public", "test Private", "test all"]
    assert "no blend chosen" not in submitted.stdout
    assert "empty.wav (empty)" in submitted.stderr

    file = own_work / "submission.csv"
    table, sample = pd.read_csv(file), pd.read_csv(demo / "sample_submission.csv")
    known = set(pd.read_csv(demo / "train.csv")["label"])
    assert list(table.columns) == ["fname", "label"] and list(table["fname"]) == list(sample["fname"])
    assert all(len(set(row.split(" "))) == 3 and set(row.split(" ")) <= known for row in table["label"])
    report = json.loads((own_work / "submission.report.json").read_text())
    assert set(report["clips_with_a_fault"]) == {"empty.wav", "silent.wav"}

    bytes_before = file.read_bytes()
    assert run("submit.py", *where(demo, own_work)).returncode == 0
    assert file.read_bytes() == bytes_before


def test_the_score_that_submit_prints_is_that_of_the_file(own_work: Path, demo: Path) -> None:
    submitted = run("submit.py", *where(demo, own_work), "--truth", demo / "test_labels.csv")
    told = next(line for line in submitted.stdout.splitlines() if line.startswith("blend ")).split()[-1]
    table = pd.read_csv(own_work / "submission.csv").merge(
        pd.read_csv(demo / "test_labels.csv", keep_default_na=False), on="fname", suffixes=("", "_true")
    )
    scored = table[table["usage"] != "Ignored"]
    rows = zip(scored["label"].str.split(" "), scored["label_true"], strict=True)
    gains = [1 / (labels.index(true) + 1) if true in labels else 0 for labels, true in rows]
    assert told == f"{sum(gains) / len(gains):.4f}"


def test_submit_without_a_blend_makes_one_and_says_so(own_work: Path, demo: Path) -> None:
    said = run("submit.py", *where(demo, own_work), "--output", own_work / "new" / "mine.csv").stdout
    assert "no blend chosen: using the mean of one, two -> " in said
    assert (own_work / "new" / "mine.csv").exists()
    again = run("submit.py", *where(demo, own_work)).stdout
    assert "found, arithmetic blend of one, two" in again and "for want" not in again
    shutil.rmtree(own_work / "runs/two")  # nobody chose that blend, so it follows the experiments
    assert "no blend chosen: using the mean of one -> " in run("submit.py", *where(demo, own_work)).stdout


def test_a_chosen_blend_that_is_out_of_date_is_not_submitted(own_work: Path, demo: Path) -> None:
    assert run("ensemble.py", *where(demo, own_work)).returncode == 0
    change_manifest(own_work / "runs/one/fold0", seconds=-1)
    assert "changed since: python ensemble.py makes it again" in refused("submit.py", *where(demo, own_work))
    assert not (own_work / "submission.csv").exists()


def test_submit_before_training_says_what_to_do(demo: Path, tmp_path: Path) -> None:
    for verb in ("submit.py", "ensemble.py"):
        assert "python train_fold.py --fold 0..4" in refused(verb, *where(demo, tmp_path / "work"))
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train.epoch=3"], "command line: unknown key 'train.epoch', did you mean 'train.epochs'?"),
        (["train.epochs=many"], "'train.epochs' is 'many'"),
        (["model.name=resnetish19"], "no network 'resnetish19': use one of"),
        (["model.weights=none.pth"], "command line: model.weights: none.pth: no such file in "),
        (["input.corrections=none.csv"], "command line: input.corrections: none.csv: no such file in "),
        (["train.device=cpu", "train.precision=fp16"], "train.precision=fp16 needs a GPU"),
        (["--fold", "0..2"], "folds go from 0 to 1"),
        (["--config", "configs/none.yaml"], "configs/none.yaml: cannot read the config"),
        (["--input", "/nowhere/at/all"], "/nowhere/at/all: no such folder: set the competition's folder"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(
    demo: Path, tmp_path: Path, words: list[str], told: str
) -> None:
    given = [*where(demo, tmp_path), *ONE, "--fold", "0", *words]
    assert told in refused("train_fold.py", *given)
    assert not (tmp_path / "features").exists() and not (tmp_path / "runs").exists()


def test_a_work_folder_that_cannot_be_written_is_one_line(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    told = refused("train_fold.py", "--fold", "0", *where(demo, tmp_path / "work"), *ONE)
    assert told.startswith(f"error: {tmp_path}")


def test_other_settings_do_not_overwrite_a_finished_fold(work: Path, demo: Path) -> None:
    told = refused("train_fold.py", "--fold", "0", *where(demo, work), *ONE, "train.lr=0.5", "train.epochs=9")
    assert "fold0 was made with other settings (2: train.epochs: 3 -> 9, train.lr: 0.004 -> 0.5)" in told
    assert "name=NEW" in told and "--force" in told


def test_other_sound_does_not_pass_for_a_finished_fold(own_work: Path, demo: Path) -> None:
    change_manifest(own_work / "runs/one/fold0", sound_hash={"train": "before", "test": "before"})
    told = refused("train_fold.py", "--fold", "0", *where(demo, own_work), *ONE)
    assert "fold0 was made from other sound files" in told and "--force" in told


def test_a_repaired_test_clip_needs_no_training(own_work: Path, demo: Path) -> None:
    now = json.loads((own_work / "runs/one/fold0/manifest.json").read_text())["sound_hash"]
    change_manifest(own_work / "runs/one/fold0", sound_hash=now | {"test": "before"})
    said = run("train_fold.py", "--fold", "0", *where(demo, own_work), *ONE).stdout
    assert "fold0: found, " in said and "test clips changed since: submit.py predicts those of another size" in said


def change_manifest(folder: Path, **facts: object) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def test_corrupt_training_sound_is_named_before_training(demo: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(demo, tmp_path / "other"))
    first, second = sorted((other / "audio_train").iterdir())[:2]
    first.write_bytes(b"RIFF no sound")
    second.write_bytes(b"")
    told = refused("train_fold.py", "--fold", "0", *where(other, tmp_path / "work"), *ONE)
    assert "training clips that cannot be used: 2: " in told
    assert first.name in told and second.name in told and "input.skip_unreadable=true" in told
    assert not (tmp_path / "work/runs").exists()


def test_an_unfinished_experiment_is_left_out_or_refused(own_work: Path, demo: Path) -> None:
    (own_work / "runs/two/fold1").rename(own_work / "runs/two/fold1.partial")
    said = run("submit.py", *where(demo, own_work))
    assert said.returncode == 0 and "the mean of one -> " in said.stdout
    assert "two: fold 1 is not finished, of 0..1" in said.stderr
    assert "two: fold 1 is not finished, of 0..1" in refused("ensemble.py", *where(demo, own_work), "--runs", "two")


def test_differing_folds_are_refused(own_work: Path, demo: Path) -> None:
    for fold in ("fold0", "fold1"):
        change_manifest(own_work / "runs/two" / fold, fold_hash="other")
    for verb in ("ensemble.py", "submit.py"):
        assert "its folds or labels are not those of" in refused(verb, *where(demo, own_work))
    assert not (own_work / "ensembles").exists() and not (own_work / "submission.csv").exists()


def test_differing_classes_are_refused(own_work: Path, demo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    label = min(pd.read_csv(demo / "train.csv")["label"])
    for table in demo.glob("*.csv"):
        (other / table.name).write_text(table.read_text().replace(label, "Gong"))
    told = refused("submit.py", *where(other, own_work))
    assert "its classes are not those of" in told and f"2: {label}, Gong" in told


def test_a_damaged_run_is_refused(own_work: Path, demo: Path) -> None:
    file = own_work / "runs/two/fold0/oof.npz"
    file.write_bytes(file.read_bytes()[:-10])
    assert "files changed since the run was finished: oof.npz" in refused("submit.py", *where(demo, own_work))


def test_the_sample_submission_is_not_overwritten(own_work: Path, demo: Path) -> None:
    sample = demo / "sample_submission.csv"
    before = sample.read_bytes()
    assert "--output" in refused("submit.py", *where(demo, own_work), "--output", sample)
    assert "competition's own" in refused("submit.py", *where(demo, own_work), "--output", demo / "train.csv")
    assert "not a submission" in refused("submit.py", *where(demo, own_work), "--output", demo / "test_labels.csv")
    assert sample.read_bytes() == before


def test_a_truth_that_does_not_fit_is_refused_before_anything_is_written(own_work: Path, demo: Path) -> None:
    told = refused("submit.py", *where(demo, own_work), "--truth", demo / "nothing.csv")
    assert "nothing.csv: cannot read the table" in told
    assert not (own_work / "submission.csv").exists() and not (own_work / "ensembles").exists()


@pytest.mark.parametrize("verb", ["train_fold.py", "ensemble.py", "submit.py"])
def test_help_answers_at_once_and_shows_an_example(verb: str) -> None:
    found = run("-X", "importtime", verb, "--help")
    assert found.returncode == 0
    assert f"python {verb}" in found.stdout and "examples:" in found.stdout
    assert not imported(found.stderr, *HEAVY, "pandas", "numpy", "pydantic", "sklearn", "scipy", "optuna", "matplotlib")


def imported(importtime: str, *names: str) -> list[str]:
    """Which of these modules a process started with -X importtime did import."""
    there = {line.rpartition("|")[2].strip() for line in importtime.splitlines() if line.startswith("import time:")}
    assert "console.output" in there
    return [name for name in names if name in there]
