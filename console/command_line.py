"""How a command starts and ends: one line for an error that a person can fix, and an exit status."""

import errno
import sys
from collections.abc import Callable

from console.errors import UserError
from console.output import _flush, _prepare_streams, _print, complain


def run_command(main: Callable[[], None]) -> None:
    """Run a verb's main(): a UserError becomes one line and exit status 2, Ctrl-C becomes 130.

    Errors of the operating system, such as a full disk or a missing permission, and lack of memory (also of a GPU) are
    reported in the same way.
    """
    same = "the same command without --force" if "--force" in sys.argv else "the same command"
    _prepare_streams()
    try:
        main()
        _flush()
    except UserError as error:
        complain("error:", str(error))
        sys.exit(2)
    except OSError as error:
        if error.strerror is None:  # raised by a library, not by the system
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        remedy = f": free some space, then run {same}" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        complain("error:", f"{where}{error.strerror}{remedy}")
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        fact = " ".join(str(error).split())[:200]
        remedy = "use a smaller train.batch_size, predict.batch_size, crop or window"
        complain("error:", f"out of memory ({fact}): {remedy}")
        sys.exit(2)
    except KeyboardInterrupt:
        _print(f"interrupted: run {same} to continue", sys.stderr)
        sys.exit(130)
    except SystemExit:
        _flush()  # the output of argparse
        raise


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch's errors are found by name and text, because this must not import it."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)
