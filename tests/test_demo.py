"""The synthetic competition: complete, deterministic, with the faults that it promises."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from console.errors import UserError
from input.competition import load_competition, read_truth
from input.demo import make_demo
from input.demo_sounds import RATE, SOUNDS, make_clip, make_mixture

TRAIN, TEST = 12, 2


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "demo"
    make_demo(folder, TRAIN, TEST, seed=1)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_it_is_a_competition_in_kaggles_layout(demo, capsys):
    found = load_competition(demo)
    assert len(found.classes) == len(SOUNDS) >= 12
    assert len(found.train) == TRAIN * len(SOUNDS)
    assert len(found.test) == TEST * len(SOUNDS) + 2
    assert capsys.readouterr().err == ""
    assert {path.name for path in demo.iterdir()} == {
        *("train.csv", "train_post_competition.csv", "sample_submission.csv", "test_labels.csv", "demo.txt"),
        *("audio_train", "audio_test"),
    }
    assert {path.name for path in (demo / "audio_train").iterdir()} == set(found.train["fname"])
    assert {path.name for path in (demo / "audio_test").iterdir()} == set(found.test["fname"])


def test_the_truth_is_included_and_does_not_score_two_clips(demo):
    found = load_competition(demo)
    truth = read_truth(demo / "test_labels.csv", found.classes)
    assert set(truth["fname"]) == set(found.test["fname"]) - {"empty.wav", "silent.wav"}
    assert truth["label"].value_counts().to_dict() == dict.fromkeys(SOUNDS, TEST)
    assert set(truth["usage"]) <= {"Public", "Private"}
    written = pd.read_csv(demo / "test_labels.csv", keep_default_na=False)
    assert written["fname"].tolist() == found.test["fname"].tolist()


def test_one_test_clip_is_empty_and_one_is_silent(demo):
    waves = {f.name: soundfile.read(f)[0] for f in (demo / "audio_test").iterdir()}
    assert [name for name, wave in waves.items() if len(wave) == 0] == ["empty.wav"]
    assert [name for name, wave in waves.items() if len(wave) and not wave.any()] == ["silent.wav"]


def test_clips_last_from_a_third_of_a_second_to_ten(demo):
    for file in (demo / "audio_train").iterdir():
        about = soundfile.info(file)
        assert (about.samplerate, about.channels, about.subtype) == (RATE, 1, "PCM_16")
        assert 0.3 * RATE - 1 <= about.frames <= 10 * RATE
    seconds = [soundfile.info(f).duration for f in (demo / "audio_train").iterdir()]
    assert min(seconds) < 1 < 4 < max(seconds)


def test_level_and_noise_vary():
    """1 to 30 dB below full scale."""
    rng = np.random.default_rng(0)
    peaks = [np.abs(make_clip(SOUNDS["Tone"], np.random.default_rng(0), rng)).max() for _ in range(40)]
    assert 10 ** (-30 / 20) <= min(peaks) < 0.1 and 0.5 < max(peaks) <= 10 ** (-1 / 20)


@pytest.mark.parametrize("label", SOUNDS)
def test_every_sound_differs_from_the_others(label):
    t = np.arange(RATE) / RATE
    wave = SOUNDS[label](np.random.default_rng(3), t)
    assert wave.shape == t.shape and np.isfinite(wave).all() and wave.std() > 0.01
    assert np.array_equal(wave, SOUNDS[label](np.random.default_rng(3), t))
    others = [SOUNDS[other](np.random.default_rng(3), t) for other in SOUNDS if other != label]
    assert not any(np.allclose(wave, other) for other in others)


def test_every_sound_can_be_as_short_as_the_shortest_clip():
    t = np.arange(int(0.3 * RATE)) / RATE
    for sound in SOUNDS.values():
        for seed in range(5):
            assert np.isfinite(sound(np.random.default_rng(seed), t)).all()


def test_some_clips_share_a_recording_and_no_recording_two_classes(demo):
    details = pd.read_csv(demo / "train_post_competition.csv")
    clips = details.groupby("freesound_id").size()
    assert clips.max() <= 3 and (clips == 1).any() and (clips > 1).any()


def test_the_shares_of_verified_and_of_wrong_labels(tmp_path, monkeypatch):
    """40 % verified; a quarter of the others drawn anew from all 14 classes, so 1/14 of these are right by chance.

    1,400 clips of one sample each: three standard errors are 0.039 for the first share, 0.044 for the second.
    """
    monkeypatch.setattr(
        "input.demo_sounds.make_clip", lambda sound, source, rng: np.full(1, list(SOUNDS.values()).index(sound) / 100)
    )
    folder = tmp_path / "demo"
    make_demo(folder, 100, 1)
    train = pd.read_csv(folder / "train.csv")
    made = [round(soundfile.read(folder / "audio_train" / fname)[0][0] * 100) for fname in train["fname"]]
    right = train["label"].to_numpy() == np.array(list(SOUNDS))[made]
    verified = train["manually_verified"] == 1
    assert verified.mean() == pytest.approx(0.4, abs=0.039)
    assert right[verified].all(), "a verified label is right"
    assert (~right[~verified]).mean() == pytest.approx(0.25 * 13 / 14, abs=0.044)


def test_a_seed_gives_the_same_bytes_and_another_seed_others(demo, tmp_path):
    make_demo(tmp_path / "again", TRAIN, TEST, seed=1)
    assert contents(tmp_path / "again") == contents(demo)
    make_demo(tmp_path / "other", 1, 1, seed=2)
    make_demo(tmp_path / "third", 1, 1, seed=3)
    assert (tmp_path / "other/train.csv").read_bytes() != (tmp_path / "third/train.csv").read_bytes()


def test_a_second_run_leaves_it_alone(demo, capsys):
    before = {f: f.stat().st_mtime_ns for f in demo.rglob("*")}
    make_demo(demo, TRAIN, TEST, seed=1)
    assert {f: f.stat().st_mtime_ns for f in demo.rglob("*")} == before
    assert "exists, demo competition: 12 training" in capsys.readouterr().out


def test_other_numbers_replace_a_demo(tmp_path):
    make_demo(tmp_path / "demo", 2, 1)
    (tmp_path / "demo.0123.partial").mkdir()  # of a demo that was killed
    (tmp_path / ".demo.0123.partial.lock").touch()
    make_demo(tmp_path / "demo", 1, 1)
    assert len(list((tmp_path / "demo" / "audio_train").iterdir())) == len(SOUNDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".demo.lock", "demo"]


@pytest.mark.parametrize("kind", ["competition", "file"])
def test_another_folder_is_an_error_and_unchanged(tmp_path, kind):
    foreign = tmp_path / "input"
    if kind == "file":
        foreign.write_text("mine")
    else:
        foreign.mkdir()
        (foreign / "train.csv").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="exists and is not a demo competition: choose a new folder"):
        make_demo(foreign, 1, 1)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("numbers", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_numbers_that_make_no_competition(tmp_path, numbers):
    with pytest.raises(UserError, match="--train and --test must be at least 1"):
        make_demo(tmp_path / "demo", *numbers)
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path):
    command = [sys.executable, "-m", "input.demo", str(tmp_path / "demo"), "--train", "1", "--test", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    refused = subprocess.run([*command[:3], str(tmp_path)], capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.startswith(f"error: {tmp_path}: exists")


def test_its_help_needs_no_heavy_import():
    code = "import sys, input.demo; print(*{'numpy', 'pandas', 'soundfile', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_neighbouring_folders_are_unchanged(tmp_path):
    (tmp_path / "mine.partial").mkdir()
    (tmp_path / "mine.partial" / "x").write_text("hi")
    make_demo(tmp_path / "mine", 1, 1)
    assert (tmp_path / "mine.partial" / "x").read_text() == "hi" and (tmp_path / "mine" / "train.csv").exists()


def test_the_current_folder_has_a_name_too(tmp_path, monkeypatch):
    make_demo(tmp_path / "d", 1, 1)
    monkeypatch.chdir(tmp_path / "d")
    make_demo(Path(), 2, 1)
    assert "2 training" in (tmp_path / "d" / "demo.txt").read_text()


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "mixtures"
    make_demo(folder, 11, 5, seed=1, multi_label=True)
    return folder


def test_several_labels_come_in_the_layout_of_fsdkaggle2019(mixtures):
    tables = {name: pd.read_csv(mixtures / f"{name}.csv") for name in ("train_curated", "train_noisy")}
    assert {name: len(table) for name, table in tables.items()} == {
        "train_curated": 6 * len(SOUNDS),
        "train_noisy": 5 * len(SOUNDS),
    }
    for name, table in tables.items():
        assert list(table) == ["fname", "labels"]
        assert sorted(table["fname"]) == sorted(path.name for path in (mixtures / name).iterdir())
        several = table["labels"].str.split(",")
        assert {len(row) for row in several} == {1, 2, 3} and set().union(*several) == set(SOUNDS)
        assert all(len(set(row)) == len(row) for row in several)
    sample = pd.read_csv(mixtures / "sample_submission.csv")
    assert list(sample) == ["fname", *SOUNDS] and not sample[list(SOUNDS)].to_numpy().any()
    truth = pd.read_csv(mixtures / "test_labels.csv", keep_default_na=False)
    assert sample["fname"].tolist() == truth["fname"].tolist() == sorted(p.name for p in (mixtures / "test").iterdir())
    assert truth.loc[truth["usage"] == "Ignored", "fname"].tolist() == ["empty.wav", "silent.wav"]


def test_a_quarter_of_the_noisy_clips_is_mislabelled(tmp_path, monkeypatch):
    """A clip's one sample tells its sounds; 1,400 clips: three standard errors are 0.035."""
    places = {sound: 2.0 ** -(1 + i) for i, sound in enumerate(SOUNDS.values())}
    monkeypatch.setattr(
        "input.demo_sounds.make_mixture", lambda sounds, rng: np.full(1, sum(places[sound] for sound in sounds))
    )
    make_demo(tmp_path / "demo", 200, 1, multi_label=True)
    wrong = {}
    for name in ("train_curated", "train_noisy"):
        table = pd.read_csv(tmp_path / "demo" / f"{name}.csv")
        heard = [soundfile.read(tmp_path / "demo" / name / fname)[0][0] for fname in table["fname"]]
        said = [sum(places[SOUNDS[label]] for label in text.split(",")) for text in table["labels"]]
        wrong[name] = np.mean(~np.isclose(heard, said, atol=1e-6))
    assert wrong["train_curated"] == 0
    assert wrong["train_noisy"] == pytest.approx(0.25, abs=0.035)


def test_every_sound_of_a_mixture_is_heard():
    """Within 9 dB of each other: the mixture depends on each of its sounds."""
    rng = np.random.default_rng(0)
    tone = lambda hz: lambda rng, t: np.sin(2 * np.pi * hz * t)  # noqa: E731
    wave = make_mixture([tone(500), tone(2000)], rng)
    power = np.abs(np.fft.rfft(wave)) ** 2
    hz = np.fft.rfftfreq(len(wave), 1 / RATE)
    at = [power[np.abs(hz - f) < 20].max() for f in (500, 2000, 4000)]
    assert 1 / 20 < at[0] / at[1] < 20 and min(at[:2]) > 30 * at[2]


def test_a_seed_gives_the_same_mixtures(mixtures, tmp_path):
    make_demo(tmp_path / "again", 11, 5, seed=1, multi_label=True)
    assert contents(tmp_path / "again") == contents(mixtures)
    make_demo(tmp_path / "again", 11, 5, seed=1)  # a demo of the other kind is replaced
    assert (tmp_path / "again" / "train.csv").exists()
