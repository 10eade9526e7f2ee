"""Match names that differ: two Unicode forms, a.WAV for a.wav, or a missing extension."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import PurePath

SOUND = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64"}


def nfc(name: str) -> str:
    """The composed Unicode form. macOS writes é as e and an accent (NFD), which looks the same."""
    return unicodedata.normalize("NFC", name)


def is_sound(name: str) -> bool:
    """Whether the extension is that of a sound file."""
    return PurePath(name).suffix.lower() in SOUND


def respell(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Each name in the Unicode form of `known`; unknown names unchanged."""
    exact = set(known)
    spelling = {nfc(name): name for name in exact}
    return [name if name in exact else spelling.get(nfc(name), name) for name in names]


def match_files(names: Collection[str], there: Collection[str]) -> dict[str, str]:
    """name -> file, for names with a file. The exact name wins, else the only file that differs just in the Unicode
    form or the case of the extension. Ambiguous names get no file."""
    exact = set(names) & set(there)
    files, missing = _by_key(set(there) - exact), _by_key(set(names) - exact)
    pairs = ((missing[key], files.get(key, [])) for key in missing)
    return {name: name for name in exact} | {
        one[0]: other[0] for one, other in pairs if len(one) == 1 and len(other) == 1
    }


def likely_files(missing: Iterable[str], there: Iterable[str]) -> dict[str, list[str]]:
    """Similar files for each missing name, sorted: they differ in case or in the extension. Names without any are left
    out."""
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
    """A UTF-8 name that Python decoded as ASCII or Latin-1, because of the locale, decoded again; others unchanged."""
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
