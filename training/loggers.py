"""What hears of every epoch besides metrics.csv: Lightning's own loggers, by the names in train.logger.

TensorBoard's files lie in the run folder. What W&B and MLflow write lies beside the runs, in the work folder: it names
itself by absolute paths, and would not survive that a finished fold takes its name.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from configs.files import name_in_utf8, write
from console.errors import UserError

if TYPE_CHECKING:  # a head on embeddings is fitted without Lightning
    from pytorch_lightning.loggers import Logger

PACKAGES = {"wandb": "wandb", "mlflow": "mlflow-skinny"}  # of the extra `loggers`: module -> what pip installs
IDS = "loggers.json"  # in an unfinished fold: the run of each service that the next epochs belong to
REMEDY = {
    "wandb": "wandb login, or set WANDB_MODE=offline",
    "mlflow": "start its server, or set MLFLOW_TRACKING_URI, or unset it: then work/mlflow.db is written",
}


def check_loggers(names: Sequence[str]) -> None:
    """Raises UserError where the package of one is not installed."""
    for name in names:
        spec = find_spec(name) if name in PACKAGES else None
        if name in PACKAGES and (spec is None or spec.origin is None):  # no origin: a folder that is called so
            raise UserError(
                f"train.logger={','.join(names)}: {name} is not installed: pip install -c constraints.txt "
                f"'{PACKAGES[name]}', or '.[loggers]' for all, or leave it out"
            )


@contextmanager
def open_loggers(names: Sequence[str], partial: Path, done: int) -> Iterator[list["Logger"]]:
    """Lightning's loggers for these names, but csv, which is ours; the same log goes on where a fold does.

    partial: work/runs/<experiment>/fold<k>.partial with its config.json. done: epochs that they have heard of. Raises
    UserError where a service cannot be reached.
    """
    from pytorch_lightning.loggers import TensorBoardLogger

    known = json.loads((partial / IDS).read_text()) if (partial / IDS).exists() else {}
    ids, settings = dict(known), partial / "config.json"
    failed = True
    try:
        found = list["Logger"]()
        for name in [one for one in ("tensorboard", *PACKAGES) if one in names]:
            if name == "tensorboard":
                found.append(TensorBoardLogger(name_in_utf8(partial), name="", version="", purge_step=done + 1))
                continue
            found.append(_begin(name, partial, ids))
            if name not in known:
                found[-1].log_hyperparams(json.loads(settings.read_text()))
                write(partial / IDS, json.dumps(ids))
        yield found
        failed = False
    finally:
        if "wandb" in names:
            _finish_wandb(failed)


def _begin(name: str, partial: Path, ids: dict[str, str]) -> "Logger":
    """The logger of a service, once that has answered; the id of its run is taken from `ids`, or added there."""
    from pytorch_lightning.loggers import MLFlowLogger, WandbLogger

    experiment, fold, work = partial.parent.name, partial.name.removesuffix(".partial"), partial.parents[2]
    logger: Logger
    try:
        if name == "wandb":
            ids.setdefault(name, uuid4().hex[:12])
            project = os.environ.get("WANDB_PROJECT", "audio-tagging")
            console = {"console": "off"}  # it would copy our lines
            logger = WandbLogger(
                f"{experiment} {fold}", work, id=ids[name], project=project, group=experiment, settings=console
            )
            _ = logger.experiment
        else:
            address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{work.absolute() / 'mlflow.db'}"
            logger = MLFlowLogger(experiment, fold, address, run_id=ids.get(name))
            ids[name] = str(logger.run_id)
    except Exception as error:  # each has errors of its own, and those of its network
        fact = " ".join(str(error).split())[:200]
        raise UserError(f"train.logger: {name} does not begin ({fact}): {REMEDY[name]}") from None
    return logger


def _finish_wandb(failed: bool) -> None:
    """Else the next fold would go on in this one's run."""
    import wandb

    wandb.finish(exit_code=int(failed))
