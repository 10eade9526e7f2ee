"""The submission file: whole and valid or not there, and its score."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs.competition import SubmissionForm
from console.errors import UserError
from metrics.map_at_3 import map_at_3
from metrics.metric import Metric, find_metric
from runs.predictions import Predictions
from submission import submission_file as submission
from submission.submission_file import (
    check_form,
    check_overwritable,
    score_by_usage,
    top_labels,
    validate_submission,
    write_report,
    write_submission,
)

CLASSES = ("a", "b", "c", "d")
FNAMES = ("z.wav", "x.wav", "y.wav")  # the order of the sample submission, not the alphabet's
PREDICTIONS = Predictions(FNAMES, np.float32([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.2, 0.0]]))
MAP = find_metric("map@3")
TEXT = "fname,label\nz.wav,d c b\nx.wav,a b c\ny.wav,a c b\n"


def test_the_file_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "new" / "submission.csv"
    write_submission(file, PREDICTIONS, CLASSES)
    assert file.read_bytes() == TEXT.encode()
    write_submission(file, PREDICTIONS, CLASSES)  # an older submission may be replaced
    assert [f.name for f in file.parent.iterdir()] == ["submission.csv"]


def test_a_submission_that_was_saved_with_a_byte_order_mark_may_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "submission.csv"
    file.write_text("\ufeff" + TEXT)
    write_submission(file, PREDICTIONS, CLASSES)
    assert file.read_bytes() == TEXT.encode()


def test_names_that_look_like_something_else_survive(tmp_path: Path) -> None:
    odd = Predictions(("NA", "007.wav", "1e3", "a, b.wav"), np.tile(PREDICTIONS.probs[:1], (4, 1)))
    write_submission(tmp_path / "s.csv", odd, CLASSES)
    table = pd.read_csv(tmp_path / "s.csv", dtype=str, keep_default_na=False)
    assert tuple(table["fname"]) == odd.fnames


@pytest.mark.parametrize(
    "content", ["fname,label,manually_verified\na.wav,b,1\n", "fname,label\na.wav,b\n", "", "\x00\x01"]
)
def test_other_files_are_not_overwritten(tmp_path: Path, content: str) -> None:
    file = tmp_path / "train.csv"
    file.write_text(content)
    with pytest.raises(UserError, match=r"train\.csv: exists and is not a submission: .*--output"):
        write_submission(file, PREDICTIONS, CLASSES)
    assert file.read_text() == content
    with pytest.raises(UserError, match="exists and is not a submission"):
        write_submission(tmp_path, PREDICTIONS, CLASSES)


def test_an_invalid_file_does_not_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "top_labels", lambda *_: ["a b c", "a a b", "a b c"])
    with pytest.raises(UserError, match=r"without 3 distinct known labels: x\.wav"):
        write_submission(tmp_path / "s.csv", PREDICTIONS, CLASSES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fname,label", "fname,labels", "columns are 2: fname, labels, not 2: fname, label"),
        ("z.wav,d c b\n", "", r"not those of the sample submission: z\.wav"),
        ("z.wav", "w.wav", r"not those of the sample submission: 2: w\.wav, z\.wav"),
        ("z.wav,d c b\nx.wav,a b c\n", "x.wav,a b c\nz.wav,d c b\n", "the order differs, or a clip appears twice"),
        ("y.wav,a c b\n", "y.wav,a c b\ny.wav,a c b\n", "the order differs, or a clip appears twice"),
        ("d c b", "d c", r"3 distinct known labels: z\.wav"),
        ("d c b", "d c b a", r"3 distinct known labels: z\.wav"),
        ("d c b", "d c c", r"3 distinct known labels: z\.wav"),
        ("d c b", "d c e", r"3 distinct known labels: z\.wav"),
        ("d c b", "d  c b", r"3 distinct known labels: z\.wav"),
        ("d c b", "", r"3 distinct known labels: z\.wav"),
    ],
)
def test_every_fault_is_found(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "s.csv"
    file.write_text(TEXT)
    validate_submission(file, FNAMES, CLASSES)
    assert old in TEXT
    file.write_text(TEXT.replace(old, new))
    with pytest.raises(UserError, match=message):
        validate_submission(file, FNAMES, CLASSES)


def test_scores_by_usage_by_hand() -> None:
    truth = pd.DataFrame(
        {"fname": ["y.wav", "z.wav", "x.wav"], "label": ["a", "b", "b"], "usage": ["Private", "Public", "Private"]}
    )  # y: first, 1; z: third, 1/3; x: second of a four-way tie, 1/2
    found = score_by_usage(PREDICTIONS, truth, CLASSES, MAP)
    assert found == {
        "Public": pytest.approx(1 / 3),
        "Private": pytest.approx(3 / 4),
        "all": pytest.approx((1 + 1 / 3 + 1 / 2) / 3),
    }
    assert list(found) == ["Public", "Private", "all"]
    assert score_by_usage(PREDICTIONS, truth.assign(usage="scored"), CLASSES, MAP) == {"scored": found["all"]}
    assert score_by_usage(PREDICTIONS, truth[:1], CLASSES, MAP) == {
        "Private": 1.0
    }  # clips that do not count are not there


def test_a_scored_clip_without_a_prediction_is_an_error() -> None:
    truth = pd.DataFrame({"fname": ["gone.wav"], "label": ["a"], "usage": ["Public"]})
    with pytest.raises(UserError, match=r"gone\.wav"):
        score_by_usage(PREDICTIONS, truth, CLASSES, MAP)


def test_the_report_names_clips_with_a_fault(tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", Path("work/ensembles/default"), {"x.wav": "empty"}, 3)
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["clips"] == 3 and found["clips_with_a_fault"] == {"x.wav": "empty"}
    assert [f.name for f in tmp_path.iterdir()] == ["r.json"]


ROOMS = ("Bass drum", "Car, passing", "Hi-hat")
CLIPS = Predictions(("7", "x"), np.float32([[0.1, 0.7, 1e-30], [0.3, 0.3, 0.2]]))
MANY = SubmissionForm("probabilities", name_column="row_id", columns=("Hi-hat", "Bass drum", "Car, passing"))
PROBABILITIES = 'row_id,Hi-hat,Bass drum,"Car, passing"\n7,1e-30,0.1,0.7\nx,0.2,0.3,0.3\n'


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (SubmissionForm(top_labels=1, name_column="filename"), 'filename,label\n7,"Car, passing"\nx,Bass drum\n'),
        (
            SubmissionForm(top_labels=2, separator=";", label_column="birds"),
            'fname,birds\n7,"Car, passing;Bass drum"\nx,"Bass drum;Car, passing"\n',
        ),
        (MANY, PROBABILITIES),
        (
            SubmissionForm("probabilities"),
            'fname,Bass drum,"Car, passing",Hi-hat\n7,0.1,0.7,1e-30\nx,0.3,0.3,0.2\n',
        ),
    ],
)
def test_other_forms_by_hand(tmp_path: Path, form: SubmissionForm, text: str) -> None:
    file = tmp_path / "s.csv"
    write_submission(file, CLIPS, ROOMS, form)
    assert file.read_text() == text
    write_submission(file, CLIPS, ROOMS, form)  # an older submission may be replaced
    assert validate_submission(file, CLIPS.fnames, ROOMS, form).shape[0] == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_read_back_equal(tmp_path: Path, dtype: type) -> None:
    """Also subnormal ones, and neighbours of 1."""
    rng = np.random.default_rng(0)
    probs = np.concatenate([rng.random((50, 4)), np.exp(rng.uniform(-100, 0, (50, 4))), 1 - rng.random((50, 4)) * 1e-6])
    predictions = Predictions(tuple(f"{i}.wav" for i in range(150)), probs.astype(dtype))
    write_submission(tmp_path / "s.csv", predictions, CLASSES, SubmissionForm("probabilities"))
    read = pd.read_csv(tmp_path / "s.csv", dtype=str)[list(CLASSES)].to_numpy().astype(np.float64)
    assert np.array_equal(read.astype(dtype), predictions.probs)


@pytest.mark.parametrize("form", [SubmissionForm(separator="/"), MANY])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_clips_that_are_not_finite_are_named(tmp_path: Path, form: SubmissionForm, value: float) -> None:
    probs = CLIPS.probs.copy()
    probs[1, 2] = value
    with pytest.raises(UserError, match=r"s\.csv: clips with NaN or infinity among their probabilities: x"):
        write_submission(tmp_path / "s.csv", Predictions(CLIPS.fnames, probs), ROOMS, form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("row_id", "fname", r"columns are 4: fname, Hi-hat, .*, not 4: row_id, Hi-hat"),
        ("Hi-hat,Bass drum", "Bass drum,Hi-hat", "columns are 4: row_id, Bass drum"),
        ("0.7", "much", "without a finite number for every class: 7"),
        ("0.7", "", "without a finite number for every class: 7"),
        ("0.7", "inf", "without a finite number for every class: 7"),
        ("\nx,", "\ny,", "not those of the sample submission: 2: x, y"),
    ],
)
def test_every_fault_of_probabilities_is_found(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PROBABILITIES
    (tmp_path / "s.csv").write_text(PROBABILITIES.replace(old, new))
    with pytest.raises(UserError, match=message):
        validate_submission(tmp_path / "s.csv", CLIPS.fnames, ROOMS, MANY)


@pytest.mark.parametrize(
    ("form", "classes", "message"),
    [
        (SubmissionForm(top_labels=4), ("a", "b", "c"), "4 labels per clip, but there are 3 classes"),
        (SubmissionForm(top_labels=0), ("a", "b", "c"), "0 labels per clip"),
        (SubmissionForm(), ROOMS, "classes contain ' ', which separates labels: 2: Bass drum, Car, passing"),
        (SubmissionForm("probabilities", columns=("a", "b")), ("a", "b", "c"), "no column for the classes: c"),
        (SubmissionForm("probabilities", columns=("a", "b", "d")), ("a", "b"), "columns that are no class: d"),
        (SubmissionForm("probabilities", columns=("a", "b", "a")), ("a", "b"), "columns that appear twice: a"),
        (SubmissionForm("probabilities", name_column="b"), ("a", "b"), "clip names is also a class: b"),
    ],
)
def test_a_form_that_does_not_fit_the_classes(form: SubmissionForm, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_form(form, classes)


ONE = SubmissionForm(top_labels=1)


@pytest.mark.parametrize(
    ("form", "content", "is_submission"),
    [
        (ONE, "fname,label\nx,Hi-hat\n", True),
        (ONE, "fname,label\ntrain.wav,Hi-hat\n", False),  # a table of training clips
        (ONE, "fname,label\n", True),
        (MANY, PROBABILITIES, True),
        (MANY, PROBABILITIES.replace("\n7,", "\ntrain.wav,"), False),
        (MANY, 'row_id,Hi-hat,Bass drum,"Car, passing"\n7,0,1,1\n', False),  # the truth
        (MANY, PROBABILITIES.replace("Hi-hat", "Hi-Hat"), False),
        (MANY, "fname,label\na.wav,a b c\n", False),  # a submission to another competition
        (SubmissionForm(), PROBABILITIES, False),
    ],
)
def test_only_a_submission_of_this_form_is_replaced(
    tmp_path: Path, form: SubmissionForm, content: str, is_submission: bool
) -> None:
    (tmp_path / "s.csv").write_text(content)
    if is_submission:
        check_overwritable(tmp_path / "s.csv", form, CLIPS.fnames)
    else:
        with pytest.raises(UserError, match="exists and is not a submission"):
            check_overwritable(tmp_path / "s.csv", form, CLIPS.fnames)


def test_scores_of_several_labels_by_hand() -> None:
    """The share of right decisions at 0.25: 3 of 4 for the clip without any label, 4 of 4 for the other."""
    metric = Metric("half", "half", "half", lambda probs, truth: float(((probs > 0.25) == truth).mean()))
    truth = pd.DataFrame(
        {"fname": ["y.wav", "z.wav"], "label": ["", "c|d"], "usage": ["Private", "Public"]}
    )  # y: 0.7, 0.1, 0.2, 0.0; z: 0.1, 0.2, 0.3, 0.4
    found = score_by_usage(PREDICTIONS, truth, CLASSES, metric)
    assert found == {"Public": 1.0, "Private": 0.75, "all": 0.875}


def test_top_labels_on_paper() -> None:
    probs = np.array([[0.1, 0.4, 0.3, 0.2], [0.3, 0.3, 0.1, 0.3]])
    assert top_labels(probs, CLASSES) == ["b c d", "a b d"], "ties rank the lower class first"
    assert top_labels(probs, CLASSES, SubmissionForm(top_labels=4, separator="; ")) == ["b; c; d; a", "a; b; d; c"]


@pytest.mark.parametrize("seed", range(5))
def test_top_labels_and_map_at_3_rank_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = tuple("abcdef")
    probs = rng.integers(0, 3, (40, 6)) / 2
    truth = rng.integers(0, 6, 40)
    rows = [text.split() for text in top_labels(probs, classes)]
    gain = [1 / (row.index(classes[t]) + 1) if classes[t] in row else 0 for row, t in zip(rows, truth, strict=True)]
    assert map_at_3(probs, truth) == pytest.approx(np.mean(gain))


def test_a_usage_without_a_score() -> None:
    """The only Private clip has no label, the Public ones have; all together they have a ROC-AUC."""
    predictions = Predictions(("a", "b", "c"), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.4]], np.float32))
    usage = ["Public", "Public", "Private"]
    truth = pd.DataFrame({"fname": ["a", "b", "c"], "label": ["x", "y", ""], "usage": usage})
    found = score_by_usage(predictions, truth, ("x", "y"), find_metric("macro_roc_auc"))
    assert found["Public"] == 1 and np.isnan(found["Private"]) and found["all"] == 1
    with pytest.raises(UserError, match="the test labels have no macro ROC-AUC: a score of 1 clip without any label"):
        score_by_usage(predictions, truth[2:], ("x", "y"), find_metric("macro_roc_auc"))
