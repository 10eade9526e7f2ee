"""Prediction over windows, by hand with a network that answers with the mean of what it hears."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.schema import Config, InputConfig, ModelConfig, PredictConfig, TrainConfig
from console.errors import UserError
from features.batches import Batches
from models.inference import predict_clips, predict_finite
from models.tagger import Tagger, build_tagger, save_tagger
from runs.predict import predict_store
from runs.run_folder import Manifest, Trained
from tests.conftest import MakeStore


class Loudness(nn.Module):
    """(batch, 1, n_mels, n_frames) -> logits (0, mean of the window)."""

    def forward(self, x: Tensor) -> Tensor:
        level = x.mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(level), level], dim=1)


def fake_tagger(backbone: nn.Module | None = None) -> Tagger:
    return Tagger(backbone or Loudness(), torch.zeros(2), torch.ones(2), torch.tensor([0.25, 0.75]))


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


SECOND = PredictConfig(window_seconds=1.0, batch_size=3)  # 10 frames at the store's 10 frames a second


def test_the_mean_over_windows_by_hand(make_store: MakeStore) -> None:
    two_windows = np.concatenate([np.full((10, 2), 1.0), np.full((10, 2), 3.0)])
    short = np.full((5, 2), 2.0)  # half a window: the other half is silence at -10, the mean -4
    store = make_store([np.full((10, 2), 0.5), two_windows, short])
    found = predict_clips(fake_tagger(), Batches(store), np.arange(3), SECOND, "fp32")
    loud = [sigmoid(0.5), (sigmoid(1) + sigmoid(3)) / 2, sigmoid(-4)]
    np.testing.assert_allclose(found, [[1 - p, p] for p in loud], atol=1e-6)
    assert found.dtype == np.float32


def test_lengths_have_equal_weight_with_any_number_of_windows(make_store: MakeStore) -> None:
    """20 frames: two windows of a second, one of two seconds. The mean over all three would be another."""
    store = make_store([np.concatenate([np.full((10, 2), 1.0), np.full((10, 2), 3.0)]), np.zeros((0, 2))])
    cfg = PredictConfig(1.0, more_window_seconds=(2.0,), batch_size=2)
    done: list[int] = []
    found = predict_clips(fake_tagger(), Batches(store), np.arange(2), cfg, "fp32", done.append)
    p = ((sigmoid(1) + sigmoid(3)) / 2 + sigmoid(2)) / 2
    np.testing.assert_allclose(found, [[1 - p, p], [0.25, 0.75]], atol=1e-6)
    assert found.dtype == np.float32 and sum(done) == 3


def test_overlapping_windows_by_hand(make_store: MakeStore) -> None:
    """20 frames, half of each window again: 0 to 9, 5 to 14, 10 to 19."""
    store = make_store([np.concatenate([np.full((10, 2), 1.0), np.full((10, 2), 3.0)])])
    found = predict_clips(fake_tagger(), Batches(store), np.arange(1), PredictConfig(1.0, overlap=0.5), "fp32")
    np.testing.assert_allclose(found[0, 1], (sigmoid(1) + sigmoid(2) + sigmoid(3)) / 3, atol=1e-6)


def test_a_repeated_clip_is_as_loud_as_it_is(make_store: MakeStore) -> None:
    store = make_store([np.full((5, 2), 2.0), np.zeros((0, 2))])
    found = predict_clips(fake_tagger(), Batches(store, padding="repeat"), np.arange(2), SECOND, "fp32")
    np.testing.assert_allclose(found, [[1 - sigmoid(2), sigmoid(2)], [0.25, 0.75]], atol=1e-6)


def test_a_finished_run_predicts_with_its_own_padding(make_store: MakeStore, tmp_path: Path) -> None:
    """As validation did: the kernel and predictions of test clips take it from the run's config."""
    store = make_store([np.random.default_rng(0).normal(size=(5, 4)), np.zeros((10, 4))])
    cfg = Config(model=ModelConfig("resnetish10", width=8), predict=SECOND, train=TrainConfig(precision="fp32"))
    found, manifest = {}, Manifest(experiment="a", fold=0, n_folds=2, fold_hash="f")
    for padding in ("silence", "repeat"):
        cfg = replace(cfg, input=InputConfig(padding=padding))
        torch.manual_seed(0)
        tagger = build_tagger(cfg, np.full(3, 1 / 3, np.float32), np.zeros(4, np.float32), np.ones(4, np.float32))
        save_tagger(tagger.state_dict(), tmp_path / "model.safetensors")
        run = Trained(tmp_path, "id", cfg, ("a", "b", "c"), manifest)
        found[padding] = predict_store(run, store, torch.device("cpu"))
        by_hand = predict_clips(tagger, Batches(store, padding=padding), np.arange(2), SECOND, "fp32")
        np.testing.assert_allclose(found[padding], by_hand, atol=1e-5)
    assert np.abs(found["silence"][0] - found["repeat"][0]).max() > 1e-4
    np.testing.assert_allclose(found["silence"][1], found["repeat"][1], atol=1e-6)


