"""A sound file -> mono float32 samples at a given rate."""

import io
import struct
from pathlib import Path

import numpy as np
import soundfile

from input.containers import STREAMED, Container, read_container

Wave = np.ndarray  # (samples,) float32, or int16 on request
Decoded = tuple[np.ndarray, int, str]  # of a stream: samples, sample rate, fault
UNKNOWN = 1 << 62  # frames; libsndfile uses an even larger number
MOST_PER_BYTE = 64  # samples, above every usual codec; if a header declares more, memory is allocated in steps
BLOCK = 1 << 16  # samples per channel
TRUNCATED = "truncated"
CANCELLED = 1e-4  # -40 dB: share of power left in the mean of channels of opposite phase
HEAD = 4096  # bytes: samples usually start within them
LOUDEST = 1e30  # sum of squares: far above any scale of sound, far below the overflow of a spectrum


class AudioFault(ValueError):
    """A faulty clip: the text is the reason, `wave` the samples that could be read, or None."""

    def __init__(self, reason: str, wave: Wave | None = None) -> None:
        super().__init__(reason)
        self.wave = wave


def read_wave(path: Path | str, sample_rate: int, keep_int16: bool = False) -> Wave:
    """(samples,) float32 mono at sample_rate; channels are averaged, other rates are resampled (windowed sinc).

    keep_int16: return the samples of a 16-bit mono file of that rate as int16; `LogMel` scales them.

    All formats of libsndfile work: WAV of every subtype, RF64, W64, AIFF, AU, CAF, FLAC, Ogg, Opus, MP3. All sound that
    can be decoded is read, even if the header declares another length. Full scale is 1; float files may exceed it.
    Raises AudioFault: 'empty', 'non-finite samples', 'samples beyond any scale', 'unreadable: ...'; and with a wave
    'silent', 'truncated', 'damaged: ...' and 'channels cancel out' (the loudest is kept). Raises OSError if the system
    cannot read the file, which is no fault of the clip.
    """
    parts, faults = _decode(path)
    waves = [_to_mono(*part, sample_rate, keep_int16 and len(parts) == 1, faults) for part in parts]
    wave = waves[0] if len(waves) == 1 else np.concatenate(waves)
    with np.errstate(over="ignore", invalid="ignore"):
        sound = wave.any() if wave.dtype == np.int16 else np.dot(wave, wave)
    if not 0 < sound < LOUDEST:  # usual clips need only this fast check; squares of faint samples may be 0
        if not np.isfinite(wave).all():
            raise AudioFault("non-finite samples")
        if not wave.any():
            faults.append("silent")
        elif sound:
            raise AudioFault("samples beyond any scale")
    if faults:
        raise AudioFault(", ".join(dict.fromkeys(faults)), wave)
    return wave


def _to_mono(samples: np.ndarray, rate: int, sample_rate: int, keep_int16: bool, faults: list[str]) -> Wave:
    """Samples (n,) or (n, channels) -> wave at sample_rate; a fault of the channels is added to `faults`."""
    if samples.dtype == np.int16 and not (keep_int16 and samples.ndim == 1 and rate == sample_rate):
        samples = _as_float(samples)
    if samples.ndim == 2:
        with np.errstate(over="ignore", invalid="ignore"):
            wave = samples.mean(axis=1)
            power = np.vdot(samples, samples) / samples.shape[1]
            vanishes = np.dot(wave, wave) < CANCELLED * power < LOUDEST
        if vanishes:
            faults.append("channels cancel out")
            wave = samples[:, np.einsum("nc,nc->c", samples, samples).argmax()].copy()
        samples = wave
    return samples if rate == sample_rate else _resample(samples, rate, sample_rate)


