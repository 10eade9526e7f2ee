"""The competition as one table: what is joined, and everything that is refused before hours of work start."""

import os
from pathlib import Path

import pandas as pd
import pytest

from configs.errors import UserError
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


def refusal(folder: Path, **how: bool) -> str:
    with pytest.raises(UserError) as caught:
        load_competition(folder, **how)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_column_that_stands_twice_is_refused(make):
    folder = make(train="fname,label,label\nb.wav,Cello,Bark\na.wav,Bark,Bark\nc.wav,Applause,Bark\n")
    assert "train.csv: its header has label twice" in refusal(folder)


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
    assert "train_post_competition.csv does not name a.wav" in capsys.readouterr().err


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
    ("table", "text", "lacks"),
    [
        ("train", "name,label\nx,Bark\n", "lacks the column fname; it has name, label"),
        ("train", "fname,class\nx,Bark\n", "lacks the column label; it has fname, class"),
        ("train", "fname;label\nx;Bark\n", "lacks the column 2: fname, label; it has fname;label"),
    ],
)
def test_a_column_that_lacks(make, table, text, lacks):
    assert lacks in refusal(make(**{table: text}))


@pytest.mark.parametrize("table", ["train", "sample"])
def test_a_table_without_rows(make, table):
    assert refusal(make(**{table: "fname,label\n"})).endswith("has no rows")


def test_a_table_that_is_no_table(make, tmp_path):
    folder = make()
    for data, told in (
        (b"", "cannot read the table: No columns"),
        (b"fname,label\nx,\xff\xfe\n", "cannot read the table: 'utf-8'"),
        (b'fname,label\na.wav,"Bark\n', "cannot read the table"),
        (b"fname,label\na.wav,Bark\nb.wav,Cello,3\n", "cannot read the table: Error tokenizing"),
        (b"fname,label\na.wav,Bark,1\nb.wav,Cello,1\n", "rows have more fields than its header fname, label"),
    ):
        (folder / "train.csv").write_bytes(data)
        text = refusal(folder)
        assert text.startswith(f"{folder / 'train.csv'}: ") and told in text


def test_every_double_name_is_listed(make):
    rows = "".join(f"{i:02}.wav,Bark\n" for i in range(12)) * 2 + "once.wav,Cello\n"
    text = refusal(make("fname,label\n" + rows))
    names = ", ".join(f"{i:02}.wav" for i in range(10))
    assert text.endswith(f"train.csv: fname stands more than once: 12: {names}, ... and 2 more")
    assert "once.wav" not in text


def test_a_double_name_in_the_test_set(make):
    assert "sample_submission.csv: fname stands more than once: z.wav" in refusal(make(sample=SAMPLE + "z.wav,Bark\n"))


@pytest.mark.parametrize("name", ["../a.wav", "audio_train/a.wav", "/etc/passwd", "..\\a.wav", "..", ".", ""])
@pytest.mark.parametrize("table", ["train", "sample"])
def test_a_name_with_a_path_in_it(make, table, name):
    text = refusal(make(**{table: f"fname,label\n{name},Bark\na.wav,Cello\n"}))
    assert f"fname must be a bare file name, but these are not: {name!r}" in text


def test_every_bad_label_is_listed_with_its_clip(make):
    text = refusal(make("fname,label\na.wav,\nc.wav,None\nd.wav\ne.wav,Bark\nf.wav,Bark \n"))
    assert "one word, but these are not: 4: a.wav (''), c.wav ('None'), d.wav (''), f.wav ('Bark ')" in text


def test_several_labels_in_one_cell_are_no_class(make):
    text = refusal(make('fname,label\na.wav,"Bark,Cello"\nb.wav,Bark Cello\nc.wav,Bark;Cello\nd.wav,A|B\ne.wav,\n'))
    assert text.endswith(
        "several labels in one cell, but this version trains one word a clip: "
        "4: a.wav ('Bark,Cello'), b.wav ('Bark Cello'), c.wav ('Bark;Cello'), d.wav ('A|B')"
    )


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("fname,Applause,Bark,Cello", "wants a number for each of 3 classes (4: fname, Applause, Bark, Cello), but"),
        ("fname,c1,c2,c3,c4", "wants a number for each of 4 classes (5: fname, c1, c2, c3, ... and 1 more), but"),
        ("file,label", "wants other columns (2: file, label), but"),
        ("id,target", "wants other columns (2: id, target), but"),
        ("label,fname", "wants other columns (2: label, fname), but"),
        ("fname,label,usage", "wants other columns (3: fname, label, usage), but"),
        ("fname,predicted", "wants other columns (2: fname, predicted), but"),
    ],
)
@pytest.mark.parametrize("sound", [True, False])
def test_another_submission_than_ours_is_refused_at_once(make, header, told, sound):
    row = ",".join(["z.wav"] * len(header.split(",")))
    text = refusal(make(train="fname,label\na.wav,Bark Cello\n", sample=f"{header}\n{row}\n"), sound=sound)
    assert told in text and text.endswith("can only write fname,label with three labels a clip")


