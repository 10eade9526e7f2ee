"""Whole files, whole folders, and one process at a time; killed processes and file systems without locks."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from configs import files
from configs.files import atomic, lock, name_in_utf8, new_folder, read_steady, recover, swap, write
from console.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from configs.files import {what}
with {what}(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that end with the test."""
    begun: list[subprocess.Popen[str]] = []
    yield begun
    for process in begun:
        process.kill()
        process.communicate()


def hold(what: str, thing: Path, begun: list[subprocess.Popen[str]]) -> str:
    """Another process in that context; what the context gives it."""
    command = [sys.executable, "-c", HOLD.format(what=what), str(thing)]
    begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    assert begun[-1].stdout
    return begun[-1].stdout.readline().strip()


def folder_with(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "a.txt").write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.endswith(".lock"))


def test_a_file_is_whole_or_unchanged(tmp_path: Path) -> None:
    write(tmp_path / "new" / "a.txt", "Gehör")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"Geh\xc3\xb6r"
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "new" / "a.txt") as part:
        part.write_text("half")
        assert (tmp_path / "new" / "a.txt").read_bytes() == b"Geh\xc3\xb6r"
        raise KeyboardInterrupt
    assert names(tmp_path / "new") == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"Geh\xc3\xb6r"


def test_the_longest_name_and_a_name_that_is_not_utf_8_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, os.fsdecode(b"w\xff")):
        write(tmp_path / name, name)
        assert (tmp_path / name).read_bytes() == os.fsencode(name)


def test_two_writers_of_one_file_do_not_conflict(tmp_path: Path) -> None:
    with atomic(tmp_path / "a") as one, atomic(tmp_path / "a") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a").read_text() == "1"  # the last that ended


def test_a_full_disk_names_the_file_that_the_user_knows(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, atomic(tmp_path / "a") as part:
        raise OSError(errno.ENOSPC, "No space left on device", str(part))
    assert caught.value.filename == str(tmp_path / "a")


def test_a_lock_waits_or_raises_as_the_caller_asks(tmp_path: Path, other: list[subprocess.Popen[str]]) -> None:
    hold("lock", tmp_path / "a", other)
    with pytest.raises(UserError, match="a is held"), lock(tmp_path / "a", "a is held"):
        pass
    waits: list[str] = []

    def wait() -> None:
        waits.append("waiting")
        other[0].kill()  # a killed process leaves no lock

    with lock(tmp_path / "a", on_wait=wait):
        assert waits == ["waiting"]
    with lock(tmp_path / "a", "free again"), lock(tmp_path / "b", "another thing"):
        pass


def test_threads_take_turns(tmp_path: Path) -> None:
    inside: list[str] = []

    def enter(_: int) -> None:
        with lock(tmp_path / "a"):
            inside.append("in")
            time.sleep(0.001)
            inside.append("out")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(20)))
    assert inside == ["in", "out"] * 20


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
@pytest.mark.parametrize("busy", ["", "another process"])
def test_a_file_system_without_locks_is_not_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, busy: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"has no locks .*: use --work with a folder on a local disk$") as caught:  # noqa: SIM117
        with lock(tmp_path / "a", busy):
            pass
    assert str(caught.value).startswith(str(tmp_path)) and "another process" not in str(caught.value)


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), lock(tmp_path / "file" / "a", "another process"):
        pass


@pytest.mark.parametrize("exchange", [True, False])
def test_a_new_folder_replaces_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    for text in ("first", "second"):
        with new_folder(tmp_path / "f") as partial:
            (partial / "a.txt").write_text(text)
            assert (tmp_path / "f").exists() == (text == "second")
        assert (tmp_path / "f" / "a.txt").read_text() == text
    with pytest.raises(UserError), new_folder(tmp_path / "f") as partial:
        raise UserError("no")
    assert (tmp_path / "f" / "a.txt").read_text() == "second"
    assert names(tmp_path) == ["f"]


def test_the_folder_exists_at_every_moment(tmp_path: Path) -> None:
    folder_with(tmp_path / "f", "0")
    seen, stop = set(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.add((tmp_path / "f").exists())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for i in range(50):
        with new_folder(tmp_path / "f") as partial:
            (partial / "a.txt").write_text(str(i))
    stop.set()
    watcher.join()
    assert seen == {True}


def test_the_last_check_runs_under_the_lock(tmp_path: Path) -> None:
    def check() -> None:
        raise UserError("it changed")

    folder_with(tmp_path / "f", "old")
    with pytest.raises(UserError, match="it changed"), new_folder(tmp_path / "f", check):
        pass
    assert (tmp_path / "f" / "a.txt").read_text() == "old" and names(tmp_path) == ["f"]


def test_folders_of_running_processes_stay_and_those_of_killed_ones_are_removed(
    tmp_path: Path, other: list[subprocess.Popen[str]]
) -> None:
    theirs = Path(hold("new_folder", tmp_path / "f", other))
    with new_folder(tmp_path / "f"), new_folder(tmp_path / "f"):
        assert theirs.is_dir()
    assert names(tmp_path) == sorted(["f", theirs.name])
    other[0].kill()
    other[0].wait()
    with new_folder(tmp_path / "f"):
        assert not theirs.exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".f.lock", "f"]


def test_a_folder_that_a_killed_process_renamed_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final, new = folder_with(tmp_path / "f", "old"), folder_with(tmp_path / "n", "new")
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self == new:
            raise SystemExit
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Path, "rename", killed)
        swap(new, final)
    assert not final.exists()
    assert read_steady(final, lambda: (final / "a.txt").read_text()) == "old"
    recover(tmp_path / "never there")
    swap(new, final)
    assert (final / "a.txt").read_text() == "new" and names(tmp_path) == ["f"]


def test_all_that_is_read_comes_from_one_folder(tmp_path: Path) -> None:
    """The folder is replaced between two of its files, and then while one is gone."""
    final = folder_with(tmp_path / "f", "1")
    turns = iter("23")

    def read() -> tuple[str, str]:
        one = (final / "a.txt").read_text()
        if turn := next(turns, None):
            swap(folder_with(tmp_path / turn, turn), final)
        if turn == "3":
            raise UserError("of a file that is gone")
        return one, (final / "a.txt").read_text()

    assert read_steady(final, read) == ("3", "3")
    with pytest.raises(UserError, match="damaged"):
        read_steady(final, lambda: (_ for _ in ()).throw(UserError("damaged")))
    shutil.rmtree(final)
    with pytest.raises(FileNotFoundError):
        read_steady(final, lambda: (final / "a.txt").read_text())


def test_a_name_for_libraries_that_only_take_utf_8(tmp_path: Path) -> None:
    assert name_in_utf8(tmp_path) == str(tmp_path)
    odd = tmp_path / os.fsdecode(b"w\xff")
    folder_with(odd, "here")
    assert Path(name_in_utf8(odd).encode().decode(), "a.txt").read_text() == "here"
