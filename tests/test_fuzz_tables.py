"""What people hand us, at random: tables, zips, YAML. A UserError in one line or a right result, and nothing else."""

import contextlib
import csv
import io
import os
import shutil
import signal
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from fuzzing import fuzz
from hypothesis import example, given
from hypothesis import strategies as st

from configs import schema
from configs.load import load_config, load_configs
from configs.schema import Config
from console.errors import UserError
from input.competition import load_competition
from input.corrections import read_corrections
from input.names import nfc
from input.zips import unpack_zips
from tuning.search_space import Range, load_space

LIMIT = 20  # seconds: what takes longer hangs
NAMES = ["a.wav", "b.wav", "c.WAV", "d", "caf\u00e9.wav", "cafe\u0301.wav", "e.ogg", "f,1.wav"]
FILES = ["a.wav", "b.wav", "b.WAV", "c.wav", "d.wav", "cafe\u0301.wav", "e.mp3", "f,1.wav", "._a.wav"]
LABELS = ["Bark", "Cello", "Gong", "caf\u00e9", "cafe\u0301", "Bark,Gong", "None", "", "nan", "007"]


@contextlib.contextmanager
def one_line_or_right() -> Iterator[None]:
    """Inside, a UserError is taken for what it is; a hang ends as a failure."""

    def stop(*_: object) -> None:
        raise AssertionError(f"still at it after {LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        yield
    except UserError as error:
        text = str(error)
        assert text and "\n" not in text and len(text) < 5000
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# Tables

cells = st.one_of(st.sampled_from(NAMES + LABELS), st.sampled_from(["0", "1"]), st.text(max_size=6))
headers = st.lists(
    st.one_of(st.sampled_from(["fname", "label", "manually_verified", "freesound_id", "path", "verified"]), cells),
    min_size=1,
    max_size=5,
)
encodings = st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])


def as_csv(rows: list[list[str]], encoding: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode(encoding, "replace")


def either(likely: st.SearchStrategy[Any], any_: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Half of each: `|` would give each part of `any_` as much."""
    return st.booleans().flatmap(lambda is_likely: likely if is_likely else any_)


def likely_tables(names: list[str], labels: list[str]) -> st.SearchStrategy[bytes]:
    rows = st.lists(
        st.tuples(st.sampled_from(names), st.sampled_from(labels), st.sampled_from("01")).map(list),
        min_size=3,
        max_size=8,
        unique_by=lambda row: row[0],
    )
    columns = ["fname", "label", "manually_verified"]
    return st.builds(
        lambda rows, n, encoding: as_csv([r[:n] for r in [columns, *rows]], encoding),
        rows,
        st.sampled_from([1, 2, 3]),
        st.sampled_from(["utf-8", "utf-8-sig"]),
    )


strange_tables = st.binary(max_size=60) | st.builds(
    lambda header, rows, encoding: as_csv([header, *rows], encoding),
    headers,
    st.lists(st.lists(cells, max_size=5), max_size=6),
    encodings,
)
tables = either(either(likely_tables(NAMES[:6], LABELS[:5]), likely_tables(NAMES, LABELS)), strange_tables)


@fuzz
@given(train=tables, sample=tables, details=st.none() | tables, skip=st.booleans(), sound=st.booleans())
def test_any_tables(
    tmp_path: Path, train: bytes, sample: bytes, details: bytes | None, skip: bool, sound: bool
) -> None:
    for part in ("audio_train", "audio_test"):
        (tmp_path / part).mkdir(exist_ok=True)
        for name in FILES:
            (tmp_path / part / name).touch()
    (tmp_path / "train.csv").write_bytes(train)
    (tmp_path / "sample_submission.csv").write_bytes(sample)
    (tmp_path / "train_post_competition.csv").unlink(missing_ok=True)
    if details is not None:
        (tmp_path / "train_post_competition.csv").write_bytes(details)
    with one_line_or_right():
        found = load_competition(tmp_path, skip, sound)
        assert len(found.classes) >= 3 and found.classes == tuple(sorted(set(found.train["label"])))
        assert len(set(map(nfc, found.classes))) == len(found.classes)
        for clips in (found.train, found.test):
            assert len(set(clips["fname"])) == len(clips) > 0
            for fname, path in zip(clips["fname"], clips["path"], strict=True):
                assert path is not None or skip or not sound
                assert path is None or nfc(Path(path).name).lower() == nfc(fname).lower()
            used = clips["path"].dropna()
            assert len(set(used)) == len(used)


@fuzz
@given(table=tables)
def test_any_corrections(tmp_path: Path, table: bytes) -> None:
    import pandas as pd

    (tmp_path / "corrections.csv").write_bytes(table)
    train, classes = pd.DataFrame({"fname": FILES}), ("Bark", "Cello", "caf\u00e9")
    with one_line_or_right():
        found = read_corrections(tmp_path / "corrections.csv", train, classes)
        assert set(found) <= set(FILES) and set(found.values()) <= {"", *classes}


# Zips

parts = either(
    st.sampled_from(
        ["audio_train", "a.wav", "b.wav", "caf\u00e9.wav", "cafe\u0301.wav", "._a.wav", "__MACOSX", "..", ".."]
    ),
    st.sampled_from(["..", ".", "", "C:", "~", ".DS_Store", "x" * 300]) | st.text(max_size=8),
)
member_names = st.builds(
    lambda start, between, names: start + between.join(names),
    st.sampled_from([""] * 16 + ["/", "\\", "//host/", "C:\\"]),
    st.sampled_from(["/", "\\"]),
    st.lists(parts, min_size=1, max_size=3),
)
members = st.lists(
    st.tuples(member_names, st.binary(max_size=50), st.sampled_from([0] * 6 + [0o100644 << 16, 0o120777 << 16])),
    max_size=4,
)
methods = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])


def packed(entries: list[tuple[str, bytes, int]], method: int, flags: bool, harm: list[tuple[int, int]]) -> bytes:
    """A zip of these members, its names marked as UTF-8 or not, with some of its bytes replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as target:
        for name, data, attributes in entries:
            about = zipfile.ZipInfo(name.replace("\0", "") or "x")
            about.external_attr, about.compress_type = attributes, method
            about.filename = name  # as it is: the constructor ends it at a NUL
            with warnings.catch_warnings(action="ignore"), contextlib.suppress(ValueError):  # a name twice; a surrogate
                target.writestr(about, data)
    found = bytearray(out.getvalue())
    if not flags:
        for mark, at in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
            start = -1
            while (start := found.find(mark, start + 1)) >= 0 and start + at < len(found):
                found[start + at] &= ~8
    for place, byte in harm:
        if found:
            found[place % len(found)] = byte
    return bytes(found)


harm = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=3)
zips = either(
    st.builds(packed, members, methods, st.booleans(), st.just([])),
    st.binary(max_size=100) | st.builds(packed, members, methods, st.booleans(), harm),
)


def everything(root: Path) -> set[str]:
    return {os.path.join(folder, name) for folder, inner, files in os.walk(root) for name in (*inner, *files)}  # noqa: PTH118


@fuzz
@example([packed([("a.wav", b"a", 0), ("..\\x", b"", 0)], zipfile.ZIP_STORED, True, [])], "all")
@given(archives=st.lists(zips, min_size=1, max_size=2), name=st.sampled_from(["audio_train", "all"]))
def test_any_zips(tmp_path: Path, archives: list[bytes], name: str) -> None:
    folder = tmp_path / "up" / "competition"
    shutil.rmtree(tmp_path / "up", ignore_errors=True)
    folder.mkdir(parents=True)
    for i, data in enumerate(archives):
        (folder / f"{name}{i or ''}.zip").write_bytes(data)
    with one_line_or_right():
        unpack_zips(folder)
    assert {p for p in everything(tmp_path) if not p.startswith(f"{folder}/")} == {str(folder.parent), str(folder)}
    assert not [p for p in everything(folder) if Path(p).is_symlink() or p.endswith(".part")]


# YAML

keys = list(schema.to_dict(Config()))
settings_ = [
    f"{section}.{key}"
    for section, values in schema.to_dict(Config()).items()
    if isinstance(values, dict)
    for key in values
]
scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**63, float("inf"), float("nan"), 1e308, 5e-324]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["~", "~/x", "~nobody-here/x", "1e-3", "auto", "\ud800", "1_0"]),
    st.dates(),
    st.binary(max_size=4),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3), max_leaves=6
)
numbers = st.sampled_from([0, 1, 2, 0.5, 8, 64, 1e-4, "1e-3", True, None, "auto", [0.9]])
ranges = st.builds(
    lambda kind, ends: {kind: ends},
    st.sampled_from(["uniform", "log", "int", "choice", "choice", "lgo"]),
    st.lists(numbers, min_size=1, max_size=3),
)


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """'train.lr' -> value as a config has it."""
    found: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.partition(".")
        found.setdefault(section, {})[name] = value
    return found


