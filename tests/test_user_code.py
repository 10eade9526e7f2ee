"""User code that a config names: its files, hashes and import, and errors in one line."""

import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import user_code
from configs.schema import AugmentConfig, Config, FeatureConfig, ModelConfig, TrainConfig
from configs.user_code import hashes, is_user_code, load_callable, source_files, user_files
from console.errors import UserError
from features.wave_augmentation import WaveAugmentation
from models.build import build_model
from models.tagger import build_tagger, load_tagger, save_tagger
from training.user_code_check import check_user_code

SMALL = Config(
    features=FeatureConfig(sample_rate=8000, f_max=4000, n_fft=256, hop_length=160, n_mels=8),
    train=TrainConfig(crop_seconds=1.0),
)
NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, n_classes, in_channels{more}):
        super().__init__()
        self.head = nn.Linear({size}, n_classes)

    def forward(self, x):
        {body}
        return self.head(x.mean(dim=(2, 3)))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where the command runs; what is imported from it is forgotten."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    yield tmp_path  # type: ignore[misc]
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def net(body: str = "", more: str = "", size: str = "in_channels") -> None:
    Path("my_net.py").write_text(NET.format(body=body, more=more, size=size))


def named(name: str = "my_net:Net", **values: object) -> Config:
    return replace(SMALL, model=ModelConfig(name=name, **values))  # type: ignore[arg-type]


def message_of(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_names_of_user_code() -> None:
    names = ["my_net:Net", "a.b:c", "a/b.py:c", "resnetish18", "timm:resnet18", "vggish", ""]
    assert [name for name in names if is_user_code(name)] == names[:3]


def test_the_kits_own_folders_are_known() -> None:
    """Else the files of a new one would count as the user's."""
    there = {file.parent.name for file in Path(user_code.__file__).parents[1].glob("*/__init__.py")}
    assert there - {"my_package"} == user_code.KIT


# Which files


def test_the_files_of_a_name_are_found_without_running_them(here: Path) -> None:
    (here / "pack" / "deep").mkdir(parents=True)
    files = {
        "pack/__init__.py": "raise SystemExit",
        "pack/net.py": "import torch.nn\nfrom . import layers\nfrom .deep.norm import N\nfrom models import pooling",
        "pack/layers.py": "def f():\n    import beside  # within a function\n",
        "pack/deep/norm.py": "from ..other import missing\nraise SystemExit",
        "pack/other.py": "missing = 1",
        "pack/unused.py": "",
        "beside.py": "",
    }
    for name, text in files.items():
        (here / name).write_text(text)
    found = source_files("pack.net:Net", "model.name")
    assert sorted(found) == sorted(set(files) - {"pack/unused.py"})
    assert all(found[name] == here / name for name in found)
    assert source_files("pack/net.py:Net", "model.name") == found
    assert hashes(found)["pack/other.py"] == sha256(b"missing = 1").hexdigest()


def test_every_name_in_a_config_counts(here: Path) -> None:
    for name in "abcdef":
        (here / f"my_{name}.py").write_text("")
    cfg = replace(
        named("my_a:Net"),
        train=TrainConfig(loss="my_b:loss"),
        augment=AugmentConfig(extra=("my_c:x", "my_d:x"), wave=("my_e:x",)),
    )
    assert sorted(user_files(cfg)) == [f"my_{name}.py" for name in "abcde"]
    assert user_files(SMALL) == {}


def test_code_of_an_installed_package_is_one_file() -> None:
    found = source_files("torch.nn.modules.linear:Linear", "model.name")
    assert list(found) == ["torch/nn/modules/linear.py"]


def test_no_file_of_the_user_replaces_one_of_python(here: Path) -> None:
    (here / "json.py").write_text("raise SystemExit")
    (here / "my_net.py").write_text("import json\ndef Net(n_classes, in_channels): ...\n")
    load_callable("my_net:Net", "model.name", ("n_classes", "in_channels"), ())
    assert source_files("my_net:Net", "model.name") == {"my_net.py": here / "my_net.py"}


# What cannot be loaded


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("", "my_nt:Net", r"model\.name: no file my_nt\.py for my_nt:Net in /"),
        ("", "pack.net:Net", r"no file pack/net\.py for pack\.net:Net in /"),
        ("", "my_net:", "'my_net:' does not name code: write my_file:name"),
        ("", "../my_net.py:Net", "'../my_net.py:Net' does not name code"),
        ("", "/tmp/my_net.py:Net", "'/tmp/my_net.py:Net' does not name code"),
        ("class Nett: ...", "my_net:Net", r"my_net\.py has no 'Net', did you mean 'Nett'\?"),
        ("Net = 3", "my_net:Net", "my_net:Net is int, not callable"),
        ("def Net(n_classes): ...", "my_net:Net", r"must take \(n_classes, in_channels\), but takes \(n_classes\): "),
        ("def Net(classes, in_channels): ...", "my_net:Net", r"takes \(classes, in_channels\): missing a required"),
        ("def Net(n_classes, in_channels, size): ...", "my_net:Net", "missing a required argument: 'size'"),
        ("\nimport no_such_thing", "my_net:Net", r"raises ModuleNotFoundError: No module .* \(/.*my_net\.py:2\)"),
        ("def Net(:", "my_net:Net", r"my_net:Net raises SyntaxError: .*my_net\.py, line 1"),
        ("from . import x", "my_net:Net", r"my_net:Net raises ImportError: no package"),
    ],
)
def test_an_import_error_is_one_line(here: Path, text: str, name: str, expected: str) -> None:
    Path("my_net.py").write_text(text)
    with pytest.raises(
        UserError, match=rf"^model\.name: .*{expected}" if "model" not in expected else expected
    ) as error:
        load_callable(name, "model.name", ("n_classes", "in_channels"), ())
    message_of(error)


