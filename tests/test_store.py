"""The packed store: the right frames in the right rows, made once and resumed, and damage is an error."""

import contextlib
import dataclasses
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from threadpoolctl import threadpool_info, threadpool_limits

import input.audio
import input.resample
from configs.schema import FeatureConfig
from console.errors import UserError
from features.extraction import STAGE_FRAMES, _in_stages, _run
from features.log_mel import LogMel
from features.store import Store, open_features, store_key
from input.competition import sound_hash
from input.resample import at_speed

CFG = FeatureConfig(sample_rate=8_000, n_fft=128, hop_length=80, n_mels=12, f_max=4_000.0)
MANY = 150  # more than two parts


def noise(samples: int, seed: int) -> np.ndarray:
    return 0.3 * np.random.default_rng(seed).standard_normal(samples)


def write_clips(folder: Path, n: int, samples: int = 400) -> pd.DataFrame:
    """n clips of different lengths, in an order that is not alphabetical: fname and path."""
    folder.mkdir(parents=True, exist_ok=True)
    fnames = [f"{(i * 7919) % 100_003:06}.wav" for i in range(n)]
    for i, fname in enumerate(fnames):
        soundfile.write(folder / fname, noise(samples + 37 * (i % 11), i), CFG.sample_rate, subtype="FLOAT")
    return pd.DataFrame({"fname": fnames, "path": [str(folder / fname) for fname in fnames]})


@pytest.fixture
def clips(tmp_path) -> pd.DataFrame:
    return write_clips(tmp_path / "sound", 9)


def frames_of(store: Store, row: int) -> np.ndarray:
    return np.asarray(store.frames[store.start[row] : store.start[row] + store.length[row]])


def same(one: Store, other: Store) -> bool:
    """Whether two stores hold the same, to the bit."""
    arrays = ("frames", "start", "length", "mean", "mean_square")
    return (one.fnames, one.faults, one.key) == (other.fnames, other.faults, other.key) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


def look(path, *args, **kwargs):
    raise AssertionError(f"{path} was decoded again")


# What it holds


def test_every_clip_in_its_row_in_half_precision(clips, tmp_path):
    store = open_features(CFG, clips, tmp_path / "features")
    assert store.fnames == tuple(clips["fname"])
    assert store.frames.dtype == np.float16 and store.frames.shape == (store.length.sum(), 12)
    for row, path in enumerate(clips["path"]):
        expected = LogMel.from_config(CFG)(soundfile.read(path, dtype="float32")[0])
        assert store.length[row] == len(expected)
        worst = np.abs(expected) * 2**-11 + 1e-4  # half a unit in the last of 11 binary places
        assert (np.abs(frames_of(store, row).astype(np.float32) - expected) <= worst).all()
    assert store.faults == {}


def test_rows_are_consecutive(clips, tmp_path):
    store = open_features(CFG, clips, tmp_path / "features")
    assert store.start.tolist() == [0, *np.cumsum(store.length)[:-1].tolist()]


def test_rows_are_found_by_name(clips, tmp_path):
    store = open_features(CFG, clips, tmp_path / "features")
    names = clips["fname"].tolist()
    assert store.rows([names[5], names[0], names[5]]).tolist() == [5, 0, 5]
    assert store.rows(np.array(names)).tolist() == list(range(9)), "names out of an .npz will do"
    assert store.rows([]).tolist() == [] and store.rows([]).dtype == np.int64
    with pytest.raises(KeyError, match="absent"):
        store.rows([names[0], "absent.wav"])


def test_statistics_of_every_clip(clips, tmp_path):
    store = open_features(CFG, clips, tmp_path / "features")
    for row in range(9):
        frames = frames_of(store, row).astype(np.float64)
        assert np.allclose(store.mean[row], frames.mean(0), atol=5e-3)
        assert np.allclose(store.mean_square[row], (frames**2).mean(0), rtol=2e-3, atol=5e-3)


def test_silence_and_frame_rate(clips, tmp_path):
    store = open_features(CFG, clips, tmp_path / "features")
    assert store.silence == pytest.approx(np.log(1e-6))
    assert store.frame_rate == 100.0


def test_names_need_not_be_ascii(tmp_path):
    clips = write_clips(tmp_path / "sound", 2)
    clips["fname"] = ["Türklingel, laut.wav", "x" * 200]
    assert open_features(CFG, clips, tmp_path / "features").fnames == ("Türklingel, laut.wav", "x" * 200)


