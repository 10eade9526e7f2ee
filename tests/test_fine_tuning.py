"""Fine-tuning: the rates that the optimizer has, what stays as it was loaded, and steps of several batches."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from configs.schema import AugmentConfig, Config, ModelConfig, TrainConfig, from_dict, to_dict
from console.errors import UserError
from models.ast import AST, PaSST
from models.beats import BEATs
from models.build import build_model
from models.ced import CED
from models.checkpointing import keep_few_activations
from models.parameter_groups import parameter_groups
from models.tagger import save_tagger
from runs.run_folder import CHECKPOINT
from tests.conftest import MakeStore
from tests.test_lit_tagger import CFG, EVERYTHING, copied, equal, fit, lit_of, same, train_config
from tests.test_parameter_groups import SMALL
from training.fine_tuning import batch_norms, set_up
from training.lit_tagger import LitTagger
from training.losses import build_loss
from training.schedule import one_cycle, step_shares
from training.trainer import finished_epochs

STARTED = {"freeze_epochs": 2, "head_lr": 6e-3, "layer_decay": 0.5, "epochs": 4}
TRANSFORMERS = {"ced": CED, "ast": AST, "passt": PaSST, "beats": partial(BEATs, patch_dim=32)}


@pytest.fixture
def start(make_store: MakeStore, tmp_path: Path) -> Callable[..., LitTagger]:
    """start(epochs=4, ...): a module whose network starts from a file."""
    file = tmp_path / "start.safetensors"
    torch.manual_seed(5)
    state = build_model(CFG, 3).state_dict()
    generator = torch.Generator().manual_seed(5)
    for key in (k for k in state if k.endswith("running_mean")):
        state[key] = torch.randn(state[key].shape, generator=generator)
    save_tagger(state, file)

    def made(precision: str = "fp32", **values: object) -> LitTagger:
        cfg = replace(train_config(**values), model=replace(CFG.model, weights=str(file)))
        return lit_of(make_store, cfg, precision=precision)

    return made


def rates(lit: LitTagger) -> list[set[float]]:
    """Those of each depth, from the input, as the optimizer has them now."""
    of = {id(p): group["lr"] for group in lit.trainer.optimizers[0].param_groups for p in group["params"]}
    assert set(of) == {id(p) for p in lit.tagger.parameters()}
    return [{of[id(p)] for p in parameters} for _, parameters in parameter_groups(lit.tagger.backbone)]


def test_rates_fall_towards_the_input_and_follow_one_schedule(start: Callable[..., LitTagger], tmp_path: Path) -> None:
    """Stem, four blocks and the head; three steps an epoch; the reported rate is that of train.lr."""
    lit = start(layer_decay=0.5, head_lr=6e-3)
    reported = fit(lit, tmp_path, epochs=2)
    now = one_cycle(6, 9, 0.1)
    expected = [3e-3 * 0.5**k * now for k in (5, 4, 3, 2, 1)] + [6e-3 * now]
    assert all(len(some) == 1 for some in rates(lit))
    np.testing.assert_allclose([min(some) for some in rates(lit)], expected, rtol=1e-12)
    assert reported[-1]["lr"] == 3e-3 * now
    decays = {p.dim() > 1: g["weight_decay"] for g in lit.trainer.optimizers[0].param_groups for p in g["params"]}
    assert decays == {True: CFG.train.weight_decay, False: 0}


@pytest.mark.parametrize(
    ("values", "head", "below"), [({"head_lr": 6e-3}, 6e-3, 3e-3), ({"layer_decay": 0.9}, 3e-3, 2.7e-3)]
)
def test_each_setting_alone(
    start: Callable[..., LitTagger], tmp_path: Path, values: dict[str, Any], head: float, below: float
) -> None:
    lit = start(epochs=1, finetune_epochs=1, finetune_lr=3e-4, **values)
    fit(lit, tmp_path, epochs=1)
    found = [min(some) for some in rates(lit)]  # of the second stage's first step: a tenth of the first stage's peak
    np.testing.assert_allclose(found[-2:], [below / 10, head / 10], rtol=1e-12)


def test_only_the_head_learns_in_frozen_epochs(start: Callable[..., LitTagger], tmp_path: Path) -> None:
    lit = start(freeze_epochs=2, ema=0.5)
    first = copied(lit.tagger)
    fit(lit, tmp_path, epochs=2)
    after = copied(lit.tagger)
    moved = {k for k in first if not torch.equal(first[k], after[k])}
    assert moved == {"backbone.head.2.weight", "backbone.head.2.bias"}
    assert lit.ema is not None
    average = lit.ema.network.state_dict()
    assert {k for k in first if not torch.equal(first[k], average[k])} == moved
    lit = start(freeze_epochs=2, ema=0.5)
    fit(lit, tmp_path)
    last = copied(lit.tagger)
    still = {k for k in first if torch.equal(first[k], last[k])}
    assert still == {"mean", "std", "prior"}  # all learn, statistics too


def test_statistics_of_batch_norm_stay_while_its_weights_learn(start: Callable[..., LitTagger], tmp_path: Path) -> None:
    lit = start(freeze_batch_norm=True, finetune_epochs=1)
    first = copied(lit.tagger)
    used: list[bool] = []
    (norm, *_) = batch_norms(lit.tagger.backbone)
    norm.register_forward_pre_hook(lambda module, _: used.append(module.training))
    fit(lit, tmp_path)
    last = copied(lit.tagger)
    still = {k for k in first if torch.equal(first[k], last[k])} - {"mean", "std", "prior"}
    assert still == {k for k in first if "running_" in k or k.endswith("_tracked")} != set()
    assert len(used) > 9 and not any(used)


MANY = EVERYTHING | STARTED | {"epochs": 3, "accumulate": 2, "batch_size": 3, "clip_norm": 0.1}


@pytest.mark.parametrize(
    ("stop", "values"),
    [(1, STARTED), (2, STARTED), (3, MANY), (1, STARTED | {"freeze_batch_norm": True, "keep": "best"})],
)
def test_going_on_ends_as_if_undisturbed(
    start: Callable[..., LitTagger], tmp_path: Path, values: dict[str, Any], stop: int
) -> None:
    """Within the frozen epochs, at their end and after."""
    whole, first, second = (start(**values) for _ in range(3))
    fit(whole, tmp_path / "whole")
    fit(first, tmp_path / "halves", epochs=stop)
    assert finished_epochs(tmp_path / "halves" / CHECKPOINT, first.state_dict()) == stop
    fit(second, tmp_path / "halves")
    assert same(whole, second) and equal(whole.kept, second.kept)


def test_bf16_with_all_of_it(start: Callable[..., LitTagger], tmp_path: Path) -> None:
    lit = start(precision="bf16", **MANY)
    fit(lit, tmp_path, precision="bf16")
    assert len(lit.history) == lit.epochs


# Steps of several batches


def dense(n_classes: int, in_channels: int) -> nn.Module:
    """Without batch norm, whose statistics are those of a batch."""
    pooled = nn.AdaptiveAvgPool2d((6, 4)), nn.Flatten()
    return nn.Sequential(*pooled, nn.Linear(24 * in_channels, 8), nn.Tanh(), nn.Linear(8, n_classes))


def gradients(
    make_store: MakeStore,
    folder: Path,
    weights: np.ndarray,
    labels: np.ndarray | None = None,
    class_weight: np.ndarray | None = None,
    **values: object,
) -> list[torch.Tensor]:
    """Of the first step, as the optimizer gets them, with no randomness but the order of clips. labels: several."""
    model = ModelConfig(name="tests.test_fine_tuning:dense")
    cfg = Config(
        model=model, augment=AugmentConfig(), train=replace(CFG.train, epochs=1, **values), predict=CFG.predict
    )  # type: ignore[arg-type]
    lit = lit_of(make_store, cfg, n=48)
    if labels is not None:
        lit.parts = replace(lit.parts, task="multi_label", class_weight=class_weight, targets=labels)
        lit.labels, lit.loss = torch.from_numpy(labels), build_loss(cfg.train, "multi_label", lit.parts)
        lit.validate = lambda tagger: {"map3": 0.0}
    lit.weights = torch.from_numpy(weights).float()
    lit.sources.crop = lambda rows, n, rng: lit.batches.at(rows, np.zeros(len(rows), int), n)  # type: ignore[method-assign]
    found: list[torch.Tensor] = []
    lit.on_before_optimizer_step = lambda optimizer: found.extend(  # type: ignore[method-assign]
        p.grad.clone() for p in lit.tagger.parameters() if p.grad is not None
    )
    fit(lit, folder)
    assert lit.trainer.global_step == 1
    return found


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("size", "accumulate"), [(16, 2), (11, 3)])
def test_several_batches_have_the_gradient_of_one(
    make_store: MakeStore, tmp_path: Path, size: int, accumulate: int, weighted: bool
) -> None:
    """32 clips train: as one batch, as 16 + 16, and as 11 + 11 + 10, of clips that do not all count the same."""
    weights = np.random.default_rng(0).uniform(0.1, 2, 48) if weighted else np.ones(48)
    whole = gradients(make_store, tmp_path / "whole", weights, batch_size=32)
    parts = gradients(make_store, tmp_path / "parts", weights, batch_size=size, accumulate=accumulate)
    assert len(whole) == 4
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-8)


def test_labels_that_are_not_known_count_in_no_batch(make_store: MakeStore, tmp_path: Path) -> None:
    """The loss of several labels is a mean over the known ones, weighted by class: so are the batches of a step."""
    targets, weight = np.eye(3, dtype=np.float32)[np.arange(48) % 3], np.array([0.5, 1.0, 4.0])
    targets[np.random.default_rng(0).random((48, 3)) < 0.5 * np.linspace(0, 2, 48)[:, None]] = np.nan
    values = {"weights": np.ones(48), "labels": targets, "class_weight": weight}
    whole = gradients(make_store, tmp_path / "whole", batch_size=32, **values)
    parts = gradients(make_store, tmp_path / "parts", batch_size=11, accumulate=3, **values)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-8)


def test_shares_by_hand() -> None:
    """Two steps of two batches; the second step's clips all have no weight."""
    assert step_shares([3.0, 1.0, 0.0, 0.0], 2) == [1.5, 0.5, 0.0, 0.0]


