"""The ablation: exact noise, differences by hand, runs that continue, and settings that exist."""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ablation import job_queue as trials
from ablation import run as ablation
from ablation.effects import effect, rows_of, write_report
from ablation.job import Id, Trial
from ablation.job_queue import make_trials, open_data, run_all, to_do
from ablation.noisy_labels import noisy_labels, write_noisy
from ablation.techniques import Comparison, Plan, config_of, read_plan
from configs.schema import Config, to_dict
from console.errors import UserError
from input.competition import load_competition
from input.demo import make_demo

TECHNIQUES = Path(__file__).parents[1] / "ablation" / "techniques.yaml"
TINY = """
base:
  features: {sample_rate: 16000, f_max: 8000, hop_length: 320, n_fft: 512, n_mels: 24}
  folds: {n_folds: 2}
  model: {name: resnetish10, width: 8}
  train: {epochs: 1, batch_size: 16, crop_seconds: 1.0, precision: fp32, device: cpu}
  predict: {window_seconds: 1.0}
techniques:
  mixup: {conditions: [clean, noisy], set: {augment.mixup_alpha: 0.4}}
  short_windows: {set: {predict.window_seconds: 0.5}}
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo competition with only verified labels."""
    folder = tmp_path_factory.mktemp("ablation") / "tiny"
    make_demo(folder, train_per_class=4, test_per_class=1)
    for name in ("train.csv", "train_post_competition.csv"):
        pd.read_csv(folder / name).assign(manually_verified=1).to_csv(folder / name, index=False)
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


