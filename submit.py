"""Write the submission from a blend; without one, from the mean of all finished experiments."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from configs.paths import Paths, add_folders, as_path
from console.command_line import run_command
from console.errors import UserError, list_faults, list_some
from console.output import say, table, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from blending.candidates import Candidates
    from blending.ensemble_folder import Ensemble
    from runs.run_folder import Run

CHANGED = "its runs or their labels changed since: python ensemble.py makes it again"
EXAMPLES = """examples:
  python submit.py
  python submit.py --upload -m "greedy blend of three"
  python submit.py --output submission.csv --truth input/freesound-audio-tagging/test_post_competition.csv
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_folders(parser)
    parser.add_argument("--predictions", type=as_path, metavar="DIR", help="what ensemble.py --predictions blended")
    parser.add_argument("--ensemble", default="default", metavar="NAME", help="work/ensembles/NAME/ (%(default)s)")
    parser.add_argument("--output", type=as_path, metavar="FILE", help="where to write it (<work>/submission.csv)")
    parser.add_argument("--truth", type=as_path, metavar="FILE", help="labels published later: print the test score")
    parser.add_argument(
        "--force", action="store_true", help="predict all test clips again, as their files are now (by size and time)"
    )
    parser.add_argument("--upload", action="store_true", help="submit it to Kaggle and wait for the score; needs -m")
    parser.add_argument("-m", "--message", metavar="TEXT", help="the submission's description")
    parser.add_argument("--competition", metavar="SLUG", help="where --upload submits (the name of the input folder)")
    args = parser.parse_args()
    if args.upload and not args.message:
        parser.error("--upload needs a description: -m TEXT")
    if args.message and not args.upload:
        parser.error("-m describes an upload: add --upload")
    if args.force and args.predictions:
        parser.error("--force predicts from the weights of our runs, which --predictions does without")
    paths = Paths(args.input, args.work)
    output = args.output or paths.work / "submission.csv"
    submit(paths, args.ensemble, output, args.truth, args.predictions, args.force)
    if args.upload:
        upload(args.competition or paths.input.resolve().name, output, args.message)


def upload(slug: str, file: Path, message: str) -> None:
    """Submit the file and print its score. Raises UserError where Kaggle does not take it."""
    from input.kaggle_client import Kaggle
    from submission.upload import submit_file

    submit_file(Kaggle(), slug, file, message)


def submit(
    paths: Paths,
    name: str,
    output: Path,
    truth_file: Path | None,
    predictions: Path | None = None,
    anew: bool = False,
) -> None:
    """Write and validate the submission; with a truth, score it. predictions: a folder that stands for our runs and the
    competition; anew: nothing of the test clips that is stored counts. Raises UserError on a blend that does not fit.
    """
    from blending.candidates import current_candidates
    from blending.ensemble_folder import find_ensemble, make_ensemble, same_runs, save_ensemble, with_current_test
    from blending.external_predictions import candidates_from_predictions
    from input.competition import read_truth
    from submission.submission_file import check_overwritable, write_report, write_submission

    if output.resolve() == ((predictions or paths.input) / "sample_submission.csv").resolve():
        raise UserError(f"{output}: is the competition's own: give another name with --output")
    check_overwritable(output)  # now, not after the clips are predicted
    folder = paths.ensemble(name)
    ensemble = find_ensemble(folder)
    if ensemble is None and name != "default":
        raise UserError(f"{folder}: no such blend: python ensemble.py --name {name}")
    by_default = ensemble is None or ensemble.weights["by_default"]
    chosen = [] if ensemble is None or by_default else list(ensemble.weights["models"])
    if predictions:
        candidates = candidates_from_predictions(predictions, chosen)
    else:

        def check(runs: "Sequence[Run]") -> None:
            if ensemble and not by_default:
                check_same_runs(ensemble, folder, runs)

        candidates = current_candidates(paths, chosen, anew, check)
    truth = read_truth(truth_file, candidates.classes, candidates.test_fnames) if truth_file else None
    if truth is not None and (gone := sorted(set(truth["fname"]) - set(candidates.test_fnames))):
        raise UserError(f"{truth_file}: scored clips that the submission would lack: {list_some(gone)}")
    if ensemble is not None and same_runs(ensemble, candidates):
        ensemble = with_current_test(ensemble, candidates, folder, illustrate)  # test clips may have changed since
        say(f"{folder}: found, {ensemble.weights['method']} blend of {', '.join(ensemble.weights['models'])}")
    elif not by_default:
        raise UserError(f"{folder}: {CHANGED}")
    else:
        ensemble = make_ensemble(candidates, "arithmetic", by_default=True, decide="all")  # a mean needs no judge
        save_ensemble(ensemble, folder)
        say(f"blend, for want of a chosen one: the mean of {', '.join(candidates.names)} -> {folder}")
    write_submission(output, ensemble.test, candidates.classes)
    report = output.with_name(output.stem + ".report.json")
    write_report(report, folder, candidates.test_faults, len(ensemble.test.fnames))
    if candidates.test_faults:
        what = "test clips with a fault, kept with what is heard of them, or with the class prior"
        warn(f"{what}: {list_faults(candidates.test_faults)}")
    if truth is not None:
        show_scores(ensemble, candidates, truth)
    say(f"{len(ensemble.test.fnames)} clips -> {output}")


def illustrate(folder: Path, ensemble: "Ensemble", candidates: "Candidates") -> None:
    from blending.report import write_report as write_page

    write_page(folder, ensemble, candidates)


def check_same_runs(ensemble: "Ensemble", folder: Path, runs: "Sequence[Run]") -> None:
    """Raises UserError where a chosen blend was made from other runs of an experiment, before these predict."""
    if ensemble.weights["models"][runs[0].folder.parent.name]["ids"] != [run.id for run in runs]:
        raise UserError(f"{folder}: {CHANGED}")


def show_scores(ensemble: "Ensemble", candidates: "Candidates", truth: "pd.DataFrame") -> None:
    """MAP@3 per experiment and for the blend: out-of-fold, and on the test clips by usage."""
    from blending.ensemble_folder import BLEND
    from metrics.scores import oof_columns
    from runs.predictions import Predictions
    from submission.submission_file import score_by_usage

    test = {n: Predictions(candidates.test_fnames, p) for n, p in zip(candidates.names, candidates.test, strict=True)}
    test[BLEND] = ensemble.test
    rows, usages = [], dict[str, float]()
    columns = oof_columns(ensemble.scores.values())
    for name, predictions in test.items():
        usages = score_by_usage(predictions, truth, candidates.classes)
        oof = [ensemble.scores[name].get(key, float("nan")) for key in columns.values()]
        rows.append([name, *(f"{value:.4f}" for value in (*oof, *usages.values()))])
    table(["MAP@3", *columns, *(f"test {usage}" for usage in usages)], rows)


if __name__ == "__main__":
    run_command(main)
