"""The tagger: normalisation by hand, files, devices and precisions."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import Config, ModelConfig, TrainConfig
from console.errors import UserError
from features.store import LEAST_STD, normalisation
from models.device import autocast, choose_device, choose_precision
from models.tagger import Tagger, build_tagger, check_input_size, load_tagger, save_tagger
from tests.conftest import MakeStore

CFG = Config(model=ModelConfig(name="resnetish10", width=8))
CPU = torch.device("cpu")


def small_tagger(n_classes: int = 3, cfg: Config = CFG) -> Tagger:
    torch.manual_seed(0)
    prior = np.arange(1, n_classes + 1) / (n_classes * (n_classes + 1) / 2)
    return build_tagger(cfg, prior, np.float32([-2, -4]), np.float32([1, 2]))


def test_normalisation_by_hand(make_store: MakeStore) -> None:
    store = make_store(
        [
            np.array([[0.0, 2.0], [2.0, 2.0]]),  # means 1 and 2, mean squares 2 and 4
            np.array([[5.0, 6.0]]),  # means 5 and 6, mean squares 25 and 36: as heavy as the longer clip
            np.array([[100.0, 100.0]]),  # validation: must leave no trace
            np.zeros((0, 2)),  # no sound: has no mean
        ]
    )
    rows = np.array([0, 1, 3])
    mean, std = normalisation(store, rows, "per_mel")
    np.testing.assert_allclose(mean, [3, 4])
    np.testing.assert_allclose(std, [np.sqrt(27 / 2 - 9), np.sqrt(20 - 16)])
    assert mean.dtype == std.dtype == np.float32
    mean, std = normalisation(store, rows, "global")
    np.testing.assert_allclose(mean, [3.5, 3.5])
    np.testing.assert_allclose(std, [np.sqrt((13.5 + 20) / 2 - 3.5**2)] * 2)


def test_decibels_need_no_statistics(make_store: MakeStore) -> None:
    """log-mel is a natural logarithm of power; a power of 100 is 20 dB."""
    mean, std = normalisation(make_store([np.full((3, 2), -13.0)]), np.array([0]), "decibel")
    assert mean.dtype == std.dtype == np.float32
    tagger = Tagger(torch.nn.Identity(), torch.from_numpy(mean), torch.from_numpy(std), torch.ones(3) / 3)
    power = torch.tensor([[[[100.0, 1.0], [1e-10, 10.0]]]])
    torch.testing.assert_close(tagger(power.log()), torch.tensor([[[[20.0, 0.0], [-100.0, 10.0]]]]))


def test_fixed_numbers_are_those_of_a_published_network(make_store: MakeStore) -> None:
    """EfficientAT's (x + 4.5) / 5: -4.5 becomes 0, and 0.5 becomes 1."""
    mean, std = normalisation(make_store([np.full((3, 2), -13.0)]), np.array([0]), "fixed", (-4.5, 5.0))
    assert mean.dtype == std.dtype == np.float32
    assert mean.tolist() == [-4.5, -4.5] and std.tolist() == [5.0, 5.0]
    tagger = Tagger(torch.nn.Identity(), torch.from_numpy(mean), torch.from_numpy(std), torch.ones(3) / 3)
    torch.testing.assert_close(tagger(torch.tensor([[[[-4.5], [0.5]]]])), torch.tensor([[[[0.0], [1.0]]]]))


def test_a_band_that_never_changes_is_not_divided_by_zero(make_store: MakeStore) -> None:
    _, std = normalisation(make_store([np.full((3, 2), -13.0)]), np.array([0]), "per_mel")
    assert std.tolist() == [LEAST_STD, LEAST_STD]


def test_sound_moved_into_an_empty_band_is_not_loud(make_store: MakeStore) -> None:
    """Band 0 lies between two bins: -13.8 in every frame. A shift in frequency brings it the sound of band 1."""
    sound = np.random.default_rng(0).normal(-4, 3, 200)
    mean, std = normalisation(make_store([np.stack([np.full(200, -13.8), sound], axis=1)]), np.array([0]), "per_mel")
    assert (np.abs(sound - mean[0]) / std[0]).max() < 50  # a thousandth less would be 20,000
    assert std[1] == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize(("batch", "training"), [(1, True), (2, True), (1, False)])
def test_a_size_that_the_network_cannot_take_is_an_error_without_computing(batch: int, training: bool) -> None:
    """One cell of a batch of one cannot be normalised in training; otherwise it can."""
    tagger = small_tagger()
    state = {key: value.clone() for key, value in tagger.state_dict().items()}
    for mode in (True, False):
        tagger.train(mode)
        if batch == 1 and training:
            with pytest.raises(UserError, match=r"take 1 x 2 mels x 3 frames \(Expected more than 1 value .*\): more"):
                check_input_size(tagger, batch, 3, training, "more")
        else:
            check_input_size(tagger, batch, 3, training, "more")
        assert tagger.training is mode
    assert all(torch.equal(value, state[key]) for key, value in tagger.state_dict().items())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AssertionError(), r"\(AssertionError\)"),
        (AssertionError("width\n 7"), r"\(width 7\)"),
        *(
            (kind("odd"), r"\(.*odd.*\)")
            for kind in (IndexError, TypeError, KeyError, NotImplementedError, ZeroDivisionError)
        ),
    ],
)
def test_any_error_of_a_network_is_one_line(error: Exception, message: str) -> None:
    tagger = of_backbone(error)
    with pytest.raises(UserError, match=rf"cannot take 4 x 2 mels x 3 frames {message}: more") as caught:
        check_input_size(tagger, 4, 3, True, "more")
    assert "\n" not in str(caught.value) and tagger.training


