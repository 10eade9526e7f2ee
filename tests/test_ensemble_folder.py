"""From candidates to a folder and back: made, judged, written, found again, refused; and the real predictions."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blending.apply import apply_blend, read_blend, softmax
from blending.candidates import Candidates
from blending.ensemble_folder import (
    load_ensemble,
    make_ensemble,
    same_options,
    same_runs,
    save_ensemble,
    with_current_test,
)
from blending.external_predictions import candidates_from_predictions
from blending.report import CAPTIONS, most_confused, write_report
from configs.paths import Paths
from console.errors import UserError
from ensemble import blend, show
from submit import submit

REAL = Path("../shared/data/fsdkaggle2018-predictions")


def made(clips: int = 160, verified: float = 1.0) -> Candidates:
    """Three models of falling skill on four classes."""
    rng = np.random.default_rng(0)
    truth = np.arange(clips) % 4
    skill = np.array([1.5, 1.0, 0.2])[:, None, None]
    oof = np.stack([softmax(z) for z in rng.normal(size=(3, clips, 4)) + skill * np.eye(4)[truth]])
    test = np.stack([softmax(z) for z in rng.normal(size=(3, 10, 4))])
    fnames, test_fnames = (tuple(f"{kind}{i}.wav" for i in range(n)) for kind, n in (("a", clips), ("t", 10)))
    fold, flags = (np.arange(clips) // 4) % 4, rng.random(clips) < verified
    ids = (("1",), ("2",), ("3",))
    return Candidates(
        names=("x", "y", "z"),
        ids=ids,
        classes=("ant", "bat", "cat", "dog"),
        fnames=fnames,
        truth=np.eye(4, dtype=bool)[truth],
        verified=flags,
        fold=fold,
        group=np.arange(clips),
        oof=oof.astype(np.float32),
        test_fnames=test_fnames,
        test=test.astype(np.float32),
        test_faults={},
    )


def test_weights_json_alone_makes_the_test_rows(tmp_path: Path) -> None:
    c = made()
    save_ensemble(make_ensemble(c, "log_linear"), tmp_path / "e")
    about = json.loads((tmp_path / "e" / "weights.json").read_text())
    blend = read_blend(tmp_path / "e" / "weights.json", "")
    probs = apply_blend(blend, dict(zip(c.names, c.test, strict=True)))
    found = load_ensemble(tmp_path / "e")
    assert np.allclose(found.test.probs, probs, atol=1e-7)
    assert about["models"]["x"]["ids"] == ["1"]
    assert about["classes"] == list(c.classes)
    assert len((tmp_path / "e" / "weights.json").read_text().splitlines()) < 20


def test_other_runs_or_other_wishes_are_seen() -> None:
    c = made()
    e = make_ensemble(c, "arithmetic")
    assert same_runs(e, c)
    assert not same_runs(e, replace(c, ids=(("1",), ("2",), ("4",))))
    assert not same_runs(e, replace(c, truth=c.truth[::-1]))
    assert not same_runs(e, replace(c, verified=~c.verified))
    assert same_options(e, "arithmetic", "verified", None)
    assert not same_options(e, "auto", "verified", None)
    assert not same_options(e, "arithmetic", "all", None)
    assert not same_options(make_ensemble(c, "arithmetic", by_default=True), "arithmetic", "verified", None)


def test_unverified_rows_neither_fit_nor_judge_unless_asked() -> None:
    c = made(verified=0.6)
    wrong = replace(c, truth=np.where(c.verified[:, None], c.truth, np.roll(c.truth, 1, axis=1)))
    clean, noisy = make_ensemble(c, "log_linear"), make_ensemble(wrong, "log_linear")
    assert noisy.blend.models == clean.blend.models
    assert noisy.comparison.methods["log_linear"].score == clean.comparison.methods["log_linear"].score
    assert noisy.comparison.rows == c.verified.sum()
    assert make_ensemble(wrong, "log_linear", unverified_weight=1.0).blend.models != clean.blend.models
    asked_all = make_ensemble(wrong, "log_linear", decide="all")
    assert asked_all.comparison.rows == len(c.truth)
    assert asked_all.comparison.methods["log_linear"].score < 0.9 * clean.scores["blend"]["map3_verified"]


def test_no_verified_row_means_that_all_decide() -> None:
    c = made(verified=0.0)
    assert make_ensemble(c, "arithmetic").comparison.decide == "all"


def test_too_few_rows_that_decide_are_refused() -> None:
    c = replace(made(), verified=np.arange(160) == 3)
    with pytest.raises(UserError, match="--decide all"):
        make_ensemble(c, "log_linear")


def test_a_model_called_blend_is_refused() -> None:
    with pytest.raises(UserError, match=r"cannot be called 'blend'.* rename its"):
        make_ensemble(replace(made(), names=("x", "blend", "z")), "arithmetic")


def test_auto_compares_all_and_writes_a_whole_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("blending.fit.TRIALS", 10)
    c = made(clips=80, verified=0.8)
    e = make_ensemble(c, "auto")
    assert set(e.comparison.methods) > {"single", "greedy", "stack", "auto"}
    assert e.blend.asked == "auto"
    assert e.blend.method == e.comparison.chosen
    low, high = e.comparison.expected.interval
    assert low < e.comparison.expected.score < high
    show(e)
    assert "too high" not in capsys.readouterr().out
    show(e, selected_on_oof=["x", "z"])
    lines = capsys.readouterr().out.splitlines()
    *_, by_weight, _, expected, too_high = lines
    assert max(map(len, lines[:-1])) <= 80, "tables fit a terminal"
    assert by_weight.startswith("log_linear, by the weight of unverified rows") and "nested" not in by_weight
    assert expected.startswith("expected on 10 test clips") and too_high.startswith(
        "a little too high because of x, z: their epochs"
    )
    save_ensemble(e, tmp_path / "e", lambda folder: write_report(folder, e, c))
    html = (tmp_path / "e" / "report.html").read_text()
    assert html.count('src="data:image/png;base64,') == len(CAPTIONS)
    assert "http" not in html
    chosen, methods = e.comparison.chosen, e.comparison.methods
    assert html.count('<tr class="chosen">') == 1 and f'<tr class="chosen"><td>{chosen}</td>' in html
    one, (low, high) = methods["stack"], methods["stack"].to_single.interval
    assert f"<td>{one.to_single.difference:+.4f} ({low:+.4f} to {high:+.4f})</td>" in html
    tried = e.comparison.unverified_weight
    assert html.count("<tr") == 2 + len(methods) + len(tried)
    assert all(f"<td>{weight}</td><td>{score:.4f}</td>" in html for weight, score in tried.items())


def test_the_bar_counts_every_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit to all rows and one per fold (4), of the method and of the two that it is compared to."""
    seen = list[int]()

    @contextmanager
    def progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        seen.append(total)
        yield lambda n: seen.append(-n)

    monkeypatch.setattr("blending.compare_methods.progress", progress)
    make_ensemble(made(), "geometric")
    assert seen[0] == 15 and sum(seen) == 0


