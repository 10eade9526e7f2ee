"""Folders as people have them, without any description; and what is refused, with the line that would describe it."""

from pathlib import Path

import numpy as np
import pytest

from console.errors import UserError
from input.competition import Competition, load_competition

PROBABILITIES = "fname,Bark,Cello,Meow\nt1.wav,0,0,0\nt2.wav,0,0,0\n"
LABELS = 'fname,labels\na.wav,Bark\nb.wav,"Cello,Bark"\nc.wav,Meow\n'


@pytest.fixture
def make(tmp_path: Path):
    """make({name: text}, 'a.wav ...'): tables, and empty files of sounds."""

    def build(tables: dict[str, str | bytes], files: str) -> Path:
        for name, text in tables.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        for name in files.split():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return build


def facts(of: Competition) -> tuple[str, str, list[str], list[str]]:
    assert of.train["path"].notna().all() and of.test["path"].notna().all()
    assert len(of.targets) == len(of.train)
    return of.task, of.metric, of.train["label"].tolist(), of.test["fname"].tolist()


def error_of(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_competition(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_1_one_table_of_several_labels_and_probabilities(make) -> None:
    found = load_competition(
        make(
            {"train.csv": LABELS, "sample_submission.csv": PROBABILITIES},
            "train/a.wav train/b.wav train/c.wav test/t1.wav test/t2.wav",
        )
    )
    assert facts(found) == ("multi_label", "macro_roc_auc", ["Bark", "Bark|Cello", "Meow"], ["t1.wav", "t2.wav"])
    assert found.form.columns == ("Bark", "Cello", "Meow")


def test_2_curated_and_noisy(make) -> None:
    found = load_competition(
        make(
            {
                "train_curated.csv": LABELS,
                "train_noisy.csv": 'fname,labels\nd.wav,"Meow,Cello"\n',
                "sample_submission.csv": PROBABILITIES,
            },
            "train_curated/a.wav train_curated/b.wav train_curated/c.wav train_noisy/d.wav test/t1.wav test/t2.wav",
        )
    )
    assert found.metric == "lwlrap" and found.train["verified"].tolist() == [True, True, True, False]
    assert found.train["label"].tolist()[-1] == "Cello|Meow"


def test_3_other_columns_and_a_single_label(make) -> None:
    found = load_competition(
        make(
            {
                "train.csv": "filename,category\na.wav,dog bark\nb.wav,cat\nc.wav,dog bark\n",
                "sample_submission.csv": "filename,category\nt.wav,cat\n",
            },
            "audio/a.wav audio/b.wav audio/c.wav audio/t.wav",
        )
    )
    assert facts(found) == ("single_label", "accuracy", ["dog bark", "cat", "dog bark"], ["t.wav"])
    assert (found.form.name_column, found.form.label_column, found.form.top_labels) == ("filename", "category", 1)


def test_4_semicolons_between_columns(make) -> None:
    found = load_competition(
        make({"train.csv": "file;label\na.wav;Bark, loud\nb.wav;Meow\n"}, "train/a.wav train/b.wav")
    )
    assert facts(found) == ("single_label", "accuracy", ["Bark, loud", "Meow"], [])


def test_5_a_folder_per_class(make) -> None:
    found = load_competition(make({}, "train/Bark/a.wav train/Bark/b.wav train/Meow/a.wav test/t.wav"))
    assert facts(found) == ("single_label", "accuracy", ["Bark", "Bark", "Meow"], ["t.wav"])
    assert found.train["fname"].tolist() == ["Bark/a.wav", "Bark/b.wav", "Meow/a.wav"]


def test_6_names_without_extension(make) -> None:
    found = load_competition(
        make(
            {"train.csv": "id,label\n1,Bark\n2,Meow\n", "sample_submission.csv": "id,label\n9,Bark\n"},
            "train/1.wav train/2.wav test/9.wav",
        )
    )
    assert facts(found) == ("single_label", "accuracy", ["Bark", "Meow"], ["9"])


def test_7_own_folds_in_folders_and_no_test_set(make) -> None:
    found = load_competition(
        make({"meta.csv": "file,fold,class\na.wav,1,x\nb.wav,2,y\nc.wav,5,x\n"}, "fold1/a.wav fold2/b.wav fold5/c.wav")
    )
    assert facts(found) == ("single_label", "accuracy", ["x", "y", "x"], []) and found.train["fold"].tolist() == [
        0,
        1,
        2,
    ]


def test_8_a_column_of_0_and_1_per_class(make) -> None:
    found = load_competition(
        make(
            {
                "train.csv": "fname,Bark,Cello,Meow\na.wav,1,0,0\nb.wav,1,1,0\nc.wav,0,0,1\n",
                "sample_submission.csv": PROBABILITIES,
            },
            "train/a.wav train/b.wav train/c.wav test/t1.wav test/t2.wav",
        )
    )
    assert facts(found) == ("multi_label", "macro_roc_auc", ["Bark", "Bark|Cello", "Meow"], ["t1.wav", "t2.wav"])


def test_9_a_python_list_of_labels_and_blanks(make) -> None:
    found = load_competition(
        make(
            {
                "train.csv": "fname,labels\na.wav,\"['Bark', 'Cello']\"\nb.wav,[]\nc.wav,\" ['Meow'] \"\n",
                "sample_submission.csv": PROBABILITIES,
            },
            "train/a.wav train/b.wav train/c.wav test/t1.wav test/t2.wav",
        )
    )
    assert facts(found)[2] == ["Bark|Cello", "", "Meow"]


def test_10_names_with_a_folder_and_secondary_labels(make) -> None:
    text = "primary_label,secondary_labels,filename,author\nx,\"['y', 'other']\",x/1.ogg,me\ny,[],y/2.ogg,you\n"
    folder = make({"train_metadata.csv": text}, "train_audio/x/1.ogg train_audio/y/2.ogg")
    found = load_competition(folder)
    assert found.targets.tolist() == [[1.0, 0.5], [0.0, 1.0]] and found.group_column == "author"
    (folder / "competition.yaml").write_text("columns: {secondary_labels: secondary_labels}\nsecondary_weight: null\n")
    masked = load_competition(folder).targets
    assert np.isnan(masked[0, 1]) and masked[0, 0] == 1 and masked[1].tolist() == [0, 1]


def test_11_columns_from_another_table(make) -> None:
    found = load_competition(
        make(
            {
                "train.csv": LABELS,
                "train_groups.csv": "fname,recorder\na.wav,1\nb.wav,1\nc.wav,2\n",
                "sample_submission.csv": PROBABILITIES,
            },
            "audio_train/a.wav audio_train/b.wav audio_train/c.wav audio_test/t1.wav audio_test/t2.wav",
        )
    )
    assert found.group_column == "recorder" and found.train["recorder"].tolist() == ["1", "1", "2"]


def test_a_description_goes_before_every_guess(make) -> None:
    text = (
        "task: multi_label\nmetric: padded_cmap\nlabel_separator: /\ncolumns: {label: what, name: clip}\n"
        "train: {file: list.txt, separator: '|', encoding: latin-1, weight: 0.5}\naudio: {train: 'x/{clip}.wav'}\n"
    )
    found = load_competition(
        make(
            {"competition.yaml": text, "list.txt": "clip|what\na|dög/cat\nb|cat\n".encode("latin-1")}, "x/a.wav x/b.wav"
        )
    )
    assert facts(found) == ("multi_label", "padded_cmap", ["cat|dög", "cat"], []) and found.train[
        "weight"
    ].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("tsak: multi_label\n", "competition.yaml:1: unknown key 'tsak', did you mean 'task'?"),
        (
            "task: multi_label\naudio:\n  trian: x\n",
            "competition.yaml:3: unknown key 'audio.trian', did you mean 'audio.train'?",
        ),
        (
            "train:\n  - file: train.csv\n  - {file: b.csv, wieght: 1}\n",
            "competition.yaml:3: unknown key 'train.wieght', did you mean 'train.weight'?",
        ),
        ("columns: {filename: a}\n", "did you mean 'columns.name'?"),
        ("train: {file: train.csv, weight: 2}\n", "weight must be between 0 and 1"),
        ("train: ../other.csv\n", "leaves the folder"),
        ("task: multi_label\nmetric: accuracy\n", "competition.yaml:2: metric 'accuracy': is for one label per clip"),
        ("metric: top@5\n", "competition.yaml:1: metric 'top@5': is for one label per clip, but clips have several"),
        ("task: multi_label\nmetric: macro_rocauc\n", "yaml:2: metric 'macro_rocauc': no such metric: did you mean"),
        (
            "classes: [Bark, Cello, Meow, Gong]\n",
            "classes without a training clip: Gong; in competition.yaml: classes: [...]",
        ),
        ("classes: [Bark, Cello]\n", "labels that are no class in classes: of competition.yaml: 'Meow'"),
        (
            "columns: {fold: labels}\n",
            "labels must be a whole number, found 3: 'Bark', 'Cello,Bark', 'Meow'; in competition.yaml: columns: ",
        ),
        ("columns: {group: nobody}\n", "have no column nobody: they have"),
        ("columns: {label: nothing}\n", "train.csv: missing column nothing; it has fname, labels"),
        ("audio: {train: 'train/{nothing}'}\n", "the pattern train/{nothing} needs a column 'nothing'"),
        (
            "audio: {train: 'train/{fnam}'}\n",
            "did you mean fname? correct it in competition.yaml: audio: {train: 'train/{fname}'}",
        ),
        ("audio: {test: 'test/{fnam}'}\n", "only the name is known; correct it in competition.yaml: audio: {test: "),
        (
            "columns: {name: fnam}\n",
            "train.csv: missing column fnam; it has fname, labels; did you mean fname? correct it in "
            "competition.yaml: columns: {name: fname}",
        ),
        ("columns: {label: lable}\n", "did you mean labels? correct it in competition.yaml: columns: {label: labels}"),
        ("columns: {group: fnam}\n", "no column fnam: they have fname; did you mean fname? correct it in comp"),
        ("columns: {fold: k}\n", "missing column k; it has fname, labels; in competition.yaml: columns: {fold: COL"),
        ("submission: {name_column: clip}\n", "Meow; in competition.yaml: submission: {name_column: COLUMN}"),
        ("submission: {kind: top_labels}\n", "one column of labels expected, found 3"),
        ("train: [train.csv, more.csv]\n", "missing more.csv"),
    ],
)
def test_what_is_refused(make, yaml: str, message: str) -> None:
    folder = make(
        {"competition.yaml": yaml, "train.csv": LABELS, "sample_submission.csv": PROBABILITIES},
        "train/a.wav train/b.wav train/c.wav test/t1.wav test/t2.wav",
    )
    assert message in error_of(folder)


