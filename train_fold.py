"""Train folds of an experiment: out-of-fold and test probabilities in work/runs/<experiment>/fold<k>/."""

from configs.paths import DEFAULT_CONFIG, Paths
from console.command_line import run_command
from console.errors import UserError
from console.options import command_parser, share
from training.parallel import jobs_on, number_of_jobs, train_at_once

EXAMPLES = """examples:
  python train_fold.py --fold 0..4
  python train_fold.py --fold 0 --config configs/vggish.yaml train.epochs=3
"""


def main() -> None:
    parser = command_parser(__doc__, EXAMPLES)
    parser.add_argument("--fold", required=True, metavar="FOLDS", help="which folds: 3, 0..4 or 0,2,4")
    share(parser, "config")
    parser.add_argument("--only", metavar="NAMES", help="of a file with several experiments these: a or a,b")
    share(parser, "input", "as", "work", force="train again what is finished or was begun")
    parser.add_argument(
        "--jobs", metavar="N", default="auto", help="folds at once (auto: one per GPU, on a CPU one per core)"
    )
    share(parser, "on", "overrides")
    args = parser.parse_intermixed_args()

    from configs.load import check_files, chosen, load_configs
    from console.output import muted
    from folds.assign import folds_of, parse_folds
    from input.competition import load_competition
    from training.train import train_folds

    experiments = load_configs(args.config or DEFAULT_CONFIG, args.overrides)
    experiments = experiments if args.only is None else chosen(experiments, args.only)
    parse_folds(args.fold, None)
    with muted():  # training reads it again and reports it
        competition = load_competition(args.input, sound=False, described_by=args.described_by)
    folds = [folds_of(args.fold, cfg.folds, competition) for cfg in experiments]
    paths, plan = Paths(args.input, args.work, args.described_by), list(zip(experiments, folds, strict=True))
    left = {cfg.name: [k for k in some if args.force or not paths.run(cfg.name, k).exists()] for cfg, some in plan}
    n_folds = sum(map(len, left.values()))
    check_files(args.config or DEFAULT_CONFIG, args.overrides, {name: bool(some) for name, some in left.items()})
    if args.on and args.jobs != "auto":
        raise UserError(f"--jobs {args.jobs}: not with --on: as many folds at once as the cluster has room for")
    if args.on and n_folds:
        with jobs_on(args.on, paths) as there:
            train_at_once(experiments, folds, there, args.force, 0)
        return
    jobs = number_of_jobs(args.jobs, experiments, n_folds)
    if min(jobs, n_folds) > 1:
        train_at_once(experiments, folds, paths, args.force, jobs)
        return
    for cfg, some in plan:
        train_folds(cfg, some, paths, args.force)


if __name__ == "__main__":
    run_command(main)
