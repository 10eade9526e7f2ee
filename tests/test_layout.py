"""Kaggle's layout, its zips, Zenodo's release; and zips that must not be believed."""

import os
import stat
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import pytest

from console.errors import UserError
from input.layout import find_layout
from input.zips import unpack_zips

KAGGLE = {
    "train.csv": b"fname,label\na.wav,Bark\n",
    "sample_submission.csv": b"fname,label\nt.wav,Bark\n",
    "audio_train/a.wav": b"a" * 5000,
    "audio_test/t.wav": b"t" * 4000,
}
ZENODO = {
    "FSDKaggle2018.meta/train_post_competition.csv": b"fname,label\na.wav,Bark\n",
    "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv": b"fname,label\nt.wav,Bark\n",
    "FSDKaggle2018.audio_train/a.wav": b"a" * 5000,
    "FSDKaggle2018.audio_test/t.wav": b"t" * 4000,
}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pack(archive: Path, files: dict[str, bytes], folders: bool = False) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for folder in sorted({f"{Path(name).parent}/" for name in files}) if folders else ():
            if folder != "./":
                target.writestr(folder, b"")
        for name, data in files.items():
            target.writestr(name, data)
    return archive


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def under(prefix: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of one folder, by their bare names."""
    return {Path(name).name: data for name, data in files.items() if name.startswith(prefix)}


def test_kaggles_layout(tmp_path):
    layout = find_layout(put(tmp_path, KAGGLE))
    cfg = layout.config
    assert [table.file for table in cfg.train] == ["train.csv"] and layout.source == "fsdkaggle2018"
    assert (layout.train_audio, layout.test_audio) == ([tmp_path / "audio_train"], tmp_path / "audio_test")
    assert cfg.sample_submission is not None and cfg.sample_submission.file == "sample_submission.csv"
    assert cfg.details == () and cfg.test is None
    assert contents(tmp_path) == KAGGLE, "an unpacked competition is only read"


@pytest.mark.parametrize("place", ["", "FSDKaggle2018.meta/"])
def test_the_table_published_later_is_found(tmp_path, place):
    put(tmp_path, KAGGLE | {f"{place}train_post_competition.csv": b"fname,freesound_id\na.wav,1\n"})
    layout = find_layout(tmp_path)
    assert [table.file for table in layout.config.train] == ["train.csv"]
    assert [table.file for table in layout.config.details] == [f"{place}train_post_competition.csv"]


def test_zenodos_layout(tmp_path):
    layout = find_layout(put(tmp_path, ZENODO))
    cfg, meta = layout.config, "FSDKaggle2018.meta"
    assert [table.file for table in cfg.train] == [f"{meta}/train_post_competition.csv"]
    assert layout.train_audio == [tmp_path / "FSDKaggle2018.audio_train"]
    assert layout.test_audio == tmp_path / "FSDKaggle2018.audio_test"
    assert cfg.test is not None and cfg.test.file == f"{meta}/test_post_competition_scoring_clips.csv"
    assert cfg.sample_submission is None and cfg.details == ()


@pytest.mark.parametrize("files", [KAGGLE, ZENODO], ids=["kaggle", "zenodo"])
def test_every_missing_part_is_named(tmp_path, files):
    needed = sorted({Path(name).parts[0] for name in files} - {"FSDKaggle2018.meta"})
    for part in needed:
        folder = put(tmp_path / part, {n: d for n, d in files.items() if Path(n).parts[0] != part})
        with pytest.raises(UserError, match=rf"missing {part}"):
            find_layout(folder)


def test_an_empty_folder_misses_everything(tmp_path):
    with pytest.raises(
        UserError, match=r"missing 4: train\.csv, sample_submission\.csv, audio_train, audio_test; Kaggle's"
    ):
        find_layout(tmp_path)


def test_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"none: no such folder: .* --input DIR"):
        find_layout(tmp_path / "none")


def test_a_file_does_not_count_as_a_folder(tmp_path):
    put(tmp_path, {n: d for n, d in KAGGLE.items() if "audio_test" not in n} | {"audio_test": b""})
    with pytest.raises(UserError, match="missing audio_test"):
        find_layout(tmp_path)


def test_without_sound_the_tables_suffice(tmp_path):
    tables = {name: data for name, data in KAGGLE.items() if name.endswith(".csv")}
    find_layout(put(tmp_path, tables), sound=False)
    pack(tmp_path / "audio_train.zip", KAGGLE)
    find_layout(tmp_path, sound=False)
    assert not (tmp_path / "audio_train").exists(), "gigabytes are not unpacked for the tables' sake"


def test_without_sound_tables_in_a_zip_are_still_found(tmp_path):
    pack(tmp_path / "freesound-audio-tagging.zip", KAGGLE)
    find_layout(tmp_path, sound=False)
    assert (tmp_path / "train.csv").read_bytes() == KAGGLE["train.csv"]


@pytest.mark.parametrize("folders", [False, True], ids=["files only", "with folder entries"])
def test_one_flat_zip(tmp_path, folders):
    pack(tmp_path / "freesound-audio-tagging.zip", KAGGLE, folders)
    find_layout(tmp_path)
    (tmp_path / "freesound-audio-tagging.zip").unlink()
    assert contents(tmp_path) == KAGGLE


@pytest.mark.parametrize("bare", [False, True], ids=["with folder", "bare"])
def test_nested_zips(tmp_path, bare):
    """The outer zip holds audio_train.zip, whose clips lie in audio_train/ or, in some releases, bare."""
    inner = {name: data for name, data in KAGGLE.items() if name.endswith(".csv")}
    for part in ("audio_train", "audio_test"):
        files = under(part, KAGGLE) if bare else {n: d for n, d in KAGGLE.items() if n.startswith(part)}
        inner[f"{part}.zip"] = pack(tmp_path / "elsewhere" / f"{part}.zip", files).read_bytes()
    folder = tmp_path / "competition"
    pack(folder / "freesound-audio-tagging.zip", inner)
    find_layout(folder)
    assert {name: data for name, data in contents(folder).items() if not name.endswith(".zip")} == KAGGLE


def test_zips_next_to_plain_tables(tmp_path):
    put(tmp_path, {name: data for name, data in KAGGLE.items() if name == "train.csv"})
    pack(tmp_path / "sample_submission.csv.zip", {"sample_submission.csv": KAGGLE["sample_submission.csv"]})
    pack(tmp_path / "audio_train.zip", under("audio_train", KAGGLE))
    pack(tmp_path / "audio_test.zip", {n: d for n, d in KAGGLE.items() if n.startswith("audio_test")})
    find_layout(tmp_path)
    assert {name: data for name, data in contents(tmp_path).items() if not name.endswith(".zip")} == KAGGLE


def test_zenodos_zips(tmp_path):
    for part in ("meta", "audio_train", "audio_test"):
        name = f"FSDKaggle2018.{part}"
        files = under(name, ZENODO) if part == "audio_test" else {n: d for n, d in ZENODO.items() if n.startswith(name)}
        pack(tmp_path / f"{name}.zip", files)
    find_layout(tmp_path)
    assert {name: data for name, data in contents(tmp_path).items() if not name.endswith(".zip")} == ZENODO


def test_an_extra_file_does_not_move_the_clips(tmp_path):
    pack(tmp_path / "audio_train.zip", KAGGLE | {"README.txt": b"hello"})
    find_layout(tmp_path)
    assert (tmp_path / "audio_train" / "a.wav").exists() and (tmp_path / "README.txt").exists()


def test_unpacked_once(tmp_path, capsys):
    pack(tmp_path / "all.zip", KAGGLE)
    find_layout(tmp_path)
    assert "unpacking all.zip: 4 files" in capsys.readouterr().out
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}
    find_layout(tmp_path)
    assert capsys.readouterr().out == ""
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")} == before, (
        "nothing was written, not even for a moment"
    )


def test_interrupted_unpacking_continues_and_changed_files_stay(tmp_path, capsys):
    pack(tmp_path / "all.zip", KAGGLE)
    put(tmp_path, {"train.csv": b"fname,label\na.wav,Corrected_label\n"})
    find_layout(tmp_path)
    assert "3 files" in capsys.readouterr().out
    assert (tmp_path / "train.csv").read_bytes().endswith(b"Corrected_label\n")


def test_two_processes_may_unpack_at_once(tmp_path):
    files = KAGGLE | {f"audio_train/{i}.wav": os.urandom(20_000) for i in range(200)}
    archive = pack(tmp_path / "all.zip", files)
    code = "import sys, pathlib, input.layout; input.layout.unpack_zips(pathlib.Path(sys.argv[1]))"
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    archive.unlink()
    assert contents(tmp_path) == dict(sorted(files.items()))


def test_extra_files_of_macos_are_skipped(tmp_path):
    droppings = ("__MACOSX/audio_train/._a.wav", "audio_train/._a.wav", ".DS_Store", "audio_train/.DS_Store")
    pack(tmp_path / "all.zip", KAGGLE | dict.fromkeys(droppings, b"x"))
    put(tmp_path, {"._all.zip": b"no zip, though its name says so"})
    assert find_layout(tmp_path).unpack_fault == ""
    (tmp_path / "all.zip").unlink()
    (tmp_path / "._all.zip").unlink()
    assert contents(tmp_path) == KAGGLE


def test_extra_files_of_macos_do_not_move_the_clips(tmp_path):
    pack(tmp_path / "audio_train.zip", {"a.wav": b"a", "__MACOSX/._a.wav": b"x", ".DS_Store": b"x"})
    unpack_zips(tmp_path)
    assert sorted(contents(tmp_path)) == ["audio_train.zip", "audio_train/a.wav"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_zip_names_from_the_finder_are_utf_8_without_the_flag(tmp_path, form):
    name = unicodedata.normalize(form, "audio_train/caf\u00e9 \u65e5\u672c.wav")
    archive = pack(tmp_path / "all.zip", {name: b"x"})
    data = bytearray(archive.read_bytes())
    for mark, flag in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        data[data.find(mark) + flag] &= ~8  # bit 11: UTF-8
    archive.write_bytes(data)
    unpack_zips(tmp_path)
    assert sorted(contents(tmp_path)) == ["all.zip", name]


def test_names_in_code_page_437_are_kept(tmp_path):
    archive = pack(tmp_path / "all.zip", {"caf_.wav": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"caf_.wav", b"caf\x82.wav"))
    unpack_zips(tmp_path)
    assert (tmp_path / "caf\u00e9.wav").is_file()


def test_backslashes_of_windows_separate_folders(tmp_path):
    pack(tmp_path / "ALL.ZIP", {"audio_train\\": b"", "audio_train\\a.wav": b"a", "audio_train\\b\\c.wav": b"c"})
    unpack_zips(tmp_path)
    assert sorted(contents(tmp_path)) == ["ALL.ZIP", "audio_train/a.wav", "audio_train/b/c.wav"]


def test_a_broken_zip_next_to_complete_data_is_skipped(tmp_path, capsys):
    put(tmp_path, KAGGLE | {"broken.zip": b"PK half of it", "empty.zip": b""})
    (tmp_path / "gone.zip").symlink_to("nowhere")
    (tmp_path / "self.zip").symlink_to("self.zip")
    (tmp_path / "folder.zip").mkdir()
    pack(tmp_path / "whole.zip", {"LICENSE": b"free"})
    fault = find_layout(tmp_path).unpack_fault
    assert all(name in fault for name in ("broken.zip", "empty.zip", "gone.zip", "self.zip"))
    assert "folder.zip" not in fault and "whole.zip" not in fault and "\n" not in fault
    assert (tmp_path / "LICENSE").read_bytes() == b"free", "the whole ones are unpacked"


def test_a_broken_zip_is_named_if_a_part_is_missing(tmp_path):
    put(tmp_path, {n: d for n, d in KAGGLE.items() if "audio_test" not in n} | {"audio_test.zip": b"PK half of it"})
    with pytest.raises(
        UserError, match=r"audio_test\.zip: cannot be unpacked .* missing audio_test \(found audio_test\.zip"
    ):
        find_layout(tmp_path)


def test_a_part_of_another_spelling_is_named(tmp_path):
    put(tmp_path, {n.replace("train.csv", "Train.CSV"): d for n, d in KAGGLE.items()})
    with pytest.raises(UserError, match=r"missing train\.csv \(found Train\.CSV\)"):
        find_layout(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../escaped",
        "audio_train/../../escaped",
        "/tmp/escaped",
        "..\\escaped",
        "C:\\escaped",
        "C:escaped",
        "\\\\a\\b\\escaped",
    ],
)
def test_a_path_outside_of_the_folder_is_an_error(tmp_path, name):
    folder = tmp_path / "competition"
    archive = pack(folder / "evil.zip", {"first.txt": b"1", name: b"2"})
    with pytest.raises(UserError, match=r"evil\.zip: member .*escaped.* outside of the folder: nothing was unpacked"):
        find_layout(folder)
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == [archive.name]
    assert not Path("/tmp/escaped").exists()


def test_a_symlink_is_an_error(tmp_path):
    folder = tmp_path / "competition"
    folder.mkdir()
    link = zipfile.ZipInfo("audio_train")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(folder / "evil.zip", "w") as target:
        target.writestr(link, "/etc")
        target.writestr("audio_train/passwd", b"mine")
    with pytest.raises(UserError, match="'audio_train' would be outside of the folder"):
        unpack_zips(folder)
    assert [f.name for f in folder.iterdir()] == ["evil.zip"]


def test_a_truncated_zip_is_an_error_and_kept(tmp_path):
    archive = pack(tmp_path / "all.zip", KAGGLE)
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"all\.zip: cannot be unpacked \(.*\): download it again"):
        find_layout(tmp_path)
    assert contents(tmp_path) == {"all.zip": data[: len(data) // 2]}


def member_data(archive: Path, name: str) -> int:
    """Where the packed bytes of a member begin."""
    with zipfile.ZipFile(archive) as source:
        return source.getinfo(name).header_offset + 30 + len(name)


@pytest.mark.parametrize("kind", ["stored", "deflated"])
def test_a_damaged_member_is_an_error_and_the_others_stay(tmp_path, kind):
    """A stored member fails by its checksum, a deflated one already in zlib."""
    archive = tmp_path / "all.zip"
    method = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}[kind]
    with zipfile.ZipFile(archive, "w", method) as target:
        for name, data in KAGGLE.items():
            target.writestr(name, data)
    broken = bytearray(archive.read_bytes())
    at = member_data(archive, "audio_test/t.wav")
    broken[at : at + 4] = b"\xff\xff\xff\xff"
    archive.write_bytes(broken)
    with pytest.raises(UserError, match=r"all\.zip: cannot be unpacked \(.*\): download it again"):
        unpack_zips(tmp_path)
    (tmp_path / "all.zip").unlink()
    assert contents(tmp_path) == {n: d for n, d in KAGGLE.items() if n != "audio_test/t.wav"}, "and no half of it"


def test_an_encrypted_zip_is_an_error(tmp_path):
    archive = pack(tmp_path / "all.zip", {"train.csv": b"fname,label\n"})
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the flag in the member's own header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"encrypted.*by hand"):
        find_layout(tmp_path)


def test_a_target_that_cannot_be_written_is_an_error(tmp_path):
    pack(tmp_path / "all.zip", KAGGLE)
    (tmp_path / "audio_train").write_bytes(b"a file where a folder should be")
    with pytest.raises(UserError, match=r"all\.zip: cannot be unpacked into its folder: "):
        find_layout(tmp_path)


def test_a_folder_of_competitions_names_them(tmp_path: Path) -> None:
    """Also where the sounds lie beside each table, and the first table would be taken for that of all."""
    for name in ("birds", "cats"):
        put(tmp_path / name, {"labels.csv": b"filename,species\na.wav,x\nb.wav,y\n", "a.wav": b"a", "b.wav": b"b"})
    put(tmp_path / "notes", {"list.csv": b"a,b\n1,2\n"})
    with pytest.raises(
        UserError, match=r"is no competition, but folders in it look like one \(2: birds, cats\): name the .*/birds$"
    ):
        find_layout(tmp_path)
    assert find_layout(tmp_path / "birds").source == "its files"
    put(tmp_path / "dogs", KAGGLE)
    (tmp_path / "birds" / "labels.csv").unlink()
    (tmp_path / "cats" / "a.wav").unlink()
    (tmp_path / "cats" / "b.wav").unlink()
    with pytest.raises(UserError, match=r"look like one \(2: cats, dogs\): name the folder"):
        find_layout(tmp_path)


@pytest.mark.parametrize("table", ["meta/esc10.csv", "metadata.csv"])
def test_a_competition_one_folder_deeper_is_named(tmp_path: Path, table: str) -> None:
    files = {table: b"filename,fold,category\na.wav,1,x\nb.wav,2,y\n", "audio/a.wav": b"a", "audio/b.wav": b"b"}
    put(tmp_path / "birds", files)
    with pytest.raises(UserError, match=r"look like one \(birds\): name the folder: --input .*/birds$"):
        find_layout(tmp_path)


def test_parts_of_a_competition_are_not_competitions(tmp_path: Path) -> None:
    for name in ("train", "test"):
        put(tmp_path / name, {f"{name}.csv": b"filename,label\na.wav,x\nb.wav,y\n", "a.wav": b"a", "b.wav": b"b"})
    assert find_layout(tmp_path).config.train[0].file == "train/train.csv"
