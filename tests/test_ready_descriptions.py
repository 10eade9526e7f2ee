"""Every ready description reads its real table, and is recognised by the shape of its folder alone."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from configs.competition import CompetitionConfig
from configs.description import complete, read_description, ready_descriptions
from console.errors import UserError
from input.competition import Competition, label_matrix, load_competition, read_truth
from input.describe import draft
from input.layout import find_layout

TABLES = Path("../shared/data/tables")
DATA = Path("../shared/data")
needs_tables = pytest.mark.skipif(not TABLES.is_dir(), reason="../shared/data/tables is not here")


@pytest.fixture
def sounds(tmp_path: Path):
    """sounds(names): a sound of a few ms under each of these names in the competition's folder."""
    one = tmp_path / "tiny.wav"
    soundfile.write(one, np.zeros(80), 8000)

    def make(names: Iterable[str]) -> None:
        for name in names:
            file = tmp_path / "competition" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            os.link(one, file)

    (tmp_path / "competition").mkdir()
    return make


def put(folder: Path, name: str, source: Path) -> pd.DataFrame:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / name)
    return pd.read_csv(source, dtype=str, keep_default_na=False)


def loaded(folder: Path, name: str, capsys: pytest.CaptureFixture[str], **how: str) -> Competition:
    found = load_competition(folder, **how)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and f": {name}: " in lines[0]  # which competition was understood
    assert all(isinstance(path, str) for path in (*found.train["path"], *found.test["path"]))
    assert found.targets.shape == (len(found.train), len(found.classes)) and found.targets.dtype == np.float32
    return found


@pytest.mark.parametrize("name", ready_descriptions())
def test_every_ready_description_is_valid(name: str) -> None:
    assert isinstance(complete(read_description(ready_descriptions()[name]), {}), CompetitionConfig)


@needs_tables
@pytest.mark.parametrize("as_", [None, "fsdkaggle2019"])
def test_fsdkaggle2019(tmp_path: Path, sounds, capsys, as_: str | None) -> None:
    folder, source = tmp_path / "competition", TABLES / "fsdkaggle2019" / "kaggle_layout_rebuilt"
    for name in ("train_curated", "train_noisy"):
        sounds(f"{name}/{fname}" for fname in put(folder, f"{name}.csv", source / f"{name}.csv")["fname"])
    sample = put(folder, "sample_submission.csv", source / "sample_submission.csv")
    sounds(f"test/{fname}" for fname in sample["fname"])
    found = loaded(folder, "fsdkaggle2019", capsys, described_by=as_)
    assert (len(found.train), len(found.test), len(found.classes)) == (24785, 4481, 80)
    assert (found.task, found.metric, found.form.kind) == ("multi_label", "lwlrap", "probabilities")
    assert found.train["verified"].tolist() == [True] * 4970 + [False] * 19815
    assert list(found.form.columns) == list(sample.columns[1:]) and found.group_column is None
    assert found.test["fname"].tolist() == sample["fname"].tolist()
    several = found.train.set_index("fname")["label"]
    noisy = pd.read_csv(source / "train_noisy.csv").set_index("fname")["labels"]
    assert several["000b6cfb.wav"] == "Motorcycle"
    assert all(several[fname].split("|") == sorted(text.split(",")) for fname, text in noisy.head(500).items())
    assert np.array_equal(found.targets == 1, label_matrix(found.train["label"], found.classes))
    truth = read_truth(TABLES / "fsdkaggle2019" / "test_post_competition.csv", found.classes, found.test["fname"])
    assert truth["usage"].value_counts().to_dict() == {"Private": 3361, "Public": 1120}
    assert label_matrix(truth["label"], found.classes).sum(axis=0).min() > 0


@needs_tables
def test_birdclef(tmp_path: Path, sounds, capsys) -> None:
    folder, source = tmp_path / "competition", TABLES / "birdclef" / "2022"
    table = put(folder, "train_metadata.csv", source / "train_metadata.csv")
    for name in ("sample_submission.csv", "test.csv", "eBird_Taxonomy_v2021.csv"):
        put(folder, name, source / name)
    sounds(f"train_audio/{name}" for name in table["filename"])
    found = load_competition(folder)
    said = capsys.readouterr().out
    assert ": birdclef: " in said and "no test set" in said
    assert (len(found.train), len(found.test), len(found.classes)) == (14852, 0, 152)
    assert found.train["fname"][0] == "afrsil1/XC125458.ogg" and found.group_column == "author"
    row = found.targets[1]  # afrsil1, and in text: ['houspa', 'redava', 'zebdov']
    assert {found.classes[i]: row[i] for i in np.flatnonzero(row)} == {
        "afrsil1": 1.0,
        **{name: 0.5 for name in ("houspa", "redava", "zebdov") if name in found.classes},
    }
    assert (found.targets == 0.5).any() and not np.isnan(found.targets).any()
    assert found.train["label"].tolist() == table["primary_label"].tolist(), "secondary labels are no truth"


@needs_tables
def test_urbansound8k(tmp_path: Path, sounds, capsys) -> None:
    folder = tmp_path / "competition"
    table = put(folder, "metadata/UrbanSound8K.csv", TABLES / "urbansound8k" / "UrbanSound8K.csv")
    sounds(f"audio/fold{fold}/{name}" for fold, name in zip(table["fold"], table["slice_file_name"], strict=True))
    found = loaded(folder, "urbansound8k", capsys)
    assert (len(found.train), len(found.test), len(found.classes)) == (8732, 0, 10)
    assert (found.task, found.metric, found.group_column) == ("single_label", "accuracy", "fsID")
    assert found.train["fold"].tolist() == [int(fold) - 1 for fold in table["fold"]]
    assert found.train.groupby("fsID")["fold"].nunique().gt(1).sum() == 5, "as published, which is warned of"