def test_a_blend_of_an_older_version_is_read(tmp_path: Path) -> None:
    save_ensemble(make_ensemble(made(), "arithmetic"), tmp_path / "e")
    for name, gone in (("weights", ("asked", "decide", "truth")), ("comparison", ("greedy_path", "unverified_weight"))):
        values = json.loads((tmp_path / f"e/{name}.json").read_text())
        (tmp_path / f"e/{name}.json").write_text(json.dumps({k: v for k, v in values.items() if k not in gone}))
    found = load_ensemble(tmp_path / "e")
    assert found.blend.asked is None and not same_options(found, "arithmetic", "verified", None)
    show(found)


def test_the_report_escapes_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blending.report.CAPTIONS", {"scores": "A & B <c>"})
    e = make_ensemble(made(clips=80), "arithmetic")
    save_ensemble(e, tmp_path / "e", lambda folder: write_report(folder, e, made(clips=80)))
    html = (tmp_path / "e" / "report.html").read_text()
    assert "<h2>A &amp; B &lt;c&gt;</h2>" in html and "<c>" not in html
    assert all((tmp_path / "e" / f"{name}.png").stat().st_size > 1000 for name in CAPTIONS)


def test_a_blend_is_there_while_the_next_one_is_made_and_two_may_be_made_at_once(tmp_path: Path) -> None:
    e, other = make_ensemble(made(), "arithmetic"), make_ensemble(made(), "geometric")
    save_ensemble(e, tmp_path / "e")

    def meanwhile(partial: Path) -> None:
        assert load_ensemble(tmp_path / "e").blend == e.blend
        save_ensemble(other, tmp_path / "e", lambda folder: (folder / "report.html").touch())
        assert load_ensemble(tmp_path / "e").blend == other.blend
        assert (partial / "weights.json").exists()

    save_ensemble(e, tmp_path / "e", meanwhile)
    assert load_ensemble(tmp_path / "e").blend == e.blend
    assert [f.name for f in tmp_path.iterdir() if not f.name.endswith(".lock")] == ["e"]


