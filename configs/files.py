"""Files and folders that several commands read and write at once: one atomic write, one folder swap, one lock."""

import ctypes
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from console.errors import UserError

T = TypeVar("T")
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux: fcntl.h, linux/fs.h


@contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """A temporary path to write to, in the folder of `file`. At the end it is renamed to `file`, so that nobody reads a
    half-written file; after an error it is removed and `file` is unchanged."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{uuid4().hex}.part")  # unique to this process and thread, on every machine
    try:
        yield part
        part.replace(file)
    except BaseException as error:
        part.unlink(missing_ok=True)  # free the space on a full disk
        if isinstance(error, OSError) and error.filename in (part, str(part)):
            error.filename = str(file)  # the name that the user knows
        raise


def write(file: Path, content: str | bytes) -> None:
    """Write `file` by `atomic`, text as UTF-8. Paths in the text that are not UTF-8 keep their bytes."""
    with atomic(file) as part:
        part.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))


@contextmanager
def lock(
    thing: Path, busy: str = "", on_wait: Callable[[], None] = lambda: None, patience: float = 0
) -> Iterator[None]:
    """Hold `thing` exclusively among all processes and threads. The lock file is .<name>.lock in the same folder: the
    system releases it however a process ends; the empty file stays.

    busy: the text of the UserError if another process holds it after `patience` seconds; without it, call `on_wait`
    once and wait. Also raises UserError if the file system has no locks, since waiting would never end.
    """
    from filelock import FileLock, Timeout  # here: it imports asyncio, and --help must be fast

    thing = thing.absolute()  # '.' has no name
    thing.parent.mkdir(parents=True, exist_ok=True)
    _check_locks(thing.parent)
    held = FileLock(_lock_file(thing))
    try:
        try:
            held.acquire(timeout=patience)
        except Timeout:
            if busy:
                raise UserError(busy) from None
            on_wait()
            held.acquire(poll_interval=0.02)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise _no_locks(thing.parent, error) from None
    try:
        yield
    finally:
        held.release()


def _lock_file(thing: Path) -> Path:
    return thing.with_name(f".{thing.name}.lock")


def _check_locks(folder: Path) -> None:
    """Raises UserError unless a temporary file can be locked: filelock takes some of these errors for another process
    and, depending on its version, works without a lock after others."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (OSError, NotImplementedError) as error:
            raise _no_locks(folder, error) from None


def _no_locks(folder: Path, error: Exception) -> UserError:
    fact = getattr(error, "strerror", None) or error
    return UserError(f"{folder}: this file system has no locks ({fact}): use --work with a folder on a local disk")


@contextmanager
def new_folder(final: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A new empty folder next to `final`, used by this process and thread only. At the end it replaces `final`, see
    `swap`; after an error it is removed. check: called just before the swap, under the lock; may raise.

    Folders left by killed processes are removed; those of running processes are not.
    """
    final = final.absolute()
    partial = final.with_name(f"{final.name}.{uuid4().hex[:12]}.partial")
    with ExitStack() as alive:
        with lock(final):  # nobody may see the folder before it is locked
            _remove_abandoned(final)
            alive.enter_context(lock(partial))
        try:
            partial.mkdir()
            yield partial
            with lock(final):
                check()
                swap(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            _lock_file(partial).unlink(missing_ok=True)


def _remove_abandoned(final: Path) -> None:
    for file in final.parent.glob(f".{glob.escape(final.name)}.*.partial.lock"):
        partial = file.with_name(file.name.removeprefix(".").removesuffix(".lock"))
        with suppress(UserError), lock(partial, "a running process uses it"):
            shutil.rmtree(partial, ignore_errors=True)
            file.unlink(missing_ok=True)


def swap(new: Path, final: Path) -> None:
    """Rename the finished folder `new` to `final` and remove the previous `final`. Call it in `lock`.

    Where the system can exchange two names (Linux, most file systems), `final` exists at every moment, and a process
    killed before the end leaves the previous folder named `new`. Elsewhere the previous one is named <final>.old for a
    moment without a `final`; `recover` repairs what a process killed then leaves.
    """
    old = _old(final)
    if not final.exists():
        new.rename(final)
    elif not _exchange(new, final):
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        new.rename(final)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)


def recover(final: Path) -> None:
    """Rename <final>.old back to `final` if a process was killed in between, see `swap`."""
    if not final.exists() and _old(final).exists():
        with lock(final):
            if not final.exists() and _old(final).exists():
                _old(final).rename(final)


def _old(final: Path) -> Path:
    return final.with_name(final.name + ".old")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two paths in one step; False if the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    return renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def name_in_utf8(folder: Path) -> str:
    """The path of a folder for a library that only takes UTF-8. Another path becomes /proc/self/fd/<number> (Linux
    only), valid until this process ends."""
    try:
        return str(folder).encode().decode()
    except UnicodeEncodeError:
        return f"/proc/self/fd/{os.open(folder, os.O_RDONLY)}"


def read_steady(folder: Path, read: Callable[[], T]) -> T:
    """The result of read() in a folder that another process may replace: read again if that happened meanwhile."""
    for _ in range(10):
        recover(folder)
        before = _identity(folder)
        try:
            result = read()
        except Exception:  # perhaps a file vanished while it was read
            if _identity(folder) == before:
                raise
            continue
        if _identity(folder) == before:
            return result
    return read()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
