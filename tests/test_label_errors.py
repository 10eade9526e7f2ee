"""Confident learning by hand and against cleanlab; the list that people get."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from blending.candidates import Candidates
from blending.label_errors import likely_errors, suspects
from configs.paths import Paths
from console.errors import UserError
from find_label_errors import list_label_errors, serve
from input.competition import Competition
from input.corrections import read_corrections
from tests.test_pipeline import HEAVY, imported, run

CLASSES = ("bark", "gong", "siren")
SEED = 3  # of the clips in which cleanlab found these
FOUND = [3, 14, 16, 35, 40, 42, 69, 74, 79, 81, 82, 85, 88, 93, 96, 98, 103, 117, 122]


def test_by_hand() -> None:
    """The bars are the means over the clips of a label: 0.55 for 0, 0.6 for 1, 0.5 for 2."""
    probs = np.array(
        [
            [0.9, 0.05, 0.05],
            [0.6, 0.3, 0.1],
            [0.15, 0.8, 0.05],  # given 0, above the bar of 1 alone: an error
            [0.1, 0.8, 0.1],
            [0.58, 0.4, 0.02],  # given 1, above the bar of 0: an error
            [0.3, 0.4, 0.3],  # given 2, likelier 1, but below every bar
            [0.15, 0.15, 0.7],
        ]
    )
    given = np.array([0, 0, 0, 1, 1, 2, 2])
    np.testing.assert_allclose([probs[given == k, k].mean() for k in range(3)], [0.55, 0.6, 0.5])
    assert np.flatnonzero(likely_errors(probs, given)).tolist() == [2, 4]


def test_of_several_confident_classes_the_likeliest_counts() -> None:
    probs = np.array(
        [
            [0.5, 0.25, 0.25],
            [0.4, 0.35, 0.25],  # above the bar of 1 alone, but what it is given is likelier
            [0.48, 0.5, 0.02],  # above those of 0, which it is given, and of 1, which is likelier: an error
            [0.3, 0.3, 0.4],  # above the bar of 1, which it is given; likelier 2, but not surely
            [0.1, 0.1, 0.8],
        ]
    )
    given = np.array([0, 0, 0, 1, 2])
    np.testing.assert_allclose([probs[given == k, k].mean() for k in range(3)], [0.46, 0.3, 0.8])
    assert likely_errors(probs, given).tolist() == [False, False, True, False, False]


def test_a_class_that_no_clip_is_given_is_no_suspicion() -> None:
    probs = np.array([[0.3, 0.0, 0.7], [0.0, 0.3, 0.7], [0.3, 0.0, 0.7]])
    assert not likely_errors(probs, np.array([0, 1, 0])).any()


def test_equal_to_what_cleanlab_found() -> None:
    """By cleanlab 2.9.0; the test below asks it anew, where it is installed."""
    assert np.flatnonzero(likely_errors(*noisy(SEED))).tolist() == FOUND


def test_equal_to_cleanlab() -> None:
    reason = "cleanlab is not installed: pip install -e '.[cleanlab]'"
    find_label_issues = pytest.importorskip("cleanlab.filter", reason=reason).find_label_issues
    for seed in range(20):
        probs, given = noisy(seed)
        theirs = find_label_issues(given, probs, filter_by="confident_learning", n_jobs=1)
        np.testing.assert_array_equal(likely_errors(probs, given), theirs)


def noisy(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a fair model, and labels of which a quarter is wrong."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(3, 12)), int(rng.integers(100, 400))
    true = rng.integers(0, k, n)
    given = np.where(rng.random(n) < 0.25, rng.integers(0, k, n), true)
    logits = rng.normal(0, 1, (n, k))
    logits[np.arange(n), true] += 3
    probs = np.exp(logits)
    return probs / probs.sum(axis=1, keepdims=True), given


@pytest.fixture
def candidates() -> Candidates:
    """Two models; a.wav and d.wav are given a label that both doubt, d more, and d is verified."""
    one = np.array([[0.3, 0.7, 0], [0, 0.8, 0.2], [0.1, 0, 0.9], [0.0, 0.1, 0.9], [0.9, 0, 0.1]])
    other = np.array([[0.1, 0.9, 0], [0, 0.8, 0.2], [0.1, 0, 0.9], [0.1, 0.0, 0.9], [0.9, 0, 0.1]])
    return Candidates(
        names=("one", "two"),
        ids=((), ()),
        classes=CLASSES,
        fnames=("a.wav", "b.wav", "c.wav", "d.wav", "e.wav"),
        truth=np.eye(3, dtype=bool)[[0, 1, 2, 0, 0]],
        verified=np.array([False, False, False, True, True]),
        fold=np.zeros(5, int),
        group=np.arange(5),
        oof=np.stack([one, other]).astype(np.float32),
        test_fnames=(),
        test=np.zeros((2, 0, 3)),
        test_faults={},
    )


def test_the_most_suspicious_comes_first(candidates: Candidates) -> None:
    names = ["e.wav", "a.wav", "d.wav", "c.wav", "b.wav"]  # another order than the candidates
    train = pd.DataFrame({"fname": names, "path": [f"sound/{name}" for name in names]})
    found = suspects(
        candidates, Competition(Path(), CLASSES, train, train, np.zeros((len(train), len(CLASSES)), np.float32))
    )
    assert found["fname"].tolist() == ["d.wav", "a.wav"]
    assert found["given"].tolist() == ["bark", "bark"] and found["suggested"].tolist() == ["siren", "gong"]
    np.testing.assert_allclose(found["p_given"], [0.05, 0.2], rtol=1e-6)
    np.testing.assert_allclose(found["p_suggested"], [0.9, 0.8], rtol=1e-6)
    assert found["verified"].tolist() == [True, False]
    assert found["path"].tolist() == ["sound/d.wav", "sound/a.wav"]
    alike = replace(candidates, truth=np.eye(3, dtype=bool)[candidates.oof.mean(0).argmax(1)])
    assert suspects(
        alike, Competition(Path(), CLASSES, train, train, np.zeros((len(train), len(CLASSES)), np.float32))
    ).empty


def test_the_list_of_finished_runs(blended: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "list.csv"
    found = list_label_errors(blended, [], out)
    said = capsys.readouterr().out
    assert f"{out}: {len(found)} of 56 labels are likely wrong by the mean of demo_resnetish, demo_vggish" in said
    assert "train_fold.py --fold 0..1 --input" in said and "input.corrections=FILE" in said
    table = pd.read_csv(out)
    assert list(table) == ["fname", "given", "suggested", "p_given", "p_suggested", "verified", "path"]
    assert table["fname"].tolist() == found["fname"].tolist() and len(table)
    given = pd.read_csv(blended.input / "train.csv").set_index("fname")
    assert not table["verified"].any() and (given["manually_verified"][table["fname"]] == 0).all()
    assert (given["label"][table["fname"]].to_numpy() == table["given"].to_numpy()).all()
    assert all(Path(path).is_file() for path in table["path"])
    doubt = (found["p_given"] - found["p_suggested"]).tolist()
    assert doubt == sorted(doubt) and max(doubt) < 0
    every = list_label_errors(blended, [], tmp_path / "all.csv", verified=True)
    assert every["verified"].any()
    assert f"{every['verified'].sum()} verified ones, which --verified lists" in said
    assert "--verified" not in capsys.readouterr().out
    assert [f.name for f in out.parent.iterdir()] == ["list.csv"]


def test_a_list_is_not_overwritten(blended: Paths, tmp_path: Path) -> None:
    out = tmp_path / "list.csv"
    out.write_text("fname,given,suggested,mine\n")
    with pytest.raises(UserError, match=r"list\.csv: exists: .*--force"):
        list_label_errors(blended, [], out)
    assert out.read_text() == "fname,given,suggested,mine\n"
    out.write_text("\ufefffname,given,suggested,mine\n")  # as Excel saves it
    list_label_errors(blended, [], out, force=True)
    assert out.read_text().startswith("fname,given")
    out.write_text("fname,label\nmy,corrections\n")
    with pytest.raises(UserError, match=r"list\.csv: exists and is no list of label errors"):
        list_label_errors(blended, [], out, force=True)
    with pytest.raises(UserError, match="is a folder: name a file with --out"):
        list_label_errors(blended, [], tmp_path, force=True)
    assert list(tmp_path.parent.glob("*.part")) == []


def test_where_every_label_is_verified_all_are_doubted(
    candidates: Candidates,
    blended: Paths,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it is where the table has no column manually_verified: an empty list would look like clean labels."""
    names = list(candidates.fnames)
    competition = Competition(
        Path(),
        CLASSES,
        pd.DataFrame({"fname": names, "path": names}),
        pd.DataFrame({"fname": []}),
        np.zeros((len(names), len(CLASSES)), np.float32),
    )
    every = replace(candidates, verified=np.ones(5, bool))
    monkeypatch.setattr("input.competition.load_competition", lambda *_, **__: competition)
    monkeypatch.setattr("blending.candidates.finished_runs", lambda *_: [])
    monkeypatch.setattr("runs.test_predictions.test_predictions", lambda *_: None)
    monkeypatch.setattr("blending.candidates.align", lambda *_: every)
    assert list_label_errors(blended, [], tmp_path / "list.csv")["fname"].tolist() == ["d.wav", "a.wav"]
    said = capsys.readouterr().out
    assert "every label counts as verified: all are checked" in said and "2 of 5 labels are likely wrong" in said
    monkeypatch.setattr("blending.candidates.align", lambda *_: replace(every, verified=~every.verified))
    assert len(list_label_errors(blended, [], tmp_path / "list.csv", force=True)) == 2
    assert "verified" not in capsys.readouterr().out


