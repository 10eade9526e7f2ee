"""The competition as one table: what is joined, and everything that is refused before hours of work start."""

import os
from pathlib import Path

import pandas as pd
import pytest

from console.errors import UserError
from input.competition import load_competition, read_table, read_truth

REAL = Path("../shared/data/fsdkaggle2018")
MINI = Path("../shared/data/us8k-mini")
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/fsdkaggle2018 is not here")
needs_mini = pytest.mark.skipif(not MINI.is_dir(), reason="../shared/data/us8k-mini is not here")

TRAIN = "fname,label,manually_verified\nb.wav,Cello,1\na.wav,Bark,0\nc.wav,Applause,1\n"
SAMPLE = "fname,label\nz.wav,Bark Cello Applause\ny.wav,Bark Cello Applause\n"
CLASSES = ("Applause", "Bark", "Cello")


@pytest.fixture
def make(tmp_path):
    """A competition whose files are empty: loading it looks at names only."""

    def build(train: str | bytes = TRAIN, sample: str = SAMPLE, **more: str) -> Path:
        tables = {"train.csv": train, "sample_submission.csv": sample, **{f"{k}.csv": v for k, v in more.items()}}
        for name, text in tables.items():
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        for part, fnames in (("audio_train", "abc"), ("audio_test", "yz")):
            (tmp_path / part).mkdir()
            for letter in fnames:
                (tmp_path / part / f"{letter}.wav").touch()
        return tmp_path

    return build


def error_of(folder: Path, **how: bool) -> str:
    with pytest.raises(UserError) as caught:
        load_competition(folder, **how)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_column_that_appears_twice_is_an_error(make):
    folder = make(train="fname,label,label\nb.wav,Cello,Bark\na.wav,Bark,Bark\nc.wav,Applause,Bark\n")
    assert "train.csv: the header has label twice" in error_of(folder)


def test_two_tables(make):
    folder = make()
    found = load_competition(folder)
    assert found.classes == CLASSES
    assert found.train.to_dict("list") == {
        "fname": ["b.wav", "a.wav", "c.wav"],
        "label": ["Cello", "Bark", "Applause"],
        "verified": [True, False, True],
        "path": [str(folder / "audio_train" / name) for name in ("b.wav", "a.wav", "c.wav")],
    }
    assert found.test.to_dict("list") == {
        "fname": ["z.wav", "y.wav"],
        "path": [str(folder / "audio_test" / name) for name in ("z.wav", "y.wav")],
    }


def test_byte_order_mark_crlf_and_quotes_change_nothing(make):
    text = '\ufefffname,label,manually_verified\n"b.wav","Cello",1\n"a.wav",Bark,0\nc.wav,Applause,1\n'
    found = load_competition(make(text.replace("\n", "\r\n").encode()))
    assert found.train["label"].tolist() == ["Cello", "Bark", "Applause"]


def test_a_quoted_name_may_hold_a_comma(make):
    folder = make('fname,label\n"b,1.wav",Cello\na.wav,Bark\nc.wav,Applause\n')
    (folder / "audio_train" / "b,1.wav").touch()
    assert load_competition(folder).train["fname"][0] == "b,1.wav"


def test_without_the_column_every_label_counts_as_verified(make, capsys):
    found = load_competition(make("fname,label\nb.wav,Cello\na.wav,Bark\nc.wav,Applause\n"))
    assert found.train["verified"].tolist() == [True] * 3
    assert "no column manually_verified" in capsys.readouterr().out


def test_names_that_look_like_numbers_or_nothing_stay_text(make):
    folder = make("fname,label\n001,Cello\nNA,Bark\n1e5,nan\n")
    for name in ("001", "NA", "1e5"):
        (folder / "audio_train" / name).touch()
    found = load_competition(folder)
    assert found.train["fname"].tolist() == ["001", "NA", "1e5"]
    assert found.classes == ("Bark", "Cello", "nan")


def test_details_are_joined_by_name(make, capsys):
    details = "fname,label,freesound_id,license\nc.wav,Ignored_here,7,CC\nother.wav,Bark,9,CC\nb.wav,Cello,5,\n"
    found = load_competition(make(train_post_competition=details))
    assert found.train["fname"].tolist() == ["b.wav", "a.wav", "c.wav"]
    assert found.train["label"].tolist() == ["Cello", "Bark", "Applause"]
    assert found.train["freesound_id"].tolist() == ["5", "", "7"]
    assert found.train["license"].tolist() == ["", "", "CC"]
    assert "train_post_competition.csv: no row for a.wav" in capsys.readouterr().err


