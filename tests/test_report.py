"""report.py: experiments side by side, what a page knows of a clip, its pictures and sound."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import soundfile

import ensemble as ensemble_verb
from blending.candidates import Candidates
from blending.ensemble_folder import load_ensemble
from configs.paths import Paths
from configs.schema import Config
from console.errors import UserError
from ensemble import blend, candidates_of
from metrics.metric import find_metric
from pages import again, sound
from pages.clips import clip_rows, most_telling
from pages.experiments import compare_experiments, curves, parameters, read_experiments
from report import report
from runs.run_folder import read_run
from submit import choose_blend
from tests.test_pipeline import HEAVY, imported, run

CLASSES = ("bark", "gong", "siren")


@pytest.fixture
def own(blended: Paths, tmp_path: Path) -> Paths:
    shutil.copytree(blended.work, tmp_path / "work")
    return Paths(blended.input, tmp_path / "work")


def data_of(page: Path) -> dict[str, Any]:
    """The JSON inside, as a browser finds it."""
    found = list[str]()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if ("id", "data") in attrs:
                found.append("")

        def handle_data(self, text: str) -> None:
            if found == [""]:
                found[0] = text

    Reader().feed(page.read_text())
    return dict(json.loads(found[0]))


def test_experiments_without_a_blend(own: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """Mean and standard error of the two folds, by hand; the better one first; the settings that differ."""
    shutil.rmtree(own.ensembles)
    page = report(own, [], "default")
    assert page == own.work / "report.html"
    rows = {row["name"]: row for row in data_of(page)["experiments"]}
    assert [*rows] == sorted(rows, key=lambda name: -rows[name]["score"]) and len(rows) == 2
    said = capsys.readouterr().out
    for name, row in rows.items():
        folds = [json.loads((own.run(name, k) / "scores.json").read_text())["map3"] for k in (0, 1)]
        assert row["score"] == pytest.approx(sum(folds) / 2, abs=6e-5)
        assert row["error"] == pytest.approx(abs(folds[0] - folds[1]) / 2, abs=6e-5)
        assert row["folds"] == "2 of 2" and row["metric"] == "MAP@3"
        assert row["seconds"] == sum(read_run(own.run(name, k)).manifest.seconds for k in (0, 1))
        assert f"{row['score']:.4f}" in said and f"{row['parameters']:,}" in said
    assert "model.name: vggish" in rows["demo_vggish"]["differs"]
    assert not any("width" in one for row in rows.values() for one in row["differs"]), "they share it"
    assert [one["epoch"] for one in data_of(page)["curves"]] == [[1]] * 4


def test_a_fold_alone_and_a_damaged_one(own: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(own.run("demo_vggish", 1))
    (own.run("demo_resnetish", 0) / "scores.json").write_text("{}")
    (row,) = compare_experiments(read_experiments(own.runs))
    assert (row["name"], row["folds"], row["error"]) == ("demo_vggish", "1 of 2", None)
    assert "left out:" in capsys.readouterr().err


def test_other_folds_are_named(blended: Paths) -> None:
    found = read_experiments(blended.runs)
    last = found["demo_vggish"]
    found["other"] = [replace(run, manifest=replace(run.manifest, fold_hash="other")) for run in last]
    rows = {row["name"]: row["differs"] for row in compare_experiments(found)}
    assert [name for name, differs in rows.items() if "other clips, labels or folds than most" in differs] == ["other"]


def test_a_run_without_epochs_has_no_curve(own: Paths) -> None:
    found = read_experiments(own.runs)
    (own.run("demo_vggish", 0) / "metrics.csv").write_text("C,score\n0.1,0.5\n")
    drawn = [(one["experiment"], one["fold"]) for one in curves(list(found.values()))]
    assert drawn == [("demo_resnetish", 0), ("demo_resnetish", 1), ("demo_vggish", 1)]


def test_a_loss_is_better_where_it_is_lower(blended: Paths) -> None:
    found = {}
    for name, value in (("high", 2.0), ("low", 1.0)):
        (one, *_) = read_experiments(blended.runs)["demo_vggish"]
        manifest = replace(one.manifest, metric="log_loss")
        key = find_metric("log_loss", "single_label").key
        found[name] = [replace(one, manifest=manifest, scores={key: value}, config=Config())]
    assert [row["name"] for row in compare_experiments(found)] == ["low", "high"]


def test_parameters_are_what_is_learned(blended: Paths) -> None:
    """As torch counts them in the network itself."""
    from models.tagger import load_tagger

    folder = blended.run("demo_resnetish", 0)
    tagger = load_tagger(read_run(folder).config, folder / "model.safetensors")
    learned = sum(one.numel() for one in tagger.parameters())
    assert parameters(folder / "model.safetensors") == learned
    assert parameters(folder / "none") is None


@pytest.mark.parametrize(
    ("runs", "ensemble", "fact"),
    [
        (["nobody"], "default", "no finished fold of nobody: there are demo_resnetish, demo_vggish"),
        ([], "two", "no such blend"),
    ],
)
def test_what_is_not_there_is_named(own: Paths, runs: list[str], ensemble: str, fact: str) -> None:
    with pytest.raises(UserError, match=fact):
        report(own, runs, ensemble)


def test_nothing_finished_and_a_blend_of_other_runs(own: Paths) -> None:
    shutil.rmtree(own.run("demo_vggish", 0))
    shutil.copytree(own.run("demo_resnetish", 0), own.run("demo_vggish", 0))
    before = (own.ensemble("default") / "report.html").read_bytes()
    with pytest.raises(UserError):
        report(own, [], "default")
    assert (own.ensemble("default") / "report.html").read_bytes() == before
    shutil.rmtree(own.run("demo_vggish", 0).parent)
    with pytest.raises(UserError, match=r"made from predictions that are not in .*demo_vggish"):
        report(own, [], "default")
    shutil.rmtree(own.work)
    with pytest.raises(UserError, match=r"no finished fold: python train_fold\.py"):
        report(own, [], "default")


def test_a_report_with_sound_and_some_pictures(own: Paths) -> None:
    page = report(own, [], "default", pictures=7, with_sound=True)
    clips = data_of(page)["clips"]
    shown = [clip for clip in clips if "picture" in clip]
    assert len(clips) == 56 and len(shown) == 7
    for clip in clips:
        file = (page.parent / clip["sound"]).resolve()
        assert file.is_file() and (file.parent == page.parent / "sound") == (clip in shown)
    assert all(soundfile.info(page.parent / clip["sound"]).format == "OGG" for clip in shown)
    assert shown and {clip["name"] for clip in shown if clip["doubt"] >= 0}
    report(own, [], "default", pictures=2, with_sound=True)
    assert len(list((page.parent / "sound").iterdir())) == 2, "older copies go"


def test_a_report_in_one_file(own: Paths) -> None:
    page = report(own, [], "default", pictures=2, one_file=True)
    shown = [clip["sound"] for clip in data_of(page)["clips"] if "picture" in clip]
    for one in shown:
        ogg = base64.b64decode(one.removeprefix("data:audio/ogg;base64,"))
        assert soundfile.info(io.BytesIO(ogg)).format == "OGG"
    assert len(shown) == 2 and not (page.parent / "sound").exists()
    assert "have a picture and a short copy of their sound" in " ".join(data_of(page)["facts"])


def fewer_test_clips(candidates: Candidates) -> Candidates:
    return replace(candidates, test_fnames=candidates.test_fnames[1:], test=candidates.test[:, 1:])


@pytest.mark.parametrize("verb", ["ensemble", "submit"])
def test_other_test_clips_leave_the_whole_report(own: Paths, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """What to expect is of the test clips as they are now; the rest and the copies of sound stay."""
    page = report(own, [], "default", pictures=2, with_sound=True)
    before = data_of(page)
    given = fewer_test_clips(candidates_of(own, []))
    if verb == "ensemble":
        monkeypatch.setattr(ensemble_verb, "candidates_of", lambda *_: given)
        blend(own, [], "geometric", "default", force=False)
    else:
        choose_blend(own.ensemble("default"), load_ensemble(own.ensemble("default")), given, None)
    after = data_of(page)
    n = len(given.test_fnames)
    assert before["expected"].startswith(f"If the {n + 1} test clips are like the 21 clips")
    assert after.pop("expected").startswith(f"If the {n} test clips are like the 21 clips")
    before.pop("expected")
    assert after == before and len(list((page.parent / "sound").iterdir())) == 2


def test_another_blend_says_how_to_make_the_whole_report(own: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    for whole in (False, True):
        if whole:
            report(own, [], "default", pictures=1)
        blend(own, [], "geometric", "default", force=True)
        again_line = f"python report.py{own.options} makes the whole one again"
        assert (again_line in capsys.readouterr().out) == whole


def test_other_test_clips_leave_the_short_report_short(own: Paths) -> None:
    folder = own.ensemble("default")
    assert "test clips" in (folder / "report.html").read_text()
    given = fewer_test_clips(candidates_of(own, []))
    choose_blend(folder, load_ensemble(folder), given, None)
    assert f"{len(given.test_fnames)} test clips" in (folder / "report.html").read_text()
    assert again.data_of(folder / "report.html") is None and not (folder / "sound").exists()


def test_what_to_expect_of_one_clip(own: Paths) -> None:
    found = load_ensemble(own.ensemble("default"))
    compared = replace(found.comparison, rows=1, expected=replace(found.comparison.expected, clips=1))
    text = again.expectation(replace(found, comparison=compared), "MAP@3")
    assert text.startswith("If the 1 test clip is like the 1 clip that decides")


def test_several_labels(blended_labels: Paths, tmp_path: Path) -> None:
    shutil.copytree(blended_labels.work, tmp_path / "work")
    page = report(replace(blended_labels, work=tmp_path / "work"), [], "default", pictures=1)
    data = data_of(page)
    assert data["confusion"] is None and data["task"] == "multi_label"
    assert any(len(clip["truth"]) > 1 for clip in data["clips"])
    assert [len(row) for row in data["alike"]] == [1]


@pytest.fixture
def candidates() -> Iterator[Candidates]:
    one = np.array([[0.3, 0.7, 0.0], [0.0, 0.8, 0.2], [0.1, 0.0, 0.9], [0.0, 0.1, 0.9]])
    other = np.array([[0.1, 0.9, 0.0], [0.6, 0.2, 0.2], [0.1, 0.0, 0.9], [0.1, 0.0, 0.9]])
    yield Candidates(
        names=("one", "two"),
        ids=((), ()),
        classes=CLASSES,
        fnames=("a.wav", "b.wav", "c.wav", "d.wav"),
        truth=np.eye(3, dtype=bool)[[0, 1, 2, 0]],
        verified=np.array([False, False, True, False]),
        fold=np.zeros(4, int),
        group=np.arange(4),
        oof=np.stack([one, other]).astype(np.float32),
        test_fnames=(),
        test=np.zeros((2, 0, 3)),
        test_faults={},
    )


def test_what_a_page_knows_of_a_clip(candidates: Candidates) -> None:
    found = pd.DataFrame({"fname": ["d.wav", "a.wav"], "given": "bark", "suggested": ["siren", "gong"]})
    clips = clip_rows(candidates, candidates.oof.mean(axis=0), found)
    assert clips[0] == {
        "name": "a.wav",
        "truth": [0],
        "verified": False,
        "first": [[1, 0.8], [0, 0.2], [2, 0.0]],
        "models": [[1, 0.7], [1, 0.9]],
        "wrong": 0.8,  # gong has 0.8 and should have 0, bark 0.2 and should have 1
        "differ": 0.2,
        "doubt": 1,
        "proposed": [1],
    }
    assert [clip["differ"] for clip in clips] == [0.2, 0.6, 0.0, 0.1]
    assert [clip["doubt"] for clip in clips] == [1, -1, -1, 0]
    assert [clip["verified"] for clip in clips] == [False, False, True, False]
    # by turns: the likeliest error d, the worst d, the most disputed b; then a, a, a
    assert most_telling(clips, 2) == [3, 1] and most_telling(clips, 9) == [3, 1, 0, 2]


def test_what_is_missing_and_what_is_wrong_of_several_labels(candidates: Candidates) -> None:
    """Two rows of one clip: bark is wrong, gong is missing."""
    found = pd.DataFrame(
        {"fname": ["d.wav", "a.wav", "d.wav"], "given": ["bark", "", ""], "suggested": ["", "gong", "gong"]}
    )
    clips = clip_rows(replace(candidates, task="multi_label"), candidates.oof[0], found)
    assert clips[3]["proposed"] == [1] and clips[0]["proposed"] == [0, 1]
    assert clips[3]["doubt"] == 0 and clips[0]["doubt"] == 1


def test_addresses_are_relative_and_quoted(tmp_path: Path) -> None:
    page = tmp_path / "work" / "page.html"
    assert sound.address(str(tmp_path / "in" / "a b#c?%41é.wav"), page) == "../in/a%20b%23c%3F%2541%C3%A9.wav"
    assert sound.address(None, page) == ""


def test_copies_are_short_and_of_what_can_be_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.wav", rng.normal(0, 0.1, (8000 * 12, 2)), 8000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    found = sound.copies([str(tmp_path / "long.wav"), str(tmp_path / "broken.wav"), None], tmp_path / "sound")
    assert found == [str(tmp_path / "sound" / "0.ogg"), None, None]
    info = soundfile.info(found[0])
    assert (info.channels, info.samplerate, info.duration) == (1, 24_000, 10.0)


def test_a_picture_has_high_sound_above_and_time_to_the_right() -> None:
    """Silence but for the highest band in the first half."""
    frames = np.full((400, 64), -10, np.float32)
    frames[:200, -1] = 5
    address = sound._picture(frames)
    image = matplotlib.image.imread(io.BytesIO(base64.b64decode(address.partition(",")[2])), format="png")[..., :3]
    bright = image.sum(axis=2) > 1.5
    assert image.shape == (64, 160, 3) and bright[0, :80].all() and bright.sum() == 80


def test_help_answers_at_once() -> None:
    for verb in ("report.py", "find_label_errors.py"):
        found = run("-X", "importtime", verb, "--help")
        assert found.returncode == 0 and f"python {verb}" in found.stdout
        assert not imported(found.stderr, *HEAVY, "pandas", "numpy", "matplotlib", "jinja2", "http.server")


def test_options_that_do_not_fit_are_refused() -> None:
    assert "--pictures -1" in run("report.py", "--pictures", "-1").stderr
    assert "leave them out" in run("find_label_errors.py", "--open", "--force").stderr
    assert "add --open or --serve" in run("find_label_errors.py", "--with-sound").stderr
    assert "a port is" in run("find_label_errors.py", "--serve", "70000").stderr