def test_schedules_and_averages_count_steps(start: Callable[..., LitTagger], tmp_path: Path) -> None:
    """14 clips in batches of up to 3, two a step: three steps of the optimizer an epoch."""
    lit = start(batch_size=3, accumulate=2, ema=0.5)
    reported = fit(lit, tmp_path)
    assert lit.trainer.global_step == 9 and lit.ema is not None and lit.ema.n == 9
    assert [len(rows) for rows in lit.train_dataloader()] == [3, 3, 2, 2, 2, 2]
    assert [row["lr"] for row in reported] == [3e-3 * one_cycle(step, 9, 0.1) for step in (3, 6, 9)]


def test_too_many_batches_for_the_clips_are_refused(start: Callable[..., LitTagger]) -> None:
    with pytest.raises(UserError, match=r"train\.accumulate=15: 14 clips are too few for 15 batches"):
        start(accumulate=15)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_clipped(start: Callable[..., LitTagger], tmp_path: Path, precision: str) -> None:
    norms: list[float] = []

    def norm_of(lit: LitTagger) -> float:
        grads = [p.grad.flatten() for p in lit.tagger.parameters() if p.grad is not None]
        return float(torch.cat(grads).norm())

    lit = start(precision=precision, clip_norm=0.1)
    lit.on_before_optimizer_step = lambda optimizer: norms.append(norm_of(lit))  # type: ignore[method-assign]
    clip = lit.configure_gradient_clipping
    clipped: list[float] = []
    lit.configure_gradient_clipping = lambda *a, **k: (clip(*a, **k), clipped.append(norm_of(lit)))  # type: ignore
    fit(lit, tmp_path, precision=precision)
    assert len(norms) == len(clipped) == 9 and max(norms) > 0.2
    np.testing.assert_allclose(clipped, np.minimum(norms, 0.1), rtol=1e-4)


