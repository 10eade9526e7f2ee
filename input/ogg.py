"""Ogg files (Vorbis, Opus): pages, chains of streams, and the rest of a truncated page. Source: RFC 3533."""

import zlib
from itertools import accumulate, pairwise

REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
FIRST, LAST = 2, 4  # flags of a page
Page = tuple[int, bytes]  # offset, and header without the segment table


def read_ogg(data: bytes) -> tuple[tuple[bytes, ...], bool, str]:
    """The links of a chain, if there are several or one was repaired; whether one is truncated; other faults. The first
    and the last page of each logical stream have a flag."""
    pages, damage, rest = _ogg_pages(data)
    links: list[list[Page]] = [[]]
    for page in pages:
        if page[1][5] & FIRST and links[-1] and not links[-1][-1][1][5] & FIRST:
            links.append([])
        links[-1].append(page)
    streams, cut = list[bytes](), rest < len(data)
    begins = [0, *(link[0][0] for link in links[1:]), len(data)]
    for link, begin, end in zip(links, begins, begins[1:], strict=False):
        unended = {head[14:18] for _, head in link} - {head[14:18] for _, head in link if head[5] & LAST}
        cut |= bool(unended)
        unfinished = link and (unended or end > rest)
        streams.append(_ended(data[begin:end], link[-1][0] - begin) if unfinished else data[begin:end])
    return () if len(streams) == 1 and not cut else tuple(streams), cut, damage


def _ogg_pages(data: bytes) -> tuple[list[Page], str, int]:
    """Offset and header (27 bytes) of each page, faults, and the offset of a truncated last page, else the end of the
    file.

    Checksums are slow, so they are checked only between pages that do not follow each other, and for the first page
    with sound and the last page, whose faults the decoder does not report.
    """
    pages, at, damaged = list[Page](), 0, False
    while (at := data.find(b"OggS", at)) >= 0:
        head, end = data[at : at + 27], _end_of_page(data, at)
        if end > len(data) and data.find(b"OggS", at + 4) < 0:
            break
        if end > len(data) or (data[end : end + 4] not in (b"OggS", b"") and not _is_intact(data[at:end])):
            damaged = True
            at += 4
        else:
            pages.append((at, head))
            at = end
    checked = [page for page, head in pages if any(head[6:14])][:1] + [page for page, _ in pages[-1:]]
    damaged |= not all(_is_intact(data[page : _end_of_page(data, page)]) for page in checked)
    return pages, "damaged pages" if damaged else "", at if at >= 0 else len(data)


def _end_of_page(data: bytes, at: int) -> int:
    """The end of a page by its header, perhaps after the end of the file."""
    n = data[at + 26] if at + 26 < len(data) else len(data)
    return at + 27 + n + sum(data[at + 27 : at + 27 + n])


def _ended(link: bytes, last: int) -> bytes:
    """A link with its missing end flag added: on its last page, at offset `last`, or on the rest of a truncated page
    after that."""
    end = _end_of_page(link, last)
    link, rest = link[:end], link[end:]
    n = rest[26] if rest[:4] == b"OggS" and len(rest) > 26 else 0
    lacing, body = rest[27 : 27 + n], rest[27 + n :]
    ends = list(accumulate(lacing))
    whole = [i + 1 for i, size in enumerate(lacing) if size < 255 and ends[i] <= len(body)]
    if not whole:
        return link[:last] + _page(link[last:], link[last + 6 : last + 14])
    page = rest[:26] + bytes(whole[-1:]) + lacing[: whole[-1]] + body[: ends[whole[-1] - 1]]
    position = rest[6:14]
    if b"OpusHead" in link[:100]:  # Opus does not allow a position that is too large
        before = max(int.from_bytes(link[last + 6 : last + 14], "little", signed=True), 0)
        starts = [0, *(ends[i - 1] for i in whole)]
        position = (before + sum(_opus_samples(body[i:j]) for i, j in pairwise(starts))).to_bytes(8, "little")
    return link + _page(page, position)


def _opus_samples(packet: bytes) -> int:
    """Samples of a packet at 48 kHz. Source: RFC 6716, 3.1 and 3.2."""
    if len(packet) < 2:
        return 0
    config, code = packet[0] >> 3, packet[0] & 3
    kind = (480, 960, 1920, 2880) if config < 12 else (480, 960) * 2 if config < 16 else (120, 240, 480, 960)
    return kind[config & 3] * (packet[1] & 63 if code == 3 else min(code + 1, 2))


def _page(page: bytes, position: bytes) -> bytes:
    """The page with the flag of a last page and another position."""
    page = page[:5] + bytes([page[5] | LAST]) + position + page[14:]
    return page[:22] + _checksum(page) + page[26:]


def _is_intact(page: bytes) -> bool:
    return page[22:26] == _checksum(page)


def _checksum(page: bytes) -> bytes:
    """RFC 3533: zlib's CRC, but starting at 0, not inverted, and with the bits of each byte reversed."""
    page = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(page.translate(REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return crc.to_bytes(4, "little").translate(REVERSED)[::-1]
