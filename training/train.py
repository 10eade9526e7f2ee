"""A fold from its rows to its run folder, or found there."""

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from configs.paths import Paths
from configs.schema import Config, config_hash
from console.output import muted, say, warn
from folds.assign import fold_hash
from runs.predictions import Predictions
from runs.provenance import git_revision, library_versions
from runs.run_folder import (
    Manifest,
    check_same_data,
    check_same_settings,
    finish_run,
    is_begun,
    read_run,
    recover,
    unfinished,
)
from training.experiment_data import Data, Prepared, load_data, prepare

if TYPE_CHECKING:
    import numpy as np

    from training.fold_data import FoldData
    from training.lit_tagger import LitTagger


CODE = Path(__file__).parents[1]


def train_folds(cfg: Config, folds: list[int], paths: Paths, force: bool = False, preamble: bool = True) -> list[float]:
    """Train what is not finished; the out-of-fold MAP@3 of each fold. Raises UserError on bad input.

    preamble: say what the competition and the folds are, and warn of their faults.
    """
    with nullcontext() if preamble else muted():
        data = load_data(cfg, folds, paths)
    prepared = None
    found = []
    for fold in folds:
        final = paths.run(cfg.name, fold)
        recover(final)
        if final.exists() and not force and not is_begun(final, cfg):  # begun: by --force, and interrupted
            found.append(reuse_finished_fold(cfg, fold, data, final))
            continue
        with nullcontext() if preamble else muted():
            prepared = prepared or prepare(cfg, data, paths, folds)
        found.append(train_fold(cfg, fold, prepared, final, force))
    if len(folds) > 1:
        say_all_folds(cfg, folds, data, paths)
    return found


def say_all_folds(cfg: Config, folds: list[int], data: Data, paths: Paths) -> None:
    """The score of several finished folds in one line: the mean over their clips, and its standard error."""
    import numpy as np

    from metrics.map_at_3 import average_precision_at_3
    from metrics.resampling import standard_error

    runs = [read_run(paths.run(cfg.name, fold)) for fold in folds]
    table = data.folds.set_index("fname").loc[[fname for run in runs for fname in run.oof.fnames]]
    truth = np.array([runs[0].classes.index(label) for label in table["label"]])
    gains = average_precision_at_3(np.concatenate([run.oof.probs for run in runs]), truth)
    error = standard_error(gains, table["group"].to_numpy())
    every = list(range(folds[0], folds[-1] + 1)) == folds
    which = f"{folds[0]}..{folds[-1]}" if every else ",".join(map(str, folds))
    say(
        f"{cfg.name} folds {which}: out-of-fold MAP@3 {gains.mean():.4f}, standard error {error:.4f} "
        f"(mean over the {len(gains)} clips of these folds)"
    )


def reuse_finished_fold(cfg: Config, fold: int, data: Data, final: Path) -> float:
    """The score of a finished run. Raises UserError where it was made with other settings, folds, clips or labels."""
    check_same_settings(final / "config.json", cfg, f"{final} was made")
    run = read_run(final)
    used = data.folds[~data.folds["fname"].isin(run.manifest.skipped)]
    check_same_data(run.manifest, replace(data.origin_of(fold), fold_hash=fold_hash(used)), f"{final} was made")
    say(f"{final}: found, out-of-fold MAP@3 {run.scores['map3']:.4f}; --force trains it again")
    if run.manifest.sound_hash.test != data.origin.sound_hash.test:
        say(f"{final}: test clips changed since: submit.py predicts those of another size or name")
    return run.scores["map3"]


