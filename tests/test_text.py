"""Text files as people save them."""

from pathlib import Path

import pytest

from configs.text import read_text
from console.errors import UserError


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfcaf\xc3\xa9\r\n", b"caf\xc3\xa9\r\n"])
def test_a_byte_order_mark_is_dropped(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    assert read_text(tmp_path / "a.txt", "labels") == "caf\u00e9\r\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a".encode("utf-16"), "it is UTF-16 text: save it as UTF-8"),
        ("a".encode("utf-16-le"), "it is UTF-16 text: save it as UTF-8"),
        ("a".encode("utf-16-be"), "it is UTF-16 text: save it as UTF-8"),
        ("a".encode("utf-32"), "it is UTF-16 text: save it as UTF-8"),
        (b"caf\xe9!", r"not UTF-8 text \(invalid continuation byte\): save it as UTF-8"),
    ],
)
def test_other_encodings_are_errors(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError, match=rf"a\.txt: cannot read the labels: {message}$"):
        read_text(tmp_path / "a.txt", "labels")


def test_an_empty_or_absent_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert read_text(tmp_path / "a.txt", "labels") == ""
    with pytest.raises(UserError, match=r"none: cannot read the labels: No such file or directory$"):
        read_text(tmp_path / "none", "labels")


def test_an_error_is_one_line_whatever_it_names() -> None:
    assert str(UserError("a\nb\x1b[31m.wav \u00e9\u2028: absent")) == r"a\nb\x1b[31m.wav é\u2028: absent"
