"""Predictions from elsewhere: read, aligned, or refused with the file's name."""

from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from models.prediction_folder import candidates_from_predictions

CLASSES = ["cat", "bat", "ant"]  # not sorted: the columns' own order
OOF = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2]])
TEST = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    rows = ["a.wav,cat,1,0", "b.wav,bat,0,1", "c.wav,ant,1,0", "d.wav,cat,1,1"]
    (tmp_path / "train.csv").write_text("\n".join(["fname,label,manually_verified,fold", *rows]))
    (tmp_path / "sample_submission.csv").write_text("fname,label\nx.wav,cat\ny.wav,cat\n")
    np.savez(tmp_path / "one.npz", oof=OOF, test=TEST)
    np.savez(tmp_path / "two.npz", oof=OOF[:, ::-1].copy(), test=TEST[:, ::-1].copy())
    return tmp_path


def test_columns_are_put_in_sorted_order(folder: Path) -> None:
    c = candidates_from_predictions(folder)
    assert c.names == ("one", "two")
    assert c.classes == ("ant", "bat", "cat")
    assert np.allclose(c.oof[0, 0], [0.2, 0.3, 0.5])
    assert np.allclose(c.test[0, 1], [0.8, 0.1, 0.1])
    assert c.truth.tolist() == [2, 1, 0, 2]
    assert c.verified.tolist() == [True, False, True, True]
    assert c.fold.tolist() == [0, 1, 0, 1]
    assert len(set(c.group)) == 4


def test_clips_of_one_recording_share_a_group(folder: Path) -> None:
    lines = (folder / "train.csv").read_text().splitlines()
    told = ["freesound_id", "7", "7", "", ""]
    (folder / "train.csv").write_text("\n".join(f"{line},{one}" for line, one in zip(lines, told, strict=True)))
    group = candidates_from_predictions(folder).group
    assert group[0] == group[1]
    assert len(set(group)) == 3


def test_models_can_be_named(folder: Path) -> None:
    assert candidates_from_predictions(folder, ["two"]).names == ("two",)
    with pytest.raises(UserError, match="no model three"):
        candidates_from_predictions(folder, ["three"])


def test_tables_as_people_save_them(folder: Path) -> None:
    """A byte order mark, labels in two Unicode forms, and what a Mac leaves beside a file."""
    train = (folder / "train.csv").read_text().replace("cat", "cafe\u0301")
    (folder / "train.csv").write_text("\ufeff" + train)
    (folder / "classes.txt").write_text("\ufeffcaf\u00e9\nbat\nant")
    (folder / "sample_submission.csv").write_text("\ufefffname\nx.wav\ny.wav\n")
    (folder / "._one.npz").write_bytes(b"AppleDouble")
    c = candidates_from_predictions(folder)
    assert (c.names, c.classes, c.truth.tolist()) == (("one", "two"), ("ant", "bat", "caf\u00e9"), [2, 1, 0, 2])


def test_another_submission_than_ours_is_refused(folder: Path) -> None:
    (folder / "sample_submission.csv").write_text("fname,cat,bat,ant\nx.wav,0,0,0\ny.wav,0,0,0\n")
    with pytest.raises(UserError, match="wants a number for each of 3 classes"):
        candidates_from_predictions(folder)


def test_the_id_changes_with_the_file_and_with_the_tables(folder: Path) -> None:
    first = candidates_from_predictions(folder).ids
    np.savez(folder / "one.npz", oof=OOF[::-1].copy(), test=TEST)
    second = candidates_from_predictions(folder).ids
    assert second[0] != first[0]
    assert second[1] == first[1]
    (folder / "sample_submission.csv").write_text("fname,label\ny.wav,cat\nx.wav,cat\n")
    assert candidates_from_predictions(folder).ids[1] != first[1]


@pytest.mark.parametrize(
    ("oof", "told"),
    [
        (np.where(OOF == 0.8, np.nan, OOF), "NaN or infinity in 1 rows"),
        (OOF[:3], "oof has shape"),
        (OOF[:, :2], "oof has shape"),
        (np.log(OOF), "4 rows that are no probabilities"),
        (OOF * 2, "4 rows that are no probabilities"),
    ],
    ids=["nan", "rows missing", "columns missing", "logarithms", "not of sum 1"],
)
def test_bad_probabilities_are_refused(folder: Path, oof: np.ndarray, told: str) -> None:
    np.savez(folder / "one.npz", oof=oof, test=TEST)
    with pytest.raises(UserError, match=rf"one\.npz: .*{told}"):
        candidates_from_predictions(folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("train.csv", "b.wav", "a.wav", "more than once"),
        ("train.csv", ",bat,", ",dog,", "labels that classes.txt lacks"),
        ("train.csv", ",0\n", ",x\n", "fold must be a number"),
        ("train.csv", ",1,", ",yes,", "manually_verified must be 0 or 1"),
        ("train.csv", "fold", "part", "lacks the column"),
        ("classes.txt", "bat", "cat", "each once"),
        ("sample_submission.csv", "y.wav", "x.wav", "more than once"),
    ],
)
def test_bad_tables_are_refused(folder: Path, file: str, old: str, new: str, told: str) -> None:
    (folder / file).write_text((folder / file).read_text().replace(old, new))
    with pytest.raises(UserError, match=told):
        candidates_from_predictions(folder)


def test_absent_or_damaged_files_are_named(folder: Path) -> None:
    (folder / "two.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"two\.npz: cannot read"):
        candidates_from_predictions(folder)
    (folder / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"lacks classes\.txt"):
        candidates_from_predictions(folder)


def test_labels_that_are_no_text_are_told(folder: Path) -> None:
    (folder / "classes.txt").write_bytes(b"caf\xe9 b c")
    with pytest.raises(UserError, match=r"classes\.txt: cannot read the labels"):
        candidates_from_predictions(folder, [])
