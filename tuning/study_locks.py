"""What keeps the processes of a search out of each other's way, tells the living from the killed, and their journal."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from configs.files import lock
from console.errors import UserError


def locked(folder: Path) -> AbstractContextManager[None]:
    """One process at a time makes a study, hands out a trial or writes a report."""
    return lock(folder / "study")


@contextmanager
def at_work(folder: Path) -> Iterator[str]:
    """This process's name among the workers. The system frees its lock however it ends, also where a file system is
    shared by machines; process ids would come back, and Optuna's heartbeats are not for journals."""
    name = uuid.uuid4().hex[:12]
    with ExitStack() as alive:
        with locked(folder):  # nobody may find the lock before it is held
            alive.enter_context(lock(folder / "workers" / name))
        try:
            yield name
        finally:
            _lock_of(folder, name).unlink(missing_ok=True)


def is_alive(folder: Path, worker: str | None) -> bool:
    """Whether the process of that name still works on the study. Call it in `locked`."""
    if worker is None or not _lock_of(folder, worker).exists():  # None: killed between two lines of _next_trial
        return False
    try:
        with lock(folder / "workers" / worker, "it is alive"):
            return False
    except UserError:
        return True


def forget_the_dead(folder: Path) -> None:
    """Remove the locks that killed workers left. Call it in `locked`."""
    for file in (folder / "workers").glob(".*.lock"):
        if not is_alive(folder, file.name[1:-5]):
            file.unlink(missing_ok=True)


def _lock_of(folder: Path, worker: str) -> Path:
    return folder / "workers" / f".{worker}.lock"


class Journal(BaseJournalBackend):
    """Optuna's journal in a file with one record a line. A blank line and half a line, as a kill, a full disk or a
    shared file system leave them anywhere in it, are no records, and do not count."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._ends = [0]  # byte offsets: after no record, after the first, ...
        file.touch()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records from that number on."""
        known = min(log_number_from, len(self._ends) - 1)
        with self.file.open("rb") as lines:
            end = lines.seek(self._ends[known])
            for line in lines:
                if not line.endswith(b"\n"):
                    return  # it is being written
                end += len(line)
                if (record := _record(line)) is None:
                    continue
                known += 1
                self._ends[known:] = [end]
                if known > log_number_from:
                    yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Also begins a new line after half a one, to which the first record would be glued."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with lock(self.file), self.file.open("r+b") as out:
            if size := out.seek(0, os.SEEK_END):
                out.seek(size - 1)
                text = text if out.read(1) == b"\n" else b"\n" + text
            out.write(text)
            out.flush()
            os.fsync(out.fileno())


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
