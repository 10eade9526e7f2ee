"""Slopes against librosa's and by hand, the place of a band, and the tagger that makes them."""

import librosa
import numpy as np
import pytest
import torch

from configs.schema import Config, ModelConfig, TrainConfig
from models.tagger import Tagger, build_tagger, input_channels, slope


@pytest.mark.parametrize("n_frames", [9, 10, 57])
def test_slope_is_eight_times_librosas(n_frames: int) -> None:
    x = np.random.default_rng(0).standard_normal((5, n_frames)).astype(np.float32)
    expected = librosa.feature.delta(x, width=9, mode="nearest")
    np.testing.assert_allclose(slope(torch.from_numpy(x)).numpy(), 8 * expected, atol=1e-5)


def test_slope_by_hand() -> None:
    """A straight line rises by 8 steps over nine frames. At its first frame the four before it are 0 as well:
    8 * (1 + 4 + 9 + 16) / 60 = 4."""
    line = 0.5 * torch.arange(20.0).view(1, 1, 1, -1)
    found = slope(line)[0, 0, 0]
    torch.testing.assert_close(found[4:-4], torch.full((12,), 4.0))
    assert found[0] == pytest.approx(2.0)


@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_a_few_frames_are_enough(n_frames: int) -> None:
    x = torch.randn(2, 1, 3, n_frames)
    found = input_channels(x, deltas=2, frequency_channel=True)
    assert found.shape == (2, 4, 3, n_frames) and found.isfinite().all()
    if n_frames == 1:
        assert not found[:, 1:3].any()


def test_the_order_of_the_channels() -> None:
    x = torch.randn(2, 1, 5, 12)
    found = input_channels(x, deltas=2, frequency_channel=True)
    for i, expected in enumerate((x, slope(x), slope(slope(x)))):
        assert torch.equal(found[:, i : i + 1], expected)
    assert found[1, 3, :, 7].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert torch.equal(input_channels(x, frequency_channel=True)[:, 1], found[:, 3])
    assert input_channels(x) is x


@pytest.mark.parametrize("name", ["resnetish10", "vggish", "alexnet", "cnn14", "timm:mobilenetv4_conv_small_050"])
def test_the_tagger_makes_them_from_the_normalised_log_mel(name: str) -> None:
    """And keeps no more in its state than before; in channels_last or not, the answer is the same."""
    model = ModelConfig(name=name, width=8, deltas=1, frequency_channel=True)
    mean, std = np.full(64, -5, np.float32), np.full(64, 2, np.float32)
    x = 2 * torch.randn(2, 1, 64, 64) - 5
    found = []
    for channels_last in (True, False):
        torch.manual_seed(0)
        cfg = Config(model=model, train=TrainConfig(channels_last=channels_last))
        tagger = build_tagger(cfg, np.ones(3) / 3, mean, std).eval()
        with torch.inference_mode():
            found.append(tagger(x))
            direct = tagger.backbone(input_channels((x + 5) / 2, 1, True))
        torch.testing.assert_close(found[-1], direct, rtol=1e-3, atol=1e-4)
        assert set(tagger.state_dict()) == {f"backbone.{k}" for k in tagger.backbone.state_dict()} | {
            *("mean", "std", "prior")
        }
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_what_the_backbone_sees() -> None:
    tagger = Tagger(torch.nn.Identity(), torch.ones(2), torch.full((2,), 2.0), torch.ones(3) / 3, True, 1, True)
    x = torch.randn(4, 1, 2, 10)
    seen = tagger(x)
    assert torch.equal(seen, input_channels((x - 1) / 2, 1, True))
    assert seen.is_contiguous(memory_format=torch.channels_last)
