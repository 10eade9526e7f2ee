"""predict.py and docs/python.md: a finished blend on any sound."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import models.openvino_conversion
from blending import load_blend
from blending.loaded_blend import audacity_labels
from configs.paths import Paths
from console.errors import UserError
from features.sections import cut, even_sections
from features.store import Store
from input.sound_files import sounds_under
from predict import main
from runs import load_oof
from runs.predictions import load_predictions
from runs.run_folder import read_run

ROOT = Path(__file__).parent.parent
TINY = ["folds.n_folds=2", "features.sample_rate=8000", "features.f_max=4000", "features.n_fft=256", "train.epochs=1"]
TINY += ["features.hop_length=160", "features.n_mels=16", "train.batch_size=16", "model.width=8", "features.trim_db=40"]
TINY += ["train.crop_seconds=1.0", "predict.window_seconds=1.0", "model.name=resnetish10"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a competition, two experiments (one at another frame rate), their mean, and sounds/one.wav."""
    from configs.load import load_config
    from ensemble import blend
    from input.demo import make_demo
    from training.train import train_folds

    folder = tmp_path_factory.mktemp("predict")
    make_demo(folder / "demo", train_per_class=4, test_per_class=1)
    paths = Paths(folder / "demo", folder / "work")
    for more in (["name=small"], ["name=other", "features.hop_length=200", "predict.window_seconds=0.7"]):
        train_folds(load_config(ROOT / "configs" / "resnetish18.yaml", [*TINY, *more]), [0, 1], paths)
    blend(paths, [], "arithmetic", "default", force=False)
    (folder / "sounds" / "inner").mkdir(parents=True)
    first = load_predictions(paths.ensemble("default") / "test.npz").fnames[0]
    shutil.copyfile(folder / "demo" / "audio_test" / first, folder / "sounds" / "one.wav")
    return folder


def run(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "predict.py"), *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_the_test_clips_get_the_submitted_probabilities(made: Path) -> None:
    stored = load_predictions(made / "work" / "ensembles" / "default" / "test.npz")
    blend = load_blend(made / "work" / "ensembles" / "default")
    table = blend.predict(made / "demo" / "audio_test")
    names = [Path(file).name for file in table["file"]]
    assert set(stored.fnames) - set(names) == {"empty.wav"}  # it gets the prior in a submission
    assert {Path(file).name for file in table.attrs["faults"]} == {"empty.wav", "silent.wav"}
    np.testing.assert_allclose(table[list(blend.classes)], stored.of(names, "test"), atol=1e-6)