def test_operations_without_shapes_are_tried_on_numbers() -> None:
    check_input_size(of_backbone(lambda x: x.new_full((len(x), 3), float(x.sum()))), 4, 3, True, "more")


def test_an_output_of_another_shape_is_an_error() -> None:
    for answer, message in ((lambda x: x[:, 0, :, :1], r"\(4, 2, 1\)"), (lambda x: (x, x), "tuple")):
        with pytest.raises(UserError, match=rf"cannot take .*{message}"):
            check_input_size(of_backbone(answer), 4, 3, True, "more")


def of_backbone(answer: Any) -> Tagger:
    """A tagger of two bands and three classes whose backbone answers so, or raises that."""

    class Backbone(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer(x)

    return Tagger(Backbone(), torch.zeros(2), torch.ones(2), torch.ones(3) / 3)


def test_forward_normalises_each_band() -> None:
    tagger = Tagger(torch.nn.Identity(), torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]), torch.ones(3) / 3)
    x = torch.tensor([[[[1.0, 3.0], [2.0, 10.0]]]])  # (1, 1, 2 bands, 2 frames)
    assert tagger(x).tolist() == [[[[0.0, 1.0], [0.0, 2.0]]]]


def test_channels_last_changes_the_layout_only() -> None:
    one = small_tagger()
    other = small_tagger(cfg=Config(model=CFG.model, train=TrainConfig(channels_last=False)))
    x = torch.randn(2, 1, 2, 50)
    torch.testing.assert_close(one.eval()(x), other.eval()(x), rtol=1e-4, atol=1e-5)


def test_save_and_load(tmp_path: Path) -> None:
    tagger = small_tagger().eval()
    save_tagger(tagger.state_dict(), tmp_path / "model.safetensors")
    loaded = load_tagger(CFG, tmp_path / "model.safetensors")
    x = torch.randn(2, 1, 2, 50)
    assert torch.equal(tagger(x), loaded(x))
    assert not loaded.training
    np.testing.assert_allclose(loaded.prior.numpy(), [1 / 6, 2 / 6, 3 / 6], rtol=1e-6)
    assert loaded.state_dict().keys() == tagger.state_dict().keys()


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_tagger(small_tagger().state_dict(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_loading_does_not_look_for_starting_weights(tmp_path: Path) -> None:
    save_tagger(small_tagger().state_dict(), tmp_path / "model.safetensors")
    gone = Config(model=ModelConfig(name="resnetish10", width=8, weights="gone.safetensors"))
    load_tagger(gone, tmp_path / "model.safetensors")


def test_files_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    save_tagger(small_tagger().state_dict(), tmp_path / "model.safetensors")
    save_tagger({"mean": torch.zeros(2)}, tmp_path / "part.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:1000])
    wide = Config(model=ModelConfig(name="resnetish10", width=16))
    for cfg, name in ((wide, "model"), (CFG, "part"), (CFG, "torn"), (CFG, "absent")):
        with pytest.raises(UserError, match=rf"{name}.safetensors: not the weights of a resnetish10"):
            load_tagger(cfg, tmp_path / f"{name}.safetensors")


def test_cuda_without_a_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(UserError, match=r"train.device=cuda.*train.device=auto"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"
    assert choose_device("cpu") == CPU


def test_auto_precision_is_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    for gains, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("models.device._cpu_gains_from_bf16", lambda gains=gains: gains)
        assert choose_precision("auto", CPU) == precision
    for capability, precision in (((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert choose_precision("auto", torch.device("cuda")) == precision
    assert choose_precision("fp32", torch.device("cuda")) == "fp32"
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("vendor", "flags", "gains"),
    [
        ("GenuineIntel", "fpu avx2 avx512f avx512_bf16", False),
        ("GenuineIntel", "fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile", True),
        ("GenuineIntel", "fpu avx2", False),
        ("AuthenticAMD", "fpu avx2 avx512f avx512_bf16", True),
        ("AuthenticAMD", "fpu avx2 avx512f", False),
        ("AuthenticAMD", "fpu avx2 not_avx512_bf16", False),
    ],
)
def test_a_cpu_gains_from_bf16_where_it_multiplies_faster(
    monkeypatch: pytest.MonkeyPatch, vendor: str, flags: str, gains: bool
) -> None:
    core = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: A CPU: fast\nflags\t\t: {flags}\n\n"
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(core * 2))
    assert choose_precision("auto", CPU) == ("bf16" if gains else "fp32")


@pytest.mark.parametrize("text", [None, "", "processor : 0\nFeatures : fp asimd bf16\n"])
def test_an_unknown_cpu_computes_in_fp32(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    def read(*_: object) -> io.StringIO:
        if text is None:
            raise FileNotFoundError("/proc/cpuinfo")
        return io.StringIO(text)

    monkeypatch.setattr("builtins.open", read)
    assert choose_precision("auto", CPU) == "fp32"


def test_autocast_changes_the_arithmetic() -> None:
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(precision, CPU):
            assert layer(x).dtype == kind
