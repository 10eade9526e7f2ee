"""The dataset and the script exactly as the stand-in received them, run as Kaggle runs a kernel."""

import hashlib
import json
import shutil
import subprocess
import sys
import warnings
import zipfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kaggle_server import KaggleServer
from sandbox import run_kernel, why_not

import runs.forecast
from blending.apply import apply_blend, read_blend, write_blend
from configs.competition import AudioFiles, CompetitionConfig, SubmissionForm, TableFile
from configs.paths import Paths
from console.errors import UserError
from input.competition import list_test, read_test_clips
from runs.budget import Forecast
from runs.predictions import load_predictions
from submission.bundle import bundle
from submission.kernel_predict import check_sample_fits, find_audio, find_competition, predict
from submission.packed_competition import PackedCompetition
from submission.push import push, write_kernel
from submission.submission_file import top_labels
from submit import submit

# Only what Kaggle's image is relied on for may be imported, and the kit only from the dataset.
GATE = """
import sys

REFUSED = set("{refused}".split())


class Gate:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"the prediction path imports {{name}}")


sys.meta_path[:] = [Gate(), *(finder for finder in sys.meta_path if "editable" not in repr(finder))]
"""
REFUSED = (
    "pytorch_lightning lightning pydantic yaml rich torchaudio sklearn optuna matplotlib tensorboard kaggle timm jinja2"
)


@pytest.fixture
def received(blended: Paths, kaggle: KaggleServer, tmp_path: Path, naps: list[float]) -> KaggleServer:
    """A stand-in that has got dataset and kernel by the real client; the kernel's output is not asked for."""
    work = tmp_path / "work"
    shutil.copytree(blended.work, work, ignore=shutil.ignore_patterns("features"))
    paths = Paths(blended.input, work)
    bundle(paths, "default", kaggle.user, None)
    kaggle.kernel_states = ["ERROR"]
    with pytest.raises(ValueError, match="ended with error"):
        push(paths)
    return kaggle


def laid_out(received: KaggleServer, blended: Paths, root: Path, layout: str) -> tuple[Path, Path]:
    """The kernel's script, and its inputs in one of the ways in which Kaggle has mounted them."""
    inputs = root / "inputs"
    ref, slug = "tester/tiny-tagging-kit", "tiny-tagging"
    old = layout != "new"
    dataset = inputs / "tiny-tagging-kit" if old else inputs / "datasets" / "tester" / "tiny-tagging-kit"
    competition = inputs / slug if old else inputs / "competitions" / slug
    received.mount(ref, dataset, unpacked=layout != "packed")
    shutil.copytree(blended.input, competition, ignore=shutil.ignore_patterns("test_labels.csv"))
    if layout == "packed":
        shutil.make_archive(str(competition / "audio_test"), "zip", competition, "audio_test")
        shutil.rmtree(competition / "audio_test")
    script = root / "src" / "predict.py"
    script.parent.mkdir()
    script.write_text(received.kernels["tester/tiny-tagging-kit-predict"][-1]["text"])
    return script, inputs


