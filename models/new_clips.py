"""Test clips that runs were not trained beside, or not as they are now: predicted from the weights, as in a kernel."""

from collections.abc import Callable, Sequence

from configs.console import say
from configs.errors import UserError, list_some
from configs.paths import Paths
from features.store import store_key
from input.competition import Competition, load_competition, locate_test
from models.candidates import Candidates, Faults, candidates_from_runs
from models.run_folder import Predictions, Run, kept_answers


def current_candidates(
    paths: Paths, names: Sequence[str], anew: bool = False, check: Callable[[Sequence[Run]], None] = lambda runs: None
) -> Candidates:
    """The named experiments, or all that are finished, with answers to the test clips as they are now: what is not
    stored is predicted, everything if `anew`. check: called with the runs of an experiment before they predict.

    Raises UserError as `candidates_from_runs` and `predict_new`.
    """
    competition = locate_test(load_competition(paths.input, sound=False))

    def predict(runs: Sequence[Run], fnames: Sequence[str]) -> tuple[list[Predictions], Faults]:
        check(runs)
        return predict_new(runs, fnames, competition, paths)

    return candidates_from_runs(
        paths.runs, names, competition, predict, lambda runs: anew or were_predicted(runs, competition, paths)
    )


def were_predicted(runs: Sequence[Run], competition: Competition, paths: Paths) -> bool:
    """Whether answers of these runs to all test clips are kept, for the files as they are now by size and time: then
    `submit.py --force` asked for them, and they are newer than what the runs have stored."""
    test = competition.test
    files = [path if isinstance(path, str) else None for path in test["path"]]
    key = store_key(runs[0].config.features, test["fname"].tolist(), files)
    return all(kept_answers(paths.predictions, run.id, key).exists() for run in runs)


def predict_new(
    runs: Sequence[Run], fnames: Sequence[str], competition: Competition, paths: Paths
) -> tuple[list[Predictions], Faults]:
    """Each run's probabilities of these test clips, and what is wrong with the clips.

    What was predicted before is found in work/predictions. A competition whose test sound lies nowhere is unpacked.
    Raises UserError on a missing file, unless the runs' config says to do without.
    """
    from features.store import open_features
    from models.predict import predict_test

    folder, cfg, test = runs[0].folder.parent, runs[0].config, competition.test
    say(f"{folder}: not stored with it, so predicted or found in {paths.predictions}: {list_some(fnames)}")
    if test["path"].isna().all():
        test = load_competition(paths.input, skip_missing=True).test
    clips = test[test["fname"].isin(set(fnames))].reset_index(drop=True)
    gone = clips["fname"][clips["path"].isna()]
    if len(gone) and not cfg.input.skip_unreadable:
        raise UserError(f"{paths.input}: test files are missing: {list_some(gone)}: complete the download")
    found = predict_test([run.folder for run in runs], clips, paths.features, paths.predictions)
    return found, open_features(cfg.features, clips, paths.features).faults