def clips(n: int) -> pd.DataFrame:
    labels = [("Bark", "Gong", "Meow", "Flute")[i % 4] for i in range(n)]
    return pd.DataFrame(
        {
            "fname": [f"{i}.wav" for i in range(n)],
            "label": labels,
            "verified": True,
            "freesound_id": [i // 3 for i in range(n)],
        }
    )


def test_noise_is_exact_and_never_the_truth() -> None:
    train = clips(200)
    noisy = noisy_labels(train, seed=0)
    wrong = noisy["label"] != train["label"]
    assert (~noisy["verified"]).sum() == 120  # 60 % of 200
    assert wrong.sum() == 30  # a quarter of them
    assert not (wrong & noisy["verified"]).any()
    assert set(noisy["label"][wrong]) == {"Bark", "Gong", "Meow", "Flute"}
    for column in ("fname", "freesound_id"):
        assert noisy[column].equals(train[column])


def test_noise_is_the_same_everywhere_and_another_with_another_seed() -> None:
    """Pinned, because results with other draws cannot be compared."""
    train = clips(10)
    noisy = noisy_labels(train, seed=0)
    assert noisy.loc[~noisy["verified"], "fname"].tolist() == ["0.wav", "1.wav", "2.wav", "3.wav", "6.wav", "8.wav"]
    assert noisy["label"][noisy["label"] != train["label"]].to_dict() == {0: "Flute", 1: "Flute"}
    turned = noisy_labels(train[::-1], seed=0)[::-1]
    pd.testing.assert_frame_equal(turned, noisy)
    assert not noisy_labels(train, seed=1)["verified"].equals(noisy["verified"])


def test_the_noisy_competition_has_the_same_sound_recordings_and_clips(clean: Path, tmp_path: Path) -> None:
    competition = load_competition(clean)
    write_noisy(competition, tmp_path / "noisy", seed=0)
    before = (tmp_path / "noisy" / "train.csv").stat().st_mtime_ns
    write_noisy(competition, tmp_path / "noisy", seed=0)
    assert (tmp_path / "noisy" / "train.csv").stat().st_mtime_ns == before
    found = load_competition(tmp_path / "noisy")
    assert found.classes == competition.classes
    assert (~found.train["verified"]).sum() == round(0.6 * len(found.train))
    pd.testing.assert_frame_equal(found.train[["fname", "freesound_id"]], competition.train[["fname", "freesound_id"]])
    assert [os.path.realpath(p) for p in found.train["path"]] == [
        os.path.realpath(p) for p in competition.train["path"]
    ]
    assert found.test["fname"].equals(competition.test["fname"])
    assert (tmp_path / "noisy" / "audio_train").is_symlink()


def test_noise_needs_true_labels(clean: Path, tmp_path: Path) -> None:
    competition = load_competition(clean)
    competition.train.loc[0, "verified"] = False
    with pytest.raises(UserError, match="1 label not verified"):
        write_noisy(competition, tmp_path / "noisy", seed=0)
    assert not (tmp_path / "noisy").exists()


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


PLAN = read_plan(TECHNIQUES)


@pytest.mark.parametrize("name", PLAN.recipes)
def test_every_recipe_is_a_config_and_every_technique_changes_what_it_says(name: str) -> None:
    recipe = PLAN.recipes[name]
    voters = dict.fromkeys(recipe.votes, "voter-0123")
    cfg = config_of(recipe, 7, "any", voters)
    assert (cfg.train.seed, cfg.name, cfg.pseudo.runs) == (7, "any", tuple(voters.values()))
    for comparison in PLAN.comparisons:
        if comparison.on == name:
            off = PLAN.recipes[comparison.off]
            other = config_of(off, 7, "any", dict.fromkeys(off.votes, "voter"))
            assert to_dict(other) != to_dict(cfg)


def test_every_technique_of_the_schema_is_tried() -> None:
    """A new key of the schema needs a technique here, or a place in the list below."""
    tried = {key for recipe in PLAN.recipes.values() for key in recipe.settings}
    no_technique = {
        "name", "input.skip_unreadable", "input.corrections", "augment.extra", "augment.wave", "train.loss",
        "features.log_floor", "features.f_min", "features.speed",
        "features.win_length", "features.window", "features.framing", "features.pre_emphasis", "features.clamp_floor",
        "features.top_db", "features.int16_scale", "train.fixed_mean", "train.fixed_std",  # of published networks
        "train.accumulate", "train.clip_norm", "train.checkpointing", "model.partial_weights",  # memory, safety
        "augment.mixup_labels", "train.focal_gamma", "train.positive_weight", "pseudo.power",  # several labels
        "model.head", "model.output", "model.clip_pooling",  # of frozen networks
        "train.teacher", "train.teacher_weight", "train.teacher_temperature",  # needs a finished experiment
        "folds.n_folds", "folds.group_column", "folds.seed", "model.pretrained", "train.weight_decay",
        "train.warmup", "train.seed", "train.logger", "train.channels_last", "train.compile", "predict.batch_size",
    }  # fmt: skip
    assert set(flat(to_dict(Config()))) - tried == no_technique


def test_label_techniques_are_tried_on_noisy_labels_only() -> None:
    for recipe in PLAN.recipes.values():
        if any(key.startswith(("train.unverified", "train.finetune")) for key in recipe.settings):
            assert recipe.conditions == ("noisy",)


def test_the_good_recipe_is_all_and_each_is_left_out_once() -> None:
    good = PLAN.recipes["good"].settings
    for comparison in PLAN.comparisons:
        if comparison.on == "good" and comparison.off != "plain":
            left = comparison.name.removesuffix(" in good")
            own = {k for k in PLAN.recipes[left].settings if k not in PLAN.recipes["plain"].settings}
            assert set(good) - set(PLAN.recipes[comparison.off].settings) == own


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("mixup: {set: {augment.mixupalpha: 1}}", r"bad: unknown key 'augment\.mixupalpha', did you mean"),
        ("mixup: {set: {train.seed: 1}}", r"sets train\.seed, which must be equal in all runs"),
        ("mixup: {set: {train.epochs: 2}, conditions: [loud]}", "expected a list of clean and noisy"),
        ("mixup: {set: {train.epochs: 2}, against: other}", "against 'other', which is not defined above"),
        ("mixup: {set: {train.epochs: 2}, conditons: [clean]}", "expected 'set'"),
        ("mixup: {set: {pseudo.runs: [other]}}", "needs other, which is not defined above"),
    ],
)
def test_an_error_in_the_techniques_names_file_and_technique(tmp_path: Path, text: str, fact: str) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(f"base: {{}}\ntechniques:\n  {text}\n")
    with pytest.raises(UserError, match=fact.replace("bad", "mixup")) as caught:
        read_plan(file)
    assert str(caught.value).startswith(f"{file}: mixup: ")


