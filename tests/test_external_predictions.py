"""Predictions from elsewhere: read, aligned, or refused with the file's name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blending.external_predictions import candidates_from_predictions
from console.errors import UserError

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
    assert c.label_index.tolist() == [2, 1, 0, 2]
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
    assert (c.names, c.classes, c.label_index.tolist()) == (("one", "two"), ("ant", "bat", "caf\u00e9"), [2, 1, 0, 2])


def test_a_sample_of_probabilities_gives_the_form_and_must_have_every_class(folder: Path) -> None:
    (folder / "sample_submission.csv").write_text("fname,cat,bat,ant\nx.wav,0,0,0\ny.wav,0,0,0\n")
    c = candidates_from_predictions(folder)
    assert (c.form.kind, c.form.columns) == ("probabilities", ("cat", "bat", "ant"))
    (folder / "sample_submission.csv").write_text("fname,cat,bat,dog\nx.wav,0,0,0\ny.wav,0,0,0\n")
    with pytest.raises(UserError, match="has no column for classes of the training clips: ant"):
        candidates_from_predictions(folder)


def test_several_labels_are_a_matrix_and_any_scores_are_taken(folder: Path) -> None:
    rows = (folder / "train.csv").read_text().splitlines()
    names, folds = [row.split(",")[0] for row in rows[1:]], [row.split(",")[-1] for row in rows[1:]]
    labels = ['"ant,cat"', "", "bat", '"cat, bat"']
    lines = [f"{n},{label},{k},one" for n, label, k in zip(names, labels, folds, strict=True)]
    (folder / "train.csv").write_text("\n".join(["fname,labels,fold,artist", *lines]))
    np.savez(folder / "one.npz", oof=OOF - 2, test=TEST)
    c = candidates_from_predictions(folder)
    assert (c.task, c.metric.name) == ("multi_label", "macro_roc_auc")
    assert c.truth.astype(int).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert c.verified.all() and len(set(c.group)) == 1


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
        (np.where(OOF == 0.8, np.nan, OOF), "NaN or infinity in 1 row:"),
        (OOF[:3], "oof has shape"),
        (OOF[:, :2], "oof has shape"),
        (np.log(OOF), "no probabilities .* in 4 rows"),
        (OOF * 2, "no probabilities .* in 4 rows"),
        (OOF * [2.5, 1, -1], "no probabilities"),
        (OOF * 1e300, "NaN or infinity in 4 rows"),
        (OOF + 0j, "oof holds complex128, not numbers"),
        (OOF.astype(str), "oof holds <U32, not numbers"),
        (OOF.astype(object), "holds Python objects"),
        (OOF[0, 0], r"oof has shape \(\)"),
    ],
    ids=["nan", "rows", "columns", "logarithms", "sum", "negative", "huge", "complex", "text", "objects", "scalar"],
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
        *(
            ("train.csv", ",0\n", f",{fold}\n", "fold must be a number from 0, found ")
            for fold in ("x", "", "-1", "1.0", " 1", "1e0", "nan", "inf", "1_0", "\u00b2", "\u0661", "\uff11", "9" * 20)
        ),
        ("train.csv", ",1,", ",yes,", "manually_verified must be 0 or 1"),
        ("train.csv", "fold", "part", "missing column"),
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


def test_folds_are_told_apart_by_number(folder: Path) -> None:
    rows = ["a.wav,cat,1,0", "b.wav,bat,0,00", "c.wav,ant,1,000", "d.wav,cat,1,0"]
    (folder / "train.csv").write_text("\n".join(["fname,label,manually_verified,fold", *rows]))
    with pytest.raises(UserError, match="all clips lie in one fold"):
        candidates_from_predictions(folder)


# Rows and columns in an order of the file's own

TURN, TEST_TURN, CLASS_TURN = [2, 0, 3, 1], [1, 0], [2, 0, 1]
FNAMES, TEST_FNAMES = np.array(["a.wav", "b.wav", "c.wav", "d.wav"]), np.array(["x.wav", "y.wav"])


@pytest.mark.parametrize("key", ["fname", "fnames", "names", "ids", "oof_fname", "train_files", "whatever"])
@pytest.mark.parametrize("test_key", ["fname_test", "test_fname", "test_ids", "x"])
@pytest.mark.parametrize(
    "as_written", [str, lambda n: f"sound/{n}", lambda n: n[:-4], str.encode], ids=["name", "path", "stem", "bytes"]
)
def test_named_rows_are_put_in_order(
    folder: Path, key: str, test_key: str, as_written: Callable[[str], object]
) -> None:
    expected = candidates_from_predictions(folder, ["one"])
    names = {
        key: [as_written(n) for n in FNAMES[TURN].tolist()],
        test_key: [as_written(n) for n in TEST_FNAMES[TEST_TURN].tolist()],
    }
    np.savez(folder / "one.npz", oof=OOF[TURN], test=TEST[TEST_TURN], **{k: np.array(v) for k, v in names.items()})
    found = candidates_from_predictions(folder, ["one"])
    np.testing.assert_array_equal(found.oof, expected.oof)
    np.testing.assert_array_equal(found.test, expected.test)


def test_named_columns_are_put_in_order(folder: Path) -> None:
    """And a column of labels or row numbers beside them that agrees with the tables changes nothing."""
    expected = candidates_from_predictions(folder, ["one"])
    beside = {"fname": FNAMES[TURN], "label": np.array(["cat", "bat", "ant", "cat"])[TURN], "index": np.arange(4)}
    told = {"classes": np.array(CLASSES)[CLASS_TURN], "title": np.array("mine"), "fold": np.array([3, 1, 0, 2])}
    np.savez(folder / "one.npz", oof=OOF[TURN][:, CLASS_TURN], test=TEST[:, CLASS_TURN], **beside, **told)
    found = candidates_from_predictions(folder, ["one"])
    np.testing.assert_array_equal(found.oof, expected.oof)
    np.testing.assert_array_equal(found.test, expected.test)


@pytest.mark.parametrize(
    ("key", "values", "told"),
    [
        (
            "fname",
            ["a.wav", "b.wav", "c.wav", "e.wav"],
            "fname names what neither the tables nor classes.txt do: e.wav",
        ),
        ("fname", ["a.wav", "b.wav", "c.wav"], "fname holds 3 names, not each clip or class of one table once"),
        ("fname", ["a.wav", "b.wav", "c.wav", "c.wav"], "fname holds 4 names"),
        ("fname", [*FNAMES, *TEST_FNAMES], "fname holds 6 names"),
        ("classes", ["cat", "bat", "dog"], "classes names what neither .* do: dog"),
        ("label", ["bat", "cat", "ant", "cat"], "label is not the label column of train.csv"),
        ("remark", ["some", "words", "of", "mine"], "remark names what neither .* do: 4: some, words, of, mine"),
        ("idx", TURN, "idx may be another order of rows"),
        ("ids", [44, 45, 46, 47], "ids may be another order of rows"),
        ("fname", np.array(FNAMES, object), "it holds Python objects"),
        ("fname", FNAMES.astype([("x", "U5")]), "fname names what neither"),
    ],
)
def test_an_order_that_is_not_understood_is_refused(folder: Path, key: str, values: object, told: str) -> None:
    np.savez(folder / "one.npz", oof=OOF, test=TEST, **{key: values})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"one\.npz: .*{told}") as caught:
        candidates_from_predictions(folder)
    assert "\n" not in str(caught.value)


def test_two_orders_of_one_table_are_refused(folder: Path) -> None:
    np.savez(folder / "one.npz", oof=OOF, test=TEST, fname=FNAMES, names=FNAMES[TURN])
    with pytest.raises(UserError, match="names and another array give two orders of oof"):
        candidates_from_predictions(folder)


def test_training_and_test_clips_of_the_same_names_need_a_key_that_tells(folder: Path) -> None:
    (folder / "sample_submission.csv").write_text("fname\nd.wav\nc.wav\nb.wav\na.wav\n")
    np.savez(folder / "one.npz", oof=OOF, test=OOF, fname=FNAMES)
    with pytest.raises(UserError, match="fname holds 4 names"):
        candidates_from_predictions(folder, ["one"])
    np.savez(folder / "one.npz", oof=OOF, test=OOF, fname_train=FNAMES, fname_test=FNAMES)
    found = candidates_from_predictions(folder, ["one"])
    np.testing.assert_array_equal(found.test[0], found.oof[0][::-1])
