"""Ogg files (Vorbis, Opus): pages, chains of streams, and what is left of a page that was cut. Source: RFC 3533."""

import zlib
from itertools import accumulate

REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def read_ogg(data: bytes) -> tuple[tuple[bytes, ...], bool, str]:
    """The links of a chain, where there are several or the last one was mended; whether one is cut off; what else is
    wrong. Every logical stream begins with a page that says so and ends with one."""
    pages, damage, rest = _ogg_pages(data)
    links, unended, cut, began = [0], set[bytes](), False, True
    for at, head in pages:
        if head[5] & 2:
            if not began:
                links.append(at)
                cut, unended = cut or bool(unended), set()
            unended.add(head[14:18])
        began = bool(head[5] & 2)
        if head[5] & 4:
            unended.discard(head[14:18])
    cut = cut or bool(unended) or rest < len(data)
    mended = _whole_packets(data[rest:])
    if len(links) == 1 and not mended:
        return (), cut, damage
    streams = [data[a:b] for a, b in zip(links, [*links[1:], rest], strict=True)]
    return (*streams[:-1], streams[-1] + mended), cut, damage


def _ogg_pages(data: bytes) -> tuple[list[tuple[int, bytes]], str, int]:
    """First byte and header (27 bytes) of each page, what is wrong with them, and where a last one begins that is cut
    off; the end of the file where none is.

    Checksums are slow here. A page in the middle that is damaged makes the decoder come short, but not the first one
    with sound nor the last.
    """
    pages, at, end, rest, gaps = list[tuple[int, bytes]](), 0, 0, len(data), False
    while (at := data.find(b"OggS", at)) >= 0:
        head = data[at : at + 27]
        lacing = data[at + 27 : at + 27 + head[26]] if len(head) == 27 else b""
        behind = at + 27 + len(lacing) + sum(lacing)
        if len(head) == 27 and len(lacing) == head[26] and behind <= len(data):
            gaps |= at != end
            pages.append((at, head))
            at = end = behind
        elif data.find(b"OggS", at + 4) < 0:
            rest = at
            break
        else:
            at += 4
    first = [page for page in pages if any(page[1][6:14])][:1]
    sound = all(head[22:26] == _checksum(data[at : _end(data, at)]) for at, head in first + pages[-1:])
    return pages, "" if sound and not gaps else "pages that are damaged", rest


def _whole_packets(page: bytes) -> bytes:
    """The page that is left of one that was cut off: the packets that are whole."""
    n = page[26] if len(page) > 26 else 0
    lacing, body = page[27 : 27 + n], page[27 + n :]
    sizes = list(accumulate(lacing))
    whole = [i + 1 for i, size in enumerate(lacing) if size < 255 and sizes[i] <= len(body)]
    if not whole:
        return b""
    kept = page[:26] + bytes([whole[-1]]) + lacing[: whole[-1]] + body[: sizes[whole[-1] - 1]]
    return kept[:22] + _checksum(kept) + kept[26:]


def _end(data: bytes, at: int) -> int:
    return at + 27 + data[at + 26] + sum(data[at + 27 : at + 27 + data[at + 26]])


def _checksum(page: bytes) -> bytes:
    """RFC 3533: the CRC of zlib, but begun at 0, not inverted, and with the bits of each byte the other way round."""
    page = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(page.translate(REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return crc.to_bytes(4, "little").translate(REVERSED)[::-1]