def _decode(path: Path | str) -> tuple[list[tuple[np.ndarray, int]], list[str]]:
    """Samples, (n,) or (n, channels), float32 or int16, and rate of each stream in a file; and the faults. Raises
    AudioFault if there are no samples."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  called 20,000 times
            if plain := _read_plain_wav(file):
                return [plain], []
            container = read_container(file)
            decoded = [_decode_stream(source, container.least) for source in container.streams or (file,)]
            if container.is_flac and file.tell() < file.seek(0, 2):  # more than declared, or a second stream
                container = read_container(file, to_end=True)
                decoded = [_decode_stream(source, container.least) for source in container.streams]
            parts, faults = _judge(container, decoded)
            if faults or not parts:
                _check_readable(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    if not parts:
        raise AudioFault(f"unreadable: {faults[0]}" if faults else "empty")
    return parts, [faults[0] if faults[0] == TRUNCATED else f"damaged: {faults[0]}"] if faults else []


def _judge(container: Container, decoded: list[Decoded]) -> tuple[list[tuple[np.ndarray, int]], list[str]]:
    """The streams with samples, and the faults, the worst first."""
    parts = [(samples, rate) for samples, rate, _ in decoded if len(samples)]
    faults = [fault for *_, fault in decoded if fault]
    got = sum(len(samples) for samples, _ in parts)
    if 0 < container.least <= got:  # the fault is after the sound
        faults = []
    if container.damage:
        faults.insert(0, container.damage)
    if container.cut or TRUNCATED in faults or (got < container.least and not faults):
        faults.insert(0, TRUNCATED)
    return parts, faults


def _decode_stream(source: bytes | io.FileIO, expected: int) -> Decoded:
    """All samples from libsndfile, their rate, and the fault: its message, TRUNCATED or ''."""
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    n_bytes = opened.seek(0, 2)
    opened.seek(0)
    try:
        with _Stream(opened if isinstance(opened, io.BytesIO) else opened.fileno(), closefd=False) as file:
            # int16: the same numbers, six times faster than conversion by libsndfile
            dtype = "int16" if file.subtype == "PCM_16" else "float32"
            claimed = file.frames if file.frames < UNKNOWN else expected
            most = max(n_bytes * MOST_PER_BYTE // file.channels, BLOCK)
            samples, fault = _read_on(file, dtype, min(claimed, most) or BLOCK)
            if not fault and len(samples) < claimed and "MPEG" not in file.subtype:  # only an estimate there
                fault = f"{len(samples)} of {claimed} samples"
            if fault and file.format == "FLAC" and opened.tell() == n_bytes:
                fault = TRUNCATED
            return samples, file.samplerate, fault
    # MemoryError: many hours of sound
    except (MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        return np.empty(0, np.float32), 0, _words(error)


def _read_on(file: soundfile.SoundFile, dtype: str, size: int) -> tuple[np.ndarray, str]:
    """Samples up to the end or a decoder error, and its message. The first block has `size` samples, so that a usual
    file is read in one piece."""
    shape = (file.channels,) if file.channels > 1 else ()
    blocks, fault, got = [np.empty((0, *shape), dtype)], "", 0
    while got < file.frames and not fault:
        out = np.empty((size, *shape), dtype)
        try:
            n = len(file.read(size, out=out))
        except soundfile.LibsndfileError as error:
            fault, n = _words(error), max(file.tell() - got, 0)
        if n == 0:
            break
        got, size = got + n, BLOCK
        blocks.append(out[:n])
    return blocks[1] if len(blocks) == 2 else np.concatenate(blocks), fault


class _Stream(soundfile.SoundFile):
    """Read from start to end: after each read soundfile would seek to the current position, which some decoders cannot
    do."""

    def seekable(self) -> bool:
        return False


def _words(error: Exception) -> str:
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def _check_readable(file: io.FileIO) -> None:
    """Raises OSError if the system cannot read the whole file, which libsndfile reports as a fault of the sound."""
    file.seek(0)
    while file.read(1 << 20):
        pass


def _as_float(samples: np.ndarray) -> np.ndarray:
    """int16 -> float32, full scale 1."""
    out: np.ndarray = np.multiply(samples, np.float32(1 / 32768), dtype=np.float32)
    return out


def _read_plain_wav(file: io.FileIO) -> tuple[np.ndarray, int] | None:
    """int16 samples and rate of a complete 16-bit PCM WAV, the usual file, in half of libsndfile's time.

    None for every other file: libsndfile reads it. Raises OSError.
    """
    try:
        channels, rate, start, size = _pcm16_header(file.read(HEAD))
        samples = np.empty((size // 2 // channels, channels), "<i2")
        file.seek(start)
        whole = file.readinto(samples.data) == size if size else False
    except (struct.error, ValueError):
        return None
    return (samples[:, 0] if channels == 1 else samples, rate) if whole else None


def _pcm16_header(head: bytes) -> tuple[int, int, int, int]:
    """Channels, rate, first byte and size of the samples. Raises ValueError or struct.error on any other file."""
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        raise ValueError("no WAV")
    at, kind, channels, rate, align, bits = 12, 0, 0, 0, 0, 0
    while True:
        name, size = struct.unpack_from("<4sI", head, at)
        at += 8
        if name == b"data":
            break
        if name == b"fmt ":
            kind, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", head, at)
        at += size + size % 2
    if kind != 1 or bits != 16 or channels == 0 or align != 2 * channels or size % align or size >= STREAMED:
        raise ValueError("not plain")
    return channels, rate, at, size


def _resample(wave: Wave, rate: int, sample_rate: int) -> Wave:
    if not sample_rate / 100 <= rate <= sample_rate * 50:
        raise AudioFault(f"unreadable: a sample rate of {rate} Hz")
    from input.resample import resample  # imports torch only if needed

    return resample(wave, rate, sample_rate)