def result(map3: float, seconds: float, **more: float) -> dict[str, float]:
    return {"map3": map3, "seconds": seconds, **more}


def test_a_difference_by_hand() -> None:
    """Differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, error 0.1 / sqrt 3; the fourth fold has no partner."""
    results = {
        **{Id("clean", "off", k, k): result(score, 10) for k, score in enumerate((0.5, 0.6, 0.4))},
        **{Id("clean", "on", k, k): result(score, s) for k, (score, s) in enumerate(((0.6, 11), (0.8, 30), (0.7, 12)))},
        Id("clean", "on", 3, 3): result(0.0, 1000),
        Id("noisy", "on", 0, 0): result(0.0, 1000),
    }
    found = effect(Comparison("t", "on", "off", ("clean",)), "clean", results)
    assert found is not None
    assert (found.n, found.predicts, found.equal, found.verdict) == (3, False, False, "helps")
    assert (found.off, found.difference, found.time) == pytest.approx((0.5, 0.2, 1.2))
    assert found.se == pytest.approx(0.1 / math.sqrt(3))
    assert effect(Comparison("t", "on", "off", ("noisy",)), "noisy", results) is None


@pytest.mark.parametrize(
    ("difference", "se", "n", "equal", "verdict"),
    [
        (0.021, 0.01, 5, False, "helps"),
        (-0.021, 0.01, 5, False, "hurts"),
        (0.019, 0.01, 5, False, "no difference shown"),
        (-0.019, 0.01, 5, False, "no difference shown"),
        (0.0, 0.0, 5, True, "changes nothing"),
        (0.5, 0.01, 2, False, "too few runs"),
        (0.5, math.nan, 1, False, "too few runs"),
    ],
)
def test_a_verdict_needs_two_standard_errors(difference: float, se: float, n: int, equal: bool, verdict: str) -> None:
    from ablation.effects import Effect

    assert Effect(0.5, difference, se, n, 1.0, False, equal).verdict == verdict


def test_the_table(tmp_path: Path) -> None:
    plan = Plan(
        comparisons=[
            Comparison("roll", "roll", "plain", ("clean",), "a note"),
            Comparison("x", "x", "plain", ("clean",)),
        ]
    )
    results = {Id("clean", "plain", 0, 0): result(0.5, 10), Id("clean", "roll", 0, 0): result(0.52, 2, ratio=1.9)}
    rows = rows_of(plan, "clean", results)
    assert rows == [["roll", "0.5000", "+0.0200", "", "1", "1.90 of prediction", "too few runs", "a note"]]
    write_report(tmp_path / "R.md", "About.", {"clean": rows, "noisy": []})
    text = (tmp_path / "R.md").read_text()
    assert "\n## clean\n\n| technique | off |" in text
    assert "noisy" not in text
    assert "| roll | 0.5000 | +0.0200 |" in text


class Inline:
    """A pool without processes: `submit` does the work at once."""

    def submit(self, work: Callable[..., str], *args: Any) -> Future[str]:
        done: Future[str] = Future()
        done.set_result(work(*args))
        return done


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "worker_processes", lambda *_, **__: contextlib.nullcontext(Inline()))


def command(clean: Path, tiny: Path, **changed: Any) -> argparse.Namespace:
    folder = tiny.parent
    values = {"input": clean, "work": folder / "work", "on": None, "techniques": tiny, "results": folder / "R.md"}
    defaults = {"only": None, "conditions": "clean,noisy", "seeds": 1, "jobs": 2, "report": False, "described_by": None}
    return argparse.Namespace(**{**values, **defaults, **changed})


def all_trials(clean: Path, tiny: Path) -> list[Trial]:
    plan, work = read_plan(tiny), tiny.parent / "work" / "ablation"
    work.mkdir(parents=True, exist_ok=True)
    return make_trials(plan, list(plan.recipes.values()), open_data(clean, work), 1, work)


