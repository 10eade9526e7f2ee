"""Download one file from an address: continued after an interruption, and checked against its checksum."""

import hashlib
import re
import shutil
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from console.errors import UserError
from console.output import progress

AGAIN = "run the same command to continue"


def fetch(address: str, target: Path, size: int | None = None, checksum: str | None = None) -> None:
    """Download or continue <target>.part; rename it to `target` after the check.

    size in bytes, where it is known; checksum: 'md5:<hex digits>' or 'sha256:<hex digits>'. Raises UserError without an
    answer, if the answer is a web page, and if size or checksum differ.
    """
    part = target.with_name(target.name + ".part")
    offset = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        if size is None or offset < size:
            with urllib.request.urlopen(request, timeout=60) as answer:
                size = _append(answer, part, offset, size, target.name)
    except HTTPError as error:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if not (error.code == 416 and total and int(total[1]) == offset):  # else the part is already the whole file
            raise UserError(f"{address}: download interrupted ({error}): {AGAIN}") from None
        size = offset
    except (OSError, HTTPException) as error:
        raise UserError(f"{address}: download interrupted ({error}): {AGAIN}") from None
    if size is not None and part.stat().st_size < size:
        raise UserError(f"{address}: download stopped at {part.stat().st_size} of {size} bytes: {AGAIN}")
    if checksum and (fact := misfit(part, checksum)):
        part.unlink()
        raise UserError(f"{address}: {fact}: file removed, run the same command again")
    shutil.move(part, target)


def _append(answer: Any, part: Path, offset: int, size: int | None, name: str) -> int | None:
    """Write the answer to the part, and return the size of the whole file, where the server tells it."""
    if answer.headers.get_content_type() == "text/html":
        raise UserError(f"{answer.url}: a web page instead of a file: download {name} by hand")
    with part.open("ab") as out:
        if offset and answer.status != 206:  # the server sends the whole file again
            out.truncate(0)
            offset = 0
        with suppress(TypeError, ValueError):
            size = size or offset + int(answer.headers.get("Content-Length"))
        with progress(f"downloading {name}", (size or 0) - offset, "bytes") as advance:
            while block := answer.read(1 << 20):
                out.write(block)
                advance(len(block))
    return size


def misfit(file: Path, checksum: str) -> str:
    """'' where the file has this checksum, else what is wrong."""
    algorithm, _, expected = checksum.partition(":")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, algorithm).hexdigest()
    return "" if found == expected else f"{algorithm} is {found}, expected {expected}"