@needs_tables
def test_esc50(tmp_path: Path, sounds, capsys) -> None:
    folder = tmp_path / "competition"
    table = put(folder, "meta/esc50.csv", TABLES / "esc50" / "esc50.csv")
    sounds(f"audio/{name}" for name in table["filename"])
    found = loaded(folder, "esc50", capsys)
    assert (len(found.train), len(found.test), len(found.classes)) == (2000, 0, 50)
    assert found.train["fold"].value_counts().to_dict() == dict.fromkeys(range(5), 400)
    assert (found.metric, found.group_column) == ("accuracy", "src_file")


@needs_tables
def test_esc10_of_esc50s_table(tmp_path: Path, sounds, capsys) -> None:
    """By a filter of rows: also a draft keeps it."""
    folder = tmp_path / "competition"
    table = put(folder, "meta/esc50.csv", TABLES / "esc50" / "esc50.csv")
    sounds(f"audio/{name}" for name in table["filename"])
    found = loaded(folder, "esc10", capsys, described_by="esc10")
    assert (len(found.train), len(found.classes), found.metric) == (400, 10, "accuracy")
    assert set(found.classes) == set(table["category"][table["esc10"] == "TRUE"])
    assert found.train["fold"].value_counts().to_dict() == dict.fromkeys(range(5), 80)
    (folder / "competition.yaml").write_text(draft(find_layout(folder, described_by="esc10")))
    assert load_competition(folder).train.equals(found.train)
    for value, told in (('{esc10: "Yes"}', "no row has 'Yes' in esc10: where: has one of 2: F"),
                        ('{esc11: "True"}', "missing column esc11; it has .*; did you mean esc10"),
                        ("{esc10: true}", "where.esc10' is True")):  # fmt: skip
        (folder / "competition.yaml").write_text(f"train: {{file: meta/esc50.csv, where: {value}}}\n")
        with pytest.raises(UserError, match=told):
            load_competition(folder)


def test_one_table_of_both_sets(tmp_path: Path, sounds, capsys) -> None:
    """Rows are chosen in the test table, and in one of further columns, as in a training table."""
    folder = tmp_path / "competition"
    (folder / "meta").mkdir(parents=True)
    rows = [f"{i}.wav,{'ab'[i % 2]},{'test' if i >= 8 else 'train'}" for i in range(10)]
    (folder / "meta" / "all.csv").write_text("\n".join(["filename,category,split", *rows]) + "\n")
    more = [f"{i}.wav,{copy},r{i}{copy}" for i in range(10) for copy in (1, 2)]
    (folder / "more.csv").write_text("\n".join(["filename,copy,recorder", *more]) + "\n")
    sounds(f"audio/{i}.wav" for i in range(10))
    table = "{file: meta/all.csv, where: {split: %s}}"
    described = f"""train: {table % "train"}
test: {table % "Test"}
audio: {{train: "audio/{{fname}}", test: "audio/{{fname}}"}}
details: {{file: more.csv, where: {{copy: "2"}}}}
columns: {{name: filename, label: category}}
classes: [a, b]
"""
    (folder / "competition.yaml").write_text(described)
    found = load_competition(folder)
    assert found.train["fname"].tolist() == [f"{i}.wav" for i in range(8)]
    assert found.test["fname"].tolist() == ["8.wav", "9.wav"]
    assert found.train["recorder"].tolist() == [f"r{i}2" for i in range(8)]
    (folder / "competition.yaml").write_text(described.replace("test: {file", "sample_submission: {file"))
    with pytest.raises(
        UserError, match=r"sample_submission\.where is for other tables: a submission has all of its rows"
    ):
        load_competition(folder)


@pytest.mark.skipif(not (DATA / "esc10").is_dir(), reason="../shared/data/esc10 is not here")
def test_esc10(capsys) -> None:
    found = loaded(DATA / "esc10", "esc50", capsys)
    assert (len(found.train), len(found.test), found.metric) == (320, 80, "accuracy")
    assert sorted(set(found.train["fold"])) == [0, 1, 2, 3]
    assert (found.form.name_column, found.form.label_column, found.form.top_labels) == ("filename", "category", 1)


@pytest.mark.skipif(not (DATA / "nips4b-mini").is_dir(), reason="../shared/data/nips4b-mini is not here")
def test_nips4b(capsys) -> None:
    """FSDKaggle2019's layout, but neither its noisy table nor its classes: so it is not scored by lwlrap."""
    found = loaded(DATA / "nips4b-mini", "its files", capsys)
    assert (len(found.train), len(found.test), len(found.classes)) == (385, 201, 39)
    assert (found.task, found.metric, found.group_column) == ("multi_label", "macro_roc_auc", "recorder")
    assert (found.targets.sum(axis=1) == 0).sum() == 29 and (found.train["label"] == "").sum() == 29
    assert found.form.kind == "probabilities" and len(found.form.columns) == 39


@pytest.mark.parametrize("name", ["fsdkaggle2018", "us8k-mini"])
def test_fsdkaggle2018(name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not here")
    layout = find_layout(DATA / name, sound=False)
    assert (layout.source, layout.config.metric, layout.config.columns.group) == ("fsdkaggle2018", "map@3", None)


def test_an_unknown_description_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"--as esc51: no such file, and no ready description: use a file, or 8: birdclef"
    ):
        find_layout(tmp_path, described_by="esc51")