def test_zenodos_release(tmp_path):
    meta = tmp_path / "FSDKaggle2018.meta"
    for part in (meta, tmp_path / "FSDKaggle2018.audio_train", tmp_path / "FSDKaggle2018.audio_test"):
        part.mkdir()
    rows = "a.wav,Bark,0,11,CC\nb.wav,Cello,1,12,CC\nc.wav,Applause,1,11,CC\n"
    (meta / "train_post_competition.csv").write_text("fname,label,manually_verified,freesound_id,license\n" + rows)
    (meta / "test_post_competition_scoring_clips.csv").write_text(
        "fname,label,usage,freesound_id,license\nz.wav,Bark,Public,1,CC\ny.wav,Cello,Private,2,CC\n"
    )
    for name in ("audio_train/a.wav", "audio_train/b.wav", "audio_train/c.wav", "audio_test/y.wav", "audio_test/z.wav"):
        (tmp_path / f"FSDKaggle2018.{name}").touch()
    found = load_competition(tmp_path)
    assert found.classes == CLASSES
    assert found.train["freesound_id"].tolist() == ["11", "12", "11"]
    assert found.test["fname"].tolist() == ["z.wav", "y.wav"]
    truth = read_truth(meta / "test_post_competition_scoring_clips.csv", found.classes)
    assert truth["usage"].tolist() == ["Public", "Private"]


def test_without_sound_no_path_is_needed(make):
    folder = make()
    for part in ("audio_train", "audio_test"):
        for file in (folder / part).iterdir():
            file.unlink()
        (folder / part).rmdir()
    found = load_competition(folder, sound=False)
    assert list(found.train["path"]) == [None] * 3 and list(found.test["path"]) == [None] * 2


# What is refused


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("train", "what,label\nx,Bark\n", "no table of training clips with their labels, and no folder per class"),
        ("train", "fname,what\nx,Bark\n", "train: FILE, columns: {name: COLUMN, label: COLUMN}"),
    ],
)
def test_a_missing_column(make, table, text, message):
    assert message in error_of(make(**{table: text}))


@pytest.mark.parametrize("table", ["train", "sample"])
def test_a_table_without_rows(make, table):
    assert error_of(make(**{table: "fname,label\n"})).endswith("has no rows")


def test_a_file_that_is_not_a_table(make, tmp_path):
    folder = make()
    for data, message in (
        (b"", "cannot read the table: No columns"),
        (b"fname,label\nx,\xff\xfe\n", "cannot read the table: 'utf-8'"),
        (b'fname,label\na.wav,"Bark\n', "cannot read the table"),
        (b"fname,label\na.wav,Bark\nb.wav,Cello,3\n", "cannot read the table: Error tokenizing"),
        (b"fname,label\na.wav,Bark,1\nb.wav,Cello,1\n", "rows have more fields than the header fname, label"),
    ):
        (folder / "train.csv").write_bytes(data)
        text = error_of(folder)
        assert text.startswith(f"{folder / 'train.csv'}: ") and message in text


def test_every_double_name_is_listed(make):
    rows = "".join(f"{i:02}.wav,Bark\n" for i in range(12)) * 2 + "once.wav,Cello\n"
    text = error_of(make("fname,label\n" + rows))
    names = ", ".join(f"{i:02}.wav" for i in range(10))
    assert text.endswith(f"train.csv: fname appears more than once: 12: {names}, ... and 2 more")
    assert "once.wav" not in text


def test_a_double_name_in_the_test_set(make):
    assert "sample_submission.csv: fname appears more than once: z.wav" in error_of(
        make(sample=SAMPLE + "z.wav,Bark\n")
    )


@pytest.mark.parametrize("name", ["../a.wav", "audio_train/a.wav", "/etc/passwd", "..\\a.wav", "..", ".", ""])
@pytest.mark.parametrize("table", ["train", "sample"])
def test_a_name_with_a_path_in_it(make, table, name):
    text = error_of(make(**{table: f"fname,label\n{name},Bark\na.wav,Cello\n"}))
    assert f"fname must be a file name without a path: {name!r}" in text


def test_every_bad_label_is_listed_with_its_clip(make):
    text = error_of(make("fname,label\na.wav,\nc.wav,None\nd.wav\ne.wav,Bark\n"))
    assert "must be one word: 3: a.wav (''), c.wav ('None'), d.wav ('')" in text


