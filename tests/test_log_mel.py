"""The front-end against torchaudio's, and on paper."""

import math

import librosa
import numpy as np
import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from configs.schema import FeatureConfig
from features.log_mel import LogMel
from features.mel_filters import empty_mel_bands, mel_filters

TOLERANCE = 1e-3  # absolute, in log-mel: a quarter of what float16 may round away at log(1e-6)

SETTINGS = {
    "tutorial": {},
    "us8k": {"sample_rate": 22_050, "f_max": 11_025.0},
    "demo": {"sample_rate": 16_000, "n_fft": 512, "hop_length": 160, "n_mels": 40, "f_max": 8_000.0},
    "many mels": {"n_fft": 2048, "hop_length": 512, "n_mels": 128, "f_min": 20.0, "f_max": 16_000.0},
    "hop above the frame": {"n_fft": 256, "hop_length": 700, "n_mels": 20},
    "odd rate": {"sample_rate": 11_025, "f_max": 5_512.0, "n_mels": 32},
    "high floor": {"log_floor": 1e-2},
    "low floor": {"log_floor": 1e-10},
}


def reference(wave: np.ndarray, cfg: FeatureConfig) -> np.ndarray:
    """(n_frames, n_mels) by torchaudio."""
    mel = MelSpectrogram(
        sample_rate=cfg.sample_rate,
        n_fft=cfg.n_fft,
        hop_length=cfg.hop_length,
        n_mels=cfg.n_mels,
        f_min=cfg.f_min,
        f_max=cfg.f_max,
    )
    return torch.log(mel(torch.from_numpy(wave)) + cfg.log_floor).T.numpy()


