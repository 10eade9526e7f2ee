"""A demo competition in Kaggle's layout, synthesised: sounds that a person can tell apart, faults included.

python -m input.demo input/demo
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from configs.console import progress, run_command, say
from configs.errors import UserError

RATE = 16_000  # Hz
TRAIN_PER_CLASS = 30
TEST_PER_CLASS = 20
VERIFIED_SHARE = 0.4
WRONG_SHARE = 0.25  # of the labels that nobody verified
MARKER = "demo.txt"

Rng = np.random.Generator


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m input.demo", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=TRAIN_PER_CLASS, help="clips per class (%(default)s)")
    parser.add_argument("--test", type=int, default=TEST_PER_CLASS, help="clips per class (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    args = parser.parse_args()
    make_demo(args.folder, args.train, args.test, args.seed)


def make_demo(folder: Path, train_per_class: int, test_per_class: int, seed: int = 0) -> None:
    """Write train.csv, train_post_competition.csv (freesound_id), audio_train/, audio_test/, sample_submission.csv and
    test_labels.csv (fname, label, usage). Two more test files are unscored: one empty WAV, one digital silence.

    Already there with the same numbers, it is left alone. Raises UserError where the folder holds something else.
    """
    about = f"demo competition: {train_per_class} training and {test_per_class} test clips per class, seed {seed}\n"
    if (folder / MARKER).exists() and (folder / MARKER).read_text() == about:
        say(f"{folder}: found, {about.strip()}")
        return
    if folder.exists() and not (folder / MARKER).exists():
        raise UserError(f"{folder}: exists and is no demo competition: name a new folder")
    partial = folder.with_name(folder.name + ".partial")
    for left_over in (partial, folder):
        shutil.rmtree(left_over, ignore_errors=True)
    rng = np.random.default_rng(seed)
    train = _synthesise(partial / "audio_train", train_per_class, "training", rng)
    test = _synthesise(partial / "audio_test", test_per_class, "test", rng)
    _write_tables(partial, train, test, rng)
    (partial / MARKER).write_text(about)
    partial.rename(folder)
    say(f"{about.strip()} -> {folder}")


def _synthesise(folder: Path, per_class: int, what: str, rng: Rng) -> pd.DataFrame:
    """Clips of every class; up to three of them are cut from one recording (same source, other level and noise)."""
    folder.mkdir(parents=True)
    clips = []
    with progress(f"demo: {what} clips", per_class * len(SOUNDS), "clips") as advance:
        for label, sound in SOUNDS.items():
            made = 0
            while made < per_class:
                recording = int(rng.integers(100_000, 1_000_000))
                for _ in range(min(int(rng.integers(1, 4)), per_class - made)):
                    fname = f"{rng.integers(2**32):08x}.wav"
                    wave = _clip(sound, np.random.default_rng(recording), rng)
                    soundfile.write(folder / fname, wave, RATE, subtype="PCM_16")
                    clips.append((fname, label, recording))
                    made += 1
                    advance(1)
    table = pd.DataFrame(clips, columns=["fname", "label", "freesound_id"])
    return table.sort_values("fname", ignore_index=True)


def _clip(sound: Callable[[Rng, np.ndarray], np.ndarray], source: Rng, rng: Rng) -> np.ndarray:
    """0.3 to 10 s of a source at some level, over background noise of some colour."""
    seconds = min(10.0, 0.3 + rng.gamma(2.0, 1.0))
    t = np.arange(int(seconds * RATE)) / RATE
    wave = sound(source, t)
    wave = wave / (np.sqrt(np.mean(wave**2)) + 1e-9)
    noise = _coloured_noise(rng, len(t), rng.uniform(0.0, 1.2))
    snr_db = rng.uniform(-3, 24)
    mixed = wave + noise * 10 ** (-snr_db / 20)
    return np.asarray(mixed / np.abs(mixed).max() * 10 ** (-rng.uniform(1, 30) / 20))


def _write_tables(folder: Path, train: pd.DataFrame, test: pd.DataFrame, rng: Rng) -> None:
    verified = rng.random(len(train)) < VERIFIED_SHARE
    wrong = ~verified & (rng.random(len(train)) < WRONG_SHARE)
    train = train.assign(label=np.where(wrong, rng.choice(list(SOUNDS), len(train)), train["label"]))
    train["manually_verified"] = verified.astype(int)
    train[["fname", "label", "manually_verified"]].to_csv(folder / "train.csv", index=False)
    columns = ["fname", "label", "manually_verified", "freesound_id"]
    train[columns].to_csv(folder / "train_post_competition.csv", index=False)

    soundfile.write(folder / "audio_test" / "empty.wav", np.zeros(0), RATE, subtype="PCM_16")
    soundfile.write(folder / "audio_test" / "silent.wav", np.zeros(RATE), RATE, subtype="PCM_16")
    usage = np.where(rng.random(len(test)) < 0.2, "Public", "Private")
    unscored = pd.DataFrame({"fname": ["empty.wav", "silent.wav"], "label": "None", "usage": "Ignored"})
    truth = pd.concat([test[["fname", "label"]].assign(usage=usage), unscored]).sort_values("fname")
    truth.to_csv(folder / "test_labels.csv", index=False)
    sample = truth[["fname"]].assign(label=" ".join(list(SOUNDS)[:3]))
    sample.to_csv(folder / "sample_submission.csv", index=False)


def _coloured_noise(rng: Rng, n: int, slope: float) -> np.ndarray:
    """(n,) noise whose power falls with frequency^(2 * slope), at an RMS of 1: 0 is white, 0.5 pink, 1 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** slope
    wave = np.fft.irfft(spectrum, n)
    return np.asarray(wave / (np.sqrt(np.mean(wave**2)) + 1e-9))