def test_all_steps_and_continuing(clean: Path, tiny: Path, capsys: pytest.CaptureFixture[str], inline: None) -> None:
    ablation.ablate(command(clean, tiny))
    capsys.readouterr()
    found = all_trials(clean, tiny)
    assert [trial.id for trial in found] == [
        (condition, recipe, k, k)
        for k in (0, 1)
        for recipe in ("plain", "mixup", "short_windows")
        for condition in (("clean",) if recipe == "short_windows" else ("clean", "noisy"))
    ]
    assert to_do(found) == []
    results = {trial.id: trial.result() or {} for trial in found}
    truth = len(load_competition(clean).train)
    assert sum(r["clips"] for (c, name, *_), r in results.items() if (c, name) == ("clean", "plain")) == truth
    assert all(r["map3"] == r["map3_given"] for (c, *_), r in results.items() if c == "clean")
    assert any(r["map3"] != r["map3_given"] for (c, *_), r in results.items() if c == "noisy")
    work = tiny.parent / "work" / "ablation"
    assert {run.name.partition("-")[0] for run in (work / "runs").iterdir()} == {
        "plain"
    }  # short_windows predicts with it
    assert not list(work.rglob("*.log"))

    found[2].file.unlink()  # clean mixup, fold 0: trained again, and nothing else
    table = (tiny.parent / "R.md").read_text()
    others = {trial.file: trial.file.stat().st_mtime_ns for trial in found if trial.id != found[2].id}
    assert [trial.id for trial in to_do(found)] == [("clean", "mixup", 0, 0)]
    (tiny.parent / "R.md").unlink()
    ablation.ablate(command(clean, tiny, jobs=1, only="mixup", conditions="clean"))
    assert "4 runs, 3 of them finished" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in others} == others
    scores = (trial.result() or {} for trial in found)
    assert [r["map3"] for r in scores] == [r["map3"] for r in results.values()]
    assert [
        line.split("|")[:6] for line in (tiny.parent / "R.md").read_text().splitlines() if line.startswith("| mixup")
    ] == [line.split("|")[:6] for line in table.splitlines() if line.startswith("| mixup")]


def test_a_changed_technique_alone_is_run_again(clean: Path, tiny: Path) -> None:
    before = all_trials(clean, tiny)
    for trial in before:
        trial.file.parent.mkdir(parents=True, exist_ok=True)
        trial.file.write_text(json.dumps({"key": trial.key}))
        trial.run.mkdir(parents=True, exist_ok=True)
        (trial.run / "manifest.json").touch()
    assert to_do(before) == []
    tiny.write_text(TINY.replace("mixup_alpha: 0.4", "mixup_alpha: 0.5"))
    assert {trial.id[1] for trial in to_do(all_trials(clean, tiny))} == {"mixup"}
    tiny.write_text(TINY.replace("window_seconds: 0.5", "window_seconds: 0.6"))
    shutil.rmtree(before[0].run)  # the weights of plain, clean, fold 0 are needed, so it is trained again
    again = {trial.id for trial in to_do(all_trials(clean, tiny))}
    assert again == {("clean", "short_windows", 0, 0), ("clean", "short_windows", 1, 1), ("clean", "plain", 0, 0)}


