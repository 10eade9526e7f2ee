"""Search for better settings of an experiment: work/studies/<name>/best.yaml, with the trials and pictures beside it.

Trials train folds of the experiment by the kit's own code, with settings that Optuna (TPE) draws from a search space,
and are scored by mean out-of-fold MAP@3; test clips are not touched. The best score is flattered by the choice among
trials: train best.yaml with another train.seed, or on the folds that did not choose, to learn the truth.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from configs.console import READER_LEFT, run_command, say
from configs.errors import UserError, list_some
from configs.paths import DEFAULT_CONFIG, Paths, add_folders, as_path

if TYPE_CHECKING:  # imported where they are used: --help must not wait for torch
    from configs.schema import Config
    from models.preparation import Data, Prepared
    from models.search import Plan, Report

PRUNERS = ("median", "hyperband", "none")
PATIENCE = 30.0  # seconds that a process has to end its trial
EXAMPLES = """examples:
  python tune.py --config configs/us8k_mini.yaml --space configs/search/resnetish.yaml --trials 30
  python tune.py --space space.yaml --folds 0..4 --workers 4 train.epochs=20
  python tune.py --report --name us8k_mini-resnetish

Killed or interrupted, the same command goes on until all trials are finished; started in several terminals, it shares
them out. A search space names config keys and ranges:
  train.lr: {log: [1.0e-4, 1.0e-2]}
  model.dropout: {uniform: [0, 0.5]}
  augment.time_masks: {int: [0, 2]}
  model.width: {choice: [16, 24, 32]}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", type=as_path, metavar="FILE", help="base experiment (configs/resnetish18.yaml)")
    parser.add_argument(
        "--space", type=as_path, metavar="FILE", help="search space, such as configs/search/resnetish.yaml"
    )
    add_folders(parser)
    parser.add_argument("--name", help="work/studies/NAME/ (<experiment>-<search space>)")
    parser.add_argument("--trials", type=int, default=30, metavar="N", help="finished ones in all (%(default)s)")
    parser.add_argument("--folds", default="0", help="folds that score a trial: 3, 0..4 or 0,2,4 (%(default)s)")
    parser.add_argument("--pruner", choices=PRUNERS, default=PRUNERS[0], help="stops bad trials early (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes, a thread each (one, all threads)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of what is drawn from the space (%(default)s)"
    )
    parser.add_argument("--report", action="store_true", help="only write the report of the trials so far")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a value of the base experiment")
    args = parser.parse_intermixed_args()

    paths = Paths(args.input, args.work)
    if args.report and args.name:
        report(paths, args.name)
        return
    plan, name = make_plan(args)
    if args.report:
        report(paths, name)
        return
    tune(plan, paths, name, args.workers)


def make_plan(args: argparse.Namespace) -> "tuple[Plan, str]":
    """What the command line asks for, and the name of the study. Raises UserError on bad input."""
    from configs.load import load_config
    from configs.search_space import load_space
    from folds.assign import parse_folds
    from input.names import nfc

    if args.space is None:
        raise UserError("--space is missing: name a search space, such as configs/search/resnetish.yaml")
    for option, value, least in (("trials", args.trials, 1), ("workers", args.workers, 1), ("seed", args.seed, 0)):
        if value < least:
            raise UserError(f"--{option} {value}: must be at least {least}")
    config, overrides = args.config or DEFAULT_CONFIG, tuple(args.overrides)
    base = load_config(config, overrides)
    if base.pseudo.runs:
        raise UserError("pseudo.runs: a search never touches test clips: set pseudo.runs=[] for it")
    space = load_space(args.space, config, overrides)
    from models.search import Plan

    folds = tuple(parse_folds(args.folds, base.folds.n_folds, "--folds"))
    name = args.name or nfc(f"{base.name}-{args.space.stem}")
    load_config(None, [f"name={name}-best"])  # what names an experiment names a folder
    return Plan(config, overrides, space, folds, args.trials, args.pruner, args.seed), name


def tune(plan: "Plan", paths: Paths, name: str, workers: int = 1) -> None:
    """Do the trials that are missing, then report. Raises UserError on bad input, and where the study was begun with
    another plan or other data."""
    from models.preparation import load_data, prepare
    from models.search import finished, open_study, outside_of_space, search

    base, folder = plan.base(), paths.studies / name
    data = without_test_clips(load_data(base, list(plan.folds), paths))
    study = open_study(folder, plan.facts() | facts_of(data, paths), plan)
    if (done := len(finished(study))) < plan.trials:
        if done:
            say(f"{folder}: going on after {done} of {plan.trials} trials")
        refuse_networks(plan, len(data.competition.classes))
        if not done and (outside := outside_of_space(plan)):
            say(f"the base config lies outside of the search space and is the first trial anyway: {list_some(outside)}")
        prepare(base, data, paths, list(plan.folds))  # it may refuse, and makes features once for all workers
        if workers == 1:
            search(folder, study, plan, Training(data, paths, plan.folds))
        else:
            side_by_side(plan, data, paths, name, workers)
        if (done := len(finished(study))) < plan.trials:
            say(f"{done} of {plan.trials} trials are finished; the process that does the last one reports")
            return
    else:
        say(f"{folder}: found, {done} trials are finished; --trials asks for more")
    report(paths, name)