def test_headers_alone_describe_a_table(make) -> None:
    """The table is found by the columns that the description names, whatever they are called."""
    tables = {"competition.yaml": "columns: {label: kind}\n", "list.csv": "filename,kind\na.wav,x\nb.wav,y\n"}
    assert load_competition(make(tables, "audio/a.wav audio/b.wav")).classes == ("x", "y")


def test_a_class_that_the_submission_lacks(make) -> None:
    folder = make(
        {"train.csv": LABELS + "d.wav,Gong\n", "sample_submission.csv": PROBABILITIES},
        "train/a.wav train/b.wav train/c.wav train/d.wav test/t1.wav test/t2.wav",
    )
    assert "labels that are no class in the sample submission: 'Gong'" in error_of(folder)


def test_a_class_with_our_separator(make) -> None:
    folder = make(
        {
            "train.csv": "fname,label\na.wav,x|y\nb.wav,z\n",
            "competition.yaml": "task: single_label\nlabel_separator: null\n",
        },
        "train/a.wav train/b.wav",
    )
    assert "several labels in one cell" in error_of(folder)


def test_own_folds_that_leak_a_group(make) -> None:
    folder = make({"train.csv": "fname,label,fold,speaker\na.wav,x,0,s\nb.wav,y,1,s\n"}, "train/a.wav train/b.wav")
    assert "clips of one speaker are in several folds: s; in competition.yaml: columns: {fold: null}" in error_of(
        folder
    )


