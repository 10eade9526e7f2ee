"""How `make test` shares the tests out."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LONGEST, pytest_xdist_auto_num_workers

ROOT = Path(__file__).parent.parent
GIB = 1 << 30


@pytest.mark.parametrize(
    ("cores", "memory", "workers"),
    [(1, 64, 0), (2, 24, 2), (4, 24, 4), (64, 500, 8), (16, 13, 3), (2, 6, 0)],
)
def test_a_process_per_core_as_far_as_the_memory_reaches(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, workers: int
) -> None:
    """None beside the first where two would not fit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": memory * GIB // 4096, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert pytest_xdist_auto_num_workers() == workers


def test_the_longest_modules_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / "tests" / f"{name}.py").exists()] == []


def test_make_runs_a_module_in_one_process_with_its_fixtures() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    words = ["make", "--dry-run", "--old-file=setup", "test", "VENV=v"]
    told = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert told == "v/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart=0\n"