def test_openvino_gives_the_same_probabilities(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is an optional package")
    blend, sounds = load_blend(made / "work" / "ensembles" / "default"), made / "demo" / "audio_test"
    for every in (None, 0.9):
        tables = [blend.predict(sounds, every, engine)[list(blend.classes)] for engine in ("torch", "openvino")]
        np.testing.assert_allclose(*tables, atol=5e-3)  # in half precision where the CPU has it
        assert "predicted by OpenVINO: 4 of 4 runs" in capsys.readouterr().out


def test_an_engine_that_is_not_there_is_one_line(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blend = load_blend(made / "work" / "ensembles" / "default")
    with pytest.raises(UserError, match="engine='fast': expected torch, openvino, auto"):
        blend.predict(made / "sounds", engine="fast")
    monkeypatch.setattr(models.openvino_conversion, "is_installed", lambda: False)
    with pytest.raises(UserError, match="OpenVINO is not installed"):
        blend.predict(made / "sounds", engine="openvino")


def test_a_section_is_predicted_from_its_frames_alone(made: Path, tmp_path: Path) -> None:
    """The first second of a long recording has the answer of that second, whatever follows it."""
    rng = np.random.default_rng(0)
    tone = np.sin(np.arange(8000) * 0.6)
    for name, rest in (("a", rng.normal(size=8000)), ("b", np.sin(np.arange(8000) * 1.9))):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * np.concatenate([tone, tone, rest]), 8000)
    blend = load_blend(made / "work" / "ensembles" / "default")
    table = blend.predict([tmp_path / "a.wav", tmp_path / "b.wav"], every=1.0)
    assert table["start"].tolist() == [0, 1, 2] * 2 and table["end"].tolist()[:2] == [1, 2]
    probs = table[list(blend.classes)].to_numpy().reshape(2, 3, -1)
    np.testing.assert_allclose(probs[0, 0], probs[1, 0], atol=1e-6)
    assert abs(probs[0, 2] - probs[1, 2]).max() > 1e-4
    np.testing.assert_allclose(probs.sum(axis=2), 1, atol=1e-5)


def test_sections_lie_where_they_lie_in_the_recording(made: Path, tmp_path: Path) -> None:
    """Silence at the start is not cut off, as it is where whole files are predicted: features.trim_db."""
    soundfile.write(tmp_path / "late.wav", np.concatenate([np.zeros(8000), np.sin(np.arange(16000) * 0.6) / 4]), 8000)
    table = load_blend(made / "work" / "ensembles" / "default").predict(tmp_path / "late.wav", every=1.0)
    assert table["start"].tolist() == [0, 1, 2] and table["end"].round(1).tolist() == [1, 2, 3]


def store(length: list[int], frame_rate: float = 10.0) -> Store:
    sizes, n = np.array(length), sum(length)
    frames, stats = np.arange(n, dtype=np.float16)[:, None], np.zeros((len(length), 1), np.float32)
    names = tuple(f"{i}.wav" for i in range(len(length)))
    return Store("key", names, frames, np.cumsum(sizes) - sizes, sizes, stats, stats, {}, 0.0, frame_rate)


def test_sections_by_hand() -> None:
    """24 frames at 10 per second are 2.4 s: two sections of one second, the last with the rest of 0.4 s."""
    found = even_sections(store([24, 0, 26, 3]), 1.0)
    assert found.clip.tolist() == [0, 0, 2, 2, 2, 3]
    assert found.start.tolist() == [0, 1, 0, 1, 2, 0]
    np.testing.assert_allclose(found.end, [1, 2.4, 1, 2, 2.6, 0.3])
    parts = cut(store([24, 0, 26, 3]), found)
    assert parts.start.tolist() == [0, 10, 24, 34, 44, 50] and parts.length.tolist() == [10, 14, 10, 10, 6, 3]
    coarse = cut(store([12, 0, 13, 1], 5.0), found)  # another front end, half the frames
    assert coarse.start.tolist() == [0, 5, 12, 17, 22, 25] and coarse.length.tolist() == [5, 7, 5, 5, 3, 1]
    deaf = cut(store([12, 0, 13, 0], 5.0), found)  # which gives no frame of the last clip: it must not hear another's
    assert deaf.length.tolist() == [5, 7, 5, 5, 3, 0]
    with pytest.raises(ValueError, match=r"0\.01 s is shorter than a frame of the features, 0\.1 s"):
        even_sections(store([24]), 0.01)


def test_oof_as_a_table(made: Path) -> None:
    table = load_oof(made / "work" / "runs" / "small")
    folds = [read_run(made / "work" / "runs" / "small" / f"fold{k}") for k in (0, 1)]
    assert table["fold"].value_counts().to_dict() == {run.fold: len(run.oof.fnames) for run in folds}
    assert table.columns.tolist() == ["fold", *folds[0].classes]
    np.testing.assert_array_equal(table.loc[list(folds[1].oof.fnames), list(folds[1].classes)], folds[1].oof.probs)
    with pytest.raises(UserError, match=r"nothing: no finished fold"):
        load_oof(made / "nothing")


def test_the_page_runs_as_it_is(made: Path) -> None:
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.M | re.S))
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=made, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sounds/one.wav" in done.stdout and "start" in done.stdout