@pytest.mark.parametrize("name", ["audio.filename", "file[0]", "file:name", "file!r"])
def test_a_header_with_any_letters(make, name: str) -> None:
    found = load_competition(make({"train.csv": f"{name},label\na.wav,x\nb.wav,y\n"}, "audio/a.wav audio/b.wav"))
    assert found.train["fname"].tolist() == ["a.wav", "b.wav"] and found.train["path"].notna().all()


def test_a_header_with_braces(make) -> None:
    folder = make({"train.csv": "{file},label\na.wav,x\nb.wav,y\n"}, "audio/a.wav audio/b.wav")
    assert "the column of names is '{file}': rename it" in error_of(folder)


def test_a_column_fname_beside_that_of_names(make) -> None:
    tables = {
        "train.csv": "fname,filename,label\n1,a.wav,x\n2,b.wav,y\n",
        "more.csv": "fname,filename,recorder\n8,a.wav,r\n9,b.wav,r\n",
    }
    found = load_competition(make(tables, "audio/a.wav audio/b.wav"))
    assert list(found.train) == ["fname", "label", "verified", "recorder", "path"]
    assert found.train["fname"].tolist() == ["a.wav", "b.wav"] and found.group_column == "recorder"


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (['"dog,cat"', '"cat,bird"', '"dog,bird"'], ["cat|dog", "bird|cat", "bird|dog"]),  # never on its own
        (["\"['dog', 'cat']\"", "['dog']", "[]"], ["cat|dog", "dog", ""]),
        (
            ["left hand", "right hand", "left foot", "right foot"],
            ["left hand", "right hand", "left foot", "right foot"],
        ),
        (['"Frying, with oil"', '"Male, talk"', '"Female, talk"'], ["Frying, with oil", "Male, talk", "Female, talk"]),
    ],
)
def test_cells_that_hold_several_labels_and_cells_that_do_not(make, cells: list[str], labels: list[str]) -> None:
    names = [f"{i}.wav" for i in range(len(cells))]
    rows = "".join(f"{name},{cell}\n" for name, cell in zip(names, cells, strict=True))
    found = load_competition(make({"train.csv": f"filename,tags\n{rows}"}, " ".join(f"audio/{name}" for name in names)))
    assert found.train["label"].tolist() == labels


