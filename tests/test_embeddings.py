"""The packed store of embeddings."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from console.errors import UserError
from features import embeddings
from features.embeddings import Embed, Embedded, open_embeddings
from features.store import Store

CLIPS = [
    (np.float32([[1, 2], [3, 0]]), ""),
    (np.zeros((0, 0), np.float32), "missing"),
    (np.float32([[5, 6]]), "truncated"),
    (np.zeros((0, 0), np.float32), "silent"),
]
NAMES = ["a.wav", "b.wav", "c.wav", "d.wav"]


def opened(folder: Path, make: Callable[[], Embed], pooling: str = "mean") -> Store:
    return open_embeddings(folder, NAMES, make, pooling, 2.0)  # type: ignore[arg-type]


def from_clips(first: int, end: int) -> Iterator[Embedded]:
    yield from CLIPS[first:end]


def not_again() -> Embed:
    raise AssertionError("made again")


def test_a_clip_is_the_mean_of_its_windows_and_none_without_sound(tmp_path: Path):
    store = opened(tmp_path / "key", lambda: from_clips)
    assert store.frames.tolist() == [[2, 1], [5, 6]]
    assert (store.length.tolist(), store.start.tolist()) == ([1, 0, 1, 0], [0, 1, 1, 2])
    assert store.faults == {"b.wav": "missing", "c.wav": "truncated", "d.wav": "silent"}
    assert round(2.0 * store.frame_rate) == 1


def test_a_second_run_reads_the_store_and_may_pool_otherwise(tmp_path: Path):
    opened(tmp_path / "key", lambda: from_clips)
    store = opened(tmp_path / "key", not_again, "mean_max")
    assert store.frames.tolist() == [[2, 1, 3, 2], [5, 6, 5, 6]]


def test_an_interrupted_run_continues_and_a_damaged_part_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(embeddings, "PART", 1)
    asked = []

    def breaks(first: int, end: int) -> Iterator[Embedded]:
        asked.append(first)
        if first == 3 and asked.count(3) == 1:
            raise KeyboardInterrupt
        yield from CLIPS[first:end]

    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path / "key", lambda: breaks)
    part = tmp_path / "key.partial" / "part-00000.npz"
    part.write_bytes(part.read_bytes()[:-40])
    assert opened(tmp_path / "key", lambda: breaks).frames.tolist() == [[2, 1], [5, 6]]
    assert asked == [0, 1, 2, 3, 0, 3]
    assert "part-00000.npz: damaged" in capsys.readouterr().err


def test_a_corrupted_store_is_named(tmp_path: Path):
    opened(tmp_path / "key", lambda: from_clips)
    file = tmp_path / "key" / "embeddings.npz"
    content = bytearray(file.read_bytes())
    content[content.index(np.float32([5, 6]).tobytes())] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"key: corrupted \(.*delete this folder, then run the same command$"):
        opened(tmp_path / "key", not_again)


def test_an_embedding_that_is_not_finite_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="returns NaN or infinity"):
        opened(tmp_path / "key", lambda: lambda first, end: [(np.float32([[np.nan]]), "")] * 4)
    assert not (tmp_path / "key").exists()


def test_clips_without_any_sound(tmp_path: Path):
    store = opened(tmp_path / "key", lambda: lambda first, end: [CLIPS[1]] * 4)
    assert store.length.tolist() == [0, 0, 0, 0]
