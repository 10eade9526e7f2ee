"""How a command begins and ends: one line for what a person can mend, and an exit status."""

import errno
import sys
from collections.abc import Callable

from console.errors import UserError
from console.output import _flush, _prepare_streams, _print


def run_command(main: Callable[[], None]) -> None:
    """Run a verb's main(): a UserError becomes one line and exit status 2, Ctrl-C becomes 130.

    So does what the operating system refuses, such as a folder that cannot be written or a full disk, and a want of
    memory, on a GPU too.
    """
    same = "the same command without --force" if "--force" in sys.argv else "the same command"
    _prepare_streams()
    try:
        main()
        _flush()
    except UserError as error:
        _print(f"error: {error}", sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.strerror is None:  # not the system's: a library's own
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        remedy = f": make room, {same} goes on" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        _print(f"error: {where}{error.strerror}{remedy}", sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not _wants_memory(error):
            raise
        fact = " ".join(str(error).split())[:200]
        less = "a smaller train.batch_size, predict.batch_size, crop or window needs less"
        _print(f"error: out of memory ({fact}): {less}", sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        _print(f"interrupted: {same} goes on from here", sys.stderr)
        sys.exit(130)
    except SystemExit:
        _flush()  # what argparse printed
        raise


def _wants_memory(error: Exception) -> bool:
    """Also of PyTorch's errors, by name and words: it must not be imported for this."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)
