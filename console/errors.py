"""The one exception whose text is written for the user."""

import re
from collections.abc import Iterable, Mapping

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # a line break in a file name, a terminal escape


class UserError(ValueError):
    """Bad input in one line, `place: cause: remedy` as compilers print it. The commands print it and exit with 2."""

    def __init__(self, text: str) -> None:
        super().__init__(CONTROL.sub(lambda match: repr(match[0])[1:-1], text))


def list_some(items: Iterable[object], most: int = 10) -> str:
    """'a', '3: a, b, c', or '240: a, b, ... and 238 more' with the first `most` items named; 'none' if empty."""
    names = [str(item) for item in items]
    if len(names) < 2:
        return names[0] if names else "none"
    rest = f", ... and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)}: {', '.join(names[:most])}{rest}"


def count(n: int, noun: str) -> str:
    """'1 clip', '3 clips', '2 classes', with what stands before the noun: '1 test clip'."""
    plural = noun if n == 1 else f"{noun}{'es' if noun.endswith('s') else 's'}"
    return f"{n} {plural}"


def list_faults(faults: Mapping[str, str]) -> str:
    """fname -> reason as '2: a.wav (empty), b.wav (silent)', shortened like `list_some`."""
    return list_some(f"{fname} ({reason})" for fname, reason in faults.items())
