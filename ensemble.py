"""Blend the finished experiments in work/runs/: weights, scores, blended out-of-fold and test probabilities."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from configs.console import run_command, say, table
from configs.paths import Paths

if TYPE_CHECKING:
    from models.ensemble_folder import Ensemble

EXAMPLES = """examples:
  python ensemble.py
  python ensemble.py --runs resnetish18 vggish --method greedy --name two
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--input", type=Path, metavar="DIR", default=Paths.input, help="the competition (%(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR", default=Paths.work, help="all that is made (%(default)s)")
    parser.add_argument("--runs", nargs="+", metavar="NAME", default=[], help="experiments (all that are finished)")
    parser.add_argument("--method", default="arithmetic", help="arithmetic, geometric or greedy (%(default)s)")
    parser.add_argument("--name", default="default", help="work/ensembles/NAME/ (%(default)s)")
    parser.add_argument("--force", action="store_true", help="make it again though nothing changed")
    args = parser.parse_args()
    blend(Paths(args.input, args.work), args.runs, args.method, args.name, args.force)


def blend(paths: Paths, runs: list[str], method: str, name: str, force: bool) -> "Ensemble":
    """Make work/ensembles/<name>/, or read it where it is there and current. Raises UserError on runs that differ."""
    from configs.errors import UserError
    from input.competition import load_competition
    from models.blending import METHODS
    from models.candidates import candidates_from_runs
    from models.ensemble_folder import is_current, load_ensemble, make_ensemble, save_ensemble

    if method not in METHODS:
        raise UserError(f"--method {method}: known are {', '.join(METHODS)}")
    candidates = candidates_from_runs(paths.runs, runs, load_competition(paths.input, sound=False))
    folder = paths.ensembles / name
    if folder.exists() and not force:
        found = load_ensemble(folder)
        if found.weights["method"] == method and is_current(found, candidates):
            say(f"{folder}: found, made from these runs; --force makes it again")
            show(found)
            return found
    ensemble = make_ensemble(candidates, method)
    save_ensemble(ensemble, folder)
    show(ensemble)
    say(f"{method} blend of {len(candidates.names)} experiments -> {folder}")
    return ensemble


def show(ensemble: "Ensemble") -> None:
    """Out-of-fold MAP@3 of every experiment and of the blend."""
    weights = {name: f"{model['weight']:.3f}" for name, model in ensemble.weights["models"].items()}
    rows = [
        [name, weights.get(name, ""), f"{found['map3']:.4f}", f"{found.get('map3_verified', float('nan')):.4f}"]
        for name, found in ensemble.scores.items()
    ]
    table(["MAP@3", "weight", "OOF", "OOF verified"], rows)


if __name__ == "__main__":
    run_command(main)
