"""The one exception that a person is meant to read."""

from collections.abc import Iterable, Mapping


class UserError(ValueError):
    """Bad input, with the fact and the remedy in one line. The commands print it and exit with 2."""

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())  # a name or a library's words in it may have several


def list_some(items: Iterable[object], most: int = 10) -> str:
    """'a', '3: a, b, c', or '240: a, b, ... and 238 more' with the first `most` items named; 'none' of no items."""
    names = [str(item) for item in items]
    if len(names) < 2:
        return names[0] if names else "none"
    rest = f", ... and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)}: {', '.join(names[:most])}{rest}"


def list_faults(faults: Mapping[str, str]) -> str:
    """'2: a.wav (empty), b.wav (silent)' of fname -> reason, cut short like `list_some`."""
    return list_some(f"{fname} ({reason})" for fname, reason in faults.items())