def test_several_labels_in_one_cell_are_an_error(make):
    text = error_of(make('fname,label\na.wav,"Bark,Cello"\nb.wav,Bark Cello\nc.wav,Bark;Cello\nd.wav,A|B\ne.wav,\n'))
    assert text.endswith(
        "several labels in one cell of a single_label task: 4: a.wav ('Bark,Cello'), b.wav ('Bark Cello'), "
        "c.wav ('Bark;Cello'), d.wav ('A|B'); in competition.yaml: task: multi_label, label_separator: ','"
    )


@pytest.mark.parametrize("header", ["fname,c1,c2,c3,c4", "fname,label,usage"])
@pytest.mark.parametrize("sound", [True, False])
def test_a_submission_of_other_classes_is_an_error_at_once(make, header, sound):
    row = ",".join(["z.wav"] * len(header.split(",")))
    text = error_of(make(sample=f"{header}\n{row}\n"), sound=sound)
    assert "labels that are no class in the sample submission: 3: 'Applause', 'Bark', 'Cello'" in text


def test_verified_is_yes_or_no(make):
    text = error_of(make("fname,label,manually_verified\na.wav,Bark,1\nb.wav,Cello,maybe\nc.wav,Applause,\n"))
    assert text.endswith("manually_verified must be 0 or 1, found 2: '', 'maybe'")


def test_fewer_than_three_classes_cannot_make_a_submission(make):
    assert "has 2 classes" in error_of(make("fname,label\na.wav,Bark\nb.wav,Cello\n"))


def test_every_missing_file_of_both_folders_in_one_error(make):
    folder = make(TRAIN + "".join(f"m{i:02}.wav,Bark,0\n" for i in range(12)), SAMPLE + "t.wav,Bark\n")
    text = error_of(folder)
    names = ", ".join(f"audio_train/m{i:02}.wav" for i in range(10))
    assert text.startswith(f"{folder}: missing files: 13: {names}, ... and 3 more; ")
    assert "input.skip_unreadable=true" in text


def test_broken_links_and_folders_count_as_missing(make):
    folder = make()
    (folder / "audio_train" / "a.wav").unlink()
    (folder / "audio_train" / "a.wav").symlink_to("nowhere")
    (folder / "audio_test" / "z.wav").unlink()
    (folder / "audio_test" / "z.wav").mkdir()
    assert "missing files: 2: audio_train/a.wav, audio_test/z.wav" in error_of(folder)


def test_missing_files_may_keep_their_rows(make):
    folder = make()
    (folder / "audio_train" / "a.wav").unlink()
    (folder / "audio_test" / "z.wav").unlink()
    found = load_competition(folder, skip_missing=True)
    assert list(found.train["path"]) == [str(folder / "audio_train/b.wav"), None, str(folder / "audio_train/c.wav")]
    assert list(found.test["path"]) == [None, str(folder / "audio_test/y.wav")]
    assert found.test["fname"].tolist() == ["z.wav", "y.wav"]


def test_a_strange_label_in_the_sample_is_only_a_hint(make, capsys):
    load_competition(make(sample="fname,label\ny.wav,BARK Cello Meow\nz.wav,BARK\n"))
    assert "labels that no training clip has: Meow" in capsys.readouterr().err


def test_a_sample_needs_no_labels(make, capsys):
    assert load_competition(make(sample="fname\nz.wav\ny.wav\n")).test["fname"].tolist() == ["z.wav", "y.wav"]
    assert capsys.readouterr().err == ""


# Names as people have them

NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("table", "disk"), [(NFC, NFD), (NFD, NFC), ("b.WAV", "b.wav"), ("b.wav", "b.WAV")])
def test_a_file_of_another_form_is_found(make, table, disk, capsys):
    folder = make(f"fname,label\n{table},Cello\na.wav,Bark\nc.wav,Applause\n", f"fname\n{table}\nz.wav\n")
    (folder / "audio_train" / "b.wav").unlink()
    for part in ("audio_train", "audio_test"):
        (folder / part / disk).touch()
    found = load_competition(folder)
    assert found.train["fname"][0] == table and found.train["path"][0] == str(folder / "audio_train" / disk)
    assert found.test["fname"][0] == table and found.test["path"][0] == str(folder / "audio_test" / disk)
    assert f"extension case: {disk} for {table}" in capsys.readouterr().out


def test_the_exact_name_wins(make, capsys):
    folder = make("fname,label\na.wav,Bark\na.WAV,Cello\nc.wav,Applause\n")
    (folder / "audio_train" / "a.WAV").touch()
    (folder / "audio_train" / "a.Wav").touch()
    paths = [Path(path).name for path in load_competition(folder).train["path"]]
    assert paths == ["a.wav", "a.WAV", "c.wav"] and "matched" not in capsys.readouterr().out


