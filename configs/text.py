"""Text files as people save them: UTF-8, with a byte order mark or without one."""

import codecs
from pathlib import Path

from console.errors import UserError

UTF16 = "it is UTF-16 text: save it as UTF-8"


def read_text(file: Path, what: str) -> str:
    """The text without its byte order mark. what: what errors call the file.

    Raises UserError if it cannot be read or is not UTF-8.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot read the {what}: {error.strerror}") from None
    if is_utf16(data[:2]):
        raise UserError(f"{file}: cannot read the {what}: {UTF16}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: cannot read the {what}: not UTF-8 text ({error.reason}): save it as UTF-8") from None


def is_utf16(start: bytes) -> bool:
    """From the first two bytes of a file: a byte order mark, or a zero byte in the first letter."""
    return start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or 0 in start