@pytest.mark.parametrize(
    ("precision", "clip_norm", "fused"), [("16-mixed", 1, 0), ("16-mixed", 0, 1), ("bf16-mixed", 1, 1)]
)
def test_gradients_of_fp16_are_unscaled_before_they_are_clipped(
    start: Callable[..., LitTagger], monkeypatch: pytest.MonkeyPatch, precision: str, clip_norm: float, fused: bool
) -> None:
    """Lightning does so where the optimizer does not, as a fused one does, in its step. No CPU trains in fp16."""
    lit = start(clip_norm=clip_norm)
    monkeypatch.setattr(LitTagger, "trainer", SimpleNamespace(precision=precision))
    assert getattr(lit.configure_optimizers()["optimizer"], "_step_supports_amp_scaling", False) == bool(fused)


# Gradient checkpointing


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_compute_activations_again(name: str) -> None:
    torch.manual_seed(0)
    network, x = TRANSFORMERS[name](**SMALL), torch.randn(2, 1, 64 if name == "ced" else 128, 64)
    found, calls = [], [0]

    def count(*_: object) -> None:
        calls[-1] += 1

    network.blocks[0].register_forward_pre_hook(count)
    for on in (False, True):
        if on:
            keep_few_activations(network, name)
        network.zero_grad()
        torch.manual_seed(1)  # PaSST draws where its table of positions begins
        network(x).square().sum().backward()
        calls.append(0)
        found.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert calls[:2] == [1, 2]
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    with torch.inference_mode():
        assert network.eval()(x).shape == (2, 3)


