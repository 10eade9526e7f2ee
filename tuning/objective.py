"""What a trial does: train folds and report their scores."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from configs.paths import Paths
from console.errors import UserError

if TYPE_CHECKING:
    from configs.schema import Config
    from training.experiment_data import Data, Prepared
    from tuning.study import Plan, Report


def without_test_clips(data: "Data") -> "Data":
    """Replace the test clips by the training clips, so that a search cannot read test clips."""
    return replace(data, competition=replace(data.competition, test=data.competition.train))


def check_networks(plan: "Plan", n_classes: int) -> None:
    """Raises UserError with file and line if the space has a network that cannot be built."""
    from models.build import build_model

    for one in plan.space:
        for value in (one.choices or (one.low, one.high)) if one.key.startswith("model.") else ():
            try:
                build_model(plan.with_settings([one.setting(value)]), n_classes)
            except UserError as error:
                raise UserError(f"{one.place}: {error}") from None


def work(plan: "Plan", data: "Data", paths: Paths, name: str) -> None:
    """Search, as one of several processes."""
    from tuning.study import open_study, search

    folder = paths.studies / name
    search(folder, open_study(folder, plan=plan), plan, Training(data, paths, plan.folds))


class Training:
    """The objective of a search: train a fold of a config. Trials with the same features open them once."""

    def __init__(self, data: "Data", paths: Paths, folds: Sequence[int]) -> None:
        from metrics.metric import find_metric

        self.data, self.paths, self.folds = data, paths, list(folds)
        self.prepared: dict[Any, Prepared] = {}
        self.key = find_metric(data.competition.metric, data.competition.task).key
        self.warned: set[int] = set()  # folds

    def __call__(self, cfg: "Config", fold: int, report: "Report") -> float:
        """Out-of-fold score of the fold by the competition's metric, as in train_fold.py; no file is written.

        Raises TrialFailed if the network cannot be built, the training diverges, or memory runs out.
        """
        import torch

        from training.lit_tagger import Diverged
        from training.train import build_module, out_of_fold
        from training.trainer import EpochReporter, run_epochs
        from tuning.study import TrialFailed

        data = self.prepare(cfg)
        warnings = contextlib.nullcontext() if fold not in self.warned else contextlib.redirect_stderr(io.StringIO())
        try:
            with warnings:  # all trials have the same warnings
                lit = build_module(cfg, fold, data)
        except UserError as error:
            raise TrialFailed(str(error)) from None
        self.warned.add(fold)
        try:
            run_epochs(lit, data.precision, EpochReporter(lambda found: report(found["epoch"], found[self.key])))
        except Diverged:
            raise TrialFailed(f"diverged in epoch {len(lit.history) + 1}") from None
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            raise TrialFailed("out of memory") from None
        return out_of_fold(cfg, lit, data)[1][self.key]

    def prepare(self, cfg: "Config") -> "Prepared":
        """Raises TrialFailed if the network cannot be built: two valid settings may not fit together."""
        from models.build import build_model
        from training.experiment_data import prepare
        from tuning.study import TrialFailed

        t = cfg.train
        data_settings = (cfg.features, cfg.input, cfg.model.weights, cfg.augment.wave)
        key = (*data_settings, t.speeds, t.device, t.precision, t.finetune_epochs > 0)
        if key not in self.prepared:
            try:
                build_model(cfg, len(self.data.competition.classes))
            except UserError as error:
                raise TrialFailed(str(error)) from None
            self.prepared[key] = prepare(cfg, self.data, self.paths, self.folds)
        return self.prepared[key]
