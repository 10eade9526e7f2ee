"""The sounds of the demo competition: one function per class, source parameters drawn from one generator."""

from collections.abc import Callable, Sequence

import numpy as np

RATE = 16_000  # Hz

Rng = np.random.Generator
Sound = Callable[[Rng, np.ndarray], np.ndarray]


def make_clip(sound: Sound, source: Rng, rng: Rng) -> np.ndarray:
    """0.3 to 10 s of a source at a random level, with coloured background noise."""
    t = _times(rng)
    return _recorded(_scaled(sound(source, t)), t, rng)


def make_mixture(sounds: Sequence[Sound], rng: Rng) -> np.ndarray:
    """As `make_clip`, of several sounds at once, whose levels differ by up to 9 dB."""
    t = _times(rng)
    wave = sum((_scaled(sound(rng, t)) * 10 ** (-rng.uniform(0, 9) / 20) for sound in sounds), np.zeros(len(t)))
    return _recorded(_scaled(wave), t, rng)


def _times(rng: Rng) -> np.ndarray:
    seconds = min(10.0, 0.3 + rng.gamma(2.0, 1.0))
    return np.arange(int(seconds * RATE)) / RATE


def _scaled(wave: np.ndarray) -> np.ndarray:
    """At RMS 1."""
    return np.asarray(wave / (np.sqrt(np.mean(wave**2)) + 1e-9))


def _recorded(wave: np.ndarray, t: np.ndarray, rng: Rng) -> np.ndarray:
    """With coloured noise, at a random level."""
    noise = _coloured_noise(rng, len(t), rng.uniform(0.0, 1.2))
    snr_db = rng.uniform(-3, 24)
    mixed = wave + noise * 10 ** (-snr_db / 20)
    return np.asarray(mixed / np.abs(mixed).max() * 10 ** (-rng.uniform(1, 30) / 20))


def _coloured_noise(rng: Rng, n: int, slope: float) -> np.ndarray:
    """(n,) noise with RMS 1 whose power falls with frequency^(2 * slope): 0 is white, 0.5 pink, 1 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** slope
    return _scaled(np.fft.irfft(spectrum, n))


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


SOUNDS: dict[str, Sound] = {
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