def test_new_answers_do_not_go_into_another_blend(tmp_path: Path) -> None:
    """submit.py renews the test clips of the blend that it has read; ensemble.py has put another one there."""
    e, other = make_ensemble(made(), "arithmetic"), make_ensemble(made(), "geometric")
    save_ensemble(other, tmp_path / "e")
    now = replace(made(), test=made().test[:, ::-1])
    assert not np.array_equal(with_current_test(e, now, tmp_path / "e", write_report).test.probs, e.test.probs)
    assert np.array_equal(load_ensemble(tmp_path / "e").test.probs, other.test.probs)
    with_current_test(other, now, tmp_path / "e", write_report)
    assert not np.array_equal(load_ensemble(tmp_path / "e").test.probs, other.test.probs)


def test_a_mean_by_default_does_not_replace_a_chosen_blend(tmp_path: Path) -> None:
    """ensemble.py ends between submit.py's look for a blend and its own."""
    chosen, default = make_ensemble(made(), "geometric"), make_ensemble(made(), "arithmetic", by_default=True)
    with pytest.raises(UserError, match="another command made this blend meanwhile: run the same command again"):
        save_ensemble(default, tmp_path / "e", lambda partial: save_ensemble(chosen, tmp_path / "e"))
    assert load_ensemble(tmp_path / "e").blend == chosen.blend


def test_most_confused_by_hand() -> None:
    counts = np.array([[5, 2, 0], [1, 3, 0], [2, 0, 4]])
    assert most_confused(("a", "b", "c"), counts) == [("a", "b", 2, 7), ("c", "a", 2, 6), ("b", "a", 1, 4)]


def write_folder(c: Candidates, folder: Path) -> None:
    folder.mkdir()
    (folder / "classes.txt").write_text("\n".join(c.classes))
    columns = zip(c.fnames, c.label_index, c.verified, c.fold, strict=True)
    rows = [f"{n},{c.classes[t]},{v:d},{k}" for n, t, v, k in columns]
    (folder / "train.csv").write_text("\n".join(["fname,label,manually_verified,fold", *rows]))
    (folder / "sample_submission.csv").write_text("\n".join(["fname,label", *(f"{n},ant" for n in c.test_fnames)]))
    for name, oof, test in zip(c.names, c.oof, c.test, strict=True):
        np.savez(folder / f"{name}.npz", oof=oof, test=test)


