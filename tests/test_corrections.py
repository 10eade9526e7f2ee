"""Corrected labels reach training only."""

from pathlib import Path

import pandas as pd
import pytest

from console.errors import UserError
from input.corrections import correct, corrections_hash, read_corrections

CLASSES = ("bark", "gong", "siren")
FOLDS = pd.DataFrame(
    {
        "fname": ["a.wav", "b.wav", "c.wav", "d.wav"],
        "label": ["bark", "bark", "gong", "siren"],
        "verified": [False, True, False, False],
        "fold": [0, 0, 1, 1],
    }
)


def read(tmp_path: Path, text: str) -> dict[str, str]:
    file = tmp_path / "corrections.csv"
    file.write_text(text)
    return read_corrections(file, FOLDS, CLASSES)


def test_a_table_as_people_write_it(tmp_path: Path) -> None:
    found = read(tmp_path, "label,fname,heard by\ngong,a.wav,me\n,d.wav,\n")
    assert found == {"a.wav": "gong", "d.wav": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fname,label\nz.wav,gong\n", r"corrections\.csv: clips that are not in the training table: z\.wav: remove"),
        (
            "fname,label\na.wav,Gong\n",
            r"corrections\.csv: labels that no training clip has: 'Gong': use one of the 3",
        ),
        ("fname,label\na.wav,gong\na.wav,gong\n", r"corrections\.csv: fname appears more than once: a\.wav"),
        ("fname,heard\na.wav,gong\n", r"corrections\.csv: missing column label"),
        ("clip,label\na.wav,gong\n", r"corrections\.csv: missing column fname"),
        ("fname,label\n", r"corrections\.csv: has no rows"),
    ],
)
def test_wrong_rows_are_errors(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_names_and_labels_in_another_unicode_form_or_after_a_byte_order_mark_are_known(tmp_path: Path) -> None:
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    (tmp_path / "c.csv").write_text(f'\ufeff"fname",label\n{nfc}.wav,{nfd}\na.wav,\n')
    train = pd.DataFrame({"fname": ["a.wav", f"{nfd}.wav"]})
    assert read_corrections(tmp_path / "c.csv", train, (nfc, "bark")) == {f"{nfd}.wav": nfc, "a.wav": ""}


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: cannot read the table"):
        read_corrections(tmp_path / "none.csv", FOLDS, CLASSES)


def test_only_training_rows_are_corrected() -> None:
    corrections = {"a.wav": "gong", "b.wav": "", "c.wav": "bark", "d.wav": ""}
    before = FOLDS.copy()
    first, second = correct(FOLDS, corrections, fold=0), correct(FOLDS, corrections, fold=1)
    assert first.values.tolist() == [
        ["a.wav", "bark", False, 0],  # validates with what was given
        ["b.wav", "bark", True, 0],
        ["c.wav", "bark", True, 1],  # someone listened
    ]
    assert second.values.tolist() == [
        ["a.wav", "gong", True, 0],
        ["c.wav", "gong", False, 1],
        ["d.wav", "siren", False, 1],
    ]
    pd.testing.assert_frame_equal(FOLDS, before)


def test_a_label_that_someone_confirmed_counts_as_verified() -> None:
    found = correct(FOLDS, {"a.wav": "bark"}, fold=1)
    assert found["verified"].tolist() == [True, True, False, False]
    assert found["verified"].dtype == bool


def test_no_corrections_change_nothing() -> None:
    pd.testing.assert_frame_equal(correct(FOLDS, {}, fold=0), FOLDS)


def test_the_hash_is_of_the_content() -> None:
    one = corrections_hash({"a.wav": "gong", "b.wav": ""})
    assert one == corrections_hash({"b.wav": "", "a.wav": "gong"})
    assert len({one, corrections_hash({"a.wav": "gong"}), corrections_hash({"a.wav": "", "b.wav": "gong"})}) == 3
