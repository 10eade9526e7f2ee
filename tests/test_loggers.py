"""train.logger: what is written where, that a fold goes on in its log, and what is said where a logger is not there."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pytorch_lightning.loggers import mlflow as lightning_mlflow
from pytorch_lightning.loggers import wandb as lightning_wandb

from configs.load import load_config
from configs.schema import Config, TrainConfig, config_hash, to_dict
from console.errors import UserError
from runs.run_folder import CHECKPOINT
from tests.conftest import MakeStore
from tests.test_lit_tagger import lit_of, train_config
from training import heads
from training.loggers import IDS, check_loggers, open_loggers
from training.trainer import finished_epochs, fit

ALL = "csv,tensorboard,wandb,mlflow"


class Service:
    """Stands for W&B and MLflow: what each run was told, by its id."""

    def __init__(self) -> None:
        self.told = dict[str, list[dict[str, Any]]]()
        self.settings = dict[str, dict[str, Any]]()
        self.begun = list[dict[str, Any]]()
        self.ended = list[object]()
        self.fault: Exception | None = None

    def begin(self, run: str, **how: Any) -> None:
        if self.fault:
            raise self.fault
        self.told.setdefault(run, [])
        self.begun.append({"run": run, **how})


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service, module = Service(), ModuleType("wandb")

    class Run:
        def __init__(self, run: str) -> None:
            self.id, self.config = run, self

        def update(self, settings: dict[str, Any], allow_val_change: bool) -> None:
            service.settings[self.id] = settings

        def define_metric(self, *names: str, **how: Any) -> None:
            pass

        def log(self, values: dict[str, float]) -> None:
            service.told[self.id].append(values)

    def init(**how: Any) -> Run:
        service.begin(how["id"], **how)
        module.run = Run(how["id"])  # type: ignore[attr-defined]
        return module.run  # type: ignore[attr-defined, no-any-return]

    def finish(exit_code: int) -> None:
        module.run = None  # type: ignore[attr-defined]
        service.ended.append(exit_code)

    module.__dict__.update(init=init, finish=finish, run=None, __version__="1")
    parts = {"wandb": module, "wandb.sdk": ModuleType("sdk"), "wandb.sdk.lib": ModuleType("lib")}
    parts["wandb.sdk.lib"].RunDisabled = type("RunDisabled", (), {})  # type: ignore[attr-defined]
    parts["wandb.wandb_run"] = ModuleType("wandb_run")
    parts["wandb.wandb_run"].Run = Run  # type: ignore[attr-defined]
    for name, part in parts.items():
        monkeypatch.setitem(sys.modules, name, part)
    monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", True)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    yield service


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service()

    class Info:
        def __init__(self, run: str) -> None:
            self.run_id, self.experiment_id, self.info = run, "7", self

    class Client:
        def __init__(self, address: str) -> None:
            self.address = address

        def get_experiment_by_name(self, name: str) -> None:
            self.name = name

        def create_experiment(self, name: str, artifact_location: object) -> str:
            return "7"

        def create_run(self, experiment_id: str, tags: dict[str, str]) -> Info:
            run = f"run{len(service.told)}"
            service.begin(run, address=self.address, experiment=self.name, **tags)
            return Info(run)

        def get_run(self, run: str) -> Info:
            return Info(run)

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
            service.told[run_id] += [{"step": one["step"], one["key"]: one["value"]} for one in metrics]
            service.settings.setdefault(run_id, {}).update({one["key"]: one["value"] for one in params})

        def set_terminated(self, run: str, status: str) -> None:
            service.ended.append(status)

    parts = {name: ModuleType(name) for name in ("mlflow", "mlflow.tracking", "mlflow.entities", "mlflow.utils")}
    parts |= {f"mlflow.{name}": ModuleType(name) for name in ("utils.mlflow_tags", "tracking.context")}
    parts["mlflow"].set_tracking_uri = lambda address: None  # type: ignore[attr-defined]
    parts["mlflow.tracking"].MlflowClient = Client  # type: ignore[attr-defined]
    parts["mlflow.entities"].__dict__.update(Metric=dict, Param=dict)
    parts["mlflow.utils.mlflow_tags"].MLFLOW_RUN_NAME = "mlflow.runName"  # type: ignore[attr-defined]
    for name, part in parts.items():
        monkeypatch.setitem(sys.modules, name, part)
    monkeypatch.setattr(lightning_mlflow, "_MLFLOW_AVAILABLE", True)
    monkeypatch.setattr(lightning_mlflow, "_get_resolve_tags", lambda: lambda tags: tags)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield service


def begun(work: Path, fold: int = 0, logger: str = ALL) -> Path:
    """As `unfinished` leaves the folder of a fold before its first epoch."""
    partial = work / "runs" / "small" / f"fold{fold}.partial"
    partial.mkdir(parents=True)
    cfg = Config(name="small", train=TrainConfig(logger=logger))
    (partial / "config.json").write_text(json.dumps(to_dict(cfg)))
    return partial


def test_all_of_them_hear_every_epoch_and_a_fold_goes_on_in_its_run(
    make_store: MakeStore, tmp_path: Path, wandb: Service, mlflow: Service
) -> None:
    """Interrupted in the second epoch of three; then another fold, which has runs of its own."""
    partial = begun(tmp_path)
    first, second = (lit_of(make_store, train_config(logger=ALL)) for _ in range(2))
    step = first.training_step

    def interrupted(rows: Any, batch_idx: int) -> Any:
        if first.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(rows, batch_idx)

    first.training_step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        fit(first, partial, "small fold 0", "fp32")
    assert finished_epochs(partial / CHECKPOINT) == 1
    fit(second, partial, "small fold 0", "fp32")

    (run,) = wandb.told
    assert [row["epoch"] for row in wandb.told[run]] == [1, 2, 3]
    assert [row["loss"] for row in wandb.told[run]] == pytest.approx([row["loss"] for row in second.history])
    assert [row["trainer/global_step"] for row in wandb.told[run]] == [1, 2, 3]
    assert [one["run"] for one in wandb.begun] == [run, run] and wandb.ended == [1, 0]
    how = wandb.begun[0]
    assert (how["name"], how["group"], how["project"]) == ("small fold0", "small", "audio-tagging")
    assert Path(how["dir"]) == tmp_path and wandb.settings[run]["train"]["logger"] == ALL

    assert [*mlflow.told] == ["run0"] and len(mlflow.begun) == 1 and mlflow.ended == ["FAILED", "FINISHED"]
    assert [(row["step"], row["epoch"]) for row in mlflow.told["run0"] if "epoch" in row] == [(1, 1), (2, 2), (3, 3)]
    there = mlflow.begun[0]
    assert (there["experiment"], there["mlflow.runName"]) == ("small", "fold0")
    assert there["address"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert mlflow.settings["run0"]["model/name"] == "resnetish18"
    assert list(partial.glob("events.*")) and (partial / "metrics.csv").exists()

    fit(lit_of(make_store, train_config(epochs=1, logger=ALL)), begun(tmp_path, 1), "small fold 1", "fp32")
    assert len(wandb.told) == len(mlflow.told) == 2


@pytest.mark.parametrize("logger", ["csv", "csv,tensorboard"])
def test_what_is_not_asked_for_is_neither_imported_nor_written(
    make_store: MakeStore, tmp_path: Path, logger: str
) -> None:
    fit(lit_of(make_store, train_config(epochs=1, logger=logger)), tmp_path, "small fold 0", "fp32")
    names = {file.name.partition(".")[0] for file in tmp_path.iterdir()}
    assert names == {"last", "metrics"} | ({"events", "hparams"} if "tensorboard" in logger else set())
    assert not {"wandb", "mlflow"} & set(sys.modules)


@pytest.mark.parametrize(
    ("logger", "fact"),
    [
        ("csv,tensorbord", r"train\.logger has the unknown name 'tensorbord', did you mean 'tensorboard'\?"),
        ("csv,x", r"train\.logger has the unknown name 'x', known names: csv, tensorboard, wandb, mlflow"),
        ("tensorboard", r"train\.logger must have csv, as in csv,tensorboard: "),
        ("", r"train\.logger has the unknown name '', known names"),
        ("csv, csv", r"train\.logger must not repeat a name"),
    ],
)
def test_a_mistyped_logger_fails_at_load(tmp_path: Path, logger: str, fact: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"model: {{width: 8}}\ntrain:\n  epochs: 3\n  logger: '{logger}'\n")
    with pytest.raises(UserError, match=rf"mine\.yaml:4: {fact}"):
        load_config(file)


def test_the_default_is_no_part_of_the_hash() -> None:
    assert config_hash(TrainConfig()) == config_hash(TrainConfig(logger="csv,tensorboard")) == "de211528c6e6"
    assert config_hash(TrainConfig(logger="csv")) != config_hash(TrainConfig())
    assert TrainConfig(logger="csv, wandb").loggers == ("csv", "wandb")


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A folder that is called so is none."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(one for one in sys.path if "site-packages" not in one)])
    (tmp_path / name).mkdir()
    (tmp_path / name / "run").touch()
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(UserError, match=rf"{name} is not installed: pip install .*'{name}.*'\.\[loggers\]'"):
        check_loggers(("csv", name))
    check_loggers(("csv", "tensorboard"))


def test_a_service_that_does_not_answer_stops_before_the_first_epoch(
    make_store: MakeStore, tmp_path: Path, wandb: Service, mlflow: Service
) -> None:
    """W&B has begun, MLflow not: both are left in order, and nothing says that a run was begun there."""
    mlflow.fault = ConnectionError("no route\nto host")
    partial = begun(tmp_path)
    with pytest.raises(UserError, match=r"mlflow does not begin \(no route to host\): start its server") as caught:
        fit(lit_of(make_store, train_config(logger=ALL)), partial, "small fold 0", "fp32")
    assert "\n" not in str(caught.value) and wandb.ended == [1]
    assert not (partial / CHECKPOINT).exists() and [*json.loads((partial / IDS).read_text())] == ["wandb"]
    wandb.fault = ValueError("api_key not configured")
    with pytest.raises(UserError, match=r"wandb does not begin \(api_key not configured\): wandb login, or"):
        fit(lit_of(make_store, train_config(logger=ALL)), begun(tmp_path, 1), "small fold 1", "fp32")


def test_addresses_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: Service, mlflow: Service
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    monkeypatch.setenv("WANDB_PROJECT", "birds")
    with open_loggers(("csv", "wandb", "mlflow"), begun(tmp_path), 0) as found:
        assert len(found) == 2
    assert mlflow.begun[0]["address"] == "http://there:5000" and wandb.begun[0]["project"] == "birds"


def test_a_head_on_embeddings_has_no_epochs_to_tell_of() -> None:
    cfg = load_config(None, ["model.name=embedding:file.onnx", "train.logger=csv,wandb"])
    with pytest.raises(UserError, match=r'train\.logger="csv,wandb": not with .* use train\.logger="csv,tensorboard"'):
        heads.check_settings(cfg)
    heads.check_settings(load_config(None, ["model.name=embedding:file.onnx", "train.logger=csv"]))