def test_verified_is_yes_or_no(make):
    text = refusal(make("fname,label,manually_verified\na.wav,Bark,1\nb.wav,Cello,maybe\nc.wav,Applause,\n"))
    assert text.endswith("manually_verified must be 0 or 1, found 2: '', 'maybe'")


def test_fewer_than_three_classes_cannot_make_a_submission(make):
    assert "has 2 classes" in refusal(make("fname,label\na.wav,Bark\nb.wav,Cello\n"))


def test_every_missing_file_of_both_folders_in_one_error(make):
    folder = make(TRAIN + "".join(f"m{i:02}.wav,Bark,0\n" for i in range(12)), SAMPLE + "t.wav,Bark\n")
    text = refusal(folder)
    names = ", ".join(f"audio_train/m{i:02}.wav" for i in range(10))
    assert text.startswith(f"{folder}: files are missing: 13: {names}, ... and 3 more; ")
    assert "input.skip_unreadable=true" in text


def test_what_only_looks_like_a_file_is_missing_too(make):
    folder = make()
    (folder / "audio_train" / "a.wav").unlink()
    (folder / "audio_train" / "a.wav").symlink_to("nowhere")
    (folder / "audio_test" / "z.wav").unlink()
    (folder / "audio_test" / "z.wav").mkdir()
    assert "missing: 2: audio_train/a.wav, audio_test/z.wav" in refusal(folder)


def test_missing_files_keep_their_rows_where_that_is_wanted(make):
    folder = make()
    (folder / "audio_train" / "a.wav").unlink()
    (folder / "audio_test" / "z.wav").unlink()
    found = load_competition(folder, skip_missing=True)
    assert list(found.train["path"]) == [str(folder / "audio_train/b.wav"), None, str(folder / "audio_train/c.wav")]
    assert list(found.test["path"]) == [None, str(folder / "audio_test/y.wav")]
    assert found.test["fname"].tolist() == ["z.wav", "y.wav"]


def test_a_strange_label_in_the_sample_is_only_a_hint(make, capsys):
    load_competition(make(sample="fname,label\ny.wav,BARK Cello Meow\nz.wav,BARK\n"))
    assert "names labels that no training clip has: Meow" in capsys.readouterr().err


def test_a_sample_without_labels_will_do(make, capsys):
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
    assert f"extension: {disk} for {table}" in capsys.readouterr().out


def test_the_exact_name_wins(make, capsys):
    folder = make("fname,label\na.wav,Bark\na.WAV,Cello\nc.wav,Applause\n")
    (folder / "audio_train" / "a.WAV").touch()
    (folder / "audio_train" / "a.Wav").touch()
    paths = [Path(path).name for path in load_competition(folder).train["path"]]
    assert paths == ["a.wav", "a.WAV", "c.wav"] and "differ" not in capsys.readouterr().out


def test_where_two_could_be_meant_it_is_told(make):
    folder = make()
    (folder / "audio_train" / "a.wav").rename(folder / "audio_train" / "a.WAV")
    (folder / "audio_train" / "a.Wav").touch()
    text = refusal(folder)
    assert "files are missing: audio_train/a.wav (there is 2: a.WAV, a.Wav); write fname as the file is named" in text
    assert "skip" not in text


def test_one_file_is_not_given_to_two_names(make):
    folder = make("fname,label\na.WAV,Bark\na.Wav,Cello\nc.wav,Applause\n")
    assert "2: audio_train/a.WAV (there is a.wav), audio_train/a.Wav (there is a.wav)" in refusal(folder)


def test_a_name_without_extension_or_of_another_case_is_told_not_skipped(make, capsys):
    folder = make("fname,label\na,Bark\nB.WAV,Cello\nc.flac,Applause\n", "fname\ny\nz.wav\n")
    text = refusal(folder)
    assert text.startswith(
        f"{folder}: files are missing: 4: audio_train/a (there is a.wav), audio_train/B.WAV (there is b.wav), "
        f"audio_train/c.flac (there is c.wav), audio_test/y (there is y.wav); write fname as the file is named"
    )
    assert "skip" not in text
    load_competition(folder, skip_missing=True)
    assert "audio_train/a (there is a.wav)" in capsys.readouterr().err


