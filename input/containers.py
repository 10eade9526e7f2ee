"""The length that a sound file declares and, if needed, a repaired copy that libsndfile reads to its end.

libsndfile trusts a header that declares too little, stops after the first of several streams, and silently shortens a
file that declares too much.
"""

import struct
from dataclasses import dataclass
from io import FileIO

from input.mpeg import read_mpeg
from input.ogg import read_ogg

STREAMED = 0x7F00_0000  # bytes; writers that cannot seek back leave about the largest number as size
# first four bytes -> chunk header, offset of the first chunk, header bytes included in a size, alignment
CHUNKED = {
    b"RIFF": ("<4sI", 12, 0, 2),
    b"RIFX": (">4sI", 12, 0, 2),
    b"RF64": ("<4sI", 12, 0, 2),
    b"FORM": (">4sI", 12, 0, 2),
    b"caff": (">4sq", 8, 0, 1),
    b"riff": ("<16sQ", 40, 24, 8),
}
INNER = {b"SSND": 8, b"caff": 4}  # bytes of a sound chunk before its samples
MAX_CHUNKS = 10_000


@dataclass(frozen=True)
class Container:
    streams: tuple[bytes, ...] = ()  # to decode one after the other; empty: the file itself
    cut: bool = False  # the file ends too early
    damage: str = ""  # other faults
    least: int = 0  # minimum number of samples per channel; 0 if unknown
    is_flac: bool = False  # unchanged: only the decoder can tell if more sound follows


def read_container(file: FileIO, to_end: bool = False) -> Container:
    """What the file declares; empty for unknown formats. to_end: ignore the length in a FLAC header. Raises OSError."""
    base = _behind_id3(file)
    file.seek(base)
    magic = file.read(4)
    if magic in CHUNKED:
        return _of_chunks(file, base, magic)
    if magic in (b".snd", b"dns."):
        return _of_au(file, base, ">" if magic == b".snd" else "<")
    if magic == b"fLaC" and not to_end:
        total = int.from_bytes(file.read(22)[-5:], "big") & 0xF_FFFF_FFFF
        if total:
            return Container(least=total, is_flac=True)
    elif magic not in (b"OggS", b"fLaC") and magic[:1] != b"\xff":
        return Container()
    file.seek(base)
    data = file.readall()
    if data[-128:-125] == b"TAG":  # ID3v1
        data = data[:-128]
    if magic == b"OggS":
        return Container(*read_ogg(data))
    return _of_flac(data) if magic == b"fLaC" else Container(*read_mpeg(data))


def _behind_id3(file: FileIO) -> int:
    """The offset of the first byte after any ID3v2 tags."""
    base = file.seek(0)
    head = file.read(10)
    while len(head) == 10 and head[:3] == b"ID3":
        a, b, c, d = (byte & 0x7F for byte in head[6:])
        base += 10 + (a << 21 | b << 14 | c << 7 | d)
        file.seek(base)
        head = file.read(10)
    return base


def _of_chunks(file: FileIO, base: int, magic: bytes) -> Container:
    """All WAV variants, AIFF, CAF and W64."""
    header, at, counted, align = CHUNKED[magic]
    width, end, at = struct.calcsize(header), file.seek(0, 2), base + at
    long_size, long_field = 0, 0
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        head = file.read(width)
        if len(head) < width:
            break
        name, size = struct.unpack(header, head)
        start, field = at + width, (at + width - struct.calcsize(header[0] + header[-1]), header[0] + header[-1])
        if name[:4] in (b"data", b"SSND", b"BODY"):
            if magic == b"RF64" and size == 0xFFFF_FFFF and long_field:
                size, field = long_size, (long_field, "<Q")
            inner = counted + INNER.get(name[:4], INNER.get(magic, 0))
            first = start + inner - counted
            follows = size <= inner and _is_chunk(file, first, header, counted, end)
            return _judge(file, base, (first, end), size - inner, inner, field, follows)
        if name == b"ds64" and start + 16 <= end:
            long_size, long_field = int.from_bytes(file.read(16)[8:], "little"), start + 8
        size -= counted
        at = start + size + -size % align
        if size < 0 or at > end or not name.strip(b"\0"):
            break
    return Container()


def _is_chunk(file: FileIO, at: int, header: str, counted: int, end: int) -> bool:
    file.seek(at)
    head = file.read(struct.calcsize(header))
    if len(head) < struct.calcsize(header):
        return False
    name, size = struct.unpack(header, head)
    return all(32 <= byte < 127 for byte in name[:4]) and 0 <= size - counted <= end - at - len(head)


def _of_au(file: FileIO, base: int, order: str) -> Container:
    head = file.read(8)
    if len(head) < 8:
        return Container()
    start, size = struct.unpack(order + "II", head)
    return _judge(file, base, (base + start, file.seek(0, 2)), size, 0, (base + 8, order + "I"), False)


def _judge(
    file: FileIO, base: int, place: tuple[int, int], size: int, more: int, field: tuple[int, str], follows: bool
) -> Container:
    """place: first byte of the samples, and end of the file. size: declared bytes of the samples. field: offset and
    format of that number, which includes `more`. follows: whether another chunk starts where the samples should."""
    there = max(place[1] - place[0], 0)
    wide = struct.calcsize(field[1]) == 8
    endless = size < 0 or size + more == 0xFFFF_FFFF or size >= (1 << 62 if wide else STREAMED)
    unknown = (endless and not 0 <= size <= there) or (size <= 0 < there and not follows)
    cut = not unknown and size > there
    if not unknown and not base and not (cut and field[1] == ">q"):  # libsndfile does not open a truncated CAF
        return Container(cut=cut)
    file.seek(base)
    data = bytearray(file.read())
    if (unknown or cut) and (wide or there + more < 1 << 32):
        struct.pack_into(field[1], data, field[0] - base, there + more)
    return Container((bytes(data),), cut=cut)


def _of_flac(data: bytes) -> Container:
    """Streams with the length set to unknown, so that they are read to the end; also several joined by `cat`."""
    streams, samples, at = [], 0, 0
    while at >= 0:
        following = data.find(b"fLaC\0\0\0\x22", at + 4)
        stream = bytearray(data[at : following if following >= 0 else len(data)])
        if len(stream) > 26:
            samples += int.from_bytes(stream[21:26], "big") & 0xF_FFFF_FFFF
            stream[21] &= 0xF0
            stream[22:26] = bytes(4)
        streams.append(bytes(stream))
        at = following
    return Container(tuple(streams), least=samples)
