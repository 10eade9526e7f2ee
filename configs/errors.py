"""The one exception that a person is meant to read."""

from collections.abc import Iterable


class UserError(ValueError):
    """Bad input, with the fact and the remedy in one line. The commands print it and exit with 2."""


def list_some(items: Iterable[object], most: int = 10) -> str:
    """'3: a, b, c', or '240: a, b, ... and 238 more' with the first `most` items named."""
    names = [str(item) for item in items]
    rest = f", ... and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)}: {', '.join(names[:most])}{rest}"