def test_of_several_labels_each_is_doubted_alone_and_the_list_says_how_to_correct_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, candidates: Candidates
) -> None:
    """a.wav lacks the label gong; c.wav has gong beside its own label, but nobody hears it."""
    truth = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 1, 0]], bool)
    probs = np.array([[0.9, 0.9, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.9], [0.1, 0.2, 0.8], [0.8, 0.9, 0.1]])
    names = list(candidates.fnames)
    several = replace(
        candidates, task="multi_label", truth=truth, oof=np.stack([probs] * 2).astype(np.float32), verified=~truth[:, 0]
    )
    train = pd.DataFrame({"fname": names, "path": names})
    competition = Competition(Path(), CLASSES, train, train[:0], truth.astype(np.float32), task="multi_label")
    monkeypatch.setattr("input.competition.load_competition", lambda *_, **__: competition)
    monkeypatch.setattr("blending.candidates.finished_runs", lambda *_: [])
    monkeypatch.setattr("runs.test_predictions.test_predictions", lambda *_: None)
    monkeypatch.setattr("blending.candidates.align", lambda *_: several)
    paths, out = Paths(tmp_path, tmp_path), tmp_path / "list.csv"
    list_label_errors(paths, [], out, verified=True)
    table = pd.read_csv(out, keep_default_na=False).set_index("fname")
    assert table.loc[["a.wav", "c.wav"], ["given", "suggested"]].values.tolist() == [["", "gong"], ["gong", ""]]
    assert len(table) == 2 and (table["p_given"] < table["p_suggested"]).all()
    said = " ".join(capsys.readouterr().out.split())
    assert "2 labels of 5 clips are likely wrong (given) or missing (suggested)" in said
    assert "in your file a clip has all its labels, joined by |; | alone: it has none" in said
    (tmp_path / "heard.csv").write_text("fname,label\na.wav,bark|gong\n")
    found = list_label_errors(paths, [], out, verified=True, corrections=tmp_path / "heard.csv", force=True)
    assert found["fname"].tolist() == ["c.wav"]


