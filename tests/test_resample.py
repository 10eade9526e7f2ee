"""input.resample against torchaudio, and against what can be known without it."""

import numpy as np
import pytest
import torch

from input.resample import Resample, _player, at_speed

RATES = [(44_100, 22_050), (22_050, 44_100), (48_000, 44_100), (16_000, 44_100), (44_100, 16_000), (8_000, 8_050)]


@pytest.mark.parametrize(("rate", "new_rate"), RATES)
@pytest.mark.parametrize("samples", [1, 7, 1000, 12_345])
def test_equal_to_torchaudio(rate: int, new_rate: int, samples: int) -> None:
    reference = pytest.importorskip("torchaudio.transforms").Resample(rate, new_rate)
    wave = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    with torch.inference_mode():
        expected = reference(torch.from_numpy(wave)).numpy()
    found = Resample(rate, new_rate)(wave)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_a_tone_below_both_nyquists_keeps_its_frequency_and_level() -> None:
    wave = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)
    found = Resample(48_000, 16_000)(wave)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert len(found) == 16_000
    assert np.abs(found - expected)[100:-100].max() < 1e-3  # the ends hear the silence around them


def test_a_tone_above_the_new_nyquist_is_cut() -> None:
    wave = np.sin(2 * np.pi * 12_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(Resample(48_000, 16_000)(wave))[100:-100].max() < 0.01


def test_a_tape_at_another_speed() -> None:
    """440 Hz at speed 1.1 are 484 Hz for 10 / 11 of the time."""
    wave = np.sin(2 * np.pi * 440 * np.arange(22_000) / 22_000).astype(np.float32)
    found = at_speed(wave, 1.1)
    expected = np.sin(2 * np.pi * 484 * np.arange(20_000) / 22_000)
    assert found.dtype == np.float32 and len(found) == 20_000
    assert np.abs(found - expected)[100:-100].max() < 1e-3
    np.testing.assert_array_equal(found, Resample(11, 10)(wave))  # 1.1 is no sum of powers of two; the ratio is exact


@pytest.mark.parametrize("speed", [0.5, 0.9, 0.937, 1.05946309, 2.0])
@pytest.mark.parametrize("samples", [1, 1001])
def test_the_length_follows_the_speed(speed: float, samples: int) -> None:
    assert abs(len(at_speed(np.ones(samples, np.float32), speed)) - samples / speed) < 1.01
    assert len(_player(speed).kernels) <= 2000


def test_speed_1_is_the_wave_itself() -> None:
    wave = np.ones(5, np.float32)
    assert at_speed(wave, 1.0) is wave
