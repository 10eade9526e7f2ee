"""MP3 files: count the frames, because nothing else tells reliably how many there are."""

import struct
from dataclasses import dataclass
from functools import lru_cache

KBITS = {  # version 1 or not, layer -> bitrates by index
    (True, 1): range(0, 449, 32),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
UNSOUND = 4  # frames that may give no samples: encoder delay at both ends, or a damaged frame


@dataclass(frozen=True)
class _Frame:
    """An MPEG frame by its header: bytes, mean bytes with padding, samples, the header bits that all frames of a file
    share, and the offset of a Xing tag."""

    length: int
    mean: float
    samples: int
    kind: tuple[int, int]
    xing: int


@lru_cache(maxsize=1024)
def _frame(header: bytes) -> _Frame | None:
    """Parse four bytes; None if they are no header. Source: ISO 11172-3, 13818-3, and the usual MPEG 2.5."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    hertz = (44_100, 48_000, 32_000)[rate] >> (3 - version if version else 2)
    kbits = KBITS[version == 3, layer][bitrate]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    slot = 4 if layer == 1 else 1
    length = (samples // 8 // slot * kbits * 1000 // hertz + padding) * slot
    mono = header[3] >> 6 == 3
    xing = 4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17))
    mean = samples / 8 * kbits * 1000 / hertz
    return _Frame(length, mean, samples, (header[1] & 0xFE, header[2] & 0x0C), xing)


def read_mpeg(data: bytes) -> tuple[tuple[bytes, ...], bool, str, int]:
    """Streams to decode instead of the file (empty: the file itself), whether it is truncated, other faults, and the
    minimum number of samples per channel (0: unknown).

    Only a Xing frame at the start declares the length of an MP3. So the frames are counted, and a Xing frame is added
    or corrected, which libsndfile trusts.
    """
    first = _frame(data[:4])
    if first is None or first.length > len(data):
        return (), False, "", 0
    n, cut, damage = _count_frames(data, first)
    at, least = first.xing, max(n - UNSOUND, 0) * first.samples
    if at + 16 > first.length or data[at : at + 4] not in (b"Xing", b"Info"):
        if int(len(data) / first.mean + 0.5) >= n:  # libsndfile's estimate is enough, as for a constant bitrate
            return (), cut, damage, least
        return (_xing_frame(data, n) + data,), cut, damage, least
    n -= 1
    flags, declared, size = struct.unpack_from(">III", data, at + 4)
    if not flags & 1:
        return (_xing_frame(data, n) + data[first.length :],), cut, damage, least
    if declared < n:
        sizes = struct.pack(">II", n, len(data)) if flags & 2 else struct.pack(">I", n)
        return (data[: at + 8] + sizes + data[at + 8 + len(sizes) :],), cut, damage, least
    missing = declared > n and (size > len(data) if flags & 2 else declared > n + 1)  # some count the Xing frame too
    return (), cut or missing, damage, least


def _count_frames(data: bytes, first: _Frame) -> tuple[int, bool, str]:
    """Number of whole frames, whether the last one is truncated, and faults between them (not tags or padding)."""
    n, at, end, damage = 0, 0, len(data), ""
    while at < end:
        frame = _frame(data[at : at + 4])
        if frame is not None and frame.kind == first.kind:
            if at + frame.length > end:
                return n, True, damage
            n, at = n + 1, at + frame.length
        elif end - at < 4 and data[at] == 0xFF:
            return n, True, damage
        else:
            behind = _next_frame(data, at + 1, first)
            if behind < end and not data.startswith(TAGS, at) and data[at:behind].strip(b"\0"):
                damage = "bytes between frames"
            at = behind
    return n, False, damage


def _next_frame(data: bytes, at: int, first: _Frame) -> int:
    """Offset of the next frame that is followed by another one or by the end of the file; else the end."""
    while (at := data.find(b"\xff", at)) >= 0:
        frame = _frame(data[at : at + 4])
        if frame is not None and frame.kind == first.kind:
            behind = at + frame.length
            after = _frame(data[behind : behind + 4])
            if behind == len(data) or (after is not None and after.kind == first.kind):
                return at
        at += 1
    return len(data)


def _xing_frame(data: bytes, n: int) -> bytes:
    """A frame without sound that declares the number of frames; b"" for other layers than the third."""
    head = bytes([0xFF, data[1] | 1, 0x90 | data[2] & 0x0C, data[3]])
    frame = _frame(head)
    if frame is None or data[1] & 6 != 2:
        return b""
    return (head + bytes(frame.xing - 4) + struct.pack(">4sII", b"Xing", 1, n)).ljust(frame.length, b"\0")
