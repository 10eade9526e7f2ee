"""submit.py where the test clips are not those that the runs were trained beside."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

import runs.budget
import runs.forecast
import runs.predict
from configs.paths import Paths
from console.errors import UserError
from ensemble import blend
from runs.budget import Forecast
from runs.predictions import STORED, load_predictions
from runs.provenance import file_sha256
from runs.run_folder import Trained
from runs.test_predictions import _stored
from submission.submission_file import top_labels
from submit import submit


def test_clips_that_the_runs_have_not_seen_are_predicted_from_the_weights(
    blended: Paths, paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = pd.read_csv(paths.input / "sample_submission.csv")
    first = sample["fname"][0]
    shutil.copyfile(paths.input / "audio_test" / first, paths.input / "audio_test" / "new.wav")
    new = pd.DataFrame({"fname": ["new.wav"], "label": sample["label"][:1]})
    pd.concat([new, sample[2:]]).to_csv(paths.input / "sample_submission.csv", index=False)
    submit(paths, "default", tmp_path / "out.csv", None)
    old = pd.read_csv(blended.work / "submission.csv").set_index("fname")["label"]
    found = pd.read_csv(tmp_path / "out.csv")
    assert "predicting the test clips that are new or have changed, unless " in capsys.readouterr().out
    assert found["fname"].tolist() == ["new.wav", *sample["fname"][2:]]
    assert found["label"].tolist() == [old[first], *old[sample["fname"][2:]]]


def test_clips_that_sound_otherwise_now_are_predicted_again(
    blended: Paths, paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A repaired file: what the runs stored is the answer to the broken one."""
    old = pd.read_csv(blended.work / "submission.csv").set_index("fname")["label"]
    first, other = next((a, b) for a in old.index for b in old.index if old[a] != old[b])
    audio = paths.input / "audio_test"
    wave, rate = soundfile.read(audio / other, dtype="int16")
    soundfile.write(audio / first, wave, rate, subtype="PCM_24")  # of the same samples, but of another size
    submit(paths, "default", tmp_path / "out.csv", None)
    assert f"unless {paths.predictions} has them as their files are now: {first}\n" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "out.csv").set_index("fname")["label"]
    assert found[first] == old[other] and found.drop(first).equals(old.drop(first))