configs = either(
    st.dictionaries(st.sampled_from(settings_), numbers, max_size=2).map(nested),
    st.dictionaries(st.sampled_from([*keys, "experiments"]) | scalars, values, max_size=3),
)
spaces = either(
    st.dictionaries(st.sampled_from(settings_), ranges, min_size=1, max_size=1),
    st.dictionaries(st.sampled_from(settings_) | scalars, ranges | values, max_size=3),
)
broken = st.one_of(
    st.text(max_size=40),
    st.text("{}[]&*!:- ax\n'\"|>%@#?,", max_size=40),
    st.sampled_from(["a: &x [*x]", "train: &x {lr: *x}", "[" * 200, "{a: " * 200, "a: " + "9" * 4400, "!!python/x y"]),
)


def dumped(value: object) -> str:
    return yaml.dump(value, allow_unicode=True)


def saved(likely: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """The bytes of a file."""
    text = st.tuples(likely.map(dumped) | broken, encodings).map(lambda pair: pair[0].encode(pair[1], "replace"))
    return either(likely.map(lambda value: dumped(value).encode()), text | st.binary(max_size=40))


@fuzz
@given(data=saved(configs), overrides=st.lists(st.sampled_from(settings_).map("{}=1".format), max_size=1))
def test_any_config(tmp_path: Path, data: bytes, overrides: list[str]) -> None:
    (tmp_path / "exp.yaml").write_bytes(data)
    with one_line_or_right():
        assert all(isinstance(cfg, Config) for cfg in load_configs(tmp_path / "exp.yaml", overrides))


@fuzz
@given(
    key=st.sampled_from([*keys, *settings_]) | st.text(max_size=9),
    value=either(numbers.map(dumped), values.map(dumped) | broken),
)
def test_any_override(key: str, value: str) -> None:
    with one_line_or_right():
        assert isinstance(load_config(None, [f"{key}={value}"]), Config)


@fuzz
@given(data=saved(spaces))
def test_any_space(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "space.yaml").write_bytes(data)
    with one_line_or_right():
        found = load_space(tmp_path / "space.yaml", None, ())
        assert found and all(isinstance(one, Range) for one in found)
