"""The front ends of configs/pretrained against the published formulas, from sound to the network's input."""

import math
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from torchaudio.compliance.kaldi import fbank, get_mel_banks
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

from configs.load import load_config
from configs.schema import Config, FeatureConfig
from features.log_mel import LogMel
from features.mel_filters import mel_filters

FILES = {file.stem: file for file in sorted((Path(__file__).parents[1] / "configs" / "pretrained").glob("*.yaml"))}


def efficientat(wave: torch.Tensor) -> torch.Tensor:
    """EfficientAT and PaSST: pre-emphasis over the wave, a symmetric window of 800 in an FFT of 1,024, Kaldi's mels up
    to 15 kHz with an empty filter for the highest bin, ln(x + 1e-5), (x + 4.5) / 5."""
    wave = wave[1:] - 0.97 * wave[:-1]
    window = torch.hann_window(800, periodic=False)
    power = torch.stft(wave, 1024, 320, 800, window, center=True, return_complex=True).abs() ** 2
    banks, _ = get_mel_banks(128, 1024, 32_000.0, 0.0, 15_000.0, 100.0, -500.0, 1.0)
    mel = torch.nn.functional.pad(banks, (0, 1)) @ power
    return ((torch.log(mel + 1e-5) + 4.5) / 5).T


def panns(wave: torch.Tensor) -> torch.Tensor:
    """CNN14 and CNN10: librosa's mels from 50 Hz to 14 kHz, 10 log10(max(x, 1e-10))."""
    mel = librosa.feature.melspectrogram(
        y=wave.numpy(), sr=32_000, n_fft=1024, hop_length=320, n_mels=64, fmin=50, fmax=14_000, pad_mode="reflect"
    )
    return torch.from_numpy(librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None)).T


def ast(wave: torch.Tensor) -> torch.Tensor:
    """The clip less its mean, Kaldi's filter bank with a Hann window, mean -4.2677393, 2 x std 4.5689974."""
    options = {"htk_compat": True, "use_energy": False, "window_type": "hanning", "dither": 0.0, "frame_shift": 10}
    bank = fbank((wave - wave.mean())[None], sample_frequency=16_000, num_mel_bins=128, **options)
    return (bank + 4.2677393) / (2 * 4.5689974)


def beats(wave: torch.Tensor) -> torch.Tensor:
    """Kaldi's filter bank of the wave at int16's full scale, mean 15.41663, 2 x std 6.55582."""
    bank = fbank(wave[None] * 2**15, sample_frequency=16_000, num_mel_bins=128, frame_length=25, frame_shift=10)
    return (bank - 15.41663) / (2 * 6.55582)


def ced(wave: torch.Tensor) -> torch.Tensor:
    """torchaudio's mel spectrogram in decibels, at most 120 dB below its maximum."""
    mel = MelSpectrogram(sample_rate=16_000, n_fft=512, win_length=512, hop_length=160, n_mels=64, f_min=0, f_max=8000)
    return AmplitudeToDB(top_db=120)(mel(wave)).T


PUBLISHED = {"mn": efficientat, "passt": efficientat, "cnn": panns, "ast": ast, "beats": beats, "ced": ced}


def published(name: str):
    return next(formula for start, formula in PUBLISHED.items() if name.startswith(start))