def run(script: Path, inputs: Path, root: Path, refused: str = REFUSED) -> "subprocess.CompletedProcess[str]":
    if why_not():
        warnings.warn(f"no namespaces here ({why_not()}): the kernel ran without isolation", stacklevel=2)
    gate = inputs / "gate"  # readable in the sandbox, and not the kit's
    gate.mkdir()
    (gate / "sitecustomize.py").write_text(GATE.format(refused=refused))
    place = str(gate) if why_not() else "/kaggle/input/gate"
    return run_kernel(script, inputs, root / "working", {"PYTHONPATH": place, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("layout", ["old", "new", "packed"])
def test_kernel_writes_the_bytes_that_submit_writes(
    layout: str, received: KaggleServer, blended: Paths, tmp_path: Path
) -> None:
    script, inputs = laid_out(received, blended, tmp_path, layout)
    done = run(script, inputs, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    working = tmp_path / "working"
    assert sorted(file.name for file in working.iterdir()) == ["report.json", "submission.csv"]
    assert (working / "submission.csv").read_bytes() == (blended.work / "submission.csv").read_bytes()
    report = json.loads((working / "report.json").read_text())
    manifest = received.datasets["tester/tiny-tagging-kit"].versions[-1]["kit_manifest.json"]
    assert report["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert report["runs"] == {"demo_resnetish": 2, "demo_vggish": 2}
    assert report["predicted_by"]["demo_vggish"] == {"fold0": {"torch": 30}, "fold1": {"torch": 30}}
    assert report["clips_with_a_fault"] == {"empty.wav": "empty", "silent.wav": "silent"}
    assert "test clips with a fault" in done.stderr and "2: empty.wav (empty), silent.wav (silent)" in done.stderr
    assert done.stdout.splitlines()[1].startswith("python 3.")


def test_probabilities_are_the_same_to_the_last_bit(blended: Paths, tmp_path: Path) -> None:
    """In the columns of the sample submission, in its order."""
    from submit import submit

    paths = Paths(tmp_path / "in" / "tiny-tagging", tmp_path / "work")
    shutil.copytree(blended.input, paths.input)
    shutil.copytree(blended.work, paths.work, ignore=shutil.ignore_patterns("features"))
    sample = pd.read_csv(paths.input / "sample_submission.csv")
    classes = sorted(set(pd.read_csv(paths.input / "train.csv")["label"]), reverse=True)
    sample[["fname"]].assign(**dict.fromkeys(classes, 0)).to_csv(paths.input / "sample_submission.csv", index=False)
    submit(paths, "default", paths.work / "probabilities.csv", None)
    written = (paths.work / "probabilities.csv").read_bytes()
    assert written.decode().splitlines()[0] == ",".join(["fname", *classes])
    folder = bundle(paths, "default", "me")
    predict(folder, tmp_path / "in", "tiny-tagging", tmp_path / "out" / "submission.csv", tmp_path)
    assert (tmp_path / "out" / "submission.csv").read_bytes() == written


def test_the_bundle_says_which_engine_predicts(
    blended: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is an optional package")
    paths = replace(blended, work=tmp_path / "work")
    shutil.copytree(blended.work, paths.work, ignore=shutil.ignore_patterns("features"))
    folder = bundle(paths, "default", "me", engine="openvino")
    out = tmp_path / "out" / "submission.csv"
    told = {}
    for engine in (None, "torch"):
        capsys.readouterr()
        predict(folder, blended.input.parent, "tiny-tagging", out, tmp_path, engine)
        told[engine] = capsys.readouterr().out, json.loads((out.parent / "report.json").read_text())["engines"]
        assert out.read_bytes() == (blended.work / "submission.csv").read_bytes()  # labels: within 1e-4 the same
    assert "\npredicted by OpenVINO\n" in told[None][0] and told[None][1] == ["openvino"]
    assert "\npredicted by PyTorch\n" in told["torch"][0] and told["torch"][1] == ["torch"]


def test_engines_are_those_that_predicted(blended: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that were chosen last, nor that of an experiment that a budget left out."""
    from runs import forecast

    paths = replace(blended, work=tmp_path / "work")
    shutil.copytree(blended.work, paths.work, ignore=shutil.ignore_patterns("features"))
    folder = bundle(paths, "default", "me")
    ask = forecast.predict_test

    def mixed(*args: Any, **options: Any) -> list[Any]:
        first, *more = ask(*args, **options)
        return [replace(first, engine="openvino"), *more]

    monkeypatch.setattr(forecast, "predict_test", mixed)
    predict(folder, blended.input.parent, "tiny-tagging", tmp_path / "out" / "submission.csv", tmp_path)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["engines"] == ["openvino", "torch"] and report["predicted_by"][NAMES[0]]["fold0"] == {"openvino": 30}


NAMES = ("demo_resnetish", "demo_vggish")
COSTS = Forecast(dict.fromkeys(NAMES, 2), {NAMES[0]: 10_100.0, NAMES[1]: 10_000.0}, dict.fromkeys(NAMES, 1), {1: 0.0})


def set_worths(paths: Paths, *worths: float | None, by_default: bool = False) -> None:
    """Of the experiments NAMES in the blend. by_default: as if nobody had chosen it."""
    file = paths.ensembles / "default" / "weights.json"
    blend = read_blend(file)
    models = {name: replace(blend.models[name], worth=worth) for name, worth in zip(NAMES, worths, strict=True)}
    write_blend(file, replace(blend, models=models, by_default=by_default))


def in_kernel(blended: Paths, root: Path, budget: float) -> tuple[Path, dict[str, Any]]:
    """The bundle and the report of a kernel that may take so many seconds; its submission lies in out/. The blend does
    not say what the experiments are worth."""
    paths = replace(blended, work=root / "work")
    shutil.copytree(blended.work, paths.work, ignore=shutil.ignore_patterns("features"))
    set_worths(paths, None, None)
    folder = bundle(paths, "default", "me", budget=budget)
    predict(folder, blended.input.parent, "tiny-tagging", root / "out" / "submission.csv", root)
    return folder, json.loads((root / "out" / "report.json").read_text())


def test_a_kernel_says_first_how_long_it_will_take_and_with_time_enough_does_all(
    blended: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, report = in_kernel(blended, tmp_path, 3600)
    assert (tmp_path / "out" / "submission.csv").read_bytes() == (blended.work / "submission.csv").read_bytes()
    told = capsys.readouterr().out.splitlines()
    starts = [line.partition(":")[0] for line in told]
    assert starts.count("forecast") == 4 and starts.index("forecast") < starts.index("features")
    assert report["runs"] == {"demo_resnetish": 2, "demo_vggish": 2} and report["clips_not_reached"] == {}


def test_a_kernel_leaves_out_folds_that_take_too_long(
    blended: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """10,000 s for each of four folds, and 25,000 s of time: the blend of what one fold of each experiment answers."""
    monkeypatch.setattr(runs.forecast, "forecast", lambda *_: COSTS)
    folder, report = in_kernel(blended, tmp_path, 25_000)
    assert "budget: demo_vggish: 1 of 2 folds left out, saves 2 h 47 min" in capsys.readouterr().out
    assert report["runs"] == dict.fromkeys(NAMES, 1)
    answers = {name: load_predictions(blended.runs / name / "fold0" / "test.npz") for name in NAMES}
    fnames = answers["demo_vggish"].fnames
    blend = read_blend(folder / "weights.json")
    probs = apply_blend(blend, {name: one.of(fnames, name) for name, one in answers.items()})
    found = pd.read_csv(tmp_path / "out" / "submission.csv").set_index("fname")["label"]
    assert [found[fname] for fname in fnames] == top_labels(probs, blend.classes)


@pytest.mark.parametrize("by_default", [False, True])
def test_a_kernel_says_what_a_dropped_experiment_was_worth_as_submit_py_does(
    paths: Paths, tmp_path: Path, by_default: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """12,000 s: less than one fold of each. The one of less worth goes, though it is a little faster."""
    monkeypatch.setattr(runs.forecast, "forecast", lambda *_: COSTS)
    set_worths(paths, 0.0123, 0.0045, by_default=by_default)
    submit(paths, "default", tmp_path / "submission.csv", None, refresh=True, budget=12_000)
    by_submit = [line for line in capsys.readouterr().out.splitlines() if line.startswith("budget:")]
    folder = bundle(paths, "default", "me", budget=12_000, competition="tiny-tagging")
    predict(folder, paths.input.parent, paths.input.name, tmp_path / "out" / "submission.csv", tmp_path)
    by_kernel = [line for line in capsys.readouterr().out.splitlines() if line.startswith("budget:")]
    dropped = "2 of 2 folds left out, saves 5 h 33 min: without it the blend's nested MAP@3 is 0.0045 worse"
    assert by_submit[-1] == f"budget: {NAMES[1]}: {dropped}" and by_kernel == by_submit


def test_a_kernel_without_time_submits_the_class_prior(
    blended: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs.forecast, "forecast", lambda *_: COSTS)
    _, report = in_kernel(blended, tmp_path, 1e-9)
    found = pd.read_csv(tmp_path / "out" / "submission.csv")
    whole = pd.read_csv(blended.work / "submission.csv").set_index("fname")
    assert found["fname"].tolist() == whole.index.tolist()
    assert found["label"].nunique() == 1 and found["label"][0] == whole["label"]["empty.wav"], "as a clip without sound"
    assert report["runs"] == {"demo_resnetish": 0, "demo_vggish": 0}
    assert report["clips_not_reached"] == {"demo_vggish": found["fname"].tolist()}, "the other is dropped"
    assert "demo_vggish: out of time: clips not reached, which get its class prior: 30" in capsys.readouterr().err


def test_several_labels_of_a_described_competition(blended_labels: Paths, kaggle: KaggleServer, tmp_path: Path) -> None:
    """The bundle knows its task, header, extension and order of classes; the
    test clips lie in a zip."""
    paths = replace(blended_labels, work=tmp_path / "work")
    shutil.copytree(blended_labels.work, paths.work, ignore=shutil.ignore_patterns("features"))
    folder = bundle(paths, "default", kaggle.user)
    written = (paths.work / "submission.csv").read_bytes()
    assert written.startswith(b"row_id,Whistle,Tone,") and b"\nempty," in written
    inputs = tmp_path / "inputs"
    competition = inputs / "competitions" / "tiny-labels"
    shutil.copytree(paths.input, competition, ignore=shutil.ignore_patterns("test_labels.csv", "train*"))
    shutil.make_archive(str(competition / "test"), "zip", competition, "test")
    shutil.rmtree(competition / "test")
    shutil.copytree(folder, inputs / "tiny-labels-kit")
    script = tmp_path / "src" / "kernel.py"
    write_kernel(script.parent, folder, "tester/tiny-labels-kit", "tiny-labels", "cpu")
    done = run(script, inputs, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "working" / "submission.csv").read_bytes() == written
    assert "2: empty (empty), silent (silent)" in done.stderr


def test_the_gate_refuses(received: KaggleServer, blended: Paths, tmp_path: Path) -> None:
    """The proof above would fail if the prediction path imported something else: here it may not import soundfile."""
    script, inputs = laid_out(received, blended, tmp_path, "old")
    done = run(script, inputs, tmp_path, refused=REFUSED + " soundfile")
    assert done.returncode == 1
    assert "the prediction path imports soundfile" in done.stderr


@pytest.mark.skipif(bool(why_not()), reason=f"no namespaces here: {why_not()}")
def test_the_sandbox_has_no_network_and_cannot_write_its_inputs(tmp_path: Path) -> None:
    script = tmp_path / "src" / "probe.py"
    script.parent.mkdir()
    (tmp_path / "inputs").mkdir()
    script.write_text(
        "import os, socket\n"
        "print(sorted(os.listdir('/kaggle')), 'HOME' in os.environ)\n"
        "for attempt in (lambda: open('/kaggle/input/x', 'w'), lambda: socket.create_connection(('127.0.0.1', 9))):\n"
        "    try: attempt()\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    done = run_kernel(script, tmp_path / "inputs", tmp_path / "working", {})
    assert done.stdout.splitlines() == [
        "['input', 'src', 'working'] False",
        "Read-only file system",
        "Network is unreachable",
    ]


@pytest.mark.parametrize("victim", ["weights/demo_vggish/fold1/model.safetensors", "code/blending/apply.py"])
def test_a_flipped_byte_is_refused(victim: str, received: KaggleServer, blended: Paths, tmp_path: Path) -> None:
    script, inputs = laid_out(received, blended, tmp_path, "new")
    file = inputs / "datasets" / "tester" / "tiny-tagging-kit" / victim
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    done = run(script, inputs, tmp_path)
    assert done.returncode == 1
    assert f"files changed: {victim}: run submission.bundle and submission.push again" in done.stderr
    assert list((tmp_path / "working").iterdir()) == []


def test_a_lost_file_is_refused(received: KaggleServer, blended: Paths, tmp_path: Path) -> None:
    script, inputs = laid_out(received, blended, tmp_path, "old")
    (inputs / "tiny-tagging-kit" / "weights.json").unlink()
    done = run(script, inputs, tmp_path)
    assert (done.returncode, "files are missing: weights.json" in done.stderr) == (1, True)


def test_a_stale_dataset_is_refused(received: KaggleServer, blended: Paths, tmp_path: Path) -> None:
    script, inputs = laid_out(received, blended, tmp_path, "old")
    manifest = inputs / "tiny-tagging-kit" / "kit_manifest.json"
    manifest.write_text(manifest.read_text().replace('"ensemble": "default"', '"ensemble": "older"'))
    done = run(script, inputs, tmp_path)
    assert done.returncode == 1
    assert "another version of the dataset is attached" in done.stderr
    assert done.stderr.count("\n") == 1


def test_absent_inputs_are_named(received: KaggleServer, blended: Paths, tmp_path: Path) -> None:
    script, inputs = laid_out(received, blended, tmp_path, "old")
    shutil.rmtree(inputs / "tiny-tagging")
    done = run(script, inputs, tmp_path)
    assert "no sample_submission.csv in a folder tiny-tagging: attach the competition to this kernel" in done.stderr
    shutil.rmtree(inputs / "tiny-tagging-kit")
    shutil.rmtree(inputs / "gate")
    shutil.rmtree(tmp_path / "working")
    done = run(script, inputs, tmp_path)
    assert "no kit_manifest.json under" in done.stderr


def competition_of(root: Path, sample: str, files: list[str]) -> Path:
    (root / "c" / "sounds").mkdir(parents=True)
    (root / "c" / "sample_submission.csv").write_text(sample)
    for name in files:
        (root / "c" / name).touch()
    return root / "c" / "sample_submission.csv"


def test_a_link_to_itself_among_the_inputs_ends(tmp_path: Path) -> None:
    """Each of two such links doubled the paths with every level."""
    sample = competition_of(tmp_path, "fname\na.wav\n", [])
    for name in ("up", "again", "more"):
        (tmp_path / name).symlink_to(".")
        (tmp_path / "c" / name).symlink_to("..")
    (tmp_path / "self").symlink_to("self")
    folder, config = find_competition(tmp_path, "c", PackedCompetition().config)
    assert (folder / "sample_submission.csv").resolve() == sample and config == PackedCompetition().config


def test_test_clips_are_found_by_whatever_form_their_names_have(tmp_path: Path) -> None:
    names = pd.Series(["caf\u00e9.wav", "b.wav"])
    sample = competition_of(tmp_path, "fname\n", ["sounds/cafe\u0301.wav", "sounds/b.WAV", "b.csv"])
    assert find_audio(sample.parent, set(names), tmp_path / "scratch") == sample.parent / "sounds"
    clips = read_test_clips(names, sample.parent / "sounds")
    assert [Path(path).name for path in clips["path"]] == ["cafe\u0301.wav", "b.WAV"]


def test_test_clips_without_their_extension_are_named(tmp_path: Path) -> None:
    sample = competition_of(tmp_path, "fname\n", ["sounds/a.wav", "sounds/b.wav"])
    (tmp_path / "c" / "old_test.zip").write_bytes(b"PK half of it")
    folder = find_audio(sample.parent, {"a", "b"}, tmp_path / "scratch")
    assert folder == sample.parent / "sounds"
    with pytest.raises(
        UserError, match=r"missing files: 2: sounds/a \(found a\.wav\), sounds/b \(found b\.wav\); use the exact"
    ):
        read_test_clips(pd.Series(["a", "b"]), folder)
    assert len(read_test_clips(pd.Series(["a", "b"]), folder, pattern="{name}.wav")) == 2


def test_test_clips_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    """Also where the outer folder has another name than it had here."""
    sample = competition_of(tmp_path, "fname\n", [])
    files = ["x/a.wav", "y/a.wav", "y/b.wav"]
    for file in files:
        (sample.parent / "sounds" / file).parent.mkdir(exist_ok=True)
        (sample.parent / "sounds" / file).touch()
    (sample.parent / "a.wav").touch()
    folder = find_audio(sample.parent, set(files), tmp_path / "scratch")
    assert folder == sample.parent / "sounds"
    assert read_test_clips(pd.Series(files), folder)["path"].tolist() == [str(folder / file) for file in files]


def test_a_broken_zip_beside_a_whole_one_is_only_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = competition_of(tmp_path, "fname\na.wav\n", [])
    (tmp_path / "c" / "audio_test_old.zip").write_bytes(b"PK half of it")
    with zipfile.ZipFile(tmp_path / "c" / "audio_test.ZIP", "w") as target:
        target.writestr("a.wav", b"a")
    assert (find_audio(sample.parent, {"a.wav"}, tmp_path / "scratch") / "a.wav").read_bytes() == b"a"
    assert "audio_test_old.zip: cannot be unpacked" in capsys.readouterr().err


def test_no_test_clip_at_all_is_an_error(tmp_path: Path) -> None:
    sample = competition_of(tmp_path, "fname\n", ["sounds/b.wav"])
    with pytest.raises(UserError, match=r"c: none of the 2 test clips lies there, such as a\.wav"):
        find_audio(sample.parent, {"a.wav", "c.wav"}, tmp_path / "scratch")


@pytest.mark.parametrize(
    ("config", "table", "text"),
    [
        (
            CompetitionConfig(sample_submission=TableFile("sample_submission.csv")),
            "sample_submission.csv",
            "row_id,a,b",
        ),
        (CompetitionConfig(sample_submission=TableFile("meta/sample.csv")), "meta/sample.csv", "filename,label"),
        (CompetitionConfig(test=TableFile("meta/test.csv")), "meta/test.csv", "fname,site"),
        # described from another release than Kaggle's own
        (CompetitionConfig(test=TableFile("meta/test.csv")), "sample_submission.csv", "fname,label"),
    ],
)
def test_the_competition_is_found_by_the_table_that_names_its_clips(
    tmp_path: Path, config: CompetitionConfig, table: str, text: str
) -> None:
    for place in ("competitions/mine", "competitions/other", "mine-kit"):
        (tmp_path / place / table).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place / table).write_text(f"{text}\nx{',1' * text.count(',')}\n")
    folder, found = find_competition(tmp_path, "mine", config)
    assert folder == tmp_path / "competitions" / "mine"
    assert list_test(folder, found)["fname"].tolist() == ["x"]


def test_a_folder_of_sounds_may_be_all_that_names_the_clips(tmp_path: Path) -> None:
    (tmp_path / "competitions" / "mine" / "test").mkdir(parents=True)
    config = CompetitionConfig(audio=AudioFiles(test="test/{name}"))
    assert find_competition(tmp_path, "mine", config)[0] == tmp_path / "competitions" / "mine"
    with pytest.raises(UserError, match="no folder yours: attach the competition to this kernel"):
        find_competition(tmp_path, "yours", config)


@pytest.mark.parametrize(
    ("form", "sample", "told"),
    [
        (SubmissionForm(), "fname,Bark,Cello\na.wav,0,0\n", "there alone 2: Bark, Cello; in the bundle alone label:"),
        (
            SubmissionForm("probabilities", columns=("Bark", "Meow")),
            "fname,Bark,Cello\na.wav,0,0\n",
            "there alone Cello; in the bundle alone Meow: attach the competition of the bundle",
        ),
        (
            SubmissionForm("probabilities", columns=("Bark",), name_column="row_id"),
            "fname,label\na.wav,Bark\n",
            "there alone 2: fname, label; in the bundle alone 2: Bark, row_id",
        ),
        (SubmissionForm(), "fname,label\na.wav,Bark\n", ""),
        (SubmissionForm(), "fname\na.wav\n", ""),
        (SubmissionForm("probabilities", columns=("Bark", "Cello")), "fname,Cello,Bark\na.wav,0,0\n", ""),
    ],
)
def test_another_submission_than_ours_is_not_predicted(
    tmp_path: Path, form: SubmissionForm, sample: str, told: str
) -> None:
    (tmp_path / "sample_submission.csv").write_text(sample)
    config = CompetitionConfig(sample_submission=TableFile("sample_submission.csv"))
    with pytest.raises(UserError, match=rf"sample_submission\.csv: .*{told}") if told else nullcontext():
        check_sample_fits(tmp_path, config, form)


def test_the_kernel_refuses_another_competition_before_it_predicts(
    received: KaggleServer, blended: Paths, tmp_path: Path
) -> None:
    script, inputs = laid_out(received, blended, tmp_path, "new")
    sample = inputs / "competitions" / "tiny-tagging" / "sample_submission.csv"
    sample.write_text("fname,Bark,Cello\n0.wav,0,0\n")
    done = run(script, inputs, tmp_path)
    assert (
        done.returncode == 1 and "error: /" in done.stderr and "Bark, Cello; in the bundle alone label" in done.stderr
    )
    assert list((tmp_path / "working").iterdir()) == []


def test_wheels_are_installed_without_an_index(tmp_path: Path) -> None:
    from kaggle_server import archive_of

    from submission.kernel_script import installed_wheels

    wheels = tmp_path / "wheels"
    wheels.mkdir()
    info = "tinywheel-1.0.dist-info"
    content = {
        "tinywheel.py": b"ANSWER = 42\n",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tinywheel\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    (wheels / "tinywheel-1.0-py3-none-any.whl").write_bytes(archive_of(content))
    (site,) = installed_wheels(wheels, tmp_path / "site")
    command = [sys.executable, "-c", "import tinywheel; print(tinywheel.ANSWER)"]
    done = subprocess.run(command, env={"PYTHONPATH": str(site)}, capture_output=True, text=True)
    assert done.stdout == "42\n"
    assert installed_wheels(tmp_path / "none", tmp_path / "site2") == []