# Networks


def test_a_network_gets_the_options_that_it_takes(here: Path) -> None:
    net(more=", width, n_mels=3, pooling='grid'", body="assert self.asked == (16, 8, 'attention')")
    text = (
        Path("my_net.py")
        .read_text()
        .replace("super().__init__()", "super().__init__(); self.asked = width, n_mels, pooling")
    )
    Path("my_net.py").write_text(text)
    network = build_model(named(width=16, pooling="attention", deltas=2), 5)
    assert network.training and network(torch.zeros(3, 3, 8, 20)).shape == (3, 5)


def test_a_lazy_layer_has_its_size_before_weights_are_loaded(here: Path, tmp_path: Path) -> None:
    Path("my_net.py").write_text(
        "from torch import nn\n\ndef Net(n_classes, in_channels):\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(n_classes))\n"
    )
    prior, zeros = np.ones(3, np.float32) / 3, np.zeros(8, np.float32)
    tagger = build_tagger(named(), prior, zeros, zeros + 1).eval()
    save_tagger(tagger.state_dict(), tmp_path / "model.safetensors")
    loaded = load_tagger(named(), tmp_path / "model.safetensors")
    x = torch.randn(2, 1, 8, 9)
    assert torch.equal(loaded(x), tagger(x))


def test_shared_weights_are_saved(here: Path, tmp_path: Path) -> None:
    net()
    text = Path("my_net.py").read_text().replace("n_classes)\n", "n_classes)\n        self.same = self.head\n")
    Path("my_net.py").write_text(text)
    prior, zeros = np.ones(3, np.float32) / 3, np.zeros(8, np.float32)
    save_tagger(build_tagger(named(), prior, zeros, zeros + 1).state_dict(), tmp_path / "model.safetensors")
    assert load_tagger(named(), tmp_path / "model.safetensors").backbone.same.weight.shape == (3, 1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x", r"must return logits \(2, 5\) for \(2, 1, 8, 50\), but returns \(2, 1, 8, 50\)"),
        ("return None", r"must return logits \(2, 5\) for .*, but returns NoneType"),
        (
            "return self.heads(x)",
            r"input of \(2, 1, 8, 50\): my_net:Net raises AttributeError: .* \(/.*my_net\.py:12\)",
        ),
        ("raise KeyError('gone')", "my_net:Net raises KeyError: 'gone'"),
    ],
)
def test_a_network_that_does_not_return_logits(here: Path, body: str, expected: str) -> None:
    net(body)
    with pytest.raises(UserError, match=expected) as error:
        build_model(named(), 5)
    assert message_of(error).startswith("model.name")


def test_something_else_than_a_network_is_an_error(here: Path) -> None:
    Path("my_net.py").write_text("def Net(n_classes, in_channels): return n_classes")
    with pytest.raises(UserError, match=r"^model\.name: my_net:Net must return an nn\.Module, but returns int$"):
        build_model(named(), 5)
    Path("other_net.py").write_text("\ndef Net(n_classes, in_channels):\n    return 1 / 0")
    with pytest.raises(UserError, match=r"other_net:Net raises ZeroDivisionError: .* \(/.*other_net\.py:3\)$"):
        build_model(named("other_net:Net"), 5)


@pytest.mark.parametrize("setting", [{"width": 16}, {"dropout": 0.5}, {"pooling": "avg_max"}])
def test_a_setting_that_the_network_does_not_take_is_an_error(here: Path, setting: dict[str, object]) -> None:
    net()
    with pytest.raises(UserError, match=rf"^model\.{next(iter(setting))}="):
        build_model(named(**setting), 5)


# Losses and augmentations


