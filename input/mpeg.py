"""MP3 files: their frames, which are counted, since nothing else tells reliably how many there are."""

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
UNSOUND = 4  # frames that may come without samples: what the encoder added at both ends, or one that is damaged


@dataclass(frozen=True)
class _Frame:
    """What the header of an MPEG frame says: bytes, and with and without padding on the average, samples, what all
    frames of a file share, and where Xing stands."""

    length: int
    mean: float
    samples: int
    kind: tuple[int, int]
    xing: int


@lru_cache(maxsize=1024)
def _frame(header: bytes) -> _Frame | None:
    """Of four bytes; None where they are no header. Source: ISO 11172-3, 13818-3, and the usual MPEG 2.5."""
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
    """What to decode in place of the file, if not the file itself, whether it is cut off, what else is wrong, and how
    many samples per channel must come at least (0: it cannot be told).

    An MP3 does not say how long it is, but for a Xing frame at its beginning: so its frames are counted, and such a
    frame is made or put right, which libsndfile believes.
    """
    first = _frame(data[:4])
    if first is None or first.length > len(data):
        return (), False, "", 0
    n, cut, damage = _count_frames(data, first)
    at, least = first.xing, max(n - UNSOUND, 0) * first.samples
    if at + 16 > first.length or data[at : at + 4] not in (b"Xing", b"Info"):
        if int(len(data) / first.mean + 0.5) >= n:  # what libsndfile guesses: enough, as for any constant bitrate
            return (), cut, damage, least
        return (_xing_frame(data, n) + data,), cut, damage, least
    n -= 1
    flags, said, size = struct.unpack_from(">III", data, at + 4)
    if not flags & 1:
        return (_xing_frame(data, n) + data[first.length :],), cut, damage, least
    if said < n:
        sizes = struct.pack(">II", n, len(data)) if flags & 2 else struct.pack(">I", n)
        return (data[: at + 8] + sizes + data[at + 8 + len(sizes) :],), cut, damage, least
    lacking = said > n and (size > len(data) if flags & 2 else said > n + 1)  # some count the Xing frame too
    return (), cut or lacking, damage, least


def _count_frames(data: bytes, first: _Frame) -> tuple[int, bool, str]:
    """Whole frames, whether the last one is cut off, and what is wrong between them; tags and padding are not."""
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
                damage = "bytes that are no frame"
            at = behind
    return n, False, damage


def _next_frame(data: bytes, at: int, first: _Frame) -> int:
    """Where the next frame begins that another one, or the end of the file, follows; the end where there is none."""
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
    """A frame without sound that says how many follow; b"" before frames of other layers than the third."""
    head = bytes([0xFF, data[1] | 1, 0x90 | data[2] & 0x0C, data[3]])
    frame = _frame(head)
    if frame is None or data[1] & 6 != 2:
        return b""
    return (head + bytes(frame.xing - 4) + struct.pack(">4sII", b"Xing", 1, n)).ljust(frame.length, b"\0")