# Clips with faults


def faulty_clips(folder: Path) -> pd.DataFrame:
    clips = write_clips(folder, 3)
    soundfile.write(folder / "empty.wav", np.zeros(0), 8_000)
    soundfile.write(folder / "silent.wav", np.zeros(800), 8_000)
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan]), 8_000, subtype="FLOAT")
    soundfile.write(folder / "cut.wav", noise(800, 1), 8_000)
    (folder / "cut.wav").write_bytes((folder / "cut.wav").read_bytes()[:844])
    (folder / "junk.wav").write_bytes(b"junk")
    names = ["empty.wav", "silent.wav", "nan.wav", "cut.wav", "junk.wav"]
    more = pd.DataFrame({"fname": names, "path": [str(folder / name) for name in names]})
    lost = pd.DataFrame({"fname": ["lost.wav"], "path": [None]})
    return pd.concat([more, lost, clips], ignore_index=True)


def test_faults_are_named_and_lose_no_row(tmp_path):
    """Silence and a cut clip keep their frames: 800 samples are 11 frames, 400 are 6."""
    clips = faulty_clips(tmp_path / "sound")
    store = open_features(CFG, clips, tmp_path / "features")
    assert store.fnames == tuple(clips["fname"])
    unreadable = store.faults.pop("junk.wav")
    assert unreadable.startswith("unreadable: ")
    assert store.faults == {
        "empty.wav": "empty",
        "silent.wav": "silent",
        "nan.wav": "non-finite samples",
        "cut.wav": "truncated",
        "lost.wav": "missing",
    }
    assert store.length[:6].tolist() == [0, 11, 0, 6, 0, 0] and (store.length[6:] > 0).all()
    assert np.allclose(frames_of(store, 1).astype(np.float32), store.silence, atol=0.01)
    assert np.isfinite(store.frames).all() and np.isfinite(store.mean).all() and np.isfinite(store.mean_square).all()
    for row in range(6, 9):
        expected = LogMel.from_config(CFG)(soundfile.read(clips["path"][row], dtype="float32")[0])
        assert np.allclose(frames_of(store, row), expected, atol=0.01), "the sound ones are not shifted"