def test_from_predictions_to_a_submission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(made(), tmp_path / "theirs")
    paths, output = Paths(tmp_path / "none", tmp_path / "work"), tmp_path / "s.csv"
    blend(paths, [], "log_linear", "default", False, tmp_path / "theirs")
    said = capsys.readouterr().out
    assert "expected on 10 test clips" in said
    assert "epoch" not in said  # nobody knows how those were made
    blend(paths, [], "log_linear", "default", False, tmp_path / "theirs")
    assert "found" in capsys.readouterr().out
    submit(paths, "default", output, None, tmp_path / "theirs")
    lines = output.read_text().splitlines()
    assert lines[0] == "fname,label"
    assert [line.partition(",")[0] for line in lines[1:]] == list(made().test_fnames)
    np.savez(tmp_path / "theirs" / "x.npz", oof=made().oof[1], test=made().test[1])
    with pytest.raises(UserError, match="changed since"):
        submit(paths, "default", output, None, tmp_path / "theirs")


def test_the_default_mean_needs_no_verified_clips_to_judge_it(tmp_path: Path) -> None:
    write_folder(replace(made(), verified=np.arange(160) == 3), tmp_path / "theirs")
    submit(Paths(tmp_path / "none", tmp_path / "work"), "default", tmp_path / "s.csv", None, tmp_path / "theirs")
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 11


