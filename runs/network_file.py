"""The files of a frozen network: one, and those beside an ONNX file that hold its weights."""

import hashlib
import mmap
import re
from pathlib import Path

from runs.provenance import file_sha256

# An entry of TensorProto.external_data: field 1 'location', then field 2, a path from the folder of the file. Source:
# onnx.proto3 and the encoding of protocol buffers.
LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])")


def parts_of(file: Path) -> list[Path]:
    """The file itself, then those that an ONNX file keeps tensors in, as far as they are there."""
    if file.suffix != ".onnx" or not file.stat().st_size:
        return [file]
    names = set[str]()
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for found in LOCATION.finditer(data):
            low, *high = found[1]
            length = (low & 0x7F) + (high[0] << 7 if high else 0)
            names.add(data[found.end() : found.end() + length].decode(errors="replace"))
    beside = [file.parent / name for name in sorted(names) if ".." not in Path(name).parts]
    return [file, *(part for part in beside if part.is_file() and part.is_relative_to(file.parent))]


def network_sha256(file: Path) -> str:
    """Of the file; of the hashes and names of all where there are several."""
    own, *others = parts_of(file)
    if not others:
        return file_sha256(own)
    lines = [file_sha256(own), *(f"{file_sha256(part)} {part.relative_to(file.parent)}" for part in others)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
