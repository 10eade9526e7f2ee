"""A search in several processes."""

from concurrent.futures import as_completed
from typing import TYPE_CHECKING

from configs.paths import Paths
from configs.processes import worker_processes
from tuning.objective import Training

if TYPE_CHECKING:
    from training.experiment_data import Data
    from tuning.study import Plan


def side_by_side(plan: "Plan", data: "Data", paths: Paths, name: str, workers: int) -> None:
    """Search in several processes with one thread each. What one raises ends the others and is raised here."""
    with worker_processes(workers, "does trials") as pool:
        for done in as_completed([pool.submit(work, plan, data, paths, name) for _ in range(workers)]):
            done.result()


def work(plan: "Plan", data: "Data", paths: Paths, name: str) -> None:
    """One of several processes."""
    from tuning.study import open_study, search

    folder = paths.studies / name
    search(folder, open_study(folder, plan=plan), plan, Training(data, paths, plan.folds))
