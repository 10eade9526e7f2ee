"""Search spaces: valid files, and errors in others."""

from pathlib import Path

import pytest

from configs.load import load_config
from console.errors import UserError
from tuning.search_space import Range, load_space, value_of

BASE = Path("configs/us8k_mini.yaml")
SPACES = sorted(Path("configs/search").glob("*.yaml"))


def loaded(tmp_path: Path, text: str, *overrides: str) -> tuple[Range, ...]:
    (tmp_path / "space.yaml").write_text(text)
    return load_space(tmp_path / "space.yaml", BASE, overrides)


def test_every_kind(tmp_path: Path) -> None:
    lr, dropout, masks, width, speeds = loaded(
        tmp_path,
        "train.lr: {log: [1e-4, 0.01]}\nmodel.dropout: {uniform: [0, 0.5]}\naugment.time_masks: {int: [0, 4, 2]}\n"
        "model.width: {choice: [16, 24]}\ntrain.speeds: {choice: [[], [0.9, 1.1]]}",
    )
    assert (lr.kind, lr.low, lr.high, lr.place) == ("log", 1e-4, 0.01, f"{tmp_path}/space.yaml:1")
    assert (dropout.kind, dropout.low, dropout.high) == ("uniform", 0, 0.5)
    assert (masks.kind, masks.low, masks.high, masks.step) == ("int", 0, 4, 2)
    assert width.choices == (16, 24) and width.value(24) == 24
    assert speeds.labels() == ("[]", "[0.9, 1.1]") and speeds.value("[0.9, 1.1]") == [0.9, 1.1]