def test_without_all_test_sound_the_stored_answers_stand(
    blended: Paths, paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = next((paths.input / "audio_test").iterdir())
    gone.unlink()
    submit(paths, "default", tmp_path / "out.csv", None)
    assert (tmp_path / "out.csv").read_bytes() == (blended.work / "submission.csv").read_bytes()
    shutil.rmtree(paths.input / "audio_test")
    submit(paths, "default", tmp_path / "out.csv", None)
    assert (tmp_path / "out.csv").read_bytes() == (blended.work / "submission.csv").read_bytes()
    told = capsys.readouterr()
    assert "predicted" not in told.out


def test_what_was_predicted_is_found_again(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted, the same command goes on; the second run only reads; other sound is other work."""
    real, asked = runs.predict.predict_store, list[Path]()

    def predict_store(run: Trained, *args: Any) -> np.ndarray:
        if len(asked) == 3 and not (tmp_path / "out.csv").exists():
            asked.clear()
            raise KeyboardInterrupt
        asked.append(run.folder)
        return real(run, *args)

    monkeypatch.setattr(runs.predict, "predict_store", predict_store)
    n_runs = len(list(paths.runs.glob("*/fold?")))
    sound = next((paths.input / "audio_test").iterdir())
    spoil(sound)
    with pytest.raises(KeyboardInterrupt):
        submit(paths, "default", tmp_path / "out.csv", None)
    (tmp_path / "out.csv").write_text("fname,label\n")
    submit(paths, "default", tmp_path / "out.csv", None)
    assert len(asked) == n_runs - 3
    first = (tmp_path / "out.csv").read_bytes()
    submit(paths, "default", tmp_path / "out.csv", None)
    assert len(asked) == n_runs - 3 and (tmp_path / "out.csv").read_bytes() == first
    soundfile.write(sound, np.ones(900) / 3, 16_000, subtype="PCM_24")
    submit(paths, "default", tmp_path / "out.csv", None)
    assert len(asked) == 2 * n_runs - 3
    kept = sorted(paths.predictions.iterdir())
    assert len(kept) == 2 * n_runs and {file.suffix for file in kept} == {".npz"}
    for file in kept:
        file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"\.npz: cannot read the predictions: .*: delete this file"):
        submit(paths, "default", tmp_path / "out.csv", None)


def test_training_sound_is_not_needed_to_predict_again(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(paths.input / "audio_train")
    spoil(next((paths.input / "audio_test").iterdir()))
    submit(paths, "default", tmp_path / "out.csv", None)
    assert "predicting the test clips that are new or have changed" in capsys.readouterr().out


def test_what_force_predicts_is_said(paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submit(paths, "default", tmp_path / "out.csv", None, refresh=True)
    n = len(pd.read_csv(tmp_path / "out.csv"))
    said = f"demo_vggish: predicting all {n} test clips, unless {paths.predictions} has them"
    assert f"{said} as their files are now\n" in capsys.readouterr().out


@pytest.mark.parametrize("chosen", [False, True])
def test_other_clips_renew_the_answers_of_a_blend(paths: Paths, tmp_path: Path, chosen: bool) -> None:
    if not chosen:
        shutil.rmtree(paths.ensembles)
    submit(paths, "default", tmp_path / "out.csv", None)
    first = load_predictions(paths.ensemble("default") / "test.npz")
    repaired = first.fnames[0]
    spoil(paths.input / "audio_test" / repaired)
    submit(paths, "default", tmp_path / "out.csv", None)
    second = load_predictions(paths.ensemble("default") / "test.npz")
    changed = (first.probs != second.probs).any(axis=1)
    assert second.fnames == first.fnames and changed[0]
    assert not changed[1:].any() and [f.name for f in paths.ensembles.glob("[!.]*")] == ["default"]


def test_same_sized_files_are_predicted_again_by_force(paths: Paths, tmp_path: Path) -> None:
    sound = next((paths.input / "audio_test").iterdir())
    submit(paths, "default", tmp_path / "out.csv", None)
    before = load_predictions(paths.ensemble("default") / "test.npz")
    data = sound.read_bytes()
    sound.write_bytes(data[:44] + bytes(reversed(data[44:])))
    submit(paths, "default", tmp_path / "out.csv", None)
    assert np.array_equal(load_predictions(paths.ensemble("default") / "test.npz").probs, before.probs)
    submit(paths, "default", tmp_path / "out.csv", None, refresh=True)
    after = load_predictions(paths.ensemble("default") / "test.npz")
    other = np.abs(after.of(before.fnames, "") - before.probs).max(axis=1) > 1e-4
    assert [fname for fname, is_other in zip(before.fnames, other, strict=True) if is_other] == [sound.name]
    submit(paths, "default", tmp_path / "out.csv", None)
    blend(paths, [], "geometric", "default", force=True)
    assert np.array_equal(load_predictions(paths.ensemble("default") / "test.npz").probs, after.probs), "it stays so"


def test_clips_that_time_is_too_short_for_get_the_class_prior(
    blended: Paths,
    paths: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is stored stands; nothing of it is kept for a later submission, which predicts the clip."""
    sample = pd.read_csv(paths.input / "sample_submission.csv")
    first = sample["fname"][0]
    spoil(paths.input / "audio_test" / first)
    before = (paths.ensemble("default") / "test.npz").read_bytes()
    monkeypatch.setattr(runs.budget, "_experiments_that_fit", lambda *_: ("demo_resnetish", "demo_vggish"))
    submit(paths, "default", tmp_path / "out.csv", None, budget=1e-9)
    old = pd.read_csv(blended.work / "submission.csv").set_index("fname")["label"]
    found = pd.read_csv(tmp_path / "out.csv").set_index("fname")["label"]
    assert found[first] == old["empty.wav"] and found.drop(first).equals(old.drop(first))
    late = {"demo_resnetish": [first], "demo_vggish": [first]}
    assert json.loads((tmp_path / "out.report.json").read_text())["clips_not_reached"] == late
    assert f"demo_vggish: out of time: clips not reached, which get its class prior: {first}" in capsys.readouterr().err
    assert (paths.ensemble("default") / "test.npz").read_bytes() == before
    assert not list(paths.predictions.glob("*"))
    submit(paths, "default", tmp_path / "budget.csv", None, budget=3600)
    told = capsys.readouterr().out
    assert "forecast: demo_vggish: 2 folds of " in told and "budget:" not in told
    submit(paths, "default", tmp_path / "whole.csv", None)
    assert (tmp_path / "budget.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    report = json.loads((tmp_path / "whole.report.json").read_text())
    each = {"stored with the run": 29, "torch": 1}
    assert report["predicted_by"] == {name: {"fold0": each, "fold1": each} for name in sorted(late)}
    assert "folds_left_out" not in report
    submit(paths, "default", tmp_path / "kept.csv", None, budget=1e-9)  # what was predicted costs no time
    assert (tmp_path / "kept.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_budget_in_which_no_clip_is_predicted_replaces_nothing(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.csv").write_text("a good one")
    monkeypatch.setattr(runs.budget, "_experiments_that_fit", lambda *_: ("demo_resnetish", "demo_vggish"))
    monkeypatch.setattr("submission.submission_file.check_overwritable", lambda *_: None)
    with pytest.raises(UserError, match=r"--budget: no clip was predicted in this time, and nothing is written"):
        submit(paths, "default", tmp_path / "out.csv", None, refresh=True, budget=1e-9)
    assert (tmp_path / "out.csv").read_text() == "a good one"


def test_folds_that_take_too_long_do_not_predict(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a chosen blend too. What one fold answered is found again, and the others predict later."""
    names, real = ("demo_resnetish", "demo_vggish"), runs.forecast.forecast

    def forecast(*given: Any) -> Forecast:
        found = real(*given)
        return replace(found, fold={name: 10_000.0 * (n > 0) for name, n in found.folds.items()})

    monkeypatch.setattr(runs.forecast, "forecast", forecast)
    shutil.rmtree(paths.ensembles)
    submit(paths, "default", tmp_path / "out.csv", None, refresh=True, budget=25_000)
    told = capsys.readouterr().out
    assert told.count(": 1 of 2 folds left out, saves 2 h 47 min: the mean of 1 fold model remains") == 2
    answers = [load_predictions(paths.runs / name / "fold0" / "test.npz") for name in names]
    probs = np.mean([one.of(answers[0].fnames, "") for one in answers], axis=0)
    classes = tuple((paths.runs / names[0] / "fold0" / "classes.txt").read_text().split("\n")[:-1])
    assert pd.read_csv(tmp_path / "out.csv")["label"].tolist() == top_labels(probs, classes)
    assert len(list(paths.predictions.iterdir())) == 2 and not paths.ensembles.exists()
    kept = sorted(paths.predictions.iterdir())
    shutil.rmtree(paths.predictions)
    submit(paths, "default", tmp_path / "one.csv", None, refresh=True, budget=12_000)
    assert ": 2 of 2 folds left out, saves 5 h 33 min: its weight was 50% of the blend" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "one.csv")["label"].tolist() == top_labels(answers[0].probs, classes)
    report = json.loads((tmp_path / "one.report.json").read_text())
    assert "clips_not_reached" not in report
    assert report["folds_left_out"] == {names[0]: ["fold1"], names[1]: ["fold0", "fold1"]}
    assert report["predicted_by"] == {
        names[0]: {"fold0": {"torch": 30}, "fold1": {}},
        names[1]: {"fold0": {}, "fold1": {}},
    }
    assert [file for file in kept if file.exists()] == list(paths.predictions.iterdir())
    submit(paths, "default", tmp_path / "out.csv", None, refresh=True, budget=25_000)
    capsys.readouterr()
    submit(paths, "default", tmp_path / "out.csv", None, refresh=True, budget=25_000)
    assert "left out" not in capsys.readouterr().out and len(list(paths.predictions.iterdir())) == 4


def test_the_ensembler_predicts_new_clips_too(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    first = next((paths.input / "audio_test").iterdir())
    shutil.copyfile(first, paths.input / "audio_test" / "new.wav")
    sample = paths.input / "sample_submission.csv"
    sample.write_text(f"{sample.read_text()}new.wav,{sample.read_text().split(',')[-1].strip()}\n")
    found = blend(paths, [], "geometric", "default", force=False).test
    assert f"unless {paths.predictions} has them as their files are now: new.wav\n" in capsys.readouterr().out
    assert np.allclose(found.of(["new.wav"], ""), found.of([first.name], ""), atol=1e-5)
    capsys.readouterr()
    spoil(paths.input / "audio_test" / "new.wav")
    again = blend(paths, [], "geometric", "default", force=False).test
    assert "found, made from these predictions" in capsys.readouterr().out
    assert not np.allclose(again.of(["new.wav"], ""), found.of(["new.wav"], ""), atol=1e-3)
    assert np.array_equal(load_predictions(paths.ensemble("default") / "test.npz").probs, again.probs)


def test_what_would_be_refused_is_refused_before_clips_are_predicted(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(next((paths.input / "audio_test").iterdir()))
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(UserError, match=r"mine\.csv: exists and is not a submission"):
        submit(paths, "default", tmp_path / "mine.csv", None)
    manifest = next(paths.runs.glob("*/fold0")) / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(UserError, match=r"default: its runs or their labels changed since: python ensemble\.py"):
        submit(paths, "default", tmp_path / "out.csv", None)
    assert "predicted" not in capsys.readouterr().out


def spoil(sound: Path) -> None:
    """Another sound of another size."""
    soundfile.write(sound, np.random.default_rng(0).normal(size=5_000) / 5, 16_000, subtype="PCM_24")


@pytest.mark.parametrize("skip", [False, True])
def test_a_missing_test_file_stops_unless_the_runs_were_to_skip_it(
    paths: Paths, skip: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = paths.input / "sample_submission.csv"
    header, _, *rest = sample.read_text().splitlines()
    sample.write_text("\n".join([header, f"gone.wav,{rest[0].split(',')[1]}", *rest]) + "\n")
    shutil.rmtree(paths.ensembles)  # its runs are about to change
    for folder in paths.runs.glob("*/fold?"):
        allow_missing(folder, skip)
    output = paths.work / "new.csv"
    if skip:
        submit(paths, "default", output, None)
        assert "gone.wav (missing)" in capsys.readouterr().err
        assert json.loads((paths.work / "new.report.json").read_text())["clips_with_a_fault"]["gone.wav"] == "missing"
    else:
        with pytest.raises(UserError, match=r"test files are missing: gone\.wav: complete"):
            submit(paths, "default", output, None)
        assert not output.exists()


def test_a_scored_clip_that_is_not_submitted_stops_before_anything_is_written(paths: Paths, tmp_path: Path) -> None:
    shutil.rmtree(paths.ensembles)
    truth = paths.input / "test_labels.csv"
    label = pd.read_csv(paths.input / "train.csv")["label"][0]
    truth.write_text(f"{truth.read_text()}gone.wav,{label},Public\n")
    with pytest.raises(UserError, match=r"test_labels\.csv: scored clips that the submission would lack: gone\.wav"):
        submit(paths, "default", tmp_path / "out.csv", truth)
    assert not (tmp_path / "out.csv").exists() and not paths.ensembles.exists()


def allow_missing(run: Path, skip: bool) -> None:
    """As if it had been trained with that input.skip_unreadable."""
    config, manifest = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "manifest"))
    config["input"]["skip_unreadable"] = skip
    (run / "config.json").write_text(json.dumps(config))
    manifest["files"]["config.json"] = file_sha256(run / "config.json")
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_the_competitions_own_tables_are_not_overwritten(paths: Paths) -> None:
    """A sample of three labels a clip looks like a submission, whatever its file is called."""
    sample = (paths.input / "sample_submission.csv").rename(paths.input / "sample.csv")
    (paths.input / "competition.yaml").write_text("sample_submission: sample.csv\nmetric: map@3\n")
    before = sample.read_bytes()
    with pytest.raises(UserError, match=r"sample\.csv: is the competition's own: give another name with --output"):
        submit(paths, "default", sample, None)
    assert sample.read_bytes() == before


def test_a_clip_that_is_predicted_again_does_not_count_as_stored() -> None:
    run: Any = SimpleNamespace(test=SimpleNamespace(fnames=("a", "b", "c")))
    assert _stored(run, ["a", "b", "d"], ["b", "d"]) == {STORED: 1} and _stored(run, ["a"], ["a"]) == {}
