"""train.logger: what is written where, that a fold goes on in its log, and what is said where a logger is not there."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pytorch_lightning.loggers import mlflow as lightning_mlflow
from pytorch_lightning.loggers import wandb as lightning_wandb
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from configs.files import lock
from configs.load import load_config
from configs.paths import Paths
from configs.schema import Config, TrainConfig, config_hash, to_dict
from console.errors import UserError
from runs.run_folder import CHECKPOINT
from tests.conftest import MakeStore
from tests.test_lit_tagger import lit_of, train_config
from training import heads
from training.loggers import IDS, check_loggers, open_loggers
from training.parallel import jobs_on
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
        self.work = Path()
        self.in_lock = list[bool]()  # of each experiment that was made: whether other folds had to wait

    def check(self) -> None:
        if self.fault:
            raise self.fault

    def begin(self, run: str, **how: Any) -> None:
        self.check()
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
            service.check()
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
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service()
    service.work = tmp_path

    class Info:
        def __init__(self, run: str) -> None:
            self.run_id, self.experiment_id, self.info = run, "7", self

    class Client:
        def __init__(self, address: str) -> None:
            self.address = address

        def get_experiment_by_name(self, name: str) -> None:
            self.name = name

        def create_experiment(self, name: str, artifact_location: object) -> str:
            service.in_lock.append(is_locked(service.work / "mlflow.db"))
            return "7"

        def create_run(self, experiment_id: str, tags: dict[str, str]) -> Info:
            run = f"run{len(service.told)}"
            service.begin(run, address=self.address, experiment=self.name, **tags)
            return Info(run)

        def get_run(self, run: str) -> Info:
            return Info(run)

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
            if metrics:
                service.check()
            service.told[run_id] += [{"step": one["step"], one["key"]: one["value"]} for one in metrics]
            service.settings.setdefault(run_id, {}).update({one["key"]: one["value"] for one in params})

        def set_terminated(self, run: str, status: str) -> None:
            service.check()
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


def is_locked(file: Path) -> bool:
    try:
        with lock(file, "another holds it"):
            return False
    except UserError:
        return True


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
            raise KeyboardInterrupt  # what Ctrl-C is to it; a real signal could end a process of pytest-xdist
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


def test_tensorboard_forgets_what_came_after_the_last_whole_epoch(tmp_path: Path) -> None:
    with open_loggers(("csv", "tensorboard"), begun(tmp_path), 2) as (logger,):
        logger.log_metrics({"loss": 0.5}, 3)
        logger.save()
    (file,) = tmp_path.rglob("events.*")
    events = list(EventFileLoader(str(file)).Load())
    assert [one.step for one in events if one.HasField("session_log")] == [3]


@pytest.mark.parametrize("address", [None, "http://there:5000"])
def test_folds_side_by_side_begin_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow: Service, address: str | None
) -> None:
    """Else both make the tables of work/mlflow.db, which breaks it, or the experiment at a server."""
    if address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with open_loggers(("csv", "mlflow"), begun(tmp_path), 0):
        assert mlflow.in_lock == [True] and not is_locked(tmp_path / "mlflow.db")


def test_a_run_of_another_service_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow: Service
) -> None:
    """Where a server is gone for good, a fold can go on with another one."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@there:5000")
    partial = begun(tmp_path)
    for _ in range(2):
        with open_loggers(("csv", "mlflow"), partial, 0):
            pass
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with open_loggers(("csv", "mlflow"), partial, 0):
        pass
    assert [how["address"] for how in mlflow.begun] == [
        "http://me:secret@there:5000",
        f"sqlite:///{tmp_path}/mlflow.db",
    ]
    assert "secret" not in (partial / IDS).read_text()


@pytest.mark.parametrize(("name", "remedy"), [("mlflow", "start its server, or"), ("wandb", "wandb login, or")])
def test_a_service_that_is_lost_meanwhile_is_one_line(
    make_store: MakeStore, tmp_path: Path, wandb: Service, mlflow: Service, name: str, remedy: str
) -> None:
    """In the second epoch; the fold then goes on after the first."""
    partial, service = begun(tmp_path, logger=f"csv,{name}"), {"wandb": wandb, "mlflow": mlflow}[name]
    lit = lit_of(make_store, train_config(logger=f"csv,{name}"))
    step = lit.training_step

    def lost(rows: Any, batch_idx: int) -> Any:
        if lit.current_epoch == 1:
            service.fault = ConnectionError("no route\nto host")
        return step(rows, batch_idx)

    lit.training_step = lost  # type: ignore[method-assign]
    with pytest.raises(UserError, match=rf"{name} does not answer any more \(no route to host\): {remedy}.*; then run"):
        fit(lit, partial, "small fold 0", "fp32")
    assert finished_epochs(partial / CHECKPOINT) == 1


def test_wandb_that_does_not_end_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: Service) -> None:
    def finish(exit_code: int) -> None:
        sys.modules["wandb"].run = None  # type: ignore[attr-defined]
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(sys.modules["wandb"], "finish", finish)
    with (
        pytest.raises(UserError, match=r"wandb does not end \(no route to host\)"),
        open_loggers(("csv", "wandb"), begun(tmp_path), 0),
    ):
        pass
    with pytest.raises(KeyboardInterrupt), open_loggers(("csv", "wandb"), begun(tmp_path, 1), 0):
        raise KeyboardInterrupt


def test_addresses_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: Service, mlflow: Service
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    monkeypatch.setenv("WANDB_PROJECT", "birds")
    with open_loggers(("csv", "wandb", "mlflow"), begun(tmp_path), 0) as found:
        assert len(found) == 2
    assert mlflow.begun[0]["address"] == "http://there:5000" and wandb.begun[0]["project"] == "birds"


def test_jobs_on_a_cluster_are_told_the_addresses_but_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would silently write into work/mlflow.db, or another project."""
    given = dict[str, str]()

    @contextmanager
    def on_cluster(on: str, paths: Paths, environment: dict[str, str]) -> Iterator[None]:
        given.update(environment)
        yield

    monkeypatch.setattr("configs.cluster.on_cluster", on_cluster)
    there = {"MLFLOW_TRACKING_URI": "http://there:5000", "WANDB_PROJECT": "birds", "WANDB_MODE": "offline"}
    for name, value in {**there, "WANDB_API_KEY": "secret", "MLFLOW_TRACKING_PASSWORD": "secret"}.items():
        monkeypatch.setenv(name, value)
    with jobs_on("ray", Paths(tmp_path, tmp_path)):
        pass
    assert there.items() <= given.items() and "secret" not in given.values()


def test_a_head_on_embeddings_has_no_epochs_to_tell_of() -> None:
    cfg = load_config(None, ["model.name=embedding:file.onnx", "train.logger=csv,wandb"])
    with pytest.raises(UserError, match=r'train\.logger="csv,wandb": not with .* use train\.logger="csv,tensorboard"'):
        heads.check_settings(cfg)
    heads.check_settings(load_config(None, ["model.name=embedding:file.onnx", "train.logger=csv"]))