def test_what_was_corrected_is_not_listed_again(
    blended: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = list_label_errors(blended, [], tmp_path / "first.csv")
    heard = tmp_path / "corrections.csv"
    first.head(2)[["fname", "given"]].rename(columns={"given": "label"}).to_csv(heard, index=False)
    train = pd.read_csv(blended.input / "train.csv")
    assert len(read_corrections(heard, train, tuple(sorted(set(train["label"]))))) == 2
    second = list_label_errors(blended, [], tmp_path / "second.csv", corrections=heard)
    assert second["fname"].tolist() == first["fname"].tolist()[2:]
    assert "2 that are corrected already" in capsys.readouterr().out


def test_without_a_finished_run_it_says_what_to_do(blended: Paths, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"python train_fold\.py --fold 0\.\.4"):
        list_label_errors(Paths(blended.input, tmp_path / "work"), [], tmp_path / "list.csv")
    work = Path(shutil.copytree(blended.work, tmp_path / "work"))
    with pytest.raises(UserError, match="no experiment nobody"):
        list_label_errors(Paths(blended.input, work), ["nobody"], tmp_path / "list.csv")
    assert not (tmp_path / "list.csv").exists()


def test_help_answers_at_once_and_says_how_to_use_the_list() -> None:
    found = run("-X", "importtime", "find_label_errors.py", "--help")
    assert found.returncode == 0 and "input.corrections=FILE name=corrected" in found.stdout
    assert not imported(found.stderr, *HEAVY, "pandas", "numpy", "pydantic", "sklearn", "cleanlab")


@pytest.mark.parametrize("with_sound", [True, False])
def test_short_copies_for_a_served_page_go_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_sound: bool
) -> None:
    seen = list[Path | None]()

    class Server:
        address = "http://127.0.0.1:1"

        def serve_forever(self) -> None:
            assert not with_sound or (seen[0] and seen[0].is_dir())
            raise KeyboardInterrupt

    @contextmanager
    def page_server(data: Any, competition: Any, file: Path, port: int, copies: Path | None) -> Iterator[Server]:
        seen.append(copies)
        yield Server()

    monkeypatch.setattr("pages.repair.page_server", page_server)
    monkeypatch.setattr("pages.repair.repair_data", lambda *_: {"clips": []})
    candidates = SimpleNamespace(all_folds="0..1")
    found: Any = SimpleNamespace(listed=None, competition=None, candidates=candidates, runs=[], rest="")
    serve(Paths(tmp_path, tmp_path), found, tmp_path / "c.csv", 0, lambda address: None, with_sound)
    assert (seen[0] is not None) == with_sound and not (seen[0] and seen[0].exists())
