"""Blend the finished experiments in work/runs/, or predictions from elsewhere, and say what the blend is worth."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blending.methods import AUTO, DECIDE, METHODS
from configs.paths import Paths
from console.command_line import run_command
from console.errors import count
from console.options import command_parser, share
from console.output import say, table

if TYPE_CHECKING:
    from blending.bootstrap import MethodScore
    from blending.candidates import Candidates
    from blending.ensemble_folder import Ensemble

EXAMPLES = f"""methods, the simplest first:
{chr(10).join(f"  {name:12} {what}" for name, what in METHODS.items())}
  {AUTO:12} the simplest within one standard error of the best

Every method is judged by nested cross-validation: its weights are fitted to the
other folds. Two seeds of one experiment (another train.seed and name) are two
models. An experiment with missing folds is left out, or refused if it is named.

examples:
  python ensemble.py
  python ensemble.py --runs resnetish18 vggish --method greedy --name two
  python ensemble.py --predictions teammate/predictions
"""


def main() -> None:
    parser = command_parser(__doc__, EXAMPLES)
    share(parser, "input", "as", "work", "predictions", runs="experiments or models (all there are)")
    parser.add_argument("--method", default=AUTO, help="a method below (%(default)s)")
    parser.add_argument(
        "--decide", choices=DECIDE, default=DECIDE[0], help="rows that judge; all, if none is verified (%(default)s)"
    )
    parser.add_argument(
        "--unverified-weight",
        type=float,
        metavar="W",
        help="weight of unverified rows in the fit, 0 to 1 (0; 1 with --decide all)",
    )
    parser.add_argument("--metric", help="what to fit and judge by (that of the competition)")
    parser.add_argument("--name", default="default", help="work/ensembles/NAME/ (%(default)s)")
    share(parser, "force")
    args = parser.parse_args()
    paths = Paths(args.input, args.work, args.described_by)
    how = (args.predictions, args.decide, args.unverified_weight, args.metric)
    blend(paths, args.runs, args.method, args.name, args.force, *how)


def blend(
    paths: Paths,
    runs: list[str],
    method: str,
    name: str,
    force: bool,
    predictions: Path | None = None,
    decide: str = DECIDE[0],
    unverified_weight: float | None = None,
    metric: str | None = None,
) -> "Ensemble":
    """Make work/ensembles/<name>/, or read it where it is there and current. Raises UserError on runs that differ.

    predictions: a folder that stands for our runs and the competition. metric: by its name; None: that of the
    competition. The others as in `make_ensemble`.
    """
    from blending import ensemble_folder as on_disk
    from blending.external_predictions import candidates_from_predictions
    from blending.report import write_report
    from console.errors import UserError
    from pages.again import data_of, report_again

    if method not in (*METHODS, AUTO):
        raise UserError(f"--method {method}: known are {', '.join((*METHODS, AUTO))}")
    if unverified_weight is not None and not 0 <= unverified_weight <= 1:
        raise UserError(f"--unverified-weight {unverified_weight}: must lie in 0 to 1")
    folder = paths.ensemble(name)
    if predictions:
        candidates = candidates_from_predictions(predictions, runs, metric)
    else:
        candidates = candidates_of(paths, runs, metric)
    found = None if force else on_disk.find_ensemble(folder)
    same = found and on_disk.same_options(found, method, decide, unverified_weight)
    if found and same and on_disk.same_runs(found, candidates):  # other test clips change no weight
        found = on_disk.with_current_test(found, candidates, folder, report_again(folder))
        say(f"{folder}: found, made from these predictions in this way; --force makes it again")
        show(found, candidates.selected_on_oof)
        return found
    ensemble = on_disk.make_ensemble(candidates, method, decide=decide, unverified_weight=unverified_weight)
    was_whole = data_of(folder / "report.html") is not None
    on_disk.save_ensemble(ensemble, folder, lambda partial: write_report(partial, ensemble, candidates))
    show(ensemble, candidates.selected_on_oof)
    look = f"; python report.py{paths.options} makes the whole one again" if was_whole else ""
    say(
        f"{ensemble.blend.method} blend of {count(len(ensemble.blend.used), 'model')} -> {folder} "
        f"(look at report.html{look})"
    )
    return ensemble


def candidates_of(paths: Paths, names: list[str], metric: str | None = None) -> "Candidates":
    """The named experiments, or all that are finished, with answers for the test clips as they are now."""
    from blending.candidates import align, finished_runs
    from input.competition import load_competition, locate_test
    from runs.test_predictions import test_predictions

    competition = locate_test(load_competition(paths.input, sound=False, described_by=paths.described_by))
    runs = finished_runs(paths.runs, names, competition)
    competition = replace(competition, metric=metric or competition.metric)
    return align(runs, test_predictions(runs, competition, paths), competition)


def show(ensemble: "Ensemble", selected_on_oof: Sequence[str] = ()) -> None:
    """Out-of-fold score of every model and, nested, of every method, and what to expect of the chosen one.

    selected_on_oof: the models whose epoch was chosen by its score on the out-of-fold clips.
    """
    from metrics.metric import find_metric
    from metrics.scores import oof_columns

    compared, scores = ensemble.comparison, ensemble.scores
    title = find_metric(ensemble.blend.metric, ensemble.blend.task).title
    columns = oof_columns(scores.values(), ensemble.blend.metric)
    rows = [
        [name, f"{model.weight:.3f}", *(f"{scores[name].get(key, float('nan')):.4f}" for key in columns.values())]
        for name, model in ensemble.blend.models.items()
    ]
    table(["model", "weight", *columns], rows)
    say("")
    header = ["method", "fitted", "nested", "SE", "to best single", "95 %"]
    table(header, [_line(name, one, name == compared.chosen) for name, one in compared.methods.items()])
    say(f"* chosen. {title} of the {compared.rows} rows that decide ({compared.decide}); more in report.html")
    if tried := compared.unverified_weight:
        say("log_linear, by the weight of unverified rows in the fit:")
        say("  " + ", ".join(f"{weight}: {score:.4f}" for weight, score in tried.items()))
    expected = compared.expected
    low, high = expected.interval
    where = f"expected on {expected.clips} test clips like these" if expected.clips else "cross-validated score"
    say(f"{where}: {expected.score:.4f} (95 %: {low:.4f} to {high:.4f})")
    for name, reason in compared.left_out.items():
        say(f"left out: {name}: {reason}")
    if selected_on_oof:
        what = "their epochs were chosen by these out-of-fold scores (train.keep=best)"
        say(f"a little too high because of {', '.join(selected_on_oof)}: {what}")


def _line(name: str, one: "MethodScore", is_chosen: bool) -> list[str]:
    low, high = one.to_single.interval
    cells = [f"{value:.4f}" for value in (one.fitted, one.score, one.se)]
    gain = [f"{one.to_single.difference:+.4f}", f"{low:+.4f} {high:+.4f}"]
    return [name + " *" * is_chosen, *cells, *gain]


if __name__ == "__main__":
    run_command(main)