@pytest.mark.parametrize(
    ("sample", "top_labels", "separator", "metric"),
    [
        ("air conditioner", 1, " ", "accuracy"),
        ('"air conditioner,horn,dog"', 3, ",", "map@3"),
        ("air conditioner;dog", 2, ";", "map@2"),
    ],
)
def test_a_sample_whose_labels_have_blanks(make, sample: str, top_labels: int, separator: str, metric: str) -> None:
    tables = {
        "train.csv": "filename,label\na.wav,air conditioner\nb.wav,horn\nc.wav,dog\n",
        "sample_submission.csv": f"filename,label\nt.wav,{sample}\n",
    }
    found = load_competition(make(tables, "train/a.wav train/b.wav train/c.wav test/t.wav"))
    assert (found.task, found.metric) == ("single_label", metric)
    assert (found.form.top_labels, found.form.separator) == (top_labels, separator)


def test_other_tables_that_cannot_be_read(make) -> None:
    tables = {"my_train.csv": "filename,label\na.wav,x\nb.wav,y\n", "a_train.csv": b"n\xe4me\n", "train_0.csv": ""}
    assert len(load_competition(make(tables, "audio/a.wav audio/b.wav")).train) == 2


def test_a_test_table_that_is_turned_off_is_not_read(make) -> None:
    tables = {"train.csv": "filename,label\na.wav,x\nb.wav,y\n", "test_notes.csv": b"n\xe4me\n"}
    folder = make(tables, "audio/a.wav audio/b.wav")
    assert "test_notes.csv: cannot read" in error_of(folder), "it may name the test clips"
    (folder / "competition.yaml").write_text("test: null\n")
    assert load_competition(folder).test.empty


