"""Search for better settings of an experiment: work/studies/<name>/best.yaml.

Trials train folds of the experiment with settings that Optuna (TPE) draws from
a search space. Their score is the mean over folds of the competition's metric,
out-of-fold; test clips are never used. The best score is biased upwards,
because it was selected: train best.yaml with another train.seed, or on other
folds, for a fair score.
"""

import argparse
from concurrent.futures import as_completed
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from configs.paths import DEFAULT_CONFIG, Paths
from configs.processes import room_elsewhere, runs_elsewhere, worker_processes
from console.command_line import run_command
from console.errors import UserError, count, list_some
from console.options import FILE, command_parser, share
from console.output import muted, say
from tuning.objective import Training, check_networks, without_test_clips, work

if TYPE_CHECKING:
    from training.experiment_data import Data
    from tuning.study import Plan


PRUNERS = ("median", "hyperband", "none")
EXAMPLES = """examples:
  python tune.py --config configs/us8k_mini.yaml \\
    --space configs/search/resnetish.yaml --trials 30
  python tune.py --space space.yaml --folds 0..4 --workers 4 train.epochs=20
  python tune.py --report --name us8k_mini-resnetish

After an interruption run the same command to continue. Several terminals may
run it at once and share the trials. A search space has config keys and ranges:
  train.lr: {log: [1.0e-4, 1.0e-2]}
  model.dropout: {uniform: [0, 0.5]}
  augment.time_masks: {int: [0, 2]}
  model.width: {choice: [16, 24, 32]}
"""


def main() -> None:
    parser = command_parser(__doc__, EXAMPLES)
    share(parser, config="base experiment (configs/resnetish18.yaml)")
    parser.add_argument("--space", **FILE, help="search space, such as configs/search/resnetish.yaml")
    share(parser, "input", "as", "work")
    parser.add_argument("--name", help="work/studies/NAME/ (<experiment>-<search space>)")
    parser.add_argument(
        "--trials", type=int, default=30, metavar="N", help="total number of finished trials (%(default)s)"
    )
    parser.add_argument("--folds", default="0", help="folds that score a trial: 3, 0..4 or 0,2,4 (%(default)s)")
    parser.add_argument(
        "--pruner", choices=PRUNERS, default=PRUNERS[0], help="how to stop bad trials early (%(default)s)"
    )
    parser.add_argument(
        "--workers",
        default="auto",
        metavar="N",
        help="processes with one thread each, and a GPU each (auto: one per GPU, on a CPU 1 with all threads)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the search (%(default)s)")
    parser.add_argument("--report", action="store_true", help="only write the report of the trials so far")
    share(parser, "on", overrides="override a value of the base experiment")
    args = parser.parse_intermixed_args()

    paths = Paths(args.input, args.work, args.described_by)
    if args.report:
        report(paths, args.name or make_plan(args)[1])
        return
    from configs.load import check_files
    from training.parallel import jobs_on

    plan, name = make_plan(args)
    check_files(plan.config, plan.overrides)
    with jobs_on(args.on, paths) as there:
        tune(plan, name, there, None if args.workers == "auto" else int(args.workers))


def make_plan(args: argparse.Namespace) -> "tuple[Plan, str]":
    """The plan of the command line, and the name of the study. Raises UserError on bad input."""
    from configs.load import load_config
    from folds.assign import folds_of, parse_folds
    from input.competition import load_competition
    from input.names import nfc
    from tuning.search_space import load_space

    if args.space is None:
        raise UserError("--space is missing: use a search space, like configs/search/resnetish.yaml")
    if args.workers != "auto" and (not args.workers.isdecimal() or int(args.workers) < 1):
        raise UserError(f"--workers {args.workers}: expected auto or a number from 1 on")
    for option, value, least in (("trials", args.trials, 1), ("seed", args.seed, 0)):
        if value < least:
            raise UserError(f"--{option} {value}: must be at least {least}")
    config, overrides = args.config or DEFAULT_CONFIG, tuple(args.overrides)
    base = load_config(config, overrides)
    if base.pseudo.runs:
        raise UserError("pseudo.runs: a search never uses test clips: set pseudo.runs=[]")
    space = load_space(args.space, config, overrides)
    from tuning.study import Plan

    parse_folds(args.folds, None, "--folds")
    with muted():  # loading it with its sounds says what it is
        competition = load_competition(args.input, sound=False, described_by=args.described_by)
    folds = tuple(folds_of(args.folds, base.folds, competition, "--folds"))
    name = args.name or nfc(f"{base.name}-{args.space.stem}")
    load_config(None, [f"name={name}-best"])  # check the name of the folder
    return Plan(config, overrides, space, folds, args.trials, args.pruner, args.seed), name