def failing(**names: str) -> str:
    """The error for a config whose functions in my_file.py are wrong."""
    train = replace(SMALL.train, loss=names.get("loss", "cross_entropy"))
    augment = AugmentConfig(
        extra=(names["extra"],) if "extra" in names else (), wave=(names["wave"],) if "wave" in names else ()
    )
    with pytest.raises(UserError) as error:
        check_user_code(replace(SMALL, train=train, augment=augment), 3)
    return message_of(error)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        (
            "loss",
            "def f(logits, targets): ...",
            "train.loss: my_file:f must take (logits, targets, weights), but takes",
        ),
        ("loss", "def f(a, b, c): return 1.5", "must return a tensor without dimensions, but returns float"),
        ("loss", "def f(a, b, c): return a.sum(dim=1)", "without dimensions, but returns a tensor (4,)"),
        ("loss", "def f(a, b, c): return b.sum()", "train.loss: my_file:f returns a constant: nothing can be learned"),
        ("loss", "def f(a, b, c): return a @ b", "train.loss: my_file:f raises RuntimeError: "),
        ("extra", "def f(x, y, w): ...", "augment.extra: my_file:f must take (x, y, w, rng), but takes (x, y, w)"),
        (
            "extra",
            "def f(x, y, w, rng): return x",
            "my_file:f must return x, y, w of (4, 1, 8, 50) on cpu, (4, 3) on cpu",
        ),
        ("extra", "def f(x, y, w, rng): return x[..., 1:], y, w", "but returns (4, 1, 8, 49) on cpu, (4, 3) on cpu"),
        ("extra", "def f(x, y, w, rng): return x, y, None", "(4, 3) on cpu, NoneType"),
        ("extra", "def f(x, y, w, rng): return x.nothing", "augment.extra: my_file:f raises AttributeError: "),
        ("wave", "def f(wave): ...", "augment.wave: my_file:f must take (wave, sample_rate, rng), but takes (wave)"),
        (
            "wave",
            "def f(wave, rate, rng): return wave[None]",
            "must return (samples,) floats, but returns (1, 8000) float32",
        ),
        ("wave", "def f(wave, rate, rng): return list(wave)", "floats, but returns list"),
        ("wave", "def f(wave, rate, rng): return wave[:0]", "floats, but returns (0,) float32"),
        ("wave", "def f(wave, rate, rng): return (wave * 9).astype(int)", "floats, but returns (8000,) int64"),
        ("wave", "def f(wave, rate, rng): return wave / 0", "augment.wave: my_file:f returns NaN or infinity for"),
        (
            "wave",
            "def f(wave, rate, rng): return wave.nothing",
            "augment.wave, clip one made of noise: my_file:f raises",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_wrong_loss_or_augmentation_is_one_line(here: Path, key: str, text: str, expected: str) -> None:
    Path("my_file.py").write_text(text)
    assert expected in failing(**{key: "my_file:f"})


def test_an_unknown_loss_names_the_known_ones() -> None:
    known = "cross_entropy, focal, or yours: my_file:my_loss"
    assert failing(loss="hinge") == f"train.loss: no loss 'hinge' for a single_label competition: use {known}"


def test_a_loss_gets_smoothed_labels_and_weights(here: Path) -> None:
    from training.losses import build_loss

    Path("my_file.py").write_text("def f(logits, targets, weights): return (logits * targets).sum() + weights.sum()")
    loss = build_loss(TrainConfig(loss="my_file:f", label_smoothing=0.3))
    logits, y = torch.tensor([[1.0, 2.0, 10.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert float(loss(logits, y, torch.tensor([5.0]))) == pytest.approx(0.8 * 1 + 0.1 * 2 + 0.1 * 10 + 5)


def test_extra_augmentations_come_last_in_their_order(here: Path) -> None:
    from features.augment import Augment

    Path("my_file.py").write_text(
        "def one(x, y, w, rng): return x + 1, y, w\ndef double(x, y, w, rng): return x * 2, y, w * rng.integers(3, 4)"
    )
    augment = Augment.from_config(
        AugmentConfig(time_masks=3, time_mask_frames=0, extra=("my_file:one", "my_file:double")), torch.zeros(2)
    )
    x, y, w = augment(torch.ones(1, 1, 2, 4), torch.eye(1), torch.ones(1), np.random.default_rng(0))
    assert x.flatten().tolist() == [4.0] * 8 and w.tolist() == [3.0] and y.tolist() == [[1.0]]


def test_each_clip_has_its_own_draws_in_wave_augmentation(here: Path) -> None:
    Path("my_file.py").write_text("def f(wave, rate, rng): return wave[:2] + rng.normal() + rate")
    change = WaveAugmentation("my_file:f", 100)
    wave = np.zeros(5, np.float32)
    one = change("a.wav", wave)
    assert one.dtype == np.float32 and len(one) == 2 and 90 < one[0] < 110
    assert (change("a.wav", wave) == one).all() and (change("b.wav", wave) != one).all() and not wave.any()