def test_a_column_of_weights_in_grams(make) -> None:
    folder = make({"train.csv": "filename,label,weight\na.wav,x,12\nb.wav,y,1\n"}, "audio/a.wav audio/b.wav")
    assert error_of(folder).endswith("found '12'; in competition.yaml: columns: {weight: null}")


def test_how_to_describe_what_as_describes(make, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {"train.csv": "filename,label\na.wav,x\nb.wav,y\n", "mine.yaml": "metric: map@2\n"}
    folder = make(tables, "audio/a.wav audio/b.wav")
    load_competition(folder, described_by="mine.yaml")
    assert f"(python -m input.describe {folder} --as mine.yaml)" in capsys.readouterr().out


def test_a_sample_of_placeholders(make, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {
        "train.csv": "filename,label\na.wav,x\nb.wav,y\nc.wav,z\n",
        "sample_submission.csv": "filename,label\nt.wav,some other words\n",
    }
    found = load_competition(make(tables, "train/a.wav train/b.wav train/c.wav test/t.wav"))
    assert (found.metric, found.form.top_labels, found.form.separator) == ("map@3", 3, " ")
    assert "labels that no training clip has: 3: other, some, words" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("train_soundscapes_labels.csv", "filename,start,end,label\na.wav,0,5,x\nb.wav,5,10,y\n", "start, end"),
        ("train_tp.csv", "recording_id,species_id,t_min,t_max\na,1,2.5,3.5\nb,2,1,2\n", "t_min, t_max"),
        ("train_soundscape_labels.csv", "row_id,audio_id,seconds,birds\na_5,a,5,x\nb_5,b,5,y\n", "row_id, seconds"),
        ("labels.csv", "File,label,Begin Time (s),End Time (s)\na.wav,x,1,2\nb.wav,y,1,2\n", "Begin Time (s), End"),
        ("events.csv", "filename,onset,offset,event_label\na.wav,0.1,0.5,x\nb.wav,1,2,y\n", "onset, offset"),
    ],
)
def test_parts_of_recordings_are_no_clips(make, name: str, text: str, columns: str) -> None:
    """Each recording in one row: nothing but the header tells that the label is not that of the whole."""
    folder = make({name: text}, "audio/a.wav audio/b.wav")
    fact = f"{name}: its rows are parts of recordings ({columns}"
    assert fact in error_of(folder) and "cut each part into a file of its own" in error_of(folder)


def test_parts_of_recordings_beside_folders_of_classes(make) -> None:
    table = {"labels.csv": "filename,start,end,label\na.wav,0,5,x\na.wav,5,10,y\n"}
    folder = make(table, "train_audio/x/1.wav train_audio/y/2.wav soundscapes/a.wav")
    assert error_of(folder).endswith("or leave it out: audio: {class_folders: train_audio}")
    (folder / "competition.yaml").write_text("audio: {class_folders: train_audio}\n")
    assert len(load_competition(folder).train) == 2


def test_rows_with_times_that_are_whole_files(make) -> None:
    """Where the description says so, and no file has two rows."""
    table = "filename,start,end,label\na.wav,0,5,x\nb.wav,5,10,y\n"
    folder = make({"train.csv": table, "competition.yaml": "columns: {name: filename}\n"}, "audio/a.wav audio/b.wav")
    assert len(load_competition(folder).train) == 2
    (folder / "train.csv").write_text(table + "b.wav,10,15,x\n")
    assert "train.csv: its rows are parts of recordings (start, end)" in error_of(folder)


TABLES = Path(__file__).parents[1].parent / "shared" / "data" / "tables"


@pytest.mark.skipif(not TABLES.is_dir(), reason="../shared/data/tables is not here")
@pytest.mark.parametrize("name", ["birdclef/2021", "birdclef/2026", "birdclef/2026/excerpt", "rfcx"])
def test_real_tables_of_parts_of_recordings(name: str) -> None:
    assert "its rows are parts of recordings (" in error_of(TABLES / name)
