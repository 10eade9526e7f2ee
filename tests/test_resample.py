"""input.resample against torchaudio alone, and against what can be known without it."""

from math import ceil

import numpy as np
import pytest
import torch
from torchaudio.transforms import Resample

import input.resample
from input.resample import at_speed, resample

RATES = [(44_100, 22_050), (22_050, 44_100), (48_000, 44_100), (16_000, 44_100), (44_100, 16_000), (8_000, 8_050)]


@pytest.mark.parametrize(("rate", "new_rate"), RATES)
@pytest.mark.parametrize("samples", [1, 7, 1000, 12_345])
def test_equal_to_torchaudio(rate: int, new_rate: int, samples: int) -> None:
    wave = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    with torch.inference_mode():
        expected = Resample(rate, new_rate)(torch.from_numpy(wave)).numpy()
    found = resample(wave, rate, new_rate)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("rate", "new_rate", "samples"), [(2, 3, 5), (3, 2, 20), (160, 147, 40)])
def test_equal_to_the_sum_on_paper(rate: int, new_rate: int, samples: int) -> None:
    """Sample n of the new wave is the sum of the old ones, each weighted by the low-pass at its distance: a sinc that
    cuts at 0.99 of the lower Nyquist frequency, under a squared cosine that ends after 6 of its lobes."""
    x = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    cutoff = 0.99 * min(1, new_rate / rate)  # of the old Nyquist frequency
    n, k = np.arange(ceil(samples * new_rate / rate))[:, None], np.arange(samples)
    lobes = np.clip((k - n * rate / new_rate) * cutoff, -6, 6)
    expected = (cutoff * np.sinc(lobes) * np.cos(np.pi * lobes / 12) ** 2) @ x
    np.testing.assert_allclose(resample(x, rate, new_rate), expected, atol=1e-5)


def test_no_sample_is_lost_when_torchaudio_rounds_the_length() -> None:
    """1,400,123 * 147 / 160 is 1,286,363.006: 1,286,364 new samples, but float32 counts in eighths there."""
    wave = np.random.default_rng(0).standard_normal(1_400_123).astype(np.float32)
    plain, found = Resample(160, 147)(torch.from_numpy(wave)).numpy(), resample(wave, 48_000, 44_100)
    assert (len(plain), len(found)) == (1_286_363, 1_286_364)
    np.testing.assert_array_equal(found[:-1], plain)
    # the last new sample lies at 1286363 * 160 / 147 = 1400122.99 of the old ones, of which the last is 1400122
    assert found[-1] == pytest.approx(resample(wave[-3 * 160 - 123 :], 48_000, 44_100)[-1], abs=1e-5)


def test_the_nearest_ratio_of_few_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchaudio would keep 10^8 numbers for the ratio of 44,056 (NTSC) and 10^10 for that of 705,601 Hz to 44,100."""
    kept, make = [], input.resample._resampler
    monkeypatch.setattr(input.resample, "_resampler", lambda ratio: kept.append(make(ratio)) or kept[-1])
    wave = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    for rate in (11_127, 44_056, 705_601):
        found = resample(wave, rate, 44_100)
        assert len(found) == pytest.approx(5000 * 44_100 / rate, rel=3e-4, abs=1)
        assert kept[-1].kernel.numel() < 10**8
    np.testing.assert_array_equal(resample(wave, 44_099, 44_100), wave)  # off by a 44,100th


def test_a_tone_below_both_nyquists_keeps_its_frequency_and_level() -> None:
    wave = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)
    found = resample(wave, 48_000, 16_000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert len(found) == 16_000
    assert np.abs(found - expected)[100:-100].max() < 1e-3  # the ends hear the silence around them


def test_a_tone_above_the_new_nyquist_is_cut() -> None:
    wave = np.sin(2 * np.pi * 12_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(resample(wave, 48_000, 16_000))[100:-100].max() < 0.01


def test_a_tape_at_another_speed() -> None:
    """440 Hz at speed 1.1 are 484 Hz for 10 / 11 of the time."""
    wave = np.sin(2 * np.pi * 440 * np.arange(22_000) / 22_000).astype(np.float32)
    found = at_speed(wave, 1.1)
    expected = np.sin(2 * np.pi * 484 * np.arange(20_000) / 22_000)
    assert found.dtype == np.float32 and len(found) == 20_000
    assert np.abs(found - expected)[100:-100].max() < 1e-3
    np.testing.assert_array_equal(found, resample(wave, 11, 10))  # 1.1 is no sum of powers of two; the ratio is exact


@pytest.mark.parametrize("speed", [0.5, 0.9, 0.937, 1.05946309, 2.0])
@pytest.mark.parametrize("samples", [1, 1001])
def test_the_length_follows_the_speed(speed: float, samples: int) -> None:
    assert abs(len(at_speed(np.ones(samples, np.float32), speed)) - samples / speed) < 1.01


def test_speed_1_is_the_wave_itself() -> None:
    wave = np.ones(5, np.float32)
    assert at_speed(wave, 1.0) is wave