def without_test_clips(data: "Data") -> "Data":
    """The training clips stand in for the test clips too, so that nothing in a search can read those."""
    return replace(data, competition=replace(data.competition, test=data.competition.train))


def facts_of(data: "Data", paths: Paths) -> dict[str, Any]:
    """What a study must share with the data to go on, and where a later command finds them."""
    from folds.assign import fold_hash

    where = {"input": str(paths.input)} | ({"work": str(paths.work)} if paths.work != Paths.work else {})
    hashes = {"sound_hash": data.facts["sound_hash"]["train"], "corrections_hash": data.facts.get("corrections_hash")}
    return {"fold_hash": fold_hash(data.folds), **hashes, "where": where}


def refuse_networks(plan: "Plan", n_classes: int) -> None:
    """Raises UserError, with file and line, where the space holds a network that cannot be built."""
    from models.build import build_model

    for r in plan.space:
        for value in (r.choices or (r.low, r.high)) if r.key.startswith("model.") else ():
            try:
                build_model(plan.with_settings([r.setting(value)]), n_classes)
            except UserError as error:
                raise UserError(f"{r.place}: {error}") from None


class Training:
    """The objective of a search: trains a fold of a config. Features are opened once for all trials that share them."""

    def __init__(self, data: "Data", paths: Paths, folds: Sequence[int]) -> None:
        self.data, self.paths, self.folds = data, paths, list(folds)
        self.prepared: dict[Any, Prepared] = {}
        self.told: set[int] = set()  # folds

    def __call__(self, cfg: "Config", fold: int, report: "Report") -> float:
        """Out-of-fold MAP@3 of the fold as train_fold.py would have it; no file is written. Raises Hopeless where there
        is no such network, the training diverges, or memory does not suffice."""
        import torch

        from models.fitting import EpochReporter, run_epochs
        from models.fold_training import out_of_fold, untrained
        from models.lit_tagger import Diverged
        from models.search import Hopeless

        data = self.prepare(cfg)
        told = contextlib.nullcontext() if fold not in self.told else contextlib.redirect_stderr(io.StringIO())
        try:
            with told:  # what it warns of is the same in all trials
                lit = untrained(cfg, fold, data)
        except UserError as error:
            raise Hopeless(str(error)) from None
        self.told.add(fold)
        try:
            run_epochs(lit, data.precision, EpochReporter(lambda found: _tell(found, report)))
        except Diverged:
            raise Hopeless(f"diverged in epoch {len(lit.history) + 1}") from None
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            raise Hopeless("out of memory") from None
        return out_of_fold(cfg, lit, data)[1]["map3"]

    def prepare(self, cfg: "Config") -> "Prepared":
        """Raises Hopeless where there is no such network: two settings may exclude each other that each go alone."""
        from models.build import build_model
        from models.preparation import prepare
        from models.search import Hopeless

        t = cfg.train
        looked_at = (cfg.features, cfg.input, cfg.model.weights)
        key = (*looked_at, t.speeds, t.device, t.precision, t.finetune_epochs > 0)
        if key not in self.prepared:
            try:
                build_model(cfg, len(self.data.competition.classes))
            except UserError as error:
                raise Hopeless(str(error)) from None
            self.prepared[key] = prepare(cfg, self.data, self.paths, self.folds)
        return self.prepared[key]


def _tell(found: dict[str, float], report: "Report") -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # killed: nobody would see what is trained on
        raise KeyboardInterrupt
    report(found["epoch"], found["map3"])


def side_by_side(plan: "Plan", data: "Data", paths: Paths, name: str, workers: int) -> None:
    """Search in several processes with a thread each. They end with this one, however it ends."""
    from models.search import finished, open_study

    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=(plan, data, paths, name)) for _ in range(workers)]
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which they inherit: one line on Ctrl-C is enough
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        for process in processes:
            process.start()
        signal.signal(signal.SIGINT, handler)
        for process in processes:
            process.join()
    finally:
        begun = [process for process in processes if process.pid is not None]
        for process in begun:
            process.terminate()
        for process in begun:
            process.join(PATIENCE)
            process.kill()  # whatever holds it up: a study survives that
            process.join()
    for status in (2, READER_LEFT):  # it said why, or nobody listens
        if any(process.exitcode == status for process in processes):
            sys.exit(status)
    if (done := len(finished(open_study(paths.studies / name)))) < plan.trials:
        ends = ", ".join(str(process.exitcode) for process in processes)
        raise UserError(
            f"{done} of {plan.trials} trials finished, the workers ended with {ends}: the same command goes on"
        )


def work(plan: "Plan", data: "Data", paths: Paths, name: str) -> None:
    """One of several processes: Ctrl-C is its parent's business, which then sends SIGTERM."""
    import torch

    from models.search import open_study, search

    def until_interrupted() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            search(folder, open_study(folder, plan=plan), plan, Training(data, paths, plan.folds))

    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(1)
    folder = paths.studies / name
    run_command(until_interrupted)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def report(paths: Paths, name: str) -> None:
    """Write best.yaml, trials.csv and the pictures of a study. Raises UserError where there is none."""
    from models.search import open_study
    from models.search_report import write_report
    from models.study_locks import locked

    folder = paths.studies / name
    study = open_study(folder)
    with locked(folder):
        write_report(folder, study)


if __name__ == "__main__":
    run_command(main)