def test_what_has_no_likely_name_is_told_next(make):
    folder = make("fname,label\nx.wav,Bark\nb.wav,Cello\nc.wav,Applause\n")
    assert "missing: audio_train/x.wav; complete the download" in refusal(folder)


def test_a_label_in_two_unicode_forms_is_one_class(make, capsys):
    folder = make(f"fname,label\na.wav,{NFC}\nb.wav,{NFD}\nc.wav,Bark\n", f"fname,label\nz.wav,{NFD}\n")
    (folder / "audio_train" / "d.wav").touch()
    (folder / "train.csv").write_text((folder / "train.csv").read_text() + "d.wav,Cello\n")
    found = load_competition(folder)
    assert found.classes == ("Bark", "Cello", NFC) and found.train["label"].tolist()[:2] == [NFC, NFC]
    told = capsys.readouterr().err
    assert f"labels in two Unicode forms, taken as one class each: {NFC}" in told
    assert "no training clip has" not in told


def test_a_label_in_one_form_stays_as_it_is_and_other_tables_follow(make, tmp_path):
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
    """Or clips of one speaker would lie on both sides of a fold."""
    folder = make(f"fname,label,speaker\na.wav,Bark,{NFC}\nb.wav,Cello,{NFD}\nc.wav,Applause,x\n")
    assert load_competition(folder).train["speaker"].tolist() == [NFC, NFC, "x"]


def test_one_name_in_two_forms_stands_twice(make):
    folder = make(f"fname,label\n{NFD},Bark\n{NFC},Cello\na.wav,Applause\n")
    assert refusal(folder).endswith(f"fname stands more than once, in two Unicode forms: {NFC}")


def test_stray_entries_beside_the_clips_change_nothing(make):
    folder = make()
    for part in (folder, folder / "audio_train", folder / "audio_test"):
        (part / "loop").symlink_to("loop")
        (part / "gone").symlink_to("nowhere")
        (part / "up").symlink_to("..")
        (part / "._a.wav").write_bytes(b"AppleDouble")
        (part / ".DS_Store").touch()
        os.mkfifo(part / "pipe.zip")
    assert len(load_competition(folder).train) == 3


def test_a_broken_zip_is_named_only_where_clips_are_missing(make, capsys):
    folder = make()
    (folder / "audio_train.zip").write_bytes(b"PK half of it")
    assert len(load_competition(folder).train) == 3
    assert "left aside: " in capsys.readouterr().err
    (folder / "audio_train" / "a.wav").unlink()
    for skip in (False, True):
        text = refusal(folder, skip_missing=skip)
        assert "missing: audio_train/a.wav; " in text and "audio_train.zip: cannot unpack" in text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["train.csv", "sample_submission.csv"])
def test_utf_16_is_told(make, name, encoding):
    folder = make()
    (folder / name).write_bytes((folder / name).read_text().encode(encoding))
    assert refusal(folder).endswith(f"{name}: cannot read the table: it is UTF-16 text: save it as UTF-8")


def test_latin_1_is_told(make):
    folder = make("fname,label\ncaf\u00e9,Bark\n".encode("latin-1"))
    assert refusal(folder).endswith("save it as UTF-8")


def test_a_byte_order_mark_in_the_other_tables(make, tmp_path):
    folder = make(
        sample="\ufefffname,label\nz.wav,Bark Cello Applause\n", train_post_competition='\ufeff"fname",x\na.wav,1\n'
    )
    found = load_competition(folder)
    assert found.test["fname"].tolist() == ["z.wav"] and found.train["x"].tolist() == ["", "1", ""]
    (tmp_path / "truth.csv").write_text('\ufeff"fname","label"\nz.wav,Bark\n')
    assert read_truth(tmp_path / "truth.csv", CLASSES)["fname"].tolist() == ["z.wav"]


# Published truth


def test_only_clips_that_count_are_truth(tmp_path):
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
    ("text", "told"),
    [
        ("fname,label\na,Bark\nb,Meow\nc,bark\n", "labels that no training clip has: 2: Meow, bark"),
        ("fname,label\na,None\n", "no clip of it counts"),
        ("fname,usage\na,Public\n", "lacks the column label"),
        ("fname,label\na,Bark\na,Bark\n", "fname stands more than once: a"),
    ],
)
def test_bad_truth(tmp_path, text, told):
    file = tmp_path / "truth.csv"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_truth(file, CLASSES)
    assert str(caught.value).startswith(f"{file}: ") and told in str(caught.value)


def test_a_table_that_is_not_there(tmp_path):
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
