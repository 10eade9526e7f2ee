"""Train folds of an experiment: out-of-fold and test probabilities in work/runs/<experiment>/fold<k>/."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.console import progress, run_command, say, warn
from configs.errors import UserError, list_faults, list_some
from configs.paths import Paths
from configs.schema import Config, config_hash

if TYPE_CHECKING:  # imported where they are used: --help must not wait for torch
    import pandas as pd
    import pytorch_lightning as pl
    import torch

    from features.store import Store
    from input.competition import Competition
    from models.fold_data import FoldData
    from models.lit_tagger import LitTagger
    from models.pseudo_labels import PseudoLabels
    from models.run_folder import Predictions

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}  # as Lightning calls them
DEFAULT = Path(__file__).parent / "configs" / "resnetish18.yaml"
EXAMPLES = """examples:
  python train_fold.py --fold 0..4
  python train_fold.py --fold 0 --config configs/vggish.yaml train.epochs=3 name=quick
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--fold", required=True, metavar="FOLDS", help="which folds: 3, 0..4 or 0,2,4")
    parser.add_argument("--config", type=Path, metavar="FILE", help="experiment file (configs/resnetish18.yaml)")
    parser.add_argument("--only", metavar="NAMES", help="of a file with several experiments these: a or a,b")
    parser.add_argument("--input", type=Path, metavar="DIR", default=Paths.input, help="the competition (%(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR", default=Paths.work, help="all that is made (%(default)s)")
    parser.add_argument("--force", action="store_true", help="train again what is finished or was begun")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        default=1,
        help="so many folds at once, each with its share of the cores: faster on a CPU",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a config value: train.epochs=3")
    args = parser.parse_intermixed_args()

    from configs.load import load_configs

    experiments = load_configs(args.config or DEFAULT, args.overrides)
    experiments = chosen(experiments, args.only) if args.only else experiments
    folds = [parse_folds(args.fold, cfg.folds.n_folds) for cfg in experiments]
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: at least 1")
    if args.jobs > 1 and sum(map(len, folds)) > 1:
        train_at_once(experiments, folds, args)
        return
    for cfg, some in zip(experiments, folds, strict=True):
        train_folds(cfg, some, Paths(args.input, args.work), args.force)