def waves(rate: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    t = np.arange(rate) / rate
    click = np.zeros(rate)
    click[rate // 3] = 1
    made = {
        "noise": 0.3 * rng.standard_normal(rate),
        "tone": 0.5 * np.sin(2 * np.pi * 1000 * t),
        "sweep": np.sin(2 * np.pi * 100 * t * np.exp(3 * t)) * t,
        "click": click,
        "faint": 1e-4 * rng.standard_normal(rate),
        "loud": 30 * rng.standard_normal(rate),
        "long, no multiple of the hop": 0.1 * rng.standard_normal(3 * rate + 123),
        "speech after silence": np.concatenate([np.zeros(rate), 0.2 * rng.standard_normal(rate // 2)]),
    }
    return {name: wave.astype(np.float32) for name, wave in made.items()}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", waves(100))
def test_equal_to_torchaudio(settings, kind):
    cfg = FeatureConfig(**SETTINGS[settings])
    wave = waves(cfg.sample_rate)[kind]
    found = LogMel.from_config(cfg)(wave)
    assert found.dtype == np.float32
    assert found.shape == (1 + len(wave) // cfg.hop_length, cfg.n_mels)
    assert np.abs(found - reference(wave, cfg)).max() < TOLERANCE


PANNS = {"sample_rate": 32_000, "n_fft": 1024, "hop_length": 320, "f_min": 50.0, "f_max": 14_000.0, "log_floor": 1e-10}


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "f_min", "f_max"),
    [(32_000, 1024, 64, 50.0, 14_000.0), (44_100, 2048, 128, 0.0, 22_050.0), (11_025, 512, 40, 300.0, 5_512.5)],
)
def test_slaney_filters_are_librosas(rate, n_fft, n_mels, f_min, f_max):
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max).T
    found = mel_filters(rate, n_fft, n_mels, f_min, f_max, "slaney")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-7)  # their peaks lie at 0.001 to 0.03


@pytest.mark.parametrize("kind", waves(100))
def test_slaney_log_mel_in_decibels_is_librosas(kind):
    """10 log10(power): librosa cuts at 1e-10 what we add 1e-10 to, so the floor may show by 10 log10(2) dB."""
    cfg = FeatureConfig(mel_scale="slaney", **PANNS)
    wave = waves(cfg.sample_rate)[kind]
    mel = librosa.feature.melspectrogram(
        y=wave, sr=32_000, n_fft=1024, hop_length=320, n_mels=64, fmin=50, fmax=14_000, pad_mode="reflect"
    )
    expected = librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None).T
    found = LogMel.from_config(cfg)(wave) * 10 / math.log(10)
    assert found.shape == expected.shape
    audible = expected > np.maximum(-60, expected.max(axis=1, keepdims=True) - 80)  # below, float32 rounds otherwise
    assert np.abs(found - expected)[audible].max(initial=0) < 1e-3 * 10 / math.log(10)
    # and what lies 120 dB below the loudest is a tenth rounding of the FFT, another one on another processor
    lost = expected < expected.max(axis=1, keepdims=True) - 110
    assert np.all(np.abs(found - expected) < 10 * math.log10(2) + np.where(lost, 0.5, 0.1))
    assert audible.any() or kind == "faint"


def test_the_scales_differ():
    htk, slaney = (mel_filters(16_000, 512, 40, 0.0, 8_000.0, scale) for scale in ("htk", "slaney"))
    assert np.abs(htk / htk.max(0) - slaney / slaney.max(0)).max() > 0.5


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_log_mel_of_silence_is_the_floor_and_finite(settings):
    cfg = FeatureConfig(**SETTINGS[settings])
    found = LogMel.from_config(cfg)(np.zeros(cfg.sample_rate, dtype=np.float32))
    assert np.allclose(found, math.log(cfg.log_floor), atol=1e-5)


def test_five_seconds_are_501_frames():
    assert LogMel()(np.zeros(5 * 44_100, dtype=np.float32)).shape == (501, 64)
    assert LogMel()(np.zeros(5 * 44_100 - 1, dtype=np.float32)).shape == (500, 64)


@pytest.mark.parametrize("samples", [1, 2, 511, 512, 513, 514, 1024])
def test_short_waves_have_frames(samples):
    """Up to half a frame they are filled with zeros; beyond, torchaudio can follow."""
    wave = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    found = LogMel()(wave)
    filled = np.pad(wave, (0, max(0, 513 - samples)))
    assert np.isfinite(found).all() and len(found) == 1 + len(filled) // 441
    assert np.abs(found - reference(filled, FeatureConfig())).max() < TOLERANCE


@pytest.mark.parametrize(("n_fft", "hop"), [(16, 1), (16, 7), (16, 8), (16, 16), (16, 20), (64, 10)])
def test_every_length_has_its_frames(n_fft, hop):
    """Neither at the ends nor where two blocks meet is a frame lost, doubled or out of place."""
    cfg = FeatureConfig(sample_rate=1_000, n_fft=n_fft, hop_length=hop, n_mels=4, f_max=500.0)
    log_mel = LogMel.from_config(cfg)
    wave = np.random.default_rng(0).standard_normal(20 * n_fft).astype(np.float32)
    for samples in [*range(n_fft // 2 + 1, 4 * n_fft), 20 * n_fft]:
        found = log_mel(wave[:samples])
        assert found.shape == (1 + samples // hop, 4)
        assert np.abs(found - reference(wave[:samples], cfg)).max() < TOLERANCE, samples


def test_a_wave_in_any_layout():
    wave = np.random.default_rng(0).standard_normal(5000)
    expected = LogMel()(wave.astype(np.float32))
    fixed = wave.astype(np.float32)
    fixed.flags.writeable = False
    for other in (wave, fixed, wave[::-1].copy()[::-1], np.repeat(wave, 2)[::2]):
        assert np.array_equal(LogMel()(other), expected)


@pytest.mark.parametrize("samples", [300, 20_000])
def test_int16_samples_give_the_same_bits(samples):
    """Full scale is 32,768 there: a power of two, which no rounding shows."""
    wave = np.random.default_rng(0).integers(-32_768, 32_768, samples, dtype=np.int16)
    assert np.array_equal(LogMel()(wave), LogMel()(wave.astype(np.float32) / 32_768))


def test_bands_between_two_bins_are_empty():
    """64 bands over 9 bins: most lie between two bins, some groups of them altogether."""
    cfg = FeatureConfig(sample_rate=16_000, n_fft=16, hop_length=8, n_mels=64, f_max=4_000.0)
    wave = np.random.default_rng(0).standard_normal(1_000).astype(np.float32)
    found = LogMel.from_config(cfg)(wave)
    assert np.abs(found - reference(wave, cfg)).max() < TOLERANCE
    assert (found == np.float32(math.log(1e-6))).all(axis=0).sum() > 32


def test_ten_times_louder_is_20_db():
    """A power 100 times as large: ln(100) more, where the floor does not show."""
    wave = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    assert np.allclose(LogMel()(10 * wave) - LogMel()(wave), math.log(100), atol=1e-3)


def test_a_tone_is_loudest_in_its_band():
    """64 mels up to 8 kHz: mel(f) = 2595 log10(1 + f / 700), bands every mel(8000) / 65."""
    to_mel = lambda hz: 2595 * math.log10(1 + hz / 700)  # noqa: E731
    log_mel = LogMel(16_000, 1024, 160, 64, 0.0, 8_000.0)
    for hz in (500, 1000, 3000, 6000):
        found = log_mel(np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000).astype(np.float32))
        assert abs(found[50].argmax() - (to_mel(hz) / to_mel(8_000) * 65 - 1)) <= 0.75


def test_the_wave_is_unchanged():
    wave = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    before = wave.copy()
    first = LogMel()(wave)
    assert np.array_equal(wave, before)
    assert np.array_equal(LogMel()(wave), first), "and a second call gives the same"


def test_one_object_serves_many_waves():
    log_mel = LogMel()
    made = waves(44_100)
    found = {name: log_mel(wave) for name, wave in made.items()}
    for name, wave in made.items():
        assert np.array_equal(found[name], LogMel()(wave)), name


# Trimming


def padded(before: float, sound: float, after: float, rate: int = 16_000, level: float = 0.5) -> np.ndarray:
    noise = level * np.random.default_rng(0).standard_normal(round(sound * rate))
    return np.concatenate([np.zeros(round(before * rate)), noise, np.zeros(round(after * rate))]).astype(np.float32)


def front_end(trim_db: float | None) -> LogMel:
    return LogMel(16_000, 512, 160, 40, 0.0, 8_000.0, trim_db=trim_db)


def test_leading_and_trailing_silence_is_cut():
    """0.5 s + 1 s + 2 s: frames 50 to 150 touch the sound, and one or two more on each side by half a frame."""
    wave = padded(0.5, 1.0, 2.0)
    full, trimmed = front_end(None)(wave), front_end(60.0)(wave)
    assert len(full) == 351 and 101 <= len(trimmed) <= 105
    start = next(i for i in range(len(full)) if np.allclose(full[i], trimmed[0], atol=1e-4))
    assert 48 <= start <= 50
    assert np.allclose(full[start : start + len(trimmed)], trimmed, atol=1e-4)


def test_silence_inside_is_kept():
    wave = np.concatenate([padded(0, 0.5, 1.0), padded(0, 0.5, 1.0)])
    assert 200 <= len(front_end(60.0)(wave)) <= 205


def test_the_threshold_is_relative_to_the_loudest():
    """A part 40 dB below the rest goes at 30 dB and stays at 50 dB, at any level."""
    for level in (1.0, 0.01):
        wave = np.concatenate([padded(0, 1, 0, level=level), padded(0, 1, 0, level=level / 100)])
        assert len(front_end(30.0)(wave)) < 110
        assert len(front_end(50.0)(wave)) == 201


def test_nothing_to_trim():
    wave = padded(0, 1.0, 0)
    assert np.array_equal(front_end(60.0)(wave), front_end(None)(wave))
    assert len(front_end(60.0)(np.zeros(1600, dtype=np.float32))) == 11, "silence stays silence"


def test_bands_between_two_bins_are_counted():
    """At 44.1 kHz and 1,024 samples a bin is 43 Hz wide; of 128 mel bands the lowest ends below the first bin."""
    cfg = FeatureConfig(n_mels=128)
    assert empty_mel_bands(cfg) == [0]
    assert empty_mel_bands(FeatureConfig(n_mels=128, n_fft=2048)) == empty_mel_bands(FeatureConfig()) == []