def waves(rate: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    t = np.arange(rate) / rate
    noise = rng.standard_normal(rate)
    hum = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 20))
    made = {
        "noise": 0.1 * noise,
        "offset": 0.05 * noise + 0.3,
        "hum in noise": 0.2 * hum + 0.01 * noise,
        "click": np.where(np.arange(rate) == rate // 3, 0.9, 1e-3 * noise),
        "silence, then noise": np.where(t < 0.5, 0.0, 0.2 * noise),
        "odd length": 0.1 * noise[: rate // 2 + 123],
    }
    return {name: wave.astype(np.float32) for name, wave in made.items()}


def front_end(cfg: Config, wave: np.ndarray) -> np.ndarray:
    """What the network gets."""
    log_mel = LogMel.from_config(cfg.features)(wave)
    if cfg.train.normalise == "decibel":
        return log_mel * 10 / math.log(10)
    return (log_mel - cfg.train.fixed_mean) / cfg.train.fixed_std


def test_checkpoints_of_a_family_share_its_front_end():
    for start, first in {"mn": "mn10_as", "cnn": "cnn14", "ced": "ced_mini"}.items():
        for cfg in (load_config(file) for name, file in FILES.items() if name.startswith(start)):
            assert cfg.features == load_config(FILES[first]).features
            assert cfg.train.normalise == load_config(FILES[first]).train.normalise


@pytest.mark.parametrize("name", ["mn10_as", "passt", "cnn14", "ast", "beats_iter3plus", "ced_mini"])
@pytest.mark.parametrize("kind", waves(100))
def test_equal_to_the_published_front_end(name, kind):
    cfg = load_config(FILES[name])
    wave = waves(cfg.features.sample_rate)[kind]
    expected, found = published(name)(torch.from_numpy(wave)).numpy(), front_end(cfg, wave)
    assert found.dtype == np.float32 and found.shape == expected.shape
    unit = math.log(10) / 10 if cfg.train.normalise == "decibel" else cfg.train.fixed_std
    difference = np.abs(found - expected) * unit  # in log-mel
    # the FFTs of float32 round differently, which shows in what lies far below the loudest of its frame
    audible = expected * unit > (expected * unit).max(axis=1, keepdims=True) - 60 / 10 * math.log(10)
    assert audible.mean() > 0.5
    assert difference[audible].max() < 1e-4
    assert difference.max() < 1e-2


@pytest.mark.parametrize("name", ["mn10_as", "cnn14", "ast", "beats_iter3plus", "ced_mini"])
def test_digital_silence_is_the_same_and_finite(name):
    cfg = load_config(FILES[name])
    wave = np.zeros(cfg.features.sample_rate, np.float32)
    found, expected = front_end(cfg, wave), published(name)(torch.from_numpy(wave)).numpy()
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("name", ["mn10_as", "cnn14", "ast", "beats_iter3plus", "ced_mini"])
def test_int16_samples_give_the_same_bits(name):
    log_mel = LogMel.from_config(load_config(FILES[name]).features)
    wave = np.random.default_rng(0).integers(-32_768, 32_768, 20_000, dtype=np.int16)
    assert np.array_equal(log_mel(wave), log_mel(wave.astype(np.float32) / 32_768))


@pytest.mark.parametrize("name", ["mn10_as", "ast"])
@pytest.mark.parametrize("samples", [0, 1, 2, 399, 400, 401, 513, 800, 1024])
def test_short_waves_have_frames(name, samples):
    cfg = load_config(FILES[name])
    wave = np.full(samples, 0.1, np.float32)
    found = LogMel.from_config(cfg.features)(wave)
    n_frames = 1 + (max(samples, 400) - 400) // 160 if name == "ast" else 1 + max(samples - 1, 513) // 320
    assert np.isfinite(found).all() and len(found) == n_frames


def kaldi(**settings) -> FeatureConfig:
    usual = {"sample_rate": 16_000, "n_fft": 512, "hop_length": 160, "f_max": 8_000.0, "f_min": 20.0, "n_mels": 23}
    return FeatureConfig(**{**usual, "framing": "kaldi", "mel_scale": "kaldi", "win_length": 400, **settings})


def test_kaldi_frames_end_within_the_wave():
    """1 + (samples - 400) // 160: what is left after the last whole frame is dropped."""
    log_mel = LogMel.from_config(kaldi())
    for samples, n_frames in ((400, 1), (559, 1), (560, 2), (719, 2), (720, 3), (399, 1), (1, 1)):
        assert log_mel(np.ones(samples, np.float32)).shape == (n_frames, 23), samples


@pytest.mark.parametrize(("window", "theirs"), [("hann_symmetric", "hanning"), ("povey", "povey")])
def test_kaldi_without_pre_emphasis_and_in_several_blocks(window, theirs):
    wave = 0.1 * np.random.default_rng(0).standard_normal(16_000 * 4).astype(np.float32)
    expected = fbank(torch.from_numpy(wave)[None], preemphasis_coefficient=0.0, window_type=theirs).numpy()
    found = LogMel.from_config(kaldi(window=window, log_floor=1e-10))(wave)
    assert found.shape == expected.shape == (398, 23)
    assert np.abs(found - expected).max() < 1e-4


def test_kaldi_filters_are_torchaudios():
    banks, _ = get_mel_banks(128, 1024, 32_000.0, 0.0, 15_000.0, 100.0, -500.0, 1.0)
    found = mel_filters(32_000, 1024, 128, 0.0, 15_000.0, "kaldi")
    np.testing.assert_allclose(found[:-1], banks.numpy().T, atol=2e-5)
    assert not found[-1].any(), "they have no filter for the highest bin"


def test_a_frame_has_no_mean_before_pre_emphasis():
    """A constant wave: nothing is left but the floor."""
    found = LogMel.from_config(kaldi(pre_emphasis=0.97))(np.full(4_000, 0.5, np.float32))
    assert np.allclose(found, math.log(1e-6), atol=1e-3)


def test_the_floor_is_added_or_a_minimum():
    """Power 0: log(floor) both ways. Power = floor: log(2 floor) or log(floor)."""
    wave = np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    plain = np.exp(LogMel(log_floor=1e-30)(wave).astype(np.float64))
    floor = float(np.median(plain))
    added, clamped = (LogMel(log_floor=floor, clamp_floor=clamp)(wave) for clamp in (False, True))
    assert np.allclose(added, np.log(plain + floor), atol=1e-3)
    assert np.allclose(clamped, np.log(np.maximum(plain, floor)), atol=1e-3)


def test_top_db_raises_what_is_far_below_the_loudest():
    wave = np.concatenate([np.random.default_rng(0).standard_normal(44_100), np.zeros(44_100)]).astype(np.float32)
    full, limited = LogMel(log_floor=1e-10)(wave), LogMel(log_floor=1e-10, top_db=60)(wave)
    least = full.max() - 6 * math.log(10)
    assert np.allclose(limited, np.maximum(full, least), atol=1e-4)
    assert limited.min() == pytest.approx(least, abs=1e-4)


def test_int16_scale_adds_the_log_of_its_square():
    wave = np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    plain, scaled = (LogMel(log_floor=1e-30, int16_scale=scale)(wave) for scale in (False, True))
    assert np.allclose(scaled - plain, 30 * math.log(2), atol=1e-4)