def train_at_once(experiments: list[Config], folds: list[list[int]], args: argparse.Namespace) -> None:
    """Each fold in a process of its own, args.jobs of them at a time. Raises UserError that lists those that failed.

    Small networks gain little from a second thread, much from a second process. Input is checked and features are made
    here, so that a fault is told once; an experiment that learns from others waits for them.
    """
    paths, running = Paths(args.input, args.work), Children(len(os.sched_getaffinity(0)) // args.jobs)
    jobs: dict[Future[int], str] = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            for cfg, some in zip(experiments, folds, strict=True):
                if cfg.pseudo.runs:
                    wait(jobs)
                if not all(paths.run(cfg.name, fold).exists() for fold in some) or args.force:
                    prepare(cfg, load_data(cfg, some, paths), paths, some)
                for fold in some:
                    command = [sys.executable, __file__, "--fold", str(fold), "--only", cfg.name]
                    command += ["--input", str(args.input), "--work", str(args.work), *["--force"] * args.force]
                    command += ["--config", str(args.config or DEFAULT), *args.overrides]
                    jobs[pool.submit(running.run, command)] = f"{cfg.name} fold {fold}"
            wait(jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            running.stop()
            raise
    if failed := [what for job, what in jobs.items() if job.result()]:
        raise UserError(f"not finished: {list_some(failed)}; the reason stands above, the same command goes on")


class Children:
    """Processes with so many threads each; what they say is passed on line by line, so that no bar spoils another."""

    def __init__(self, threads: int) -> None:
        self.surroundings = {**os.environ, "OMP_NUM_THREADS": str(max(1, threads)), "PYTHONUNBUFFERED": "1"}
        self.alive: set[subprocess.Popen[str]] = set()

    def run(self, command: list[str]) -> int:
        """The exit status."""
        with subprocess.Popen(command, env=self.surroundings, stdout=subprocess.PIPE, text=True) as child:
            self.alive.add(child)
            for line in child.stdout or ():
                say(line.rstrip("\n"))
        self.alive.discard(child)
        return child.returncode

    def stop(self) -> None:
        """As Ctrl-C does, which reaches them in a terminal anyway: each keeps its last whole epoch."""
        for child in tuple(self.alive):
            child.terminate()


def chosen(experiments: list[Config], names: str) -> list[Config]:
    """The experiments whose names 'a,b' lists. Raises UserError on a name that is not among them."""
    known = {cfg.name: cfg for cfg in experiments}
    wanted = names.split(",")
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"--only: no experiment {list_some(unknown)} in the file; there are {list_some(known)}")
    return [known[name] for name in wanted]


def parse_folds(text: str, n_folds: int) -> list[int]:
    """'3' -> [3], '0..2' -> [0, 1, 2], '0,2,4' -> [0, 2, 4]. Raises UserError on anything else."""
    folds: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        if not first.isdecimal() or (dots and not last.isdecimal()):
            raise UserError(f"--fold {text}: write 3, 0..4 or 0,2,4")
        end = int(last) if dots else int(first)
        if not int(first) <= end < n_folds:
            raise UserError(f"--fold {text}: folds go from 0 to {n_folds - 1} (folds.n_folds={n_folds})")
        folds |= set(range(int(first), end + 1))
    return sorted(folds)


def train_folds(cfg: Config, folds: list[int], paths: Paths, force: bool = False) -> list[float]:
    """Train what is not finished; the out-of-fold MAP@3 of each fold. Raises UserError on bad input."""
    from models.run_folder import recover

    data = load_data(cfg, folds, paths)
    prepared = None
    found = []
    for fold in folds:
        final = paths.run(cfg.name, fold)
        recover(final)
        if final.exists() and not force:
            found.append(found_score(cfg, fold, data, final))
            continue
        prepared = prepared or prepare(cfg, data, paths, folds)
        found.append(fresh_score(cfg, fold, prepared, final, force))
    return found


@dataclass(frozen=True)
class Data:
    """What suffices to know a finished fold again: no features, no torch. folds: fname, label, verified, group, fold of
    all training clips, as given; corrections: fname -> label to train on; pseudo: of each fold that is asked for, where
    there are any; facts: what the manifest says of all this, but for what one fold has of its own."""

    competition: "Competition"
    folds: "pd.DataFrame"
    corrections: dict[str, str]
    pseudo: "dict[int, PseudoLabels]"
    facts: dict[str, Any]

    def facts_of(self, fold: int) -> dict[str, Any]:
        return self.facts | ({"pseudo_runs": self.pseudo[fold].ids} if fold in self.pseudo else {})


@dataclass(frozen=True)
class Prepared(Data):
    """What all folds share in training. folds: the clips that can be used; copies: of the training clips, at other
    speeds."""

    train: "Store"
    copies: "list[Store]"
    test: "Store"
    device: "torch.device"
    precision: str


def load_data(cfg: Config, wanted: list[int], paths: Paths) -> Data:
    """Competition and folds, which are made where they are not there, corrections, and the pseudo-labels of the wanted
    folds. Raises UserError on bad input."""
    from features.store import sound_hash
    from folds.assign import load_folds
    from input.competition import load_competition
    from input.corrections import corrections_hash, read_corrections

    competition = load_competition(paths.input, cfg.input.skip_unreadable)
    n_train, n_test, n_classes = len(competition.train), len(competition.test), len(competition.classes)
    say(f"{paths.input}: {n_train} training clips, {n_test} test clips, {n_classes} classes")
    folds = load_folds(cfg.folds, competition.train, paths.folds)
    facts: dict[str, Any] = {
        "n_folds": cfg.folds.n_folds,
        "feature_hash": config_hash(cfg.features),
        "sound_hash": {"train": sound_hash(competition.train), "test": sound_hash(competition.test)},
    }
    corrections = {}
    if cfg.input.corrections:
        corrections = read_corrections(Path(cfg.input.corrections), competition.train, competition.classes)
        facts["corrections_hash"] = corrections_hash(corrections)
        say(f"{cfg.input.corrections}: corrects {len(corrections)} clips, for training only")
    data = Data(competition, folds, corrections, {}, facts)
    return replace(data, pseudo=read_pseudo(cfg, wanted, data, paths)) if cfg.pseudo.runs else data


def read_pseudo(cfg: Config, wanted: list[int], data: Data, paths: Paths) -> "dict[int, PseudoLabels]":
    """The pseudo-labels of each wanted fold, from the models of that fold alone. Raises UserError on bad input."""
    from models.pseudo_labels import read_pseudo_labels

    of, hashes = data.competition, data.facts["sound_hash"]
    return {
        fold: read_pseudo_labels(cfg.pseudo, cfg.name, fold, paths.runs, data.folds, of.classes, hashes)
        for fold in wanted
    }


def prepare(cfg: Config, data: Data, paths: Paths, wanted: list[int]) -> Prepared:
    """Device, precision and features; features are made where they are not there. Raises UserError on bad input, and
    before features are made on a device, a precision, a network or a finetuning of a wanted fold that cannot be had."""
    from features.store import open_features
    from folds.assign import fold_hash
    from input.corrections import correct
    from models.build import build_model
    from models.fold_data import refuse_finetuning_on_nothing
    from models.tagger import choose_device, choose_precision

    for fold in wanted:
        refuse_finetuning_on_nothing(cfg.train, correct(data.folds, data.corrections, fold), fold)
    device = choose_device(cfg.train.device)
    precision = choose_precision(cfg.train.precision, device)
    of = data.competition
    build_model(cfg, len(of.classes))  # a second at most; it may refuse its name or weights
    train = open_features(cfg.features, of.train, paths.features)
    check_training_clips(train, cfg.input.skip_unreadable)
    folds = usable_clips(data.folds, train.faults)
    test = open_features(cfg.features, of.test, paths.features)
    if test.faults:
        what = "test clips with a fault, predicted from what can be read of them, else by the class prior"
        warn(f"{what}: {list_faults(test.faults)}")
    copies = [open_features(replace(cfg.features, speed=s), of.train, paths.features) for s in cfg.train.speeds]
    facts = data.facts | {"fold_hash": fold_hash(folds), "skipped": train.faults, "test_faults": test.faults}
    return Prepared(of, folds, data.corrections, data.pseudo, facts, train, copies, test, device, precision)


def check_training_clips(store: "Store", skip: bool) -> None:
    """Raises UserError that lists empty, silent and unreadable clips, or warns of them where they are to be skipped."""
    if store.faults and not skip:
        remedy = "repair them, or leave them out with input.skip_unreadable=true"
        raise UserError(f"training clips that cannot be used: {list_faults(store.faults)}; {remedy}")
    if store.faults:
        warn(f"left out of training: {list_faults(store.faults)}")


def usable_clips(folds: "pd.DataFrame", faults: dict[str, str]) -> "pd.DataFrame":
    """The rows without clips that are left out. Raises UserError where a label loses all of its clips."""
    usable = folds[~folds["fname"].isin(faults)]
    if lost := sorted(set(folds["label"]) - set(usable["label"])):
        raise UserError(f"labels without a training clip that can be used: {list_some(lost)}; repair one clip of each")
    return usable


def found_score(cfg: Config, fold: int, data: Data, final: Path) -> float:
    """The score of a finished run. Raises UserError where it was made with other settings, folds, clips or labels."""
    from folds.assign import fold_hash
    from models.run_folder import read_run, refuse_other_data, refuse_other_settings

    refuse_other_settings(final / "config.json", cfg, f"{final} was made")
    run = read_run(final)
    used = data.folds[~data.folds["fname"].isin(run.manifest["skipped"])]
    refuse_other_data(run.manifest, data.facts_of(fold) | {"fold_hash": fold_hash(used)}, f"{final} was made")
    say(f"{final}: found, out-of-fold MAP@3 {run.scores['map3']:.4f}; --force trains it again")
    return run.scores["map3"]


def fresh_score(cfg: Config, fold: int, data: Prepared, final: Path, restart: bool) -> float:
    """Train, predict and write the run folder, going on from what was begun unless `restart`; the score."""
    import numpy as np

    from features.batches import Batches
    from models.predict import predict_clips
    from models.run_folder import Predictions, finish_run, surroundings, unfinished
    from models.tagger import save_tagger

    started = time.monotonic()
    device, precision, classes = data.device, data.precision, data.competition.classes
    lit = untrained(cfg, fold, data)  # before anything is written: it may refuse
    with unfinished(final, cfg, data.facts_of(fold), restart) as partial:
        fit(lit, partial, f"{cfg.name} fold {fold}", precision)
        save_tagger(lit.kept, partial / "model.safetensors")
        oof, found = out_of_fold(cfg, lit, data)
        batches, rows = Batches(data.test, device, cfg.input.padding), np.arange(len(data.test.fnames))
        test = Predictions(data.test.fnames, predict_clips(lit.tagger, batches, rows, cfg.predict, precision))
        found |= {"epoch": lit.kept_epoch}
        facts = {"experiment": cfg.name, "fold": fold, "config_hash": config_hash(cfg), "seed": cfg.train.seed}
        facts |= {"device": device.type, "precision": precision, "seconds": round(time.monotonic() - started)}
        facts |= data.facts_of(fold) | surroundings(Path(__file__).parent)
        finish_run(partial, final, cfg, classes, oof, test, found, facts)
    say(f"{cfg.name} fold {fold}: out-of-fold MAP@3 {found['map3']:.4f} (epoch {lit.kept_epoch}) -> {final}")
    return found["map3"]


def training_data(cfg: Config, fold: int, data: Prepared) -> "FoldData":
    """The rows of the fold, its training labels corrected and its pseudo-labels among them."""
    from input.corrections import correct
    from models.fold_data import split
    from models.pseudo_labels import add_pseudo_labels

    table = correct(data.folds, data.corrections, fold)
    parts = split(cfg.train, table, data.train, data.competition.classes, fold)
    if fold in data.pseudo:
        n_labelled = len(parts.train)
        parts = add_pseudo_labels(parts, data.pseudo[fold], cfg.pseudo.weight, data.test)
        added = len(parts.train) - n_labelled
        say(f"{cfg.name} fold {fold}: {added} of {len(data.test.fnames)} test clips join with pseudo-labels")
    return parts


def untrained(cfg: Config, fold: int, data: Prepared) -> "LitTagger":
    """The network of a fold with its rows, before the first epoch. Raises UserError where a fold cannot be trained."""
    from models.lit_tagger import build_lit_tagger

    parts, extra = training_data(cfg, fold, data), data.test if fold in data.pseudo else None
    return build_lit_tagger(cfg, fold, parts, data.train, data.device, data.precision, data.copies, extra)


def out_of_fold(cfg: Config, lit: "LitTagger", data: Prepared) -> "tuple[Predictions, dict[str, float]]":
    """Predictions of the validation clips by the weights that are kept, which lit.tagger then has, and their scores."""
    from models.metrics import scores
    from models.predict import predict_clips
    from models.run_folder import Predictions

    tagger, parts = lit.tagger.to(data.device), lit.parts  # Lightning leaves it on the CPU
    tagger.load_state_dict(lit.kept)
    probs = predict_clips(tagger, lit.batches, parts.val, cfg.predict, data.precision)
    return Predictions(parts.val_fnames, probs), scores(probs, parts.labels[parts.val], parts.val_verified)


def fit(lit: "LitTagger", partial: Path, what: str, precision: str) -> None:
    """Run the epochs that are missing, going on from the last checkpoint if there is one.

    Raises KeyboardInterrupt on Ctrl-C and on SIGTERM, which Lightning turns into an exit of its own.
    """
    from models.lit_tagger import RunKeeper, finished_epochs
    from models.run_folder import CHECKPOINT
    from models.stages import stage_of

    last = partial / CHECKPOINT
    done = finished_epochs(last)
    if done:
        say(f"{what}: going on after epoch {done} of {lit.epochs}")
    missing = sum(len(stage_of(lit.stages, epoch).rows) for epoch in range(done, lit.epochs))
    with progress(what, missing, "clips", every=60) as advance:
        keeper = RunKeeper(partial, reporter(what, lit.epochs, done), advance)
        run_epochs(lit, precision, keeper, last if done else None)


def run_epochs(lit: "LitTagger", precision: str, keeper: "pl.Callback", checkpoint: Path | None = None) -> None:
    """All epochs, or those after a checkpoint; `keeper` calls finish_epoch after each. Raises as `fit` does."""
    import pytorch_lightning as pl

    from models.lit_tagger import quiet

    with quiet():
        trainer = pl.Trainer(
            max_epochs=lit.epochs,
            accelerator="gpu" if lit.batches.device.type == "cuda" else "cpu",
            devices=1,
            precision=PRECISIONS[precision],  # type: ignore[arg-type]  # its Literal is not exported
            reload_dataloaders_every_n_epochs=1,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[keeper],
        )
        try:
            trainer.fit(lit, ckpt_path=checkpoint, weights_only=True)
        except SystemExit:
            raise KeyboardInterrupt from None


def reporter(what: str, epochs: int, done: int) -> Callable[[dict[str, float]], None]:
    """Called with the scores of each epoch, it says them in a line with the time left."""
    started = time.monotonic()

    def report(scores: dict[str, float]) -> None:
        left = (time.monotonic() - started) / (scores["epoch"] - done) * (epochs - scores["epoch"])
        numbers = " ".join(f"{k} {v:.4g}" for k, v in scores.items() if k != "epoch")
        say(f"{what} epoch {scores['epoch']:.0f}/{epochs}: {numbers}; {left:.0f} s left")

    return report


if __name__ == "__main__":
    run_command(main)
