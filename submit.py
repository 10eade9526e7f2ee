"""Write the submission from a blend; without one, from the mean of all finished experiments."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError, count, list_faults, list_some
from console.options import FILE, command_parser, share
from console.output import say, table, warn

if TYPE_CHECKING:
    import pandas as pd

    from blending.apply import Blend
    from blending.candidates import Candidates
    from blending.ensemble_folder import Ensemble
    from input.competition import Competition
    from runs.budget import Deadline
    from runs.predictions import Sources
    from runs.run_folder import Run

CHANGED = "its runs or their labels changed since: python ensemble.py makes it again"
EXAMPLES = """examples:
  python submit.py
  python submit.py --upload -m "greedy blend of three"
  python submit.py --truth test_post_competition.csv
  python submit.py --force --on ray
"""


@dataclass(frozen=True)
class Lacking:
    """What a budget of time was too short for, and what predicted."""

    dropped: tuple[str, ...] = ()  # experiments
    not_reached: dict[str, list[str]] = field(default_factory=dict)  # experiment -> test clips
    predicted_by: "dict[str, Sources]" = field(default_factory=dict)  # of each experiment
    left_out: dict[str, list[str]] = field(default_factory=dict)  # experiment -> its folds


def main() -> None:
    parser = command_parser(__doc__, EXAMPLES)
    share(parser, "input", "as", "work", "ensemble", predictions="what ensemble.py --predictions blended")
    parser.add_argument("--output", **FILE, help="where to write it (<work>/submission.csv)")
    parser.add_argument("--truth", **FILE, help="labels published later: print the test score")
    share(parser, "engine", force="predict all test clips again, as their files are now (by size and time)")
    parser.add_argument("--forecast", action="store_true", help="say how long predicting would take, then end")
    share(parser, "budget")
    parser.add_argument("--upload", action="store_true", help="submit it to Kaggle and wait for the score; needs -m")
    share(parser, "message", competition="where --upload submits (the name of the input folder)")
    share(parser, on="predict on a Ray cluster: ray, or ray://host:10001")
    args = parser.parse_args()
    if args.upload and not args.message:
        parser.error("--upload needs a description: -m TEXT")
    if args.message and not args.upload:
        parser.error("-m describes an upload: add --upload")
    if args.force and args.predictions:
        parser.error("--force predicts from the weights of our runs, which --predictions does without")
    if args.engine != "torch" and args.predictions:
        parser.error("--engine predicts from the weights of our runs, which --predictions does without")
    if (args.forecast or args.budget) and args.predictions:
        parser.error("--forecast and --budget are about predicting, which --predictions does without")
    if args.forecast and args.upload:
        parser.error("--forecast writes nothing that --upload could submit")
    if args.on and (args.predictions or args.forecast or args.budget):
        parser.error("--on predicts on a cluster: not with --predictions, nor --forecast and --budget, of this machine")
    if args.on and args.engine == "auto":
        parser.error("--on: each node would choose an engine of its own: --engine torch, openvino or int8")
    paths = Paths(args.input, args.work, args.described_by)
    output = args.output or paths.work / "submission.csv"
    if args.forecast:
        show_forecast(paths, args.ensemble, args.force, args.engine)
        return
    from training.parallel import jobs_on

    with jobs_on(args.on, paths) as there:
        submit(there, args.ensemble, output, args.truth, args.predictions, args.force, args.engine, args.budget)
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
    refresh: bool = False,
    engine: str = "torch",
    budget: float | None = None,
) -> None:
    """Choose the blend, write and validate the submission and, with a truth, score it.

    predictions: a folder that stands for our runs and the competition. refresh: predict every test clip, whatever is
    stored. engine: what predicts, where that is needed. budget: seconds that it may take, from now on. Raises UserError
    on a blend that does not fit.
    """
    from blending.ensemble_folder import find_ensemble
    from input.competition import load_competition, locate_test
    from runs.budget import Deadline
    from submission.submission_file import check_form, check_overwritable

    end = Deadline(budget) if budget else None
    folder = paths.ensemble(name)  # refuses a name that leads elsewhere
    if output.resolve() == ((predictions or paths.input) / "sample_submission.csv").resolve():
        raise UserError(f"{output}: is the competition's own: give another name with --output")
    source = predictions or locate_test(load_competition(paths.input, sound=False, described_by=paths.described_by))
    if not isinstance(source, Path):
        if source.test.empty:
            remedy = f"python ensemble.py{paths.options} prints the cross-validated score"
            raise UserError(f"{paths.input}: the competition has no test clips: nothing to submit: {remedy}")
        if output.resolve() in {table.resolve() for table in source.tables}:
            raise UserError(f"{output}: is the competition's own: give another name with --output")
        check_form(source.form, source.classes)
        check_overwritable(output, source.form, set(source.test["fname"]))
    found = find_ensemble(folder)
    if found is None and name != "default":
        raise UserError(f"{folder}: no such blend: python ensemble.py{paths.options} --name {name}")
    candidates, lacking = read_candidates(paths, folder, found, source, refresh, engine, end)
    check_overwritable(output, candidates.form, set(candidates.test_fnames))
    truth = read_scored(truth_file, candidates) if truth_file else None
    ensemble = choose_blend(folder, found, candidates, lacking if end else None)
    write(output, folder, ensemble, candidates, lacking)
    if truth is not None:
        show_scores(ensemble, candidates, truth)
    say(f"{count(len(ensemble.test.fnames), 'clip')} -> {output}")


def show_forecast(paths: Paths, name: str, refresh: bool = False, engine: str = "torch") -> None:
    """Print how long the predictions for a submission of this blend would take. Nothing is written."""
    from blending.ensemble_folder import find_ensemble
    from input.competition import load_competition, locate_test
    from runs.budget import tell_forecast
    from runs.test_predictions import forecast_test

    found = find_ensemble(paths.ensemble(name))
    source = locate_test(load_competition(paths.input, sound=False, described_by=paths.described_by))
    experiments = chosen_runs(paths, paths.ensemble(name), found, source)
    tell_forecast(forecast_test(experiments, source, paths, refresh, engine))


def read_candidates(
    paths: Paths,
    folder: Path,
    found: "Ensemble | None",
    source: "Path | Competition",
    refresh: bool,
    engine: str,
    end: "Deadline | None" = None,
) -> "tuple[Candidates, Lacking]":
    """The models of a blend that was chosen, else all that there are: of our runs, or of a folder of predictions. And
    what time was too short for.

    Raises UserError where the runs of a chosen blend changed, before these predict.
    """
    from blending.candidates import align
    from blending.external_predictions import candidates_from_predictions
    from blending.needs import needs
    from runs.budget import Budget, Needs
    from runs.test_predictions import test_predictions

    chosen = found.blend if found and not found.blend.by_default else None
    if isinstance(source, Path):
        models, metric = (list(chosen.models), chosen.metric) if chosen else ([], None)
        return candidates_from_predictions(source, models, metric), Lacking()
    source = replace(source, metric=chosen.metric if chosen else source.metric)
    experiments = chosen_runs(paths, folder, found, source)
    names = [runs[0].folder.parent.name for runs in experiments]
    made = found.blend if found and _is_of(found.blend, experiments, source.metric) else None
    needed = needs(made) if made else Needs(dict.fromkeys(names, 1.0), False)
    test = test_predictions(experiments, source, paths, refresh, engine, Budget(end, needed) if end else None)
    if end and not any(counts for name in names for counts in test.sources.get(name, {}).values()):
        raise UserError("--budget: no clip was predicted in this time, and nothing is written: give it more")
    late = {name: fnames for name, fnames in test.not_reached.items() if needed.weights[name]}
    return align(experiments, test, source), Lacking(test.dropped, late, test.sources, test.left_out)


def chosen_runs(paths: Paths, folder: Path, found: "Ensemble | None", source: "Competition") -> "list[list[Run]]":
    """The runs of a blend that was chosen, else all that there are. Raises UserError where those changed."""
    from blending.candidates import finished_runs

    chosen = found.blend.models if found and not found.blend.by_default else {}
    experiments = finished_runs(paths.runs, list(chosen), source)
    if found and chosen and not _is_of(found.blend, experiments):
        raise UserError(f"{folder}: {CHANGED}")
    return experiments


def _is_of(blend: "Blend", experiments: "list[list[Run]]", metric: str | None = None) -> bool:
    """Whether the blend was made from these runs, and by this metric if one is given."""
    ids = {runs[0].folder.parent.name: tuple(run.id for run in runs) for runs in experiments}
    same = ids == {name: model.ids for name, model in blend.models.items()}
    return same and metric in (None, blend.metric)


def read_scored(file: Path, candidates: "Candidates") -> "pd.DataFrame":
    """The labels of the test clips. Raises UserError where the submission would lack a clip that is scored."""
    from input.competition import read_truth

    truth = read_truth(file, candidates.classes, candidates.test_fnames)
    if gone := sorted(set(truth["fname"]) - set(candidates.test_fnames)):
        raise UserError(f"{file}: scored clips that the submission would lack: {list_some(gone)}")
    return truth


def choose_blend(
    folder: Path, found: "Ensemble | None", candidates: "Candidates", lacking: Lacking | None = None
) -> "Ensemble":
    """The blend that was found, of the test clips as they are now; the mean of all models but those at chance level
    where none was chosen.

    lacking: of a budget of time; the blend then does without what was dropped, and its folder stays as it is. Raises
    UserError where the runs or labels of a chosen blend changed.
    """
    from blending.ensemble_folder import make_ensemble, same_runs, save_ensemble, with_current_test, with_test
    from blending.needs import without

    if found and same_runs(found, candidates):
        say(f"{folder}: found, {found.blend.method} blend of {', '.join(found.blend.used)}")
        if lacking:
            return with_test(replace(found, blend=without(found.blend, lacking.dropped)), candidates)
        return with_current_test(found, candidates, folder, lambda *whole: illustrate(folder, *whole))
    if found and not found.blend.by_default:
        raise UserError(f"{folder}: {CHANGED}")
    ensemble = make_ensemble(candidates, "arithmetic", by_default=True, decide="all")  # a mean needs no judge
    for one, reason in ensemble.comparison.left_out.items():
        say(f"left out: {one}: {reason}")
    used = list(ensemble.blend.used)
    if lacking:
        kept = [name for name in used if name not in lacking.dropped]
        say(f"no blend chosen: using the mean of {', '.join(kept)}")
        return with_test(replace(ensemble, blend=without(ensemble.blend, lacking.dropped)), candidates)
    save_ensemble(ensemble, folder)
    say(f"no blend chosen: using the mean of {', '.join(used)} -> {folder}")
    return ensemble


def illustrate(folder: Path, partial: Path, ensemble: "Ensemble", candidates: "Candidates") -> None:
    from pages.again import report_again

    report_again(folder)(partial, ensemble, candidates)


def write(
    output: Path,
    folder: Path,
    ensemble: "Ensemble",
    candidates: "Candidates",
    lacking: Lacking,
) -> None:
    """The submission and its report; warns of test clips with a fault, and of those not reached in time."""
    from runs.budget import warn_of_lateness
    from submission.submission_file import write_report, write_submission

    write_submission(output, ensemble.test, candidates.classes, candidates.form)
    report = output.with_name(output.stem + ".report.json")
    more = {
        "predicted_by": lacking.predicted_by,
        "folds_left_out": lacking.left_out,
        "clips_not_reached": lacking.not_reached,
    }
    write_report(report, folder, candidates.test_faults, len(ensemble.test.fnames), more)
    warn_of_lateness(lacking.not_reached)
    if candidates.test_faults:
        what = "test clips with a fault, kept with what is heard of them, or with the class prior"
        warn(f"{what}: {list_faults(candidates.test_faults)}")


def show_scores(ensemble: "Ensemble", candidates: "Candidates", truth: "pd.DataFrame") -> None:
    """The metric per experiment and for the blend: out-of-fold, and on the test clips by usage."""
    from blending.ensemble_folder import BLEND
    from metrics.scores import oof_columns
    from runs.predictions import Predictions
    from submission.submission_file import score_by_usage

    test = {n: Predictions(candidates.test_fnames, p) for n, p in zip(candidates.names, candidates.test, strict=True)}
    test[BLEND] = ensemble.test
    rows, usages = [], dict[str, float]()
    columns = oof_columns(ensemble.scores.values(), candidates.metric.name)
    for name, predictions in test.items():
        usages = score_by_usage(predictions, truth, candidates.classes, candidates.metric)
        oof = [ensemble.scores[name].get(key, float("nan")) for key in columns.values()]
        rows.append([name, *(f"{value:.4f}" for value in (*oof, *usages.values()))])
    table([candidates.metric.title, *columns, *(f"test {usage}" for usage in usages)], rows)


if __name__ == "__main__":
    run_command(main)
