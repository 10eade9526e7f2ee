"""Values from JSON against expected types."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from configs.forms import from_json, read_json, to_json
from console.errors import UserError


@dataclass(frozen=True)
class Inner:
    weight: float


@dataclass(frozen=True)
class Outer:
    name: str
    models: dict[str, Inner]
    more: tuple[int, ...] | None = None


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        *[(1, int), (1, float), (1.5, float), ("a", str), (True, bool), (None, None), ({}, dict), ([1], Any)],
        *[(None, int | None), (3, int | None), ("a", Literal["a", "b"]), ([], list[int]), ([1, 2], list[float])],
        *[
            ([1.0, 2], tuple[float, float]),
            ([], tuple[float, ...]),
            ((1, 2, 3), tuple[int, ...]),
            ({"a": 1}, dict[str, int]),
        ],
        ({"name": "a", "models": {"m": {"weight": 1, "also": []}}, "also": 3}, Outer),
    ],
)
def test_values_of_the_type(value: object, hint: Any) -> None:
    from_json(hint, value)  # raises nothing


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, int, "it is True"),
        (True, float, "it is True"),
        (1, bool, "it is 1"),
        (1.0, int, "it is 1.0"),
        (float("nan"), float, "it is nan"),
        (10**400, float, "it is 1000"),
        ("c", Literal["a", "b"], "it is 'c'"),
        (1, Literal[True], "it is 1"),
        ("1", int | None, "it is '1'"),
        ([1, "2"], list[int], "it[1] is '2'"),
        ([1.0], tuple[float, float], "it has 1 entries"),
        ("ab", list[str], "it is 'ab'"),
        ({"a": {"weight": []}}, dict[str, Inner], "a.weight is []"),
        ([], Outer, "it is []"),
        ({"name": "a"}, Outer, "it lacks models"),
        ({"name": "a", "models": [], "more": 3}, Outer, "models is []"),
        ({"name": "a", "models": {}, "more": 3}, Outer, "more is 3"),
        ({"name": "a", "models": {"m": {"weight": "1"}}}, Outer, "models.m.weight is '1'"),
    ],
)
def test_values_of_another_type_are_named(value: object, hint: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        from_json(hint, value)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b'{"name": 1, "models": {}}'])
def test_a_file_of_another_form_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: .*: make it again"):
        read_json(tmp_path / "a.json", Outer, "make it again")
    with pytest.raises(UserError, match=r"none\.json: .*: make it again"):
        read_json(tmp_path / "none.json", Outer, "make it again")


def test_to_json_is_the_inverse_of_from_json() -> None:
    values = {"name": "a", "models": {"m": {"weight": 0.5}}, "more": [1, 2]}
    made = Outer("a", {"m": Inner(0.5)}, (1, 2))
    assert from_json(Outer, values | {"of another version": 1}) == made
    assert to_json(made) == values | {"more": (1, 2)}
    assert to_json(Outer("a", {})) == {"name": "a", "models": {}}, "what is not there is not written"
