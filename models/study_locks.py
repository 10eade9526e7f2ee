"""What keeps the processes of a search out of each other's way, and tells the living from the killed."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time makes a study, hands out a trial or writes a report."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "study.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def at_work(folder: Path) -> Iterator[str]:
    """This process's name among the workers. The system frees its lock however it ends, also where a file system is
    shared by machines; process ids would come back, and Optuna's heartbeats are not for journals."""
    name = uuid.uuid4().hex[:12]
    file = folder / "workers" / f"{name}.lock"
    with locked(folder):  # nobody may find the file before it is locked
        file.parent.mkdir(exist_ok=True)
        held = file.open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield name
    finally:
        held.close()
        file.unlink(missing_ok=True)


def is_alive(folder: Path, worker: str | None) -> bool:
    """Whether the process of that name still works on the study."""
    if worker is None:  # killed between two lines of _next_trial
        return False
    try:
        with (folder / "workers" / f"{worker}.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


class JournalLock:
    """Optuna's lock of the journal, as one that a killed process does not leave behind. It also cuts off the half line
    of a process that was killed while it wrote, to which the next line would be glued."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.held: Any = None

    def acquire(self) -> bool:
        self.held = self.journal.with_name(self.journal.name + ".lock").open("w")
        fcntl.flock(self.held, fcntl.LOCK_EX)
        with self.journal.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 65536))  # a line is a few kB
            tail = file.read()
            if tail and not tail.endswith(b"\n"):
                file.truncate(end - len(tail) + tail.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self.held.close()
