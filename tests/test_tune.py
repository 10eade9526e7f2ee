"""tune.py: real training on a tiny competition, and its command line."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import tune
from configs.load import load_config
from configs.paths import Paths
from configs.schema import Config, from_dict
from console.errors import UserError
from tests.test_pipeline import imported, refused, run, start, stop_at
from training.experiment_data import Data, load_data
from training.train import train_folds
from tuning.search_space import load_space
from tuning.study import Plan, finished, open_study

BASE = Path("configs/demo_resnetish.yaml")
TINY = ("model.width=8", "train.epochs=2", "folds.n_folds=2", "train.crop_seconds=0.5", "predict.window_seconds=1")
SPACE = "train.lr: {log: [1e-3, 1e-2]}\nmodel.dropout: {uniform: [0, 0.5]}\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from input.demo import make_demo

    folder = tmp_path_factory.mktemp("input") / "tiny"
    make_demo(folder, train_per_class=4, test_per_class=1)
    return folder


def plan_of(tmp_path: Path, space: str = SPACE, trials: int = 2, folds: tuple[int, ...] = (0,)) -> Plan:
    (tmp_path / "space.yaml").write_text(space)
    return Plan(BASE, TINY, load_space(tmp_path / "space.yaml", BASE, TINY), folds, trials)


def test_a_trial_scores_what_training_it_scores(tmp_path: Path, tiny: Path) -> None:
    """Fold by fold, to the last bit; the search itself reads no test clip and leaves no run."""
    paths = Paths(tiny, tmp_path / "work")
    tune.tune(plan_of(tmp_path, folds=(0, 1)), "s", paths)
    assert not paths.runs.exists()
    assert len([store for store in paths.features.iterdir() if store.is_dir()]) == 1  # of the training clips
    study = open_study(paths.studies / "s")
    assert len(finished(study)) == 2
    cfg = load_config(paths.studies / "s/best.yaml")
    scores = study.best_trial.user_attrs["scores"]
    assert train_folds(cfg, [0, 1], paths) == [scores["0"], scores["1"]]
    assert len([store for store in paths.features.iterdir() if store.is_dir()]) == 2


def test_a_trial_has_its_own_copies_at_other_speeds(tmp_path: Path, tiny: Path) -> None:
    """Trial by trial the search trains as train_fold.py does, though trials share what they can."""
    paths = Paths(tiny, tmp_path / "work")
    tune.tune(plan_of(tmp_path, "train.speeds: {choice: [[], [1.1]]}", trials=6), "s", paths)
    trials = {trial.params["train.speeds"]: trial for trial in finished(open_study(paths.studies / "s"))}
    assert set(trials) == {"[]", "[1.1]"}
    for i, trial in enumerate(trials.values()):
        cfg = from_dict(trial.user_attrs["config"] | {"name": f"trial{i}"})
        assert train_folds(cfg, [0], paths) == [trial.value]
    assert trials["[]"].value != trials["[1.1]"].value


def test_a_trial_scores_by_the_metric_of_the_competition(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(cfg: Config, folds: list[int], paths: Paths) -> Data:
        data = load_data(cfg, folds, paths)
        return replace(data, competition=replace(data.competition, metric="accuracy"))

    paths = Paths(tiny, tmp_path / "work")
    monkeypatch.setattr("training.experiment_data.load_data", load)
    tune.tune(plan_of(tmp_path, trials=1), "s", paths)
    (trial,) = finished(open_study(paths.studies / "s"))
    n_clips = (load_data(load_config(BASE, TINY), [0], paths).folds["fold"] == 0).sum()
    assert trial.value is not None and (trial.value * n_clips) % 1 == pytest.approx(0)
    assert f", out-of-fold accuracy {trial.value:.4f} (fold 0" in (paths.studies / "s/best.yaml").read_text()
    with pytest.raises(UserError, match=r"s was started with another metric: choose another --name"):
        monkeypatch.undo()
        tune.tune(plan_of(tmp_path, trials=2), "s", paths)


def test_a_finished_study_runs_no_trial(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = Paths(tiny, tmp_path / "work")
    tune.tune(plan_of(tmp_path, trials=1), "s", paths)
    capsys.readouterr()
    tune.tune(plan_of(tmp_path, trials=1), "s", paths)
    said = capsys.readouterr().out
    assert "1 trial finished before: use a larger --trials for more" in said and "trial 1:" not in said
    tune.tune(plan_of(tmp_path, trials=2), "s", paths)
    assert "continuing after 1 of 2 trials" in capsys.readouterr().out


def test_a_training_that_diverges_is_a_bad_trial(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base config is the first trial although it is none of the choices."""
    paths = Paths(tiny, tmp_path / "work")
    tune.tune(plan_of(tmp_path, "train.lr: {choice: [1e25, 1e30]}", trials=2), "s", paths)
    message = (
        'the base config lies outside of the search space, but is still the first trial: train.lr: 0.004, not in {"ch'
    )
    assert message in capsys.readouterr().out
    base, trial = finished(open_study(paths.studies / "s"))
    assert base.value is not None and base.user_attrs["config"]["train"]["lr"] == 4e-3
    assert trial.user_attrs["note"].startswith("diverged in epoch ")


def test_settings_that_do_not_fit_together_are_a_bad_trial(tmp_path: Path, tiny: Path) -> None:
    """Each fits with the base value of the other."""
    paths = Paths(tiny, tmp_path / "work")
    space = "model.name: {choice: [alexnet, cnn14]}\nmodel.pooling: {choice: [attention, avg_max]}"
    tune.tune(plan_of(tmp_path, space, trials=3), "s", paths)
    for trial in finished(open_study(paths.studies / "s"))[1:]:  # after the base config
        assert "has its own pooling" in trial.user_attrs["note"]


def test_other_sound_or_another_base_is_an_error(tmp_path: Path, tiny: Path) -> None:
    paths = Paths(Path(shutil.copytree(tiny, tmp_path / "input")), tmp_path / "work")
    tune.tune(plan_of(tmp_path, trials=1), "s", paths)
    plan = plan_of(tmp_path)
    with pytest.raises(UserError, match=r"s was started with another base config \(train\.epochs: 2 -> 3\)"):
        tune.tune(Plan(BASE, (*TINY, "train.epochs=3"), plan.space, (0,), 2), "s", paths)
    clip = min((paths.input / "audio_train").iterdir())
    clip.write_bytes(clip.read_bytes() + b"\0\0")
    with pytest.raises(UserError, match="s was started with other sound files"):
        tune.tune(plan, "s", paths)
    assert len(open_study(paths.studies / "s").trials) == 1


def test_a_study_is_made_from_the_corrections_too(tmp_path: Path, tiny: Path) -> None:
    """From the content of the file, not only its name."""
    file, clip = tmp_path / "corrections.csv", next((tiny / "audio_train").iterdir()).name
    cfg, paths = load_config(BASE, [*TINY, f"input.corrections={file}"]), Paths(tiny, tmp_path / "work")
    facts = []
    for label in ("Bell", "Bell", "Siren"):
        file.write_text(f"fname,label\n{clip},{label}\n")
        facts.append(tune.facts_of(load_data(cfg, [0], paths), paths))
    assert facts[0] == facts[1] != facts[2]


def test_a_network_that_does_not_exist_is_named_before_any_work(tmp_path: Path, tiny: Path) -> None:
    paths = Paths(tiny, tmp_path / "work")
    plan = plan_of(tmp_path, "\nmodel.name: {choice: [resnetish10, resnetish19]}")
    with pytest.raises(UserError, match=r"space\.yaml:2: model\.name: no network 'resnetish19'"):
        tune.tune(plan, "s", paths)
    assert not paths.features.exists() and open_study(paths.studies / "s").trials == []


def words(tmp_path: Path, tiny: Path, *more: object) -> list[object]:
    (tmp_path / "space.yaml").write_text(SPACE)
    given = ["tune.py", "--config", BASE, "--space", tmp_path / "space.yaml", "--input", tiny, "--work", tmp_path]
    return [*given, *more, *TINY]


def test_two_processes_share_a_study_and_an_interrupted_one_continues(tmp_path: Path, tiny: Path) -> None:
    import signal

    begun = start(*words(tmp_path, tiny, "--workers", 2, "--trials", 40))
    out, err = stop_at(begun, "trial ", signal.SIGINT)
    assert begun.returncode == 130 and err.splitlines()[-1] == "interrupted: run the same command to continue", err
    assert "Traceback" not in err
    folder = tmp_path / "studies/demo_resnetish-space"
    done = len(finished(open_study(folder)))
    assert out.count("trial ") >= 1 and 1 <= done < 40
    again = run(*words(tmp_path, tiny, "--trials", done + 2))
    assert again.returncode == 0, again.stderr
    assert f"continuing after {done} of {done + 2} trials" in again.stdout and "biased upwards" in again.stdout
    assert len(finished(open_study(folder))) == done + 2
    assert (folder / "best.yaml").exists() and not list((folder / "workers").iterdir())
    (folder / "best.yaml").unlink()
    message = run("tune.py", "--report", "--name", folder.name, "--work", tmp_path)
    assert message.returncode == 0 and (folder / "best.yaml").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--trials", "0"], "--trials 0: must be at least 1"),
        (["--workers", "0"], "--workers 0: expected auto or a number from 1 on"),
        (["--folds", "2"], "--folds 2: folds go from 0 to 1"),
        (["--name", "a/b"], "name may only have letters, digits"),
        (["pseudo.runs=[one]"], "pseudo.runs: a search never uses test clips"),
        (["train.lrr=1"], "command line: unknown key 'train.lrr', did you mean 'train.lr'?"),
        (["--report"], "no study here"),
    ],
)
def test_an_error_is_one_line_and_leaves_no_files(
    tmp_path: Path, tiny: Path, more: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", list(map(str, words(tmp_path, tiny, *more))))
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        tune.main()
    assert [file.name for file in tmp_path.iterdir()] == ["space.yaml"]


def test_a_mistyped_key_names_its_line(tmp_path: Path, tiny: Path) -> None:
    given = words(tmp_path, tiny)
    (tmp_path / "space.yaml").write_text("train.lr: {log: [1e-3, 1e-2]}\nmodel.dropuot: {uniform: [0, 0.5]}\n")
    message = refused(*given)
    assert f"{tmp_path}/space.yaml:2: unknown key 'model.dropuot', did you mean 'model.dropout'?" in message
    assert "--space is missing" in refused("tune.py")


def test_help_is_fast_and_warns_of_the_bias() -> None:
    found = run("-X", "importtime", "tune.py", "--help")
    assert found.returncode == 0 and "python tune.py" in found.stdout and "biased upwards" in found.stdout
    assert not imported(found.stderr, "torch", "pytorch_lightning", "pandas", "numpy", "pydantic", "optuna", "yaml")