@pytest.mark.parametrize(("name", "how"), [("a.ogg", "VORBIS"), ("a.flac", "PCM_16"), ("a.aiff", "PCM_16")])
def test_a_cut_clip_is_named_and_keeps_its_frames_in_every_format(tmp_path, name, how):
    """Of 40,000 samples, two thirds of the file hold more than 20,000, which are 251 frames."""
    soundfile.write(tmp_path / name, noise(40_000, 1), 8_000, subtype=how)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[: (tmp_path / name).stat().st_size * 2 // 3])
    clips = pd.DataFrame({"fname": [name], "path": [str(tmp_path / name)]})
    store = open_features(CFG, clips, tmp_path / "features")
    assert store.faults == {name: "truncated"} and 251 < store.length[0] < 400


def test_another_speed_is_another_wave_with_the_same_faults(tmp_path):
    clips = write_clips(tmp_path, 2, samples=4000)
    (tmp_path / "junk.wav").write_bytes(b"RIFF")
    clips.loc[2] = ["junk.wav", str(tmp_path / "junk.wav")]
    plain = open_features(CFG, clips, tmp_path / "features")
    fast = dataclasses.replace(CFG, speed=1.25)
    store = open_features(fast, clips, tmp_path / "features")
    assert store.key != plain.key and store.faults == plain.faults and store.length[2] == 0
    assert store.frame_rate == plain.frame_rate and store.silence == plain.silence
    for row in (0, 1):
        wave = soundfile.read(clips["path"][row], dtype="float32")[0]
        expected = LogMel.from_config(CFG)(at_speed(wave, 1.25))
        assert store.length[row] == len(expected) == 1 + math.ceil(len(wave) / 1.25) // CFG.hop_length
        assert np.allclose(frames_of(store, row), expected, atol=0.01)


def test_speed_1_does_no_resampling(clips, tmp_path, monkeypatch):
    def never(ratio):
        raise AssertionError("resampled")

    monkeypatch.setattr(input.resample, "_resampler", never)
    open_features(CFG, clips, tmp_path / "features", workers=1)


def test_a_store_without_a_single_frame(tmp_path):
    clips = pd.DataFrame({"fname": ["a", "b"], "path": pd.Series([None, None], dtype=object)})
    store = open_features(CFG, clips, tmp_path)
    assert store.frames.shape == (0, 12) and store.length.tolist() == [0, 0]
    assert store.faults == {"a": "missing", "b": "missing"}


@pytest.mark.parametrize("kind", ["object", "str"])
def test_a_missing_path_may_be_none_or_nan(clips, tmp_path, kind):
    clips["path"] = clips["path"].where(clips.index != 4).astype(kind)
    assert open_features(CFG, clips, tmp_path / "features").faults == {clips["fname"][4]: "missing"}


# Made once, and again where something changed


def test_a_second_call_only_reads(clips, tmp_path, monkeypatch, capsys):
    first = open_features(CFG, clips, tmp_path / "features")
    assert "features: log-mel of 9 clips" in capsys.readouterr().out
    monkeypatch.setattr(input.audio, "read_wave", look)
    assert same(first, open_features(CFG, clips, tmp_path / "features"))
    assert capsys.readouterr().out == ""
    assert (tmp_path / "features" / first.key).is_dir()
    assert not list((tmp_path / "features").glob("*.partial"))


def test_the_key_follows_settings_and_files(clips, tmp_path):
    def key(cfg: FeatureConfig = CFG) -> str:
        return store_key(cfg, clips["fname"].tolist(), [None if pd.isna(p) else p for p in clips["path"]])

    keys = [key()]
    assert keys[0] == key() and len(keys[0]) == 12
    other = {"n_mels": 13, "hop_length": 81, "n_fft": 256, "f_min": 1.0, "f_max": 3_999.0, "log_floor": 1e-7}
    other |= {"trim_db": 60.0, "sample_rate": 16_000, "speed": 1.1, "mel_scale": "slaney"}
    other |= {"win_length": 64, "window": "povey", "framing": "kaldi", "pre_emphasis": 0.97}
    other |= {"clamp_floor": True, "top_db": 80.0, "int16_scale": True, "noise_reduction": 1.5}
    for name, value in other.items():
        keys.append(key(dataclasses.replace(CFG, **{name: value})))
    assert len(keys) == 1 + len(dataclasses.fields(FeatureConfig)), "no setting is left out"
    touched = Path(clips["path"][0])
    os.utime(touched, ns=(0, 1))
    keys.append(key())
    touched.write_bytes(touched.read_bytes() + b"\0")
    os.utime(touched, ns=(0, 1))
    keys.append(key())
    clips.loc[1, "fname"] = "other.wav"
    keys.append(key())
    clips.loc[2, "path"] = None
    keys.append(key())
    clips = clips.iloc[::-1]
    keys.append(key())
    clips = clips[1:]
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_settings_added_later_leave_the_key_of_a_store():
    """The keys of November 2026."""
    assert store_key(FeatureConfig(), [], []) == "ba110894c5d1"
    assert store_key(FeatureConfig(speed=1.1, trim_db=60.0), [], []) == "f43c6d121a42"


def test_the_key_does_not_depend_on_the_folder(clips, tmp_path):
    """A moved competition keeps its features."""
    shutil.copytree(tmp_path / "sound", tmp_path / "moved")  # with the times of the files
    moved = [path.replace("/sound/", "/moved/") for path in clips["path"]]
    fnames = clips["fname"].tolist()
    assert store_key(CFG, fnames, moved) == store_key(CFG, fnames, clips["path"].tolist())


def test_the_sound_hash_survives_a_copy_and_notices_another_size(clips, tmp_path):
    before = sound_hash(clips)
    first = clips.loc[0, "path"]
    os.utime(first, (1, 1))
    assert sound_hash(clips) == before
    with Path(first).open("ab") as file:
        file.write(b"\0")
    assert sound_hash(clips) != before
    assert sound_hash(clips.assign(path=None)) != before


def test_a_changed_file_gets_another_store(clips, tmp_path):
    first = open_features(CFG, clips, tmp_path / "features")
    soundfile.write(clips["path"][3], noise(999, 99), CFG.sample_rate, subtype="FLOAT")
    second = open_features(CFG, clips, tmp_path / "features")
    assert first.key != second.key and second.length[3] == 1 + 999 // 80
    assert np.array_equal(frames_of(first, 4), frames_of(second, 4))


def test_threads_and_processes_make_what_this_thread_makes(tmp_path, monkeypatch):
    clips, threads = write_clips(tmp_path / "sound", MANY), torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # more than each of ours has
    alone = open_features(CFG, clips, tmp_path / "alone", workers=1)
    with monkeypatch.context() as patch:
        patch.setattr("features.extraction.worker_processes", lambda *_: pytest.fail("a process"))
        assert same(alone, open_features(CFG, clips, tmp_path / "threads", workers=2))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    monkeypatch.setattr("features.extraction.FEW", 0)
    monkeypatch.setattr("features.extraction.ThreadPoolExecutor", lambda *_, **__: pytest.fail("a thread"))
    assert same(alone, open_features(CFG, clips, tmp_path / "pool", workers=2))
    assert len(alone.fnames) == MANY


def test_a_users_function_on_waves_runs_in_processes(monkeypatch):
    """It may not be made for several threads."""
    monkeypatch.setattr("features.extraction.worker_processes", lambda *_: interrupt())
    jobs = [(CFG, [], Path(f"part-{i}.npz"), "my_file:louder") for i in range(2)]
    with pytest.raises(Interrupted):
        list(_run(jobs, 2, 2))


def test_a_few_clips_are_shared_out_to_several_threads(tmp_path, monkeypatch):
    clips, seen, both = write_clips(tmp_path / "sound", 16), set(), threading.Barrier(2, timeout=30)
    real = input.audio.read_wave

    def read_wave(*args, **kwargs):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            both.wait()  # for the other one
        return real(*args, **kwargs)

    monkeypatch.setattr(input.audio, "read_wave", read_wave)
    open_features(CFG, clips, tmp_path / "features", workers=2)
    assert len(seen) == 2 and threading.get_ident() not in seen


def test_a_fault_in_one_thread_ends_the_others_at_their_next_clip(tmp_path, monkeypatch):
    clips, real, began, read = write_clips(tmp_path / "sound", 64), input.audio.read_wave, threading.Event(), []

    def read_wave(file, *args, **kwargs):
        if str(file) == clips["path"][0]:
            began.wait(30)  # until another thread works, which then waits for this one's fault
            raise Interrupted
        read.append(file)
        began.set()
        time.sleep(0.2)
        return real(file, *args, **kwargs)

    monkeypatch.setattr(input.audio, "read_wave", read_wave)
    with pytest.raises(Interrupted):
        open_features(CFG, clips, tmp_path / "features", workers=2)
    assert len(read) < 16


def test_extraction_takes_one_thread_of_numpys_blas_and_gives_the_others_back(clips, tmp_path, monkeypatch):
    def threads() -> list[int]:
        return [found["num_threads"] for found in threadpool_info() if "numpy" in found["filepath"]]

    def read_wave(*args, **kwargs):
        seen.extend(threads())
        return real(*args, **kwargs)

    real, seen = input.audio.read_wave, []
    monkeypatch.setattr(input.audio, "read_wave", read_wave)
    with threadpool_limits(2, user_api="blas"):
        open_features(CFG, clips, tmp_path / "features", workers=1)
        assert set(seen) == {1} and set(threads()) == {2}


# Interrupted


class Interrupted(BaseException):
    """As Ctrl-C, at a clip of the test's choice."""


def interrupt() -> None:
    raise Interrupted


def interrupt_at(monkeypatch, path: str) -> None:
    real = input.audio.read_wave

    def read_wave(file, *args, **kwargs):
        if str(file) == path:
            raise Interrupted
        return real(file, *args, **kwargs)

    monkeypatch.setattr(input.audio, "read_wave", read_wave)


def count_reads(monkeypatch) -> list[str]:
    seen: list[str] = []
    real = input.audio.read_wave

    def read_wave(file, *args, **kwargs):
        seen.append(str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(input.audio, "read_wave", read_wave)
    return seen


def interrupted(tmp_path: Path, monkeypatch) -> tuple[pd.DataFrame, Store]:
    """Clips whose extraction into `features` was interrupted at the last one, and their store, made elsewhere."""
    clips = write_clips(tmp_path / "sound", MANY)
    undisturbed = open_features(CFG, clips, tmp_path / "undisturbed", workers=1)
    with monkeypatch.context() as patch:
        interrupt_at(patch, clips["path"][MANY - 1])
        with pytest.raises(Interrupted):
            open_features(CFG, clips, tmp_path / "features", workers=1)
    return clips, undisturbed


def test_interrupted_it_continues(tmp_path, monkeypatch, capsys):
    clips, undisturbed = interrupted(tmp_path, monkeypatch)
    assert not (tmp_path / "features" / undisturbed.key).exists(), "what is not whole has not the name"
    capsys.readouterr()
    seen = count_reads(monkeypatch)
    resumed = open_features(CFG, clips, tmp_path / "features", workers=1)
    assert same(resumed, undisturbed)
    assert clips["path"][MANY - 1] in seen and clips["path"][0] not in seen and len(seen) < MANY / 2
    assert "done before" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["half", "nothing", "junk"])
def test_a_damaged_part_is_reported_and_made_again(tmp_path, monkeypatch, capsys, damage):
    """Every file of the unfinished folder is damaged, as by a full disk; no call takes it for features."""
    clips, undisturbed = interrupted(tmp_path, monkeypatch)
    (partial,) = (tmp_path / "features").glob("*.partial")
    parts = [file for file in partial.rglob("*") if file.is_file()]
    assert parts
    for part in parts:
        data = part.read_bytes()
        part.write_bytes({"half": data[: len(data) // 2], "nothing": b"", "junk": b"\x55" * len(data)}[damage])
    capsys.readouterr()
    store = open_features(CFG, clips, tmp_path / "features", workers=1)
    assert re.search(r"part-00000\.npz: damaged \(.+\): making it again", capsys.readouterr().err)
    assert same(store, undisturbed)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".f16", lambda data: data[:-2]),
        (".f16", lambda data: data + b"x"),
        (".f16", lambda data: flip(data, 99)),
        (".f16", None),
        (".npz", lambda data: flip(data, data.index(b"length.npy") + 200)),
        (".npz", lambda data: flip(data, data.index(b"stats.npy") + 200)),
    ],
)
def test_a_part_of_which_a_little_is_damaged_is_made_again(tmp_path, monkeypatch, capsys, suffix, damage):
    clips, undisturbed = interrupted(tmp_path, monkeypatch)
    (file, *_) = sorted((tmp_path / "features").glob(f"*.partial/*{suffix}"))
    if damage:
        file.write_bytes(damage(file.read_bytes()))
    else:
        file.unlink()
    capsys.readouterr()
    assert same(open_features(CFG, clips, tmp_path / "features", workers=1), undisturbed)
    assert re.search(rf"{file.stem}\.npz: damaged \(.+\): making it again", capsys.readouterr().err)


def test_a_part_of_other_clips_is_made_again(tmp_path, monkeypatch, capsys):
    """As an older version of the kit left it, which made larger parts: as many clips as this one's, and intact."""
    clips, undisturbed = interrupted(tmp_path, monkeypatch)
    first, second, *_ = sorted((tmp_path / "features").glob("*.partial/*.npz"))
    for suffix in (".npz", ".f16"):
        second.with_suffix(suffix).write_bytes(first.with_suffix(suffix).read_bytes())
    capsys.readouterr()
    assert same(open_features(CFG, clips, tmp_path / "features", workers=1), undisturbed)
    assert re.search(rf"{second.stem}\.npz: damaged \(it holds other clips\)", capsys.readouterr().err)


def test_two_processes_make_it_once(tmp_path):
    """The second waits for the first, and both read the same."""
    clips = write_clips(tmp_path / "sound", 40, samples=8_000)
    clips.to_csv(tmp_path / "clips.csv", index=False)
    code = (
        "import sys, pandas as pd; from pathlib import Path; from configs.schema import FeatureConfig\n"
        "from features.store import open_features\n"
        "folder = Path(sys.argv[1]); print('ready', flush=True); sys.stdin.readline()\n"
        f"store = open_features({CFG!r}, pd.read_csv(folder / 'clips.csv'), folder / 'features', workers=1)\n"
        "print(store.key, store.frames.shape, float(store.frames.astype('f8').sum()))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in both:  # at once
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0][-1] == said[1][-1]
    assert sum("log-mel of 40 clips" in line for lines in said for line in lines) == 1


# In several processes, of which some are stopped

EXTRACT = """
import sys
from pathlib import Path
import pandas as pd
from console.command_line import run_command
from configs.schema import FeatureConfig
from features.store import open_features

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    clips = pd.DataFrame({"fname": [f"{i}.flac" for i in range(2048)], "path": str(folder / "a.flac")})
    run_command(lambda: print(len(open_features(FeatureConfig(), clips, folder / "features", workers=2).fnames)))
"""


@pytest.fixture
def extraction(tmp_path):
    """A process that makes features for some time, and its two workers."""
    soundfile.write(tmp_path / "a.flac", noise(10 * 48_000, 0), 48_000)
    (tmp_path / "extract.py").write_text(EXTRACT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "extract.py"), str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    try:
        while len(workers := workers_of(process.pid)) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        yield process, workers
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = children.read_text().split() if children.exists() else []
    return [int(child) for child in found if b"popen_loky_posix" in command_of(int(child))]


def command_of(pid: int) -> bytes:
    """None for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_ctrl_c_is_one_line(extraction):
    process, _ = extraction
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too, as they are starting
    err = process.communicate()[1]
    assert (process.returncode, err) == (130, "interrupted: run the same command to continue\n")


def test_a_worker_that_is_killed_is_one_line(extraction):
    process, workers = extraction
    os.kill(workers[0], signal.SIGKILL)
    err = process.communicate()[1]
    assert process.returncode == 2 and len(err.splitlines()) == 1
    assert err.startswith("error: a process that makes features ended too early")
    assert "run the same command to continue" in err


def test_the_workers_of_a_killed_process_end(extraction):
    process, workers = extraction
    process.kill()
    for _ in range(3000):
        if not any(map(command_of, workers)):
            return
        time.sleep(0.02)
    raise AssertionError("they wait for ever")


def test_a_clip_that_cannot_be_read_for_a_moment_is_not_remembered(clips, tmp_path, monkeypatch):
    def read_wave(file, *args, **kwargs):
        if file == clips["path"][3]:
            raise OSError(5, "Input/output error", file)
        return real(file, *args, **kwargs)

    real = input.audio.read_wave
    with monkeypatch.context() as patch:
        patch.setattr(input.audio, "read_wave", read_wave)
        message = rf"{clips['fname'][3]}: Input/output error: make it readable, or .*skip_unreadable"
        with pytest.raises(UserError, match=message):
            open_features(CFG, clips, tmp_path / "features", workers=1)
    assert list((tmp_path / "features").glob("*.partial/*")) == []
    assert open_features(CFG, clips, tmp_path / "features", workers=1).faults == {}


# Corrupted


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "grow"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_corrupted_store_says_so(clips, tmp_path, which, damage):
    store = open_features(CFG, clips, tmp_path / "features")
    store = dataclasses.replace(store, frames=np.array(store.frames))  # no map of the file that is to be spoiled
    folder = tmp_path / "features" / store.key
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    assert len(files) == 3
    file = files[which]
    data = file.read_bytes()
    if damage == "remove":
        file.unlink()
    elif damage == "flip":
        at = len(data) // 2 if file.suffix != ".json" else data.index(b"crc32")
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    else:
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else data + b"x")
    with pytest.raises(UserError, match=rf"{store.key}: corrupted.*: delete this folder, then run the same command"):
        open_features(CFG, clips, tmp_path / "features")
    shutil.rmtree(folder)
    assert same(open_features(CFG, clips, tmp_path / "features"), store)


# Memory


def test_short_clips_share_a_task():
    clips = [(np.zeros((n, 1)), str(i)) for i, n in enumerate([1] * 9 + [STAGE_FRAMES + 1, 1, STAGE_FRAMES, 1, 1])]
    stages = list(_in_stages(iter(clips)))
    assert [len(stage) for stage in stages] == [8, 2, 2, 2]
    assert [fault for stage in stages for _, fault in stage] == [str(i) for i in range(len(clips))]


def peak_of(clips: pd.DataFrame, folder: Path) -> int:
    """Bytes that Python and numpy held at most, beyond what they held before."""
    cfg = dataclasses.replace(CFG, hop_length=4)  # many frames of little sound
    tracemalloc.start()
    open_features(cfg, clips, folder, workers=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_competition(tmp_path):
    """Six times the clips are 8 MB more frames, but not a higher peak."""
    clips = write_clips(tmp_path / "sound", 768, samples=2_000)
    open_features(CFG, clips[:1], tmp_path / "warm", workers=1)  # what is loaded once is not counted
    few, all_ = peak_of(clips[:128], tmp_path / "few"), peak_of(clips, tmp_path / "all")
    frames = max(file.stat().st_size for file in (tmp_path / "all").rglob("*"))
    assert frames > 9_000_000
    assert all_ - few < frames / 4


def test_the_frames_stay_on_disk(clips, tmp_path):
    assert isinstance(open_features(CFG, clips, tmp_path / "features").frames, np.memmap)
