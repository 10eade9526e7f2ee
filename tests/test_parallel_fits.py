"""Fits in processes: the same blends as here, any metric, and a fault as one error."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blending.fit import FitRows
from blending.parallel_fits import Fit, fitting, no_bar, one_by_one
from console.errors import UserError
from metrics.metric import METRICS, Metric, find_metric
from tests.test_fit import made_rows


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> Callable[[FitRows, list[Fit]], tuple[list[str], int]]:
    monkeypatch.setattr("blending.parallel_fits.LARGE", 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})

    def fit(rows: FitRows, fits: list[Fit]) -> tuple[list[str], int]:
        counted = list[int]()
        methods = [one.method for one in fits] + ["stack"]
        with fitting(methods, rows, "abc", lambda n, note="": counted.append(n)) as fit_all:
            return [repr(one) for one in fit_all(fits)], sum(counted)

    return fit


def test_the_blends_are_those_of_this_process_in_the_order_of_the_fits(
    in_processes: Callable[..., tuple[list[str], int]],
) -> None:
    rows = replace(made_rows(), metric=find_metric("log_loss"), weight=np.where(np.arange(240) % 3, 1.0, 0.0))
    fits = [Fit(method, rows, held) for method in ("single", "greedy", "log_linear", "stack") for held in (None, 0, 3)]
    assert in_processes(rows, fits) == ([repr(one) for one in one_by_one(fits, "abc")], len(fits))


def test_a_fit_sees_nothing_of_the_fold_that_is_held_out_nor_rows_without_weight() -> None:
    rows = replace(made_rows(), weight=np.where(np.arange(240) % 3, 1.0, 0.0))
    seen = Fit("stack", rows, 3).seen()
    assert 3 not in seen.fold and len(seen.fold) == ((rows.fold != 3) & (rows.weight > 0)).sum()
    assert len(Fit("stack", rows).seen().fold) == 160 and (seen.weight > 0).all()


def test_ones_own_metric_is_found_by_the_processes_and_its_fault_is_told(
    in_processes: Callable[..., tuple[list[str], int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_mine.py").write_text(
        "def hits(probs, truth):\n    return truth[range(len(probs)), probs.argmax(axis=1)].mean()\n"
        "def nothing(probs, truth):\n    return float('nan')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    rows = replace(made_rows(), metric=find_metric("of_mine:hits"))
    assert in_processes(rows, [Fit("single", rows)])[0] == [
        repr(one) for one in one_by_one([Fit("single", rows)], "abc")
    ]
    rows = replace(rows, metric=find_metric("of_mine:nothing"))
    with pytest.raises(UserError, match=r"^metric: of_mine:nothing returns nan: return a finite number$"):
        in_processes(rows, [Fit("single", rows)])


@pytest.mark.parametrize("metric", [*METRICS, find_metric("map@7"), find_metric("top@2")])
def test_a_metric_is_sent_by_its_name_and_task(metric: Metric) -> None:
    function, arguments = metric.__reduce__()
    found = function(*arguments)
    assert (found.name, found.tasks, found.per_clip is None) == (metric.name, metric.tasks, metric.per_clip is None)


@pytest.mark.parametrize(("methods", "large"), [(("single", "arithmetic", "rank"), 0), (("stack",), 3601)])
def test_no_process_starts_for_what_takes_no_time(
    methods: tuple[str, ...], large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blending.parallel_fits.LARGE", large)  # made_rows: 3 x 240 x 5
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("blending.parallel_fits.worker_processes", lambda *_: pytest.fail("a process"))
    rows = made_rows()
    with fitting(methods, rows, "abc", no_bar) as fit_all:
        assert len(fit_all([Fit(method, rows) for method in methods])) == len(methods)