def test_choices_are_what_the_config_holds(tmp_path: Path) -> None:
    """1e-3 without a point is text to YAML, 60 is no float."""
    lr, trim = loaded(tmp_path, "train.lr: {choice: [1e-3, 1]}\nfeatures.trim_db: {choice: [null, 60]}")
    assert lr.choices == (0.001, 1.0) and isinstance(lr.choices[1], float)
    assert trim.choices == (None, 60.0)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("train.lrr: {log: [1, 2]}", 1, "unknown key 'train.lrr', did you mean 'train.lr'?"),
        ("trian.lr: {log: [1, 2]}", 1, "unknown key 'trian', did you mean 'train'?"),
        ("lr: {log: [1, 2]}", 1, "unknown key 'lr', did you mean 'train.lr'?"),
        ("train.lr: {lgo: [1, 2]}", 1, "'train.lr' has no kind 'lgo', did you mean 'log'?"),
        ("train.lr: {beta: [1, 2]}", 1, "'train.lr' must be {uniform: [low, high]} or "),
        ("train.lr: [1, 2]", 1, "'train.lr' must be {uniform: [low, high]} or "),
        ("train.lr: {log: [1, 2], int: [1, 2]}", 1, "'train.lr' must be {uniform: [low, high]} or "),
        ("train:\n  lr: {log: [1, 2]}", 1, "'train' is a section: write its keys in full, like 'train.lr: ...'"),
        ("train.lr: {log: [0, 1]}", 1, "'train.lr' must be {log: [low, high]}, above 0, with low below high"),
        ("train.lr: {log: [2, 1]}", 1, "'train.lr' must be {log: "),
        ("train.lr: {log: [1, 2, 3]}", 1, "'train.lr' must be {log: "),
        ("train.lr: {uniform: 1}", 1, "'train.lr' must be {uniform: "),
        ("train.lr: {uniform: [a, 1]}", 1, "'train.lr' must be {uniform: "),
        ("train.lr: {uniform: [true, 2]}", 1, "'train.lr' must be {uniform: "),
        ("train.lr: {uniform: [1, .inf]}", 1, "'train.lr' must be {uniform: "),
        ("train.lr: {uniform: [1, .nan]}", 1, "'train.lr' must be {uniform: "),
        ("train.lr: {choice: [1]}", 1, "'train.lr' has no choice: give two values or more"),
        ("train.lr: {choice: [1e-3, 0.001]}", 1, "'train.lr': a choice appears twice: remove one"),
        ("train.epochs: {int: [1, 10.5]}", 1, "'train.epochs': int needs whole numbers"),
        ("train.epochs: {int: [1, 10, 0]}", 1, "'train.epochs': int needs whole numbers, and a step of 1 or more"),
        (
            "train.epochs: {int: [1, 10, 2]}",
            1,
            "'train.epochs': steps of 2 do not lead from 1 to 10: change high or the step",
        ),
        ("train.epochs: {uniform: [1, 9]}", 1, "'train.epochs' is a whole number: write {int: "),
        ("train.balanced: {int: [0, 1]}", 1, "'train.balanced' is true or false: write {choice: [false, true]}"),
        ("features.f_min: {uniform: [0, 50]}", 1, "'features.f_min': each value needs other features: write {cho"),
        ("train.lr: {log: [1, 2]}\nmodel.dropout: {uniform: [0, 1]}", 2, "model.dropout must be in [0, 1)"),
        ("model.width: {int: [16, 48]}", 1, "model.width must be a multiple of 8"),  # both ends are valid
        ("train.precision: {choice: [fp8, fp32]}", 1, "'train.precision' is 'fp8': input should be 'auto', 'fp32'"),
        ("train.lr.x: {int: [1, 2]}", 6, "'train.lr' is 0.002, which has no key 'x'"),  # line 6 of the base config
        ("train.lr: {log: [1, 2]}\ntrain.lr: {log: [1, 2]}", 2, "key 'train.lr' appears twice"),
        ("name: {choice: [a, b]}", 1, "'name' cannot be searched: it names the study"),
        ("folds.seed: {int: [0, 3]}", 1, "'folds.seed' cannot be searched: scores on other folds"),
        ("train.seed: {int: [0, 3]}", 1, "'train.seed' cannot be searched: the best of many seeds is luck"),
        ("train.keep: {choice: [last, best]}", 1, "'train.keep' cannot be searched: the best of many epochs"),
        ("pseudo.weight: {uniform: [0.1, 1]}", 1, "'pseudo.weight' cannot be searched: a search never uses test"),
    ],
)
def test_what_is_wrong_names_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(UserError) as caught:
        loaded(tmp_path, text)
    file = BASE if line == 6 else tmp_path / "space.yaml"
    assert str(caught.value).startswith(f"{file}:{line}: {message}") and "\n" not in str(caught.value)


def test_a_value_is_checked_on_the_base_config_with_its_overrides(tmp_path: Path) -> None:
    text = "train.crop_seconds_min: {uniform: [0.5, 1.5]}"
    assert loaded(tmp_path, text)
    with pytest.raises(UserError, match=r"space.yaml:1: train.crop_seconds_min must be in \(0, crop_seconds"):
        loaded(tmp_path, text, "train.crop_seconds=1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing to search: name a key and its range"),
        ("- train.lr", "a search space must be a mapping of keys to values, like 'train.lr: {log: "),
        ("train.lr: [1", "invalid YAML: "),
    ],
)
def test_a_file_that_is_not_a_search_space(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"space.yaml: {message}"):
        loaded(tmp_path, text)
    with pytest.raises(UserError, match=r"none\.yaml: cannot read the search space: No such file"):
        load_space(tmp_path / "none.yaml", BASE, ())


def test_values_by_key() -> None:
    cfg = load_config(BASE)
    assert value_of(cfg, "train.lr") == 2e-3 and value_of(cfg, "train.speeds") == []


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_every_space_loads_and_opens_with_its_command(file: Path) -> None:
    first = file.read_text().splitlines()[0]
    words = first.split()
    assert words[1:3] == ["python", "tune.py"] and words[words.index("--space") + 1] == str(file)
    assert load_space(file, Path(words[words.index("--config") + 1]), ())


def test_there_are_spaces() -> None:
    assert SPACES
