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
    """A path beside `file` to write to. At the end it takes the name of `file`, so that nobody reads half of it; after
    an error it is removed and `file` is as before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{uuid4().hex}.part")  # of this process and thread alone, on whatever machine
    try:
        yield part
        part.replace(file)
    except BaseException as error:
        part.unlink(missing_ok=True)  # on a full disk it would be in the way
        if isinstance(error, OSError) and error.filename in (part, str(part)):
            error.filename = str(file)  # the name that the user knows
        raise


def write(file: Path, content: str | bytes) -> None:
    """`file` with this content, text as UTF-8, see `atomic`. A path that is no UTF-8 keeps its bytes."""
    with atomic(file) as part:
        part.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))


@contextmanager
def lock(thing: Path, busy: str = "", on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `thing` alone among all processes and threads. The lock is .<name>.lock beside it: the system frees it
    however a process ends, the empty file stays.

    busy: what to say where another one holds it, as a UserError; without it, call `on_wait` once and wait. Raises
    UserError too where the file system has no locks: that is not another process, and would be waited for without end.
    """
    from filelock import FileLock, Timeout  # here: --help must not wait for asyncio, which it imports

    thing = thing.absolute()  # '.' has no name
    thing.parent.mkdir(parents=True, exist_ok=True)
    _check_locks(thing.parent)
    held = FileLock(_lock_file(thing))
    try:
        try:
            held.acquire(blocking=False)
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
    """Raises UserError unless a file of our own can be locked: filelock takes some of these faults for another process
    and, by its version, others for a wish to do without."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (OSError, NotImplementedError) as error:
            raise _no_locks(folder, error) from None


def _no_locks(folder: Path, error: Exception) -> UserError:
    fact = getattr(error, "strerror", None) or error
    return UserError(f"{folder}: this file system has no locks ({fact}): use a --work on another disk, a local one")


@contextmanager
def new_folder(final: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """An empty folder beside `final`, of this process and thread alone, that replaces `final` at the end, see `swap`;
    after an error it is removed. check: called just before, while nobody else can replace it; may refuse.

    What a killed process left there is removed; what a living one works on is not.
    """
    final = final.absolute()
    partial = final.with_name(f"{final.name}.{uuid4().hex[:12]}.partial")
    with ExitStack() as alive:
        with lock(final):  # nobody may find the folder before it is locked
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
        with suppress(UserError), lock(partial, "a living process works on it"):
            shutil.rmtree(partial, ignore_errors=True)
            file.unlink(missing_ok=True)


def swap(new: Path, final: Path) -> None:
    """The finished folder `new` takes the name `final`; an older one of that name is removed. Call it in `lock`.

    Where the system can exchange two names (Linux, most file systems), one of the two is there at every moment, and a
    process that is killed before the end leaves the older one called `new`. Elsewhere it is called <final>.old for a
    moment in which neither is there; a process killed then leaves it to `recover`.
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
    """Give a folder back its name that a killed process had moved out of the way, see `swap`."""
    if not final.exists() and _old(final).exists():
        with lock(final):
            if not final.exists() and _old(final).exists():
                _old(final).rename(final)


def _old(final: Path) -> Path:
    return final.with_name(final.name + ".old")


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths exchange their names in one step; False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    return renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def name_in_utf8(folder: Path) -> str:
    """A path to an open folder for a library that takes no other; one that is not UTF-8 goes through a number that the
    system (Linux: others have no such paths) gives the folder until this process ends."""
    try:
        return str(folder).encode().decode()
    except UnicodeEncodeError:
        return f"/proc/self/fd/{os.open(folder, os.O_RDONLY)}"


def read_steady(folder: Path, read: Callable[[], T]) -> T:
    """What read() finds in a folder that another process may replace: read again where that happened meanwhile."""
    for _ in range(10):
        recover(folder)
        before = _identity(folder)
        try:
            found = read()
        except Exception:  # of a file that went while it was read, perhaps
            if _identity(folder) == before:
                raise
            continue
        if _identity(folder) == before:
            return found
    return read()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        about = folder.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino
