"""best.yaml, trials.csv and the pictures of a study of known scores."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import optuna
import pandas as pd
import pytest
from matplotlib.image import imread

from configs.load import load_config
from configs.schema import Config, from_dict
from console.errors import UserError
from tuning.search_space import load_space
from tuning.study import Objective, Plan, Report, TrialFailed, best_trial, finished, open_study, search
from tuning.study_report import parameter_importances, write_report

SPACE = """train.lr: {log: [1e-6, 1e-1]}
model.dropout: {uniform: [0, 0.5]}
train.speeds: {choice: [[], [0.9, 1.1]]}
features.trim_db: {choice: [null, 60]}
"""


def study_of(
    tmp_path: Path, objective: Objective, trials: int, space: str = SPACE, changes: tuple[str, ...] = ()
) -> optuna.Study:
    (tmp_path / "space.yaml").write_text(space)
    base = Path("configs/demo_resnetish.yaml")
    plan = Plan(base, changes, load_space(tmp_path / "space.yaml", base, changes), (0, 1), trials)
    where = {"input": "in put", "work": "w"}
    study = open_study(tmp_path / "s", plan.facts() | {"fold_hash": "f", "sound_hash": "s", "where": where}, plan)
    search(tmp_path / "s", study, plan, objective)
    return study


def by_dropout(cfg: Config, fold: int, report: Report) -> float:
    """0.5 to 1, by dropout alone; a high rate diverges."""
    if cfg.train.lr > 0.03:
        raise TrialFailed("diverged, in epoch 1")
    report(1, cfg.model.dropout)
    return 0.5 + cfg.model.dropout - fold / 10


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, optuna.Study]:
    root = tmp_path_factory.mktemp("search")
    study = study_of(root, by_dropout, 14)
    write_report(root / "s", study)
    return root / "s", study


def test_best_yaml_is_the_best_trial(study: tuple[Path, optuna.Study]) -> None:
    folder, found = study
    best = best_trial(found)
    assert best is not None
    cfg = load_config(folder / "best.yaml")
    assert cfg.name == "s-best"
    there = from_dict(best.user_attrs["config"] | {"name": "s-best"})
    assert cfg == there and cfg.model.dropout == best.params["model.dropout"]


def test_best_yaml_opens_with_its_command_and_names_differences_only(study: tuple[Path, optuna.Study]) -> None:
    folder, found = study
    first, second, *rest = (folder / "best.yaml").read_text().splitlines()
    where = f"--config {folder}/best.yaml --input 'in put' --work w train.seed=1"
    assert first == f"# python train_fold.py --fold 0..4 {where}"
    assert f"of 14, out-of-fold MAP@3 {found.best_value:.4f} (fold 0,1, seed 0): biased upwards by selection" in second
    assert "padding" not in "".join(rest) and "seed" not in "".join(rest)
    assert any(line.startswith("model: {name: resnetish10, width: 16, dropout: 0.") for line in rest)


def test_the_table_has_a_row_per_finished_trial(study: tuple[Path, optuna.Study]) -> None:
    folder, found = study
    table = pd.read_csv(folder / "trials.csv")
    trials = finished(found)
    assert list(table["trial"]) == [trial.number for trial in trials] == list(range(14))
    whole = table[table["state"] == "complete"]
    assert whole["map3"].to_numpy() == pytest.approx(0.45 + whole["model.dropout"].to_numpy())
    assert (whole["fold0"] - whole["fold1"]).to_numpy() == pytest.approx(0.1)
    assert set(whole["train.speeds"]) <= {"[]", "[0.9, 1.1]"}
    assert (table["note"] == "diverged, in epoch 1").tolist() == (table["train.lr"] > 0.03).tolist()


def test_the_setting_that_decides_the_score_is_the_most_important(study: tuple[Path, optuna.Study]) -> None:
    importances = parameter_importances(study[1])
    assert next(iter(importances)) == "model.dropout" and importances["model.dropout"] > 0.5
    assert sum(importances.values()) == pytest.approx(1)


def test_the_pictures_are_pictures(study: tuple[Path, optuna.Study]) -> None:
    for name in ("history", "slices", "importances"):
        image = imread(study[0] / f"{name}.png")
        assert image.shape[0] > 100 and len(set(image[..., :3].reshape(-1, 3).sum(axis=1).tolist())) > 10


@pytest.mark.filterwarnings("error")
def test_pictures_cause_no_warning_and_change_no_setting(tmp_path: Path) -> None:
    """Of one trial, too, whose settings have one value each."""
    one = study_of(tmp_path, lambda cfg, fold, report: 0.5, 1)
    style = dict(matplotlib.rcParams)
    write_report(tmp_path / "s", one)
    assert {file.name for file in (tmp_path / "s").glob("*.png")} == {"history.png", "slices.png"}
    assert plt.get_fignums() == []
    matplotlib.rcParams["backend"] = style["backend"]
    assert dict(matplotlib.rcParams) == style


def test_the_report_says_that_the_best_score_is_biased(
    study: tuple[Path, optuna.Study], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, found = study
    before = {file.name: file.read_bytes() for file in folder.glob("*.[yc]*")}
    write_report(folder, found)
    assert f"out-of-fold MAP@3 {found.best_value:.4f}\nthis score is biased upwards" in capsys.readouterr().out
    assert {file.name: file.read_bytes() for file in folder.glob("*.[yc]*")} == before
    assert not list(folder.glob("*.part"))


def test_without_a_complete_trial_there_is_only_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def failing(cfg: Config, fold: int, report: Report) -> float:
        raise TrialFailed("out of memory")

    write_report(tmp_path / "s", study_of(tmp_path, failing, 2))
    assert "2 trials finished, none complete" in capsys.readouterr().out
    assert {file.name for file in (tmp_path / "s").glob("*.*")} - {
        "journal.log",
        ".journal.log.lock",
        ".study.lock",
    } == {"trials.csv"}


def test_too_few_scores_have_no_importances(tmp_path: Path) -> None:
    same = study_of(tmp_path, lambda cfg, fold, report: 0.5, 6)
    assert parameter_importances(same) == {}
    write_report(tmp_path / "s", same)
    assert (tmp_path / "s/best.yaml").exists() and not (tmp_path / "s/importances.png").exists()


def test_a_base_config_outside_of_the_space_is_reported_with_its_own_values(tmp_path: Path) -> None:
    """Dropout 0.9 and a list that is no choice, the best of all; importances are those of what was searched."""
    space = SPACE + "train.crop_seconds_min: {uniform: [0.1, 0.4]}\n"
    changes = ("model.dropout=0.9", "train.speeds=[1.2]")
    found = study_of(tmp_path, by_dropout, 12, space, changes)
    write_report(tmp_path / "s", found)
    best = best_trial(found)
    assert best is not None and best.number == 0 and best.value == pytest.approx(1.35)
    cfg = load_config(tmp_path / "s/best.yaml")
    assert (cfg.model.dropout, cfg.train.speeds, cfg.train.crop_seconds_min) == (0.9, (1.2,), None)
    table = pd.read_csv(tmp_path / "s/trials.csv")
    assert table["model.dropout"][0] == 0.9 and table["train.speeds"][0] == "[1.2]"
    assert table["train.crop_seconds_min"].isna().tolist() == [True] + [False] * 11
    assert set(parameter_importances(found)) == {line.partition(":")[0] for line in space.splitlines()}
    assert all((tmp_path / f"s/{name}.png").exists() for name in ("history", "slices", "importances"))


def test_a_study_that_was_killed_at_its_start_has_nothing_to_report(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "journal.log").touch()
    with pytest.raises(UserError, match="has no trials yet"):
        write_report(tmp_path / "s", open_study(tmp_path / "s"))
