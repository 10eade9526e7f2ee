"""Each training technique on against off, on grouped folds, with true and with noisy labels: ablation/RESULTS.md.

python -m ablation.run --input ../shared/data/us8k-mini
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.files import lock
from console.command_line import run_command
from console.errors import UserError, count, list_some
from console.options import FILE, FOLDER, command_parser, share
from console.output import say, table

if TYPE_CHECKING:
    from ablation.job import Trial
    from ablation.techniques import Plan


HERE = Path(__file__).parent
EXAMPLES = """Results are in work/ablation/, one file per run. After an interruption run the
same command to continue; changed techniques run again. The table is written at
the end, and by --report from the existing results.

examples:
  python -m ablation.run --input ../shared/data/us8k-mini --jobs 2
  python -m ablation.run --input ../shared/data/us8k-mini \\
    --only mixup,roll --conditions clean --seeds 2
  python -m ablation.run --input ../shared/data/us8k-mini --report
"""


def main() -> None:
    parser = command_parser(__doc__.partition("\n")[0], EXAMPLES, "python -m ablation.run")
    parser.add_argument("--input", **FOLDER, required=True, help="competition with true labels")
    share(parser, "as", "work", "on", jobs="runs at once, one thread each (%(default)s)")
    parser.add_argument("--techniques", **FILE, default=HERE / "techniques.yaml", help="the techniques to compare")
    parser.add_argument("--results", **FILE, default=HERE / "RESULTS.md", help="the table")
    parser.add_argument("--only", metavar="NAMES", help="these techniques: mixup,roll (all)")
    parser.add_argument("--conditions", metavar="NAMES", default="clean,noisy", help="of the labels (%(default)s)")
    parser.add_argument("--seeds", type=int, metavar="N", default=1, help="runs of each fold (%(default)s)")
    parser.add_argument("--report", action="store_true", help="train nothing, write the table")
    args = parser.parse_args()
    if min(args.seeds, args.jobs) < 1:
        raise UserError("--seeds and --jobs: must be at least 1")
    ablate(args)


def ablate(args: argparse.Namespace) -> None:
    """Make the missing runs and write the table. Raises UserError on bad input, and at the end if a run failed."""
    from ablation.job_queue import make_trials, open_data, rounds_found, run_all, to_do
    from ablation.techniques import CONDITIONS, read_plan
    from configs.paths import Paths
    from training.parallel import jobs_on

    plan, work = read_plan(args.techniques), args.work / "ablation"
    names = _chosen("--only", args.only, [c.name for c in plan.comparisons])
    conditions = _chosen("--conditions", args.conditions, CONDITIONS)
    busy = f"{work}: another ablation is running there: wait for it, or use another --work"
    on = None if args.report else args.on
    # one lock: else two commands would make every run twice
    with lock(work, busy), jobs_on(on, Paths(args.input, args.work)) as there:
        work = there.work / "ablation"
        data = open_data(there.input, work, args.described_by)
        failed = []
        if not args.report:
            trials = make_trials(plan, plan.needed(names), data, args.seeds, work)
            trials = [trial for trial in trials if trial.id.condition in conditions]
            todo = to_do(trials)
            say(f"{count(len(trials), 'run')}, {len(trials) - len(todo)} of them finished, {args.jobs} at once")
            failed = run_all(todo, args.jobs)
        every = make_trials(plan, list(plan.recipes.values()), data, rounds_found(plan, work), work)
        report(plan, every, args)
    if failed:
        raise UserError(f"{count(len(failed), 'run')} failed for the reasons above: run the same command to try again")


def report(plan: "Plan", trials: "list[Trial]", args: argparse.Namespace) -> None:
    """Write and print the table of all results."""
    from ablation.effects import HEADER, rows_of, write_report
    from ablation.techniques import CONDITIONS, PLAIN

    results = {trial.id: found for trial in trials if (found := trial.result())}
    seconds = sorted(r["seconds"] for id, r in results.items() if id.recipe == PLAIN)
    clips = {r["clips"] for r in results.values()}
    about = f"Made by `python -m ablation.run` from {count(len(results), 'run')} on {args.input.name}."
    if seconds:
        about += f" A run of the plain recipe takes {seconds[len(seconds) // 2]:.0f} s of one core and is scored on"
        about += f" {min(clips)} to {count(max(clips), 'clip')}."
    about += " SE is the standard error of the difference over n pairs of runs. README.md explains the table."
    tables = {condition: rows_of(plan, condition, results) for condition in CONDITIONS}
    write_report(args.results, about, tables)
    for condition, rows in tables.items():
        if rows:
            say(f"\n{condition}")
            table(HEADER[:-1], [row[:-1] for row in rows])
    say(f"{count(sum(map(len, tables.values())), 'row')} from {count(len(results), 'run')} -> {args.results}")


def _chosen(option: str, text: str | None, known: Sequence[str]) -> set[str]:
    names = set(known) if text is None else {name.strip() for name in text.split(",")}
    if unknown := sorted(names - set(known)):
        raise UserError(f"{option}: no {list_some(unknown)}: use {list_some(known, 60)}")
    return names


if __name__ == "__main__":
    run_command(main)