def tune(plan: "Plan", name: str, paths: Paths, workers: int | None = 1) -> None:
    """Run the missing trials, then report. workers: at once; None: one per GPU, or as many as the cluster has room for.

    Raises UserError on bad input, and if the study has another plan or data.
    """
    from models.device import visible_cards
    from training.experiment_data import load_data, prepare
    from training.parallel import MEMORY
    from tuning.study import finished, open_study, outside_of_space, search

    base, folder = plan.base(), paths.studies / name
    data = without_test_clips(load_data(base, list(plan.folds), paths))
    plan = replace(plan, metric=data.competition.metric, task=data.competition.task)
    study = open_study(folder, plan.facts() | facts_of(data, paths), plan)
    if (done := len(finished(study))) < plan.trials:
        if done:
            say(f"{folder}: continuing after {done} of {count(plan.trials, 'trial')}")
        check_networks(plan, len(data.competition.classes))
        if not done and (outside := outside_of_space(plan)):
            say(f"the base config lies outside of the search space, but is still the first trial: {list_some(outside)}")
        prepare(base, data, paths, list(plan.folds))  # may raise; makes features once for all workers
        cards = visible_cards() if base.train.device != "cpu" else None
        workers = workers or automatic_workers(cards, MEMORY, plan.trials - done)
        if workers == 1 and not runs_elsewhere():
            search(folder, study, plan, Training(data, paths, plan.folds))
        else:
            with worker_processes(workers, "does trials", cards=cards, memory=MEMORY) as pool:
                for job in as_completed([pool.submit(work, plan, data, paths, name) for _ in range(workers)]):
                    job.result()  # an exception in one ends the others
        if (done := len(finished(study))) < plan.trials:
            say(f"{done} of {count(plan.trials, 'trial')} finished: the process that ends last writes the report")
            return
    else:
        say(f"{folder}: {count(done, 'trial')} finished before: use a larger --trials for more")
    report(paths, name)


def automatic_workers(cards: list[str] | None, memory: int, missing: int) -> int:
    """For so many missing trials: one per GPU, or as many as the cluster has room for. memory: bytes of each."""
    room = room_elsewhere(1, cards, memory) if runs_elsewhere() else len(cards or ())
    return max(1, min(room, missing))


def facts_of(data: "Data", paths: Paths) -> dict[str, Any]:
    """Hashes of the data that a study must match to continue, and its paths for later commands."""
    from folds.assign import fold_hash

    where = {"input": str(paths.input)} | ({"work": str(paths.work)} if paths.work != Paths.work else {})
    where |= {"as": paths.described_by} if paths.described_by else {}
    origin = data.origin
    hashes = {"corrections_hash": origin.corrections_hash, "code": {**origin.code, **origin.metric_code} or None}
    facts = {"sound_hash": origin.sound_hash.train, "n_folds": origin.n_folds, "where": where}
    return {"fold_hash": fold_hash(data.folds), **hashes, **facts}


def report(paths: Paths, name: str) -> None:
    """Write best.yaml, trials.csv and the pictures of a study. Raises UserError if there is none."""
    from tuning.study import open_study
    from tuning.study_locks import locked
    from tuning.study_report import write_report

    folder = paths.studies / name
    study = open_study(folder)
    with locked(folder):
        write_report(folder, study)


if __name__ == "__main__":
    run_command(main)
