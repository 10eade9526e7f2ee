"""Spectral subtraction: what it takes, what it leaves, and where it is applied."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from configs.load import load_config
from console.errors import UserError
from features.extraction import _extract_clip
from features.log_mel import LogMel
from features.noise_reduction import PIECE, _of_piece, reduce_noise

RATE = 8000


def bird_in_noise(seconds: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """A call of half a second at 2 kHz, and steady noise."""
    rng, time = np.random.default_rng(0), np.arange(int(seconds * RATE)) / RATE
    call = np.where((time >= 1) & (time < 1.5), np.sin(2 * np.pi * 2000 * time), 0)
    return call.astype(np.float32), (0.1 * rng.standard_normal(len(time))).astype(np.float32)


def test_the_call_stays_and_the_noise_goes() -> None:
    call, noise = bird_in_noise()
    wave = call + noise
    found = reduce_noise(wave, RATE, 1.5)
    assert found.dtype == np.float32 and found.shape == wave.shape
    assert np.dot(found, found) == pytest.approx(np.dot(wave, wave), rel=1e-4)
    with_call, without = slice(RATE + 400, RATE + 3600), slice(2 * RATE, 4 * RATE)
    before = np.std(wave[with_call]) / np.std(wave[without])
    assert np.std(found[with_call]) / np.std(found[without]) > 3 * before
    assert np.corrcoef(found[with_call], call[with_call])[0, 1] > 0.99


def test_each_minute_has_a_floor_of_its_own_and_no_piece_is_shorter_than_half_of_one() -> None:
    noise = np.random.default_rng(1).standard_normal(int(2.4 * PIECE * RATE)).astype(np.float32)
    noise[PIECE * RATE :] *= 100  # another place
    found = reduce_noise(noise, RATE, 1.5)
    first = _of_piece(noise[: PIECE * RATE], RATE, 1.5)
    rest = _of_piece(noise[PIECE * RATE :], RATE, 1.5)  # 1.4 minutes
    np.testing.assert_array_equal(found, np.concatenate([first, rest]))


@pytest.mark.parametrize("wave", [np.zeros(4000, np.float32), np.ones(1, np.float32), np.ones(100, np.float32)])
def test_what_has_no_spectrum_stays(wave: np.ndarray) -> None:
    np.testing.assert_array_equal(reduce_noise(wave, RATE, 1.5), wave)


@pytest.mark.parametrize("rate", [1, 10, 40, 100])
def test_a_slow_recorder_has_a_window_of_at_least_four_samples(rate: int) -> None:
    noise = np.random.default_rng(2).standard_normal(1000).astype(np.float32)
    found = reduce_noise(noise, rate, 1.5)
    assert found.shape == noise.shape and np.dot(found, found) == pytest.approx(np.dot(noise, noise), rel=1e-3)


def test_a_steady_tone_is_left_26_db_lower_but_never_becomes_silence() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    found = reduce_noise(tone, RATE, 10)
    assert np.isfinite(found).all() and np.std(found) == pytest.approx(np.std(tone), rel=1e-3)


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16"])
def test_log_mel_hears_the_reduced_wave(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", 0.5 * sum(bird_in_noise()), RATE, subtype=subtype)
    wave, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    settings = ["features.sample_rate=8000", "features.f_max=4000", "features.n_mels=16"]
    cfg = load_config(overrides=[*settings, "features.noise_reduction=1.5"]).features
    frames, fault = _extract_clip(LogMel.from_config(cfg), "a.wav", str(tmp_path / "a.wav"), cfg, None)
    assert fault == ""
    np.testing.assert_array_equal(frames, LogMel.from_config(cfg)(reduce_noise(wave, RATE, 1.5)))
    plain = load_config(overrides=settings).features
    assert not np.allclose(
        frames, _extract_clip(LogMel.from_config(plain), "a", str(tmp_path / "a.wav"), plain, None)[0]
    )


@pytest.mark.parametrize("value", ["-1", "11"])
def test_a_strength_out_of_range_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"features\.noise_reduction must be between 0 and 10"):
        load_config(overrides=[f"features.noise_reduction={value}"])