def test_the_default_mean_leaves_out_a_model_that_knows_nothing_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mean has no weights to tell it apart. A blend that is fitted keeps it."""
    c = made()
    c.oof[2], c.test[2] = c.oof[2][np.random.default_rng(0).permutation(len(c.fnames))], [0.97, 0.01, 0.01, 0.01]
    write_folder(c, tmp_path / "p")
    paths, out = Paths(tmp_path / "no", tmp_path / "work"), tmp_path / "out.csv"
    submit(paths, "default", out, None, tmp_path / "p")
    told = capsys.readouterr().out
    assert "left out: z: its out-of-fold MAP@3 is no better than chance\n" in told
    assert "no blend chosen: using the mean of x, y -> " in told
    two = c.of_models([0, 1])
    assert load_ensemble(paths.ensemble("default")).test.probs == pytest.approx(two.test.mean(0), abs=1e-6)
    submit(paths, "default", out, None, tmp_path / "p")
    assert "found, arithmetic blend of x, y\n" in capsys.readouterr().out
    assert make_ensemble(c, "arithmetic").comparison.left_out == {}


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} (real predictions, not in the repository) is absent")
def test_the_log_linear_pool_wins_on_the_real_predictions() -> None:
    e = make_ensemble(candidates_from_predictions(REAL), "log_linear")
    found = e.comparison.methods["log_linear"]
    assert found.to_single.interval[0] > 0.005
    assert found.to_mean.interval[0] > 0.01
    assert found.fitted - found.score < 0.01


@pytest.mark.parametrize("name", ["", "..", "../runs", "/tmp/precious", "a b", "default.old", "default.partial"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    paths = Paths(tmp_path / "input", tmp_path / "work")
    with pytest.raises(UserError, match="a name "):
        blend(paths, [], "auto", name, force=True)
    with pytest.raises(UserError, match="a name "):
        submit(paths, name, tmp_path / "out.csv", None)


def test_a_folder_that_is_no_blend_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "precious").write_text("mine")
    ensemble = make_ensemble(made(), "arithmetic")
    for call in (lambda folder: save_ensemble(ensemble, folder), load_ensemble):
        with pytest.raises(UserError, match="e: exists and is no blend"):
            call(tmp_path / "e")
    assert [f.name for f in tmp_path.rglob("*")] == ["e", "precious"]


@pytest.mark.parametrize("content", ["{}", "[]", "null", "{"])
def test_a_damaged_blend_is_told(tmp_path: Path, content: str) -> None:
    save_ensemble(make_ensemble(made(), "arithmetic"), tmp_path / "e")
    (tmp_path / "e" / "weights.json").write_text(content)
    with pytest.raises(UserError, match=r"e/weights\.json: .*make it again with ensemble\.py --force"):
        load_ensemble(tmp_path / "e")


@pytest.mark.parametrize("name", ["scores", "comparison"])
def test_a_damaged_table_of_a_blend_is_told(tmp_path: Path, name: str) -> None:
    save_ensemble(make_ensemble(made(), "arithmetic"), tmp_path / "e")
    for content in ("[]", "null", "{"):
        (tmp_path / "e" / f"{name}.json").write_text(content)
        with pytest.raises(UserError, match=r"e/.*json: .*ensemble\.py --force"):
            load_ensemble(tmp_path / "e")


@pytest.mark.parametrize(
    ("method", "old", "new", "told"),
    [
        *(
            ("arithmetic", '"weight": 0.333333', f'"weight": {value}', r"models\.x\.weight is ")
            for value in ("NaN", "Infinity", '"0.3"', "true", "null", "[1]", "1e999", "9" * 400)
        ),
        ("arithmetic", '"weight": 0.333333', '"weight": -0.5', "weights are below 0"),
        ("arithmetic", '"weight": 0.333333', '"weight": 0', "or all 0"),
        ("arithmetic", '"method": "arithmetic"', '"method": "mean"', "no blending method 'mean'"),
        ("arithmetic", '"method": "arithmetic"', '"method": []', "method is \\[\\]"),
        ("arithmetic", '"classes": ["ant", ', '"classes": [1, ', r"classes\[0\] is 1"),
        ("temperature", '"temperature": ', '"temperature": -', "the temperature of x is not above 0"),
        ("log_linear", '"offsets": [', '"offsets": [0, ', "offsets: 4 numbers expected"),
        ("stack", '"coefficients": [[', '"coefficients": [["a", ', r"models\.x\.coefficients is "),
    ],
)
def test_numbers_of_a_blend_are_numbers(tmp_path: Path, method: str, old: str, new: str, told: str) -> None:
    save_ensemble(make_ensemble(made(), method), tmp_path / "e")
    file = tmp_path / "e" / "weights.json"
    assert read_blend(file, "").method == method
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=rf"e/weights\.json: .*({told})") as caught:
        load_ensemble(tmp_path / "e")
    assert "\n" not in str(caught.value)


def with_test_clips(c: Candidates, n: int) -> Candidates:
    """The first n of the test clips, again and again, under names of their own."""
    at = np.arange(n) % len(c.test_fnames)
    return replace(c, test_fnames=tuple(f"t{i}.wav" for i in range(n)), test=c.test[:, at])


@pytest.mark.parametrize("method", ["arithmetic", "auto"])
def test_what_is_expected_is_of_the_test_clips_as_they_are_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    c = made(verified=0.7)
    ensemble = make_ensemble(c, method)
    save_ensemble(ensemble, tmp_path / "e", lambda partial: write_report(partial, ensemble, c))
    more = with_test_clips(c, 11)
    with_current_test(load_ensemble(tmp_path / "e"), more, tmp_path / "e", write_report)
    found, again = load_ensemble(tmp_path / "e"), make_ensemble(more, method)
    assert found.comparison.expected.clips == 11 and same_runs(found, more)
    assert found.test.fnames == more.test_fnames
    assert found.comparison.expected.score == again.comparison.expected.score
    assert found.comparison.expected.interval == pytest.approx(again.comparison.expected.interval, abs=1e-4)
    assert found.comparison.expected.interval != ensemble.comparison.expected.interval
    assert found.test.fnames == more.test_fnames and found.blend == ensemble.blend
    assert "on 11 test clips" in (tmp_path / "e/report.html").read_text()
    show(found)
    assert "expected on 11 test clips" in capsys.readouterr().out
    before = (tmp_path / "e/report.html").stat().st_mtime_ns
    with_current_test(found, more, tmp_path / "e", write_report)
    assert (tmp_path / "e/report.html").stat().st_mtime_ns == before, "nothing changed"