def test_probabilities_are_averaged_not_logits(make_store: MakeStore) -> None:
    store = make_store([np.concatenate([np.full((10, 2), -8.0), np.full((10, 2), 8.0)])])
    found = predict_clips(fake_tagger(), Batches(store), np.array([0]), SECOND, "fp32")
    np.testing.assert_allclose(found, [[0.5, 0.5]], atol=1e-6)
    store = make_store([np.concatenate([np.full((10, 2), 0.0), np.full((10, 2), 8.0)])])
    found = predict_clips(fake_tagger(), Batches(store), np.array([0]), SECOND, "fp32")
    np.testing.assert_allclose(found[0, 1], (0.5 + sigmoid(8)) / 2, atol=1e-6)  # the mean logit would say sigmoid(4)


def test_a_clip_without_frames_gets_the_prior(make_store: MakeStore) -> None:
    store = make_store([np.zeros((0, 2)), np.full((10, 2), 1.0), np.zeros((0, 2))])
    found = predict_clips(fake_tagger(), Batches(store), np.arange(3), SECOND, "fp32")
    np.testing.assert_allclose(found, [[0.25, 0.75], [sigmoid(-1), sigmoid(1)], [0.25, 0.75]], atol=1e-6)
    found = predict_clips(fake_tagger(), Batches(store), np.array([0, 2]), SECOND, "fp32")
    np.testing.assert_allclose(found, [[0.25, 0.75], [0.25, 0.75]])


def test_rows_choose_clips_and_their_order(make_store: MakeStore) -> None:
    rng = np.random.default_rng(0)
    store = make_store([rng.normal(size=(n, 2)) for n in (30, 4, 0, 17, 60)])
    everything = predict_clips(fake_tagger(), Batches(store), np.arange(5), SECOND, "fp32")
    some = predict_clips(fake_tagger(), Batches(store), np.array([4, 2, 0]), SECOND, "fp32")
    np.testing.assert_allclose(some, everything[[4, 2, 0]], atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_batch_size_does_not_matter_beyond_rounding(make_store: MakeStore, precision: str) -> None:
    rng = np.random.default_rng(0)
    store = make_store([rng.normal(size=(n, 2)) for n in (30, 4, 17, 60, 1)])
    torch.manual_seed(0)
    tagger = fake_tagger(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    tagger.prior = torch.ones(4) / 4
    every = [
        predict_clips(tagger, Batches(store), np.arange(5), PredictConfig(1.0, batch_size=n), precision)
        for n in (1, 2, 64)
    ]
    tolerance = 1e-6 if precision == "fp32" else 1e-2
    for other in every[1:]:
        np.testing.assert_allclose(other, every[0], atol=tolerance)
    np.testing.assert_allclose(every[0].sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_taggers_mode_is_restored(make_store: MakeStore, training: bool) -> None:
    class Fails(Loudness):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no memory")

    store = make_store([np.ones((10, 2))])
    for backbone in (nn.Sequential(Loudness(), nn.Dropout(0.5)), Fails()):
        tagger = fake_tagger(backbone).train(training)
        try:
            found = predict_clips(tagger, Batches(store), np.array([0]), SECOND, "fp32")
            np.testing.assert_allclose(found, [[sigmoid(-1), sigmoid(1)]], atol=1e-6)  # no dropout
        except RuntimeError:
            assert isinstance(backbone, Fails)
        assert tagger.training is backbone.training is training


def test_progress_counts_every_window(make_store: MakeStore) -> None:
    store = make_store([np.ones((n, 2)) for n in (10, 25, 40)])  # 1 + 3 + 4 windows
    done: list[int] = []
    predict_clips(fake_tagger(), Batches(store), np.arange(3), SECOND, "fp32", done.append)
    assert done == [3, 3, 2]


class Overflows(Loudness):
    """Only numbers of 32 bits are large enough for it, if any."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        overflows = self.always or torch.is_autocast_enabled("cpu")
        return super().forward(x) * (np.nan if overflows else 1.0)


def test_an_overflow_is_a_warning_and_predicted_in_full_precision(
    make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    given = Batches(make_store([np.full((10, 2), 0.5)])), np.arange(1), SECOND
    tagger = fake_tagger(Overflows(always=False))
    with pytest.raises(FloatingPointError):
        predict_clips(tagger, *given, "bf16")
    assert np.array_equal(predict_finite(tagger, *given, "bf16"), predict_clips(fake_tagger(), *given, "fp32"))
    assert "bf16: a probability is not finite" in capsys.readouterr().err
    predict_finite(tagger, *given, "fp32")
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="its weights are damaged"):
        predict_finite(fake_tagger(Overflows(always=True)), *given, "fp32")
