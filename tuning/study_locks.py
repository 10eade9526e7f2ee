"""Locks between the processes of a search, detection of killed ones, and their journal."""

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
    """The lock to create a study, start a trial or write a report."""
    return lock(folder / "study")


@contextmanager
def at_work(folder: Path) -> Iterator[str]:
    """A context with a name for this process, whose lock shows that it runs. The system releases the lock however the
    process ends. Process ids would be reused, and Optuna's heartbeats do not support journals."""
    name = uuid.uuid4().hex[:12]
    with ExitStack() as alive:
        with locked(folder):  # nobody may see the lock file before it is held
            alive.enter_context(lock(folder / "workers" / name))
        try:
            yield name
        finally:
            _lock_of(folder, name).unlink(missing_ok=True)


def is_alive(folder: Path, worker: str | None) -> bool:
    """Whether the worker of that name is running. Call it in `locked`."""
    if worker is None or not _lock_of(folder, worker).exists():  # None: killed between two lines of _next_trial
        return False
    try:
        with lock(folder / "workers" / worker, "it runs"):
            return False
    except UserError:
        return True


def remove_dead_locks(folder: Path) -> None:
    """Remove the locks of killed workers. Call it in `locked`."""
    for file in (folder / "workers").glob(".*.lock"):
        if not is_alive(folder, file.name[1:-5]):
            file.unlink(missing_ok=True)


def _lock_of(folder: Path, worker: str) -> Path:
    return folder / "workers" / f".{worker}.lock"


class Journal(BaseJournalBackend):
    """Optuna's journal: a file with a JSON record per line. Blank and partial lines are skipped: a killed process, a
    full disk or a shared file system may leave them."""

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
                    return  # another process is writing it
                end += len(line)
                if (record := _record(line)) is None:
                    continue
                known += 1
                self._ends[known:] = [end]
                if known > log_number_from:
                    yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Starts a new line after a partial one."""
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
