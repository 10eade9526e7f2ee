"""The report: finished experiments side by side and, where there is a blend, its scores and clips to see and hear."""

from pathlib import Path

from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError
from console.options import command_parser, share
from console.output import say, table

EXAMPLES = """Without a blend: work/report.html, the experiments alone. With one:
work/ensembles/NAME/report.html, which plays the original sound files from
where they are; keep the folders together, or put short copies beside the page
(--with-sound).

examples:
  python report.py
  python report.py --ensemble two --with-sound --pictures 1000
  python report.py --one-file --pictures 60
"""


def main() -> None:
    parser = command_parser(__doc__, EXAMPLES)
    share(parser, "input", "as", "work", "ensemble", runs="compare these experiments, without a blend")
    parser.add_argument("--pictures", type=int, default=300, metavar="N", help="clips with a log-mel (%(default)s)")
    parser.add_argument("--with-sound", action="store_true", help="short Ogg copies of these clips beside the page")
    parser.add_argument(
        "--one-file", action="store_true", help="these copies inside the page: to send, or in a notebook"
    )
    args = parser.parse_args()
    if args.pictures < 0:
        raise UserError(f"--pictures {args.pictures}: must be 0 or more")
    paths = Paths(args.input, args.work, args.described_by)
    report(paths, args.runs, args.ensemble, args.pictures, args.with_sound, args.one_file)


def report(
    paths: Paths,
    runs: list[str],
    ensemble: str,
    pictures: int = 300,
    with_sound: bool = False,
    one_file: bool = False,
) -> Path:
    """Write the report and return its path. runs: compare these alone, and leave the blend out. The others as in
    `pages.report.report_blend`."""
    from pages.report import report_blend, report_experiments

    if not runs and paths.ensemble(ensemble).exists():
        page = report_blend(paths, ensemble, pictures, with_sound, one_file)
        say(f"the blend, its experiments and clips -> {page}")
        return page
    if not runs and ensemble != "default":
        raise UserError(
            f"{paths.ensemble(ensemble)}: no such blend: python ensemble.py --name {ensemble}{paths.options}"
        )
    page, rows = report_experiments(paths, runs)
    cells = [[r["name"], r["folds"], r["metric"], *_numbers(r)] for r in rows]
    table(["experiment", "folds", "metric", "mean", "SE", "seconds", "parameters"], cells)
    for row in rows:
        if row["differs"]:
            say(f"{row['name']}: {'; '.join(row['differs'])}")
    say(f"-> {page}")
    return page


def _numbers(row: dict) -> list[str]:
    error, size = row["error"], row["parameters"]
    return [
        f"{row['score']:.4f}",
        "" if error is None else f"{error:.4f}",
        f"{row['seconds']:.0f}",
        "" if size is None else f"{size:,}",
    ]


if __name__ == "__main__":
    run_command(main)
