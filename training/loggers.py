"""What hears of every epoch besides metrics.csv: Lightning's own loggers, by the names in train.logger.

TensorBoard's files lie in the run folder. What W&B and MLflow write lies beside the runs, in the work folder: it names
itself by absolute paths, and would not survive that a finished fold takes its name.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from configs.files import lock, name_in_utf8, write
from console.errors import UserError

if TYPE_CHECKING:  # a head on embeddings is fitted without Lightning
    from pytorch_lightning.loggers import Logger

PACKAGES = {"wandb": "wandb", "mlflow": "mlflow-skinny"}  # of the extra `loggers`: module -> what pip installs
IDS = "loggers.json"  # in an unfinished fold: the run of each service that the next epochs belong to
REMEDY = {
    "wandb": "wandb login, or set WANDB_MODE=offline",
    "mlflow": "start its server, or set MLFLOW_TRACKING_URI, or unset it: then work/mlflow.db is written; move that "
    "file away if it is damaged",
}
# that say where a service is; keys and passwords do not travel, since Ray shows what its jobs are given
ADDRESSES = ("MLFLOW_TRACKING_URI", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_MODE", "WANDB_PROJECT")
CALLS = ("log_hyperparams", "log_metrics", "save", "finalize")  # of a logger, that reach its service


def check_loggers(names: Sequence[str]) -> None:
    """Raises UserError where the package of one is not installed."""
    for name in names:
        spec = find_spec(name) if name in PACKAGES else None
        if name in PACKAGES and (spec is None or spec.origin is None):  # no origin: a folder that is called so
            raise UserError(
                f"train.logger={','.join(names)}: {name} is not installed: pip install -c constraints.txt "
                f"'{PACKAGES[name]}', or '.[loggers]' for all, or leave it out"
            )


def addresses() -> dict[str, str]:
    """Of the services, for jobs on a cluster, whose nodes do not have this machine's environment."""
    return {name: os.environ[name] for name in ADDRESSES if name in os.environ}


@contextmanager
def open_loggers(names: Sequence[str], partial: Path, done: int) -> Iterator[list["Logger"]]:
    """Lightning's loggers for these names, but csv, which is ours; the same log goes on where a fold does.

    partial: work/runs/<experiment>/fold<k>.partial with its config.json. done: epochs that they have heard of. Raises
    UserError where a service cannot be reached, and the loggers do so when it ends to answer.
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
            if ids != known:
                found[-1].log_hyperparams(json.loads(settings.read_text()))
                write(partial / IDS, json.dumps(ids))
                known = dict(ids)
        yield found
        failed = False
    finally:
        if "wandb" in names:
            with suppress(Exception) if failed else _in_one_line("wandb", "does not end"):
                _finish_wandb(failed)


def _begin(name: str, partial: Path, ids: dict[str, str]) -> "Logger":
    """The logger of a service, once that has answered; the id of its run is taken from `ids`, or added there."""
    from pytorch_lightning.loggers import MLFlowLogger, WandbLogger

    experiment, fold, work = partial.parent.name, partial.name.removesuffix(".partial"), partial.parents[2]
    logger: Logger
    if name == "wandb":
        ids.setdefault(name, uuid4().hex[:12])
        project = os.environ.get("WANDB_PROJECT", "audio-tagging")
        console = {"console": "off"}  # it would copy our lines
        with _in_one_line(name, "does not begin"):
            logger = WandbLogger(
                f"{experiment} {fold}", work, id=ids[name], project=project, group=experiment, settings=console
            )
            _ = logger.experiment
    else:
        file = work.absolute() / "mlflow.db"
        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{file}"
        key = f"{name} {sha256(address.encode()).hexdigest()[:12]}"  # another service does not know this run
        # folds side by side: one alone makes the tables of the file, or the experiment at the service
        with lock(file), _in_one_line(name, "does not begin"):
            logger = MLFlowLogger(experiment, fold, address, run_id=ids.get(key))
            ids[key] = str(logger.run_id)
    for call in CALLS:
        setattr(logger, call, _told(name, getattr(logger, call)))
    return logger


def _told(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def told(*args: Any, **kwargs: Any) -> Any:
        with _in_one_line(name, "does not answer any more", "then run the same command to continue"):
            return call(*args, **kwargs)

    return told


@contextmanager
def _in_one_line(name: str, what: str, then: str = "") -> Iterator[None]:
    """Errors of a service as a UserError: each has errors of its own, and those of its network."""
    try:
        yield
    except UserError:  # of a call within a call
        raise
    except Exception as error:
        fact = " ".join(str(error).split())[:200]
        remedy = f"{REMEDY[name]}; {then}" if then else REMEDY[name]
        raise UserError(f"train.logger: {name} {what} ({fact}): {remedy}") from None


def _finish_wandb(failed: bool) -> None:
    """Else the next fold would go on in this one's run."""
    import wandb

    wandb.finish(exit_code=int(failed))
