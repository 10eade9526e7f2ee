"""What an engine costs in score: the out-of-fold clips of finished folds, predicted again by each of them."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.loop import CPU
from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError
from console.options import as_path, command_parser, share
from console.output import muted, say
from input.competition import Competition, load_competition
from metrics.metric import find_metric
from models.device import choose_precision, memory_kept
from models.engine import EngineChoice
from runs.clips import frozen_file_of, open_clips
from runs.predict import predict_store
from runs.run_folder import finished_folds, read_run, read_trained

EXAMPLES = """examples:
  python -m benchmarks.engine_scores work/runs/resnetish18"""


def main() -> None:
    parser = command_parser(__doc__, EXAMPLES, "python -m benchmarks.engine_scores")
    parser.add_argument("experiment", type=as_path, metavar="DIR", help="work/runs/NAME, with its finished folds")
    share(parser, "input", "as", "work")
    args = parser.parse_args()
    if not (folders := finished_folds(args.experiment)):
        raise UserError(f"{args.experiment}: no finished folds: name work/runs/NAME")
    paths = Paths(args.input, args.work, args.described_by)
    competition = load_competition(paths.input, described_by=paths.described_by)
    found: dict[str, list[float]] = {}
    for folder in folders:
        for way, score in of_fold(folder, competition, paths):
            found.setdefault(way, []).append(score)
            say(f"{folder.name}, {way}: {competition.metric} {score:.4f}")
    for way, each in found.items():
        say(f"mean of {len(each)} folds, {way}: {competition.metric} {np.mean(each):.4f}")


def of_fold(folder: Path, competition: Competition, paths: Paths) -> Iterator[tuple[str, float]]:
    """The score of a fold's out-of-fold clips by each engine that is installed."""
    run, trained = read_run(folder), read_trained(folder)
    place = {fname: i for i, fname in enumerate(competition.train["fname"])}
    if not set(run.oof.fnames) <= set(place):
        raise UserError(f"{folder}: was trained on other clips than {competition.folder} has: give its --input")
    rows = np.array([place[fname] for fname in run.oof.fnames])
    clips, truth = competition.train.iloc[rows].reset_index(drop=True), competition.targets[rows] > 0.5
    score = find_metric(competition.metric, competition.task).score
    yield "as stored", score(run.oof.probs, truth)
    precisions: list[Literal["fp32", "bf16"]] = (
        ["fp32", "bf16"] if choose_precision("auto", CPU) == "bf16" else ["fp32"]
    )
    ways = [(engine, each) for each in precisions for engine in engines()]
    ways += [("int8", precisions[0])] if find_spec("nncf") else []
    with muted(), memory_kept():
        store = open_clips(trained.config, clips, paths.features, frozen_file_of(trained))
    for engine, precision in ways:
        cfg = replace(trained.config, train=replace(trained.config.train, precision=precision))
        with muted(), memory_kept():
            probs = predict_store(replace(trained, config=cfg), store, CPU, EngineChoice(engine))
        yield engine if engine == "int8" else f"{engine} {precision}", score(probs, truth)


def engines() -> list[str]:
    return ["torch", "openvino"] if find_spec("openvino") else ["torch"]


if __name__ == "__main__":
    run_command(main)
