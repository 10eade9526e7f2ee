"""The submission file: whole and valid or not there, and its score."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from console.errors import UserError
from runs.predictions import Predictions
from submission import submission_file as submission
from submission.submission_file import score_by_usage, validate_submission, write_report, write_submission

CLASSES = ("a", "b", "c", "d")
FNAMES = ("z.wav", "x.wav", "y.wav")  # the order of the sample submission, not the alphabet's
PREDICTIONS = Predictions(FNAMES, np.float32([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.2, 0.0]]))
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
    monkeypatch.setattr(submission, "top_3", lambda probs, classes: ["a b c", "a a b", "a b c"])
    with pytest.raises(UserError, match=r"without three distinct known labels: x\.wav"):
        write_submission(tmp_path / "s.csv", PREDICTIONS, CLASSES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fname,label", "fname,labels", "columns are fname, labels, not fname, label"),
        ("z.wav,d c b\n", "", r"not those of the sample submission: z\.wav"),
        ("z.wav", "w.wav", r"not those of the sample submission: 2: w\.wav, z\.wav"),
        ("z.wav,d c b\nx.wav,a b c\n", "x.wav,a b c\nz.wav,d c b\n", "the order differs, or a clip appears twice"),
        ("y.wav,a c b\n", "y.wav,a c b\ny.wav,a c b\n", "the order differs, or a clip appears twice"),
        ("d c b", "d c", r"three distinct known labels: z\.wav"),
        ("d c b", "d c b a", r"three distinct known labels: z\.wav"),
        ("d c b", "d c c", r"three distinct known labels: z\.wav"),
        ("d c b", "d c e", r"three distinct known labels: z\.wav"),
        ("d c b", "d  c b", r"three distinct known labels: z\.wav"),
        ("d c b", "", r"three distinct known labels: z\.wav"),
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
    found = score_by_usage(PREDICTIONS, truth, CLASSES)
    assert found == {
        "Public": pytest.approx(1 / 3),
        "Private": pytest.approx(3 / 4),
        "all": pytest.approx((1 + 1 / 3 + 1 / 2) / 3),
    }
    assert list(found) == ["Public", "Private", "all"]
    assert score_by_usage(PREDICTIONS, truth.assign(usage="scored"), CLASSES) == {"scored": found["all"]}
    assert score_by_usage(PREDICTIONS, truth[:1], CLASSES) == {"Private": 1.0}  # clips that do not count are not there


def test_a_scored_clip_without_a_prediction_is_an_error() -> None:
    truth = pd.DataFrame({"fname": ["gone.wav"], "label": ["a"], "usage": ["Public"]})
    with pytest.raises(UserError, match=r"gone\.wav"):
        score_by_usage(PREDICTIONS, truth, CLASSES)


def test_the_report_names_clips_with_a_fault(tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", Path("work/ensembles/default"), {"x.wav": "empty"}, 3)
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["clips"] == 3 and found["clips_with_a_fault"] == {"x.wav": "empty"}
    assert [f.name for f in tmp_path.iterdir()] == ["r.json"]