def _phase(t: np.ndarray, hz: np.ndarray | float) -> np.ndarray:
    return 2 * np.pi * np.cumsum(np.broadcast_to(hz, t.shape)) / RATE


def _strikes(rng: Rng, t: np.ndarray, every: float, decay: float, jitter: float = 0.0) -> np.ndarray:
    """Envelope of repeated strikes, `every` seconds apart, each falling with time constant `decay`."""
    envelope = np.zeros_like(t)
    at = rng.uniform(0, 0.1)
    while at < t[-1]:
        after = t >= at
        envelope[after] += np.exp(-(t[after] - at) / decay)
        at += every * (1 + jitter * rng.uniform(-1, 1))
    return envelope


def _tone(rng: Rng, t: np.ndarray) -> np.ndarray:
    base = rng.uniform(200, 1500)
    return np.asarray(sum(a * np.sin(_phase(t, base * k)) for k, a in ((1, 1.0), (2, rng.uniform(0, 0.5)))))


def _whistle(rng: Rng, t: np.ndarray) -> np.ndarray:
    base, rate = rng.uniform(600, 2500), rng.uniform(4, 7)
    return np.sin(_phase(t, base * (1 + rng.uniform(0.02, 0.05) * np.sin(2 * np.pi * rate * t))))


def _siren(rng: Rng, t: np.ndarray) -> np.ndarray:
    base, rate = rng.uniform(500, 1500), rng.uniform(0.4, 2)
    return np.sin(_phase(t, base * (1 + 0.35 * np.sin(2 * np.pi * rate * t))))


def _chirp(rng: Rng, t: np.ndarray) -> np.ndarray:
    low, high, period = rng.uniform(300, 900), rng.uniform(1500, 5000), rng.uniform(0.2, 0.6)
    return np.sin(_phase(t, low + (high - low) * (t % period) / period)) * (t % period < 0.8 * period)


def _hiss(rng: Rng, t: np.ndarray) -> np.ndarray:
    noise = np.fft.rfft(rng.standard_normal(len(t)))
    noise[: int(len(noise) * rng.uniform(0.2, 0.6))] *= 0.05
    return np.fft.irfft(noise, len(t))


def _rumble(rng: Rng, t: np.ndarray) -> np.ndarray:
    slow = 1 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.3, 1.5) * t)
    return _coloured_noise(rng, len(t), rng.uniform(1.2, 2.0)) * slow


def _engine(rng: Rng, t: np.ndarray) -> np.ndarray:
    base = rng.uniform(40, 110)
    saw = 2 * ((_phase(t, base * (1 + 0.05 * np.sin(2 * np.pi * 0.5 * t))) / (2 * np.pi)) % 1) - 1
    return saw + 0.4 * _coloured_noise(rng, len(t), 0.8)


def _buzz(rng: Rng, t: np.ndarray) -> np.ndarray:
    return np.sign(np.sin(_phase(t, rng.uniform(120, 600))))


def _clicks(rng: Rng, t: np.ndarray) -> np.ndarray:
    return _strikes(rng, t, rng.uniform(0.12, 0.4), 0.003) * np.sin(_phase(t, rng.uniform(2000, 4000)))


def _rain(rng: Rng, t: np.ndarray) -> np.ndarray:
    drops = (rng.random(len(t)) < rng.uniform(30, 200) / RATE) * rng.standard_normal(len(t))
    return np.convolve(drops, np.exp(-np.arange(80) / 15), mode="same") + 0.02 * rng.standard_normal(len(t))


def _drum(rng: Rng, t: np.ndarray) -> np.ndarray:
    envelope = _strikes(rng, t, rng.uniform(0.25, 0.7), rng.uniform(0.06, 0.12), 0.1)
    return envelope * (np.sin(_phase(t, rng.uniform(60, 150))) + 0.3 * rng.standard_normal(len(t)))


def _bell(rng: Rng, t: np.ndarray) -> np.ndarray:
    base = rng.uniform(400, 1400)
    partials = sum(np.sin(_phase(t, base * ratio)) / k for k, ratio in enumerate((1, 2.76, 5.4), start=1))
    return np.asarray(_strikes(rng, t, rng.uniform(0.5, 1.5), rng.uniform(0.3, 0.8)) * partials)


def _pluck(rng: Rng, t: np.ndarray) -> np.ndarray:
    base = rng.uniform(150, 600)
    partials = sum(np.sin(_phase(t, base * k)) * 0.7**k for k in range(1, 7))
    return np.asarray(_strikes(rng, t, rng.uniform(0.3, 0.8), rng.uniform(0.1, 0.3), 0.3) * partials)


def _phone(rng: Rng, t: np.ndarray) -> np.ndarray:
    low, high = rng.choice([697, 770, 852, 941]), rng.choice([1209, 1336, 1477])
    return (np.sin(_phase(t, low)) + np.sin(_phase(t, high))) * (t % 0.4 < 0.25)


SOUNDS: dict[str, Callable[[Rng, np.ndarray], np.ndarray]] = {
    "Bell": _bell,
    "Buzz": _buzz,
    "Chirp": _chirp,
    "Clicks": _clicks,
    "Drum": _drum,
    "Engine": _engine,
    "Hiss": _hiss,
    "Phone": _phone,
    "Pluck": _pluck,
    "Rain": _rain,
    "Rumble": _rumble,
    "Siren": _siren,
    "Tone": _tone,
    "Whistle": _whistle,
}


if __name__ == "__main__":
    run_command(main)