def test_an_ambiguous_name_is_an_error(make):
    folder = make()
    (folder / "audio_train" / "a.wav").rename(folder / "audio_train" / "a.WAV")
    (folder / "audio_train" / "a.Wav").touch()
    text = error_of(folder)
    assert "missing files: audio_train/a.wav (found 2: a.WAV, a.Wav); use the exact file name as fname" in text
    assert "skip" not in text


def test_one_file_is_not_given_to_two_names(make):
    folder = make("fname,label\na.WAV,Bark\na.Wav,Cello\nc.wav,Applause\n")
    assert "2: audio_train/a.WAV (found a.wav), audio_train/a.Wav (found a.wav)" in error_of(folder)


def test_a_name_without_extension_or_of_another_case_is_an_error_not_skipped(make, capsys):
    folder = make("fname,label\na,Bark\nB.WAV,Cello\nc.flac,Applause\n", "fname\ny\nz.wav\n")
    text = error_of(folder)
    assert text.startswith(
        f"{folder}: missing files: 4: audio_train/a (found a.wav), audio_train/B.WAV (found b.wav), "
        f"audio_train/c.flac (found c.wav), audio_test/y (found y.wav); use the exact file name as fname"
    )
    assert "skip" not in text
    load_competition(folder, skip_missing=True)
    assert "audio_train/a (found a.wav)" in capsys.readouterr().err


def test_a_file_without_a_similar_name_is_reported_next(make):
    folder = make("fname,label\nx.wav,Bark\nb.wav,Cello\nc.wav,Applause\n")
    assert "missing files: audio_train/x.wav; complete the download" in error_of(folder)


def test_a_label_in_two_unicode_forms_is_one_class(make, capsys):
    folder = make(f"fname,label\na.wav,{NFC}\nb.wav,{NFD}\nc.wav,Bark\n", f"fname,label\nz.wav,{NFD}\n")
    (folder / "audio_train" / "d.wav").touch()
    (folder / "train.csv").write_text((folder / "train.csv").read_text() + "d.wav,Cello\n")
    found = load_competition(folder)
    assert found.classes == ("Bark", "Cello", NFC) and found.train["label"].tolist()[:2] == [NFC, NFC]
    message = capsys.readouterr().err
    assert f"labels in two Unicode forms count as one class: {NFC}" in message
    assert "no training clip has" not in message


def test_a_label_in_one_form_is_unchanged_and_other_tables_follow(make, tmp_path):
    folder = make(f"fname,label\n{NFD}.wav,{NFD}\na.wav,Bark\nc.wav,Applause\n", f"fname\n{NFD}.wav\n")
    for part in ("audio_train", "audio_test"):
        (folder / part / f"{NFC}.wav").touch()
    (folder / "train_post_competition.csv").write_text(f"fname,freesound_id\n{NFC}.wav,5\na.wav,6\nc.wav,7\n")
    found = load_competition(folder)
    assert found.classes == ("Applause", "Bark", NFD)
    assert found.train["freesound_id"].tolist() == ["5", "6", "7"]
    (tmp_path / "truth.csv").write_text(f"fname,label\n{NFC}.wav,{NFC}\n")
    truth = read_truth(tmp_path / "truth.csv", found.classes, list(found.test["fname"]))
    assert truth.to_dict("list") == {"fname": [f"{NFD}.wav"], "label": [NFD], "usage": ["scored"]}


def test_a_group_in_two_unicode_forms_is_one_group(make):
    """Otherwise clips of one speaker could be in training and validation."""
    folder = make(f"fname,label,speaker\na.wav,Bark,{NFC}\nb.wav,Cello,{NFD}\nc.wav,Applause,x\n")
    assert load_competition(folder).train["speaker"].tolist() == [NFC, NFC, "x"]


def test_one_name_in_two_forms_appears_twice(make):
    folder = make(f"fname,label\n{NFD},Bark\n{NFC},Cello\na.wav,Applause\n")
    assert error_of(folder).endswith(f"fname appears more than once, in two Unicode forms: {NFC}")


def test_other_files_in_the_folders_change_nothing(make):
    folder = make()
    for part in (folder, folder / "audio_train", folder / "audio_test"):
        (part / "loop").symlink_to("loop")
        (part / "gone").symlink_to("nowhere")
        (part / "up").symlink_to("..")
        (part / "._a.wav").write_bytes(b"AppleDouble")
        (part / ".DS_Store").touch()
        os.mkfifo(part / "pipe.zip")
    assert len(load_competition(folder).train) == 3