def test_the_command_names_unreadable_files_and_does_the_rest(made: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.wav").write_text("no sound")
    out = tmp_path / "p.csv"
    done = run(made, "sounds", str(tmp_path / "junk.wav"), "--top", "2", "--output", str(out))
    assert done.returncode == 2
    assert re.search(
        r"error: files without a prediction: \S+junk\.wav \(unreadable: .*\): the others are done", done.stderr
    )
    assert re.search(r"^sounds/one\.wav: \w+ 0\.\d\d, \w+ 0\.\d\d$", done.stdout, re.M)
    table = pd.read_csv(out)
    assert f"\n1 row -> {out}\n" in done.stdout and table["file"].tolist() == ["sounds/one.wav"]
    assert table.drop(columns="file").sum(axis=1).round(4).tolist() == [1]
    alone = run(made, str(tmp_path / "junk.wav"), "--output", str(tmp_path / "none.csv"))
    assert alone.returncode == 2 and "the others" not in alone.stderr and not (tmp_path / "none.csv").exists()
    again = run(made, "sounds", "--output", str(out))
    assert again.returncode == 2 and "exists: give another --output, or overwrite it with --force" in again.stderr
    labels = run(made, "sounds/one.wav", "--every", "0.5s", "--output", str(tmp_path / "labels.txt"))
    assert labels.returncode == 0, labels.stderr
    lines = [line.split("\t") for line in (tmp_path / "labels.txt").read_text().splitlines()]
    assert float(lines[0][0]) == 0 and all(float(start) < float(end) for start, end, _ in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.wav"], r"nowhere\.wav: does not exist"),
        (["sounds/inner"], r"sounds/inner: no sound files in this folder"),
        (["sounds", "--every", "0.001s"], r"0\.001 s is shorter than a frame"),
        (["sounds", "--output", "a.txt"], r"a\.txt: labels for Audacity are of sections: add --every 5s"),
        (  # before anything is predicted, so also where there is no blend
            ["demo/audio_test", "--every", "1s", "--output", "a.txt", "--ensemble", "none"],
            r"a label track is of one recording: use a \.csv for \d+: demo/audio_test/",
        ),
        (["sounds", "--output", "a.xls"], r"a\.xls: expected a name that ends in \.csv"),
        (
            ["sounds", "--ensemble", "none"],
            r"ensembles/none: no blend .*python ensemble\.py --name none --work DIR makes DIR/ensembles/none$",
        ),
    ],
)
def test_wrong_calls(made: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setattr(sys, "argv", ["predict.py", *words])
    with pytest.raises(UserError, match=message):
        main()


@pytest.mark.parametrize("every", ["5s", 0, -1.0, float("nan")])
def test_sections_are_cut_by_seconds_alone(made: Path, every: float) -> None:
    with pytest.raises(UserError, match=r"^every=.*: expected seconds above 0, as a number$"):
        load_blend(made / "work" / "ensembles" / "default").predict(made / "sounds", every=every)


def test_a_run_that_changed_since_is_refused(made: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(made / "work", tmp_path / "work"))
    shutil.rmtree(work / "runs" / "small" / "fold1")
    with pytest.raises(UserError, match=r"runs/small: changed since, but the blend \S+ needs it"):
        load_blend(work / "ensembles" / "default")
    shutil.rmtree(work / "runs" / "small")
    with pytest.raises(UserError, match=r"runs/small: is missing, but the blend"):
        load_blend(work / "ensembles" / "default")


def test_label_tracks_join_neighbours() -> None:
    table = pd.DataFrame({"file": "a", "start": [0.0, 1, 2, 3], "end": [1.0, 2, 3, 4], "Bark": [0.9, 0.8, 0.2, 0.6]})
    table["Meow"] = [0.1, 0.6, 0.8, 0.4]
    assert audacity_labels(table, ["Bark", "Meow"], several=False) == (
        "0.000\t2.000\tBark\n2.000\t3.000\tMeow\n3.000\t4.000\tBark\n"
    )
    assert audacity_labels(table, ["Bark", "Meow"], several=True) == (
        "0.000\t2.000\tBark\n1.000\t3.000\tMeow\n3.000\t4.000\tBark\n"
    )
    with pytest.raises(UserError, match=r"of one recording: use a \.csv for 2: a, b"):
        audacity_labels(table.assign(file=list("aabb")), ["Bark", "Meow"], several=True)
    with pytest.raises(UserError, match="every=SECONDS"):
        audacity_labels(table.drop(columns="start"), ["Bark", "Meow"], several=True)


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.wav", "in/a.OGG", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "b.wav").touch()
    assert sounds_under([tmp_path / "b.wav", tmp_path]) == [str(tmp_path / "b.wav"), str(tmp_path / "in" / "a.OGG")]
