"""A folder that nobody described: what is printed, the draft, and that the draft says the same as the guesses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from console.errors import UserError
from input.competition import load_competition
from input.describe import describe, draft
from input.layout import find_layout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("train/a.wav", "train/b.wav", "train/c.wav", "test/t.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, 0.1 * rng.normal(size=800), 8000)
    (tmp_path / "test" / "c.wav").write_bytes((tmp_path / "train" / "a.wav").read_bytes())
    (tmp_path / "train.csv").write_text('fname,labels,author\na.wav,Bark,x\nb.wav,"Cello,Bark",x\nc.wav,Cello,y\n')
    (tmp_path / "sample_submission.csv").write_text("fname,Bark,Cello\nt.wav,0,0\nc.wav,0,0\n")
    return tmp_path


def test_what_is_printed_and_the_draft(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = load_competition(folder)
    guessed = find_layout(folder)
    capsys.readouterr()
    describe(folder)
    said = capsys.readouterr().out
    assert "train 3 clips, 0.1 to 0.1 s (median 0.1)" in said and "8000 Hz" in said
    assert "classes: 2: Bark (2), Cello (2)" in said and "labels per clip: 2 with 1, 1 with 2" in said
    assert "leak: names in the training and the test set: c.wav" in said
    assert "leak: test clips that are training clips under another name: c.wav = a.wav" in said
    text = (folder / "competition.yaml").read_text()
    assert "task: multi_label  # " in text and "  group: author  # clips that share it stay in one fold" in text
    again = find_layout(folder)
    assert again.source == "competition.yaml" and again.config == guessed.config, "the draft says what was guessed"
    after = load_competition(folder)
    assert after.train.equals(before.train) and replace(after, train=None, test=None, targets=None) == replace(
        before, train=None, test=None, targets=None
    )


def test_a_description_that_is_there_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "competition.yaml").write_text("metric: padded_cmap\n")
    assert describe(folder).metric == "padded_cmap"
    assert (folder / "competition.yaml").read_text() == "metric: padded_cmap\n"
    assert "is there and stays" in capsys.readouterr().out


def test_a_draft_keeps_what_a_description_turns_off(folder: Path) -> None:
    (folder / "train.csv").write_text(
        "fname,labels,author,fold,secondary_labels\na.wav,Bark,x,0,['Cello']\nb.wav,Bark,x,1,[]\nc.wav,Cello,y,1,[]\n"
    )
    (folder / "mine.yaml").write_text("task: multi_label\nsecondary_weight: null\ncolumns: {fold: null, group: null}\n")
    before = load_competition(folder, described_by="mine.yaml")
    describe(folder, "mine.yaml")
    after = load_competition(folder)
    assert "fold" not in after.train and after.group_column is None and after.train.equals(before.train)
    assert np.isnan(after.targets[0, 1]), "a secondary label stays out of the loss"


def test_names_without_extension_under_any_header_are_found_by_their_files(folder: Path) -> None:
    """Two folders of sounds beside a table are no classes."""
    (folder / "train").rename(folder / "recordings")
    (folder / "test").rename(folder / "evaluation")
    (folder / "train.csv").write_text('clip_no,labels\na,Bark\nb,"Cello,Bark"\nc,Cello\n')
    (folder / "sample_submission.csv").write_text("clip_no,Bark,Cello\nt,0,0\n")
    cfg = find_layout(folder).config
    assert [one.file for one in cfg.train] == ["train.csv"] and cfg.columns.name == "clip_no"
    assert cfg.audio.train == "recordings/{clip_no}.wav" and cfg.audio.class_folders is None


def test_a_wrong_name_in_a_description_is_said_to_be_wrong_there(folder: Path) -> None:
    (folder / "competition.yaml").write_text("train: trian.csv\n")
    with pytest.raises(
        UserError, match=r"missing trian\.csv.*; described by competition\.yaml: correct the name there"
    ):
        find_layout(folder)


@pytest.mark.parametrize("metric", ["macro_rocauc", "accuracy", "no_such_file:score"])
def test_a_metric_that_training_refuses_is_refused(folder: Path, metric: str) -> None:
    (folder / "competition.yaml").write_text(f"metric: {metric}\n")
    with pytest.raises(UserError, match=r"metric.*" + metric.partition(":")[0]):
        describe(folder)


def test_folds_that_training_refuses_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three clips of two authors in five folds; then folds of the table's own with a class in one of them alone."""
    describe(folder)
    assert "folds would stop: folds.n_folds: 2 groups of clips cannot fill 5 folds" in capsys.readouterr().err
    (folder / "train.csv").write_text("fname,labels,fold\na.wav,Bark,0\nb.wav,Bark,0\nc.wav,Cello,1\n")
    (folder / "competition.yaml").write_text("task: multi_label\nmetric: macro_roc_auc\n")
    describe(folder)
    assert "folds would stop: fold 0: its clips have no macro_roc_auc" in capsys.readouterr().err


DATA = Path(__file__).parents[1].parent / "shared" / "data"
TABLES = ("esc50", "urbansound8k", "fsdkaggle2019", "fsdkaggle2019/kaggle_layout_rebuilt", "birdclef/2022")
FOLDERS = ("us8k-mini", "esc10", "nips4b-mini", "fsdkaggle2018", *(f"tables/{name}" for name in TABLES))


@pytest.mark.parametrize("name", [*FOLDERS, "class folders", "labels.csv", "0 and 1", "noisy"])
def test_a_draft_means_what_was_guessed(name: str, tmp_path: Path) -> None:
    """It loads, says the same, and has no line that nothing uses, nor a reason that is none."""
    if name in FOLDERS and not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not here")
    for entry in (DATA / name).iterdir() if name in FOLDERS else ():
        (tmp_path / entry.name).symlink_to(entry.resolve())
    for file in {
        "class folders": ("dog/a.wav", "cat/b.wav"),
        "labels.csv": ("a.wav", "b.wav"),
        "0 and 1": ("audio/a.wav", "audio/b.wav"),
        "noisy": ("train_curated/a.wav", "train_noisy/b.wav"),
    }.get(name, ()):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    for table, text in {
        "labels.csv": {"labels.csv": "file,class\na.wav,x\nb.wav,y\n"},
        "0 and 1": {"train.csv": "filename,x,y,z\na.wav,1,0,1\nb.wav,0,1,0\n"},
        "noisy": {"train_curated.csv": "filename,label\na.wav,x\n", "train_noisy.csv": "filename,label\nb.wav,y\n"},
    }.get(name, {}).items():
        (tmp_path / table).write_text(text)
    guessed = find_layout(tmp_path, sound=False)
    text = draft(guessed)
    (tmp_path / "competition.yaml").write_text(text)
    again = find_layout(tmp_path, sound=False)
    assert again.source == "competition.yaml" and again.config == guessed.config
    assert ("as the sample submission" in text) <= ("sample_submission: {file" in text)
    assert ("  test: " in text) == guessed.has_test
    assert ("  train: " in text) == (name not in ("class folders", "noisy", TABLES[3], f"tables/{TABLES[3]}"))