def train_fold(cfg: Config, fold: int, data: Prepared, final: Path, restart: bool) -> float:
    """Train, predict and write the run folder, going on from what was begun unless `restart`; the score."""
    import numpy as np

    from features.batches import Batches
    from models.inference import predict_finite
    from models.tagger import save_tagger
    from training.trainer import fit

    started = time.monotonic()
    device, precision, classes = data.device, data.precision, data.competition.classes
    lit = build_module(cfg, fold, data)  # before anything is written: it may refuse
    with unfinished(final, cfg, data.origin_of(fold), restart) as partial:
        fit(lit, partial, f"{cfg.name} fold {fold}", precision)
        save_tagger(lit.kept, partial / "model.safetensors")
        oof, found = out_of_fold(cfg, lit, data)
        warn_where_prior_is_better(f"{cfg.name} fold {fold}", oof.probs, lit.parts)
        batches, rows = Batches(data.test, device, cfg.input.padding), np.arange(len(data.test.fnames))
        probs = predict_finite(lit.tagger, batches, rows, cfg.predict, precision)
        test = Predictions(data.test.fnames, probs, data.test_sizes)
        found |= {"epoch": lit.kept_epoch}
        manifest = Manifest(
            **vars(data.origin_of(fold)),
            experiment=cfg.name,
            fold=fold,
            config_hash=config_hash(cfg),
            seed=cfg.train.seed,
            device=device.type,
            precision=precision,
            seconds=round(time.monotonic() - started),
            git_revision=git_revision(CODE),
            versions=library_versions(),
        )
        finish_run(partial, final, cfg, classes, oof, test, found, manifest)
    say(f"{cfg.name} fold {fold}: out-of-fold MAP@3 {found['map3']:.4f} (epoch {lit.kept_epoch}) -> {final}")
    return found["map3"]


def warn_where_prior_is_better(what: str, probs: "np.ndarray", parts: "FoldData") -> None:
    """A training that went wrong ends with a score all the same: say so where it is none, or the probabilities (clips
    that validate, classes) are worse than the share of each class among the training clips."""
    import numpy as np

    from metrics.log_loss import log_loss
    from metrics.map_at_3 import map_at_3

    truth = parts.labels[parts.val]
    prior = np.broadcast_to(parts.prior, probs.shape)
    score, bar = map_at_3(probs, truth), map_at_3(np.ascontiguousarray(prior), truth)
    loss, loss_bar = log_loss(probs, truth), log_loss(prior, truth)
    if score <= bar or loss >= loss_bar:
        warn(
            f"{what}: no better than the class prior: out-of-fold MAP@3 {score:.4f} and log loss {loss:.3f}, the prior "
            f"has {bar:.4f} and {loss_bar:.3f}: try another train.lr (a lower one, as a rule) or more train.epochs"
        )


def training_data(cfg: Config, fold: int, data: Prepared) -> "FoldData":
    """The rows of the fold, its training labels corrected and its pseudo-labels among them."""
    from input.corrections import correct
    from training.fold_data import split
    from training.pseudo_labels import add_pseudo_labels

    table = correct(data.folds, data.corrections, fold)
    parts = split(cfg.train, table, data.train, data.competition.classes, fold)
    if fold in data.pseudo:
        n_labelled = len(parts.train)
        parts = add_pseudo_labels(parts, data.pseudo[fold], cfg.pseudo.weight, data.test)
        added = len(parts.train) - n_labelled
        say(f"{cfg.name} fold {fold}: {added} of {len(data.test.fnames)} test clips join with pseudo-labels")
    return parts


def build_module(cfg: Config, fold: int, data: Prepared) -> "LitTagger":
    """The network of a fold with its rows, before the first epoch. Raises UserError where a fold cannot be trained."""
    from training.lit_tagger import build_lit_tagger

    parts, extra = training_data(cfg, fold, data), data.test if fold in data.pseudo else None
    return build_lit_tagger(cfg, fold, parts, data.train, data.device, data.precision, data.copies, extra)


def out_of_fold(cfg: Config, lit: "LitTagger", data: Prepared) -> tuple[Predictions, dict[str, float]]:
    """Predictions of the validation clips by the weights that are kept, which lit.tagger then has, and their scores."""
    from metrics.scores import scores
    from models.inference import predict_finite

    tagger, parts = lit.tagger.to(data.device), lit.parts  # Lightning leaves it on the CPU
    tagger.load_state_dict(lit.kept)
    probs = predict_finite(tagger, lit.batches, parts.val, cfg.predict, data.precision)
    return Predictions(parts.val_fnames, probs), scores(probs, parts.labels[parts.val], parts.val_verified)