def test_other_labels_are_other_runs(clean: Path, tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(clean, other)
    assert [t.key for t in all_trials(other, tiny)] == [t.key for t in all_trials(clean, tiny)]
    table = pd.read_csv(other / "train.csv")
    table.loc[0, "label"] = table["label"][table["label"] != table["label"][0]].iloc[0]
    table.to_csv(other / "train.csv", index=False)
    keys = {t.id: t.key for t in all_trials(clean, tiny)}
    assert all(keys[t.id] != t.key for t in all_trials(other, tiny))


def test_a_failed_run_is_reported_and_the_others_continue(
    clean: Path, tiny: Path, capsys: pytest.CaptureFixture[str], inline: None
) -> None:
    """plain cannot be written, so short_windows, which needs it, fails too; mixup does not."""
    found = [trial for trial in all_trials(clean, tiny) if trial.id[0] == "clean" and trial.id[2] == 0]
    bad = found[0].paths.runs / found[0].cfg.name
    bad.parent.mkdir(parents=True)
    bad.write_text("in the way")
    failed = run_all(found, 1)
    assert len(failed) == 2
    assert failed[0].startswith("clean plain fold 0 seed 0: ")
    assert failed[1] == "clean short_windows fold 0 seed 0: needs plain, which failed"
    assert found[1].result()
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert found[0].file.with_suffix(".log").exists()


def test_a_killed_process_loses_no_other_run(tiny: Path, clean: Path) -> None:
    found = [trial for trial in all_trials(clean, tiny) if trial.id[:3:2] == ("clean", 0)][:2]
    deadly = dataclasses.replace(found[0], cfg=Exit())  # type: ignore[arg-type]
    failed = run_all([deadly, found[1]], 1)
    assert failed == ["clean plain fold 0 seed 0: its process died"]
    assert found[1].result()


class Exit:
    """Unpickled in the worker, it ends it."""

    name = "any"

    def __reduce__(self) -> Any:
        return os._exit, (3,)


def test_another_metric_of_the_competition_is_named(
    clean: Path, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.parent.joinpath("work").mkdir()
    open_data(clean, tiny.parent / "work")
    assert "MAP@3" not in capsys.readouterr().out
    competition = dataclasses.replace(load_competition(clean), metric="accuracy")
    monkeypatch.setattr("input.competition.load_competition", lambda *_, **__: competition)
    open_data(clean, tiny.parent / "work")
    assert f"{clean}: the ablation compares MAP@3, not the competition's accuracy\n" in capsys.readouterr().out


def test_unknown_names_are_errors(clean: Path, tiny: Path) -> None:
    with pytest.raises(UserError, match="--only: no roll: use 2: mixup, short_windows"):
        ablation.ablate(command(clean, tiny, only="mixup,roll"))
    with pytest.raises(UserError, match="--conditions: no loud"):
        ablation.ablate(command(clean, tiny, conditions="loud"))


def test_a_competition_that_as_describes(clean: Path, tiny: Path) -> None:
    """Under other headers, with groups: both conditions hold the same clips in the same groups."""
    folder = tiny.parent / "described"
    shutil.copytree(clean, folder)
    (folder / "train_post_competition.csv").unlink()
    table = pd.read_csv(folder / "train.csv").rename(columns={"label": "kind"})
    table.assign(author=[f"a{i // 2}" for i in range(len(table))]).to_csv(folder / "train.csv", index=False)
    lines = "columns: {name: fname, label: kind, group: author}\naudio: {train: 'audio_train/{fname}'}\n"
    (folder / "mine.yaml").write_text(lines)
    data = open_data(folder, tiny.parent / "work", "mine.yaml")
    assert {name: one.described_by for name, one in data.items()} == {"clean": "mine.yaml", "noisy": None}
    noisy = load_competition(data["noisy"].folder).train.set_index("fname")
    assert noisy["freesound_id"].loc[table["fname"]].tolist() == [f"a{i // 2}" for i in range(len(table))]
    plan = read_plan(tiny)
    for trial in make_trials(plan, list(plan.recipes.values()), data, 1, tiny.parent / "work"):
        expected = "mine.yaml" if trial.id.condition == "clean" else None
        assert (trial.paths.described_by, trial.truth.described_by) == (expected, "mine.yaml")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("label_separator: '_'\ntask: multi_label\nmetric: lwlrap\n", "clips have several labels"),
        ("columns: {fold: part, group: null}\n", "has folds of its own.*columns: {fold: null}"),
    ],
)
def test_a_competition_that_the_ablation_cannot_take(clean: Path, tmp_path: Path, text: str, fact: str) -> None:
    shutil.copytree(clean, tmp_path / "other")
    table = pd.read_csv(tmp_path / "other" / "train.csv")
    table.assign(part=[i % 2 for i in range(len(table))]).to_csv(tmp_path / "other" / "train.csv", index=False)
    (tmp_path / "other" / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=fact):
        open_data(tmp_path / "other", tmp_path / "work", "mine.yaml")
