"""A cluster of one and of two nodes, worked by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cluster_simulation import Load, main, measured, rows, simulate
from console.errors import UserError

LOAD = Load(
    experiments=1,
    folds=2,
    fold=100,
    epochs=4,
    start=10,
    prepare=5,
    extract=80,
    store=1000,
    disk=100,
    link=1000,
    memory=2000,
    slots=1,
    cores=4,
)


def test_one_node_reads_the_store_once() -> None:
    """5 s of checks, 20 of features, 30 of joining the store; 10 + 10 + 100 for a fold, 10 + 100 for the next."""
    found = simulate(LOAD, 1)
    assert found.before == pytest.approx(55) and found.total == pytest.approx(55 + 120 + 110) and found.waiting == 0


def test_two_nodes_share_the_disk() -> None:
    """Both read for 20 s instead of 10, unless their links are slower than their shares of the disk."""
    found = simulate(LOAD, 2)
    assert found.total == pytest.approx(5 + 10 + 30 + 10 + 20 + 100) and found.waiting == pytest.approx(20)
    slow = simulate(replace(LOAD, link=40), 2)
    assert slow.total == pytest.approx(5 + 10 + 30 + 10 + 25 + 100) and slow.waiting == 0


def test_a_store_that_does_not_fit_into_memory_is_read_every_epoch() -> None:
    assert simulate(replace(LOAD, memory=900), 1).total == pytest.approx(55 + 2 * (10 + 4 * 10 + 100))


def test_a_third_job_waits_for_a_slot_and_a_node_more_than_jobs_is_idle() -> None:
    load = replace(LOAD, folds=3, store=0, prepare=0, extract=0)
    assert [simulate(load, n).total for n in (1, 2, 3, 9)] == pytest.approx([330, 220, 110, 110])
    assert simulate(replace(load, slots=3), 1).total == pytest.approx(110)
    assert rows(load, [2])[0] == ["2", "3.7", "2.5", "0.0", "0.0", "0.1", "75%"]
    assert [row[-1] for row in rows(load, [1, 3, 9])] == ["100%", "100%", "33%"]


def test_times_of_a_trained_fold(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"seconds": 90}))
    (tmp_path / "config.json").write_text(json.dumps({"train": {"epochs": 7}}))
    assert measured(tmp_path) == (1.5, 7)
    with pytest.raises(UserError, match="not a finished fold"):
        measured(tmp_path / "none")


@pytest.mark.parametrize(
    "words", [["--nodes", "8", "0"], ["--slots", "-1"], ["--disk", "0"], ["--fold-minutes", "nan"], ["--start", "-1"]]
)
def test_numbers_with_which_nothing_would_end_are_refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["cluster_simulation", "--fold-minutes", "20", *words])
    with pytest.raises(UserError, match=rf"^{words[0]} {words[-1]}: must be (above|at least) 0$"):
        main()


def test_without_a_store_or_a_start_the_table_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--fold-minutes", "20", "--store-gb", "0", "--start", "0", "--nodes", "1", "2"]
    monkeypatch.setattr("sys.argv", ["cluster_simulation", *words])
    main()
    assert "6 x 5 folds of 20.0 min" in capsys.readouterr().out