def test_timm_networks_compute_activations_again(make_store: MakeStore, tmp_path: Path) -> None:
    cfg = replace(train_config(checkpointing=True, epochs=1), model=ModelConfig(name="timm:resnet10t"))
    lit = lit_of(make_store, cfg)
    calls: list[bool] = []
    lit.tagger.backbone.layer4[0].register_forward_pre_hook(lambda module, _: calls.append(module.training))  # type: ignore
    fit(lit, tmp_path)
    assert calls.count(True) == 2 * 3 and calls.count(False) > 0


@pytest.mark.parametrize("name", ["resnetish10", "vggish", "cnn10", "mn04_as", "timm:vgg11"])
def test_networks_without_checkpointing_are_refused_by_name(name: str) -> None:
    cfg = Config(model=ModelConfig(name=name), train=TrainConfig(checkpointing=True))
    with torch.device("meta"), pytest.raises(UserError, match=rf"train\.checkpointing: {name} cannot: use false"):
        set_up(build_model(cfg, 3), cfg)


# What makes no sense


def one_layer(n_classes: int, in_channels: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(n_classes))


@pytest.mark.parametrize(
    ("name", "values", "fact"),
    [
        ("resnetish10", {"freeze_epochs": 1}, r"freeze_epochs: resnetish10 starts at random"),
        ("resnetish10", {"layer_decay": 0.05}, r"layer_decay=0\.05: below 0\.1 only the last layers would learn: use"),
        ("resnetish10", {"freeze_batch_norm": True}, r"freeze_batch_norm: resnetish10 starts at random"),
        ("tests.test_fine_tuning:one_layer", {"head_lr": 1e-2}, r"head_lr: tests\..* nothing but a last layer"),
        ("tests.test_fine_tuning:one_layer", {"layer_decay": 0.9}, r"layer_decay: .* nothing but a last layer"),
        ("tests.test_fine_tuning:one_layer", {"freeze_epochs": 1}, r"freeze_epochs: .* nothing but a last layer"),
        ("tests.test_fine_tuning:dense", {"freeze_batch_norm": True}, r"freeze_batch_norm: .* has no batch norm"),
    ],
)
def test_settings_without_anything_to_act_on_are_refused(name: str, values: dict[str, Any], fact: str) -> None:
    cfg = replace(train_config(**values), model=ModelConfig(name=name))
    cfg = replace(cfg, features=replace(cfg.features, n_mels=6, hop_length=4410), predict=CFG.predict)
    with pytest.raises(UserError, match=rf"^train\.{fact}"):
        set_up(build_model(cfg, 3), cfg)


def test_a_run_that_was_trained_with_less_can_still_be_read() -> None:
    cfg = Config(train=TrainConfig(layer_decay=0.05))
    assert from_dict(to_dict(cfg)) == cfg


def test_norms_of_the_head_are_not_held() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False))
            self.head = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))

    network = Mine()
    assert batch_norms(network) == [network.body[1], network.body[2]]
