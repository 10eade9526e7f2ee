"""Names as people have them: in two Unicode forms, as a.WAV for a.wav, or without the extension."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import PurePath


def nfc(name: str) -> str:
    """The composed Unicode form. macOS writes é as e and an accent (NFD): to the eye it is the same name."""
    return unicodedata.normalize("NFC", name)


def respell(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Each name as `known` has it where only the Unicode form differs; every other name as it is."""
    exact = set(known)
    spelling = {nfc(name): name for name in exact}
    return [name if name in exact else spelling.get(nfc(name), name) for name in names]


def match_files(names: Collection[str], there: Collection[str]) -> dict[str, str]:
    """name -> file, of those that are there. The exact name wins; else the one file that differs only in the Unicode
    form or in the case of its extension. A file is given to one name: where two could be meant, none is."""
    exact = set(names) & set(there)
    files, wanted = _by_key(set(there) - exact), _by_key(set(names) - exact)
    pairs = ((wanted[key], files.get(key, [])) for key in wanted)
    return {name: name for name in exact} | {
        one[0]: other[0] for one, other in pairs if len(one) == 1 and len(other) == 1
    }


def likely_files(missing: Iterable[str], there: Iterable[str]) -> dict[str, list[str]]:
    """For a missing name the files that it may mean, sorted: they differ in case, or in the extension or its absence.
    A name without such a file is left out."""
    index: dict[str, set[str]] = defaultdict(set)
    for file in there:
        for text in (file, PurePath(file).stem):
            index[_loose(text)].add(file)
    found = {name: index.get(_loose(name)) or index.get(_loose(PurePath(name).stem)) for name in missing}
    return {name: sorted(files) for name, files in found.items() if files}


def file_key(name: str) -> str:
    """Equal for names that differ only in the Unicode form or in the case of the extension."""
    stem, dot, extension = nfc(_as_utf8(name)).rpartition(".")
    return f"{stem}.{extension.lower()}" if dot else extension


def _as_utf8(name: str) -> str:
    """What Python read as ASCII or Latin-1, in a locale of that, as the UTF-8 that it is; every other name as it is."""
    try:
        return os.fsencode(name).decode()
    except UnicodeError:
        return name


def _by_key(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[file_key(name)].append(name)
    return found


def _loose(name: str) -> str:
    return nfc(name.strip()).casefold()