def test_a_broken_zip_is_an_error_only_if_clips_are_missing(make, capsys):
    folder = make()
    (folder / "audio_train.zip").write_bytes(b"PK half of it")
    assert len(load_competition(folder).train) == 3
    assert "skipped: " in capsys.readouterr().err
    (folder / "audio_train" / "a.wav").unlink()
    for skip in (False, True):
        text = error_of(folder, skip_missing=skip)
        assert "missing files: audio_train/a.wav; " in text and "audio_train.zip: cannot be unpacked" in text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["train.csv", "sample_submission.csv"])
def test_utf_16_is_an_error(make, name, encoding):
    folder = make()
    (folder / name).write_bytes((folder / name).read_text().encode(encoding))
    assert error_of(folder).endswith(f"{name}: cannot read the table: it is UTF-16 text: save it as UTF-8")


def test_latin_1_is_an_error(make):
    folder = make("fname,label\ncaf\u00e9,Bark\n".encode("latin-1"))
    assert error_of(folder).endswith("save it as UTF-8")


def test_a_byte_order_mark_in_the_other_tables(make, tmp_path):
    folder = make(
        sample="\ufefffname,label\nz.wav,Bark Cello Applause\n", train_post_competition='\ufeff"fname",x\na.wav,1\n'
    )
    found = load_competition(folder)
    assert found.test["fname"].tolist() == ["z.wav"] and found.train["x"].tolist() == ["", "1", ""]
    (tmp_path / "truth.csv").write_text('\ufeff"fname","label"\nz.wav,Bark\n')
    assert read_truth(tmp_path / "truth.csv", CLASSES)["fname"].tolist() == ["z.wav"]


# Published truth


def test_only_scored_clips_are_truth(tmp_path):
    file = tmp_path / "truth.csv"
    file.write_text(
        "fname,label,usage\na,Bark,Public\nb,None,Ignored\nc,Cello,Private\nd,Cello,Ignored\ne,None,Public\n"
    )
    assert read_truth(file, CLASSES).to_dict("list") == {
        "fname": ["a", "c"],
        "label": ["Bark", "Cello"],
        "usage": ["Public", "Private"],
    }


def test_truth_without_usage_is_scored(tmp_path):
    file = tmp_path / "truth.csv"
    file.write_text("fname,label\na,Bark\nb,None\n")
    assert read_truth(file, CLASSES).to_dict("list") == {"fname": ["a"], "label": ["Bark"], "usage": ["scored"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fname,label\na,Bark\nb,Meow\nc,bark\n", "labels that no training clip has: 2: Meow, bark"),
        ("fname,label\na,None\n", "no clip is scored"),
        ("fname,usage\na,Public\n", "missing column label"),
        ("fname,label\na,Bark\na,Bark\n", "fname appears more than once: a"),
    ],
)
def test_bad_truth(tmp_path, text, message):
    file = tmp_path / "truth.csv"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_truth(file, CLASSES)
    assert str(caught.value).startswith(f"{file}: ") and message in str(caught.value)


def test_a_missing_table(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: cannot read the table: .*No such file"):
        read_table(tmp_path / "none.csv", ())


# The real tables


@needs_real
def test_the_real_tables(capsys):
    found = load_competition(REAL, sound=False)
    assert (len(found.train), len(found.test), len(found.classes)) == (9473, 9400, 41)
    assert found.train["verified"].sum() == 3710
    assert found.train["freesound_id"].ne("").all()
    assert "Hi-hat" in found.classes
    sample = pd.read_csv(REAL / "sample_submission.csv")
    assert found.test["fname"].tolist() == sample["fname"].tolist()
    assert capsys.readouterr().err == "", "the sample's Hi-Hat is no strange label"


@needs_real
def test_the_real_truth():
    found = load_competition(REAL, sound=False)
    truth = read_truth(REAL / "test_post_competition.csv", found.classes)
    assert truth["usage"].value_counts().to_dict() == {"Private": 1299, "Public": 301}
    assert set(truth["label"]) == set(found.classes)


@needs_mini
def test_the_small_real_competition():
    found = load_competition(MINI)
    assert (len(found.train), len(found.test), len(found.classes)) == (993, 394, 10)
    assert found.train["freesound_id"].nunique() < 993
    assert all(Path(path).is_file() for path in (*found.train["path"], *found.test["path"]))
