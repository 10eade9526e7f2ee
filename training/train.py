"""A fold from its rows to its run folder, or found there."""

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from configs.paths import Paths
from configs.schema import Config, config_hash
from console.errors import UserError
from console.output import muted, say, warn
from folds.assign import fold_hash
from metrics.metric import Metric, find_metric
from runs.predictions import Predictions
from runs.provenance import CODE, git_revision, library_versions
from runs.run_folder import (
    RENAME_OR_RETRAIN,
    Manifest,
    Run,
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
    from training.heads import HeadTrainer
    from training.lit_tagger import LitTagger


def train_folds(cfg: Config, folds: list[int], paths: Paths, force: bool = False, preamble: bool = True) -> list[float]:
    """Train what is not finished; the out-of-fold score of each fold. Raises UserError on bad input.

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
    """The score of several finished folds in one line: over all of their clips at once, with its standard error."""
    from input.corrections import targets_of
    from metrics.resampling import standard_error_of
    from runs.out_of_fold import join_folds

    runs = [read_run(paths.run(cfg.name, fold)) for fold in folds]
    table = data.folds.set_index("fname", drop=False).loc[[fname for run in runs for fname in run.oof.fnames]]
    truth = targets_of(table, data.competition) == 1
    metric = find_metric(data.competition.metric, data.competition.task)
    probs = join_folds(runs, metric).probs
    score, error = metric.score(probs, truth), standard_error_of(metric, probs, truth, table["group"].to_numpy())
    every = list(range(folds[0], folds[-1] + 1)) == folds
    which = f"{folds[0]}..{folds[-1]}" if every else ",".join(map(str, folds))
    over = "mean over" if metric.per_clip else "over"
    say(
        f"{cfg.name} folds {which}: out-of-fold {metric.title} {score:.4f}, standard error {error:.4f} "
        f"({over} the {len(probs)} clips of these folds)"
    )


def reuse_finished_fold(cfg: Config, fold: int, data: Data, final: Path) -> float:
    """The score of a finished run. Raises UserError where it was made with other settings, folds, clips or labels."""
    check_same_settings(final / "config.json", cfg, f"{final} was made")
    run = read_run(final)
    used = data.folds[~data.folds["fname"].isin(run.manifest.skipped)]
    check_same_data(run.manifest, replace(data.origin_of(fold), fold_hash=fold_hash(used)), f"{final} was made")
    metric = find_metric(data.competition.metric, data.competition.task)
    if run.manifest.metric != metric.name and cfg.train.keep == "best":
        raise UserError(
            f"{final} was made with the epoch that is best by {run.manifest.metric}, not {metric.name}: "
            f"{RENAME_OR_RETRAIN}"
        )
    score = run.scores[metric.key] if metric.key in run.scores else _score(run, data, metric)
    say(f"{final}: found, out-of-fold {metric.title} {score:.4f}; --force trains it again")
    if run.manifest.sound_hash.test != data.origin.sound_hash.test:
        say(f"{final}: test clips changed since: submit.py predicts those of another size or name")
    return score


def _score(run: Run, data: Data, metric: Metric) -> float:
    """Of a run that was scored by another metric."""
    from input.corrections import targets_of

    table = data.folds.set_index("fname", drop=False).loc[list(run.oof.fnames)]
    return metric.score(run.oof.probs, targets_of(table, data.competition) == 1)


def train_fold(cfg: Config, fold: int, data: Prepared, final: Path, restart: bool) -> float:
    """Train, predict and write the run folder, continuing what was begun unless `restart`; the score."""
    import numpy as np

    from features.batches import Batches
    from models.inference import predict_finite
    from models.tagger import save_tagger
    from training.heads import HeadTrainer
    from training.trainer import fit

    started = time.monotonic()
    device, precision, classes = data.device, data.precision, data.competition.classes
    lit = (
        build_head(cfg, fold, data) if data.frozen else build_module(cfg, fold, data)
    )  # before anything is written: it may refuse
    with unfinished(final, cfg, data.origin_of(fold), restart) as partial:
        label = f"{cfg.name} fold {fold}"
        lit.fit(partial, label) if isinstance(lit, HeadTrainer) else fit(lit, partial, label, precision)
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
    score = found[lit.metric.key]
    say(f"{cfg.name} fold {fold}: out-of-fold {lit.metric.title} {score:.4f} (epoch {lit.kept_epoch}) -> {final}")
    return score


def warn_where_prior_is_better(label: str, probs: "np.ndarray", parts: "FoldData") -> None:
    """Training that went wrong still ends with a score: warn where the score or the log loss of the probabilities
    (validation clips, classes) is no better than that of the share of each class among the training clips."""
    import numpy as np

    metric, log_loss = find_metric(parts.metric, parts.task), find_metric("log_loss", parts.task)
    truth, prior = parts.truth, np.tile(parts.prior, (len(probs), 1))
    try:
        score, bar = metric.score(probs, truth), metric.score(prior, truth)
    except UserError:  # one's own metric may have no value for clips that all score alike
        return
    loss, loss_bar = log_loss.score(probs, truth), log_loss.score(prior, truth)
    calibrated = parts.positive_weight is None  # else probabilities are too high by intention
    ranked = score > bar if metric.higher_is_better else score < bar
    if ranked and loss >= loss_bar and calibrated:
        warn(
            f"{label}: log loss {loss:.3f} is no better than the class prior's {loss_bar:.3f}, though out-of-fold "
            f"{metric.title} {score:.4f} is better than its {bar:.4f}: "
            "try another train.lr (a lower one, as a rule) or more train.epochs"
        )
    elif not ranked:
        warn(
            f"{label}: no better than the class prior: out-of-fold {metric.title} {score:.4f} and log loss {loss:.3f}, "
            f"the prior has {bar:.4f} and {loss_bar:.3f}: try another train.lr (a lower one, as a rule) or more "
            "train.epochs"
        )


def training_data(cfg: Config, fold: int, data: Prepared) -> "FoldData":
    """The rows of the fold, its training labels corrected and its pseudo-labels among them."""
    from input.corrections import correct, targets_of
    from training import distillation
    from training.fold_data import split
    from training.pseudo_labels import add_pseudo_labels

    of, table = data.competition, correct(data.folds, data.corrections, fold)
    targets = targets_of(table, of)
    if "weight" in of.train:
        table = table.assign(weight=of.train.set_index("fname")["weight"].loc[table["fname"]].to_numpy())
    parts = split(cfg.train, table, data.train, of.classes, fold, targets, of.task, of.metric)
    if fold in data.taught:
        parts = distillation.add_teacher(parts, cfg.train, data.teachers[fold], data.taught[fold])
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


def build_head(cfg: Config, fold: int, data: Prepared) -> "HeadTrainer":
    """The head of a fold on the embeddings of a frozen network, before it is fitted."""
    import numpy as np

    from input.corrections import correct
    from training.heads import HeadTrainer, inner_parts

    parts, table = training_data(cfg, fold, data), correct(data.folds, data.corrections, fold)
    table = table[table["fold"] != fold]  # the clips of parts.train, in its order, before those of pseudo-labels
    inner = np.full(len(parts.train), -1)
    inner[: len(table)] = inner_parts(table["fold"].to_numpy(), table["group"].to_numpy())
    stores = [data.train, data.test] if fold in data.pseudo else [data.train]
    return HeadTrainer(cfg, fold, parts, inner, stores, data.device)


def out_of_fold(cfg: Config, lit: "LitTagger | HeadTrainer", data: Prepared) -> tuple[Predictions, dict[str, float]]:
    """Predictions of the validation clips by the weights that are kept, which lit.tagger then has, and their scores."""
    from models.inference import predict_finite

    tagger, parts = lit.tagger.to(data.device), lit.parts  # Lightning leaves it on the CPU
    tagger.load_state_dict(lit.kept)
    probs = predict_finite(tagger, lit.batches, parts.val, cfg.predict, data.precision)
    return Predictions(parts.val_fnames, probs), parts.scores(probs)
