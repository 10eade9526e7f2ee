"""Sound files of many kinds -> the same samples; and what is wrong with the others."""

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

import input.audio
from features.log_mel import LogMel
from input.audio import AudioFault, _read_plain_wav, read_wave

CLIP = Path("../shared/data/fsdkaggle2018/audio_train/a439d172.wav")
MINI = Path("../shared/data/us8k-mini")
NOTHING = (np.zeros(0, np.float32), 0, "what libsndfile says")

# the largest error that a subtype may make on the sine below: by its number of bits, or measured where it predicts
WAV_SUBTYPES = {
    "PCM_U8": 2**-7,
    "PCM_16": 2**-15,
    "PCM_24": 2**-22,
    "PCM_32": 2**-22,
    "FLOAT": 0,
    "DOUBLE": 0,
    "ULAW": 0.02,
    "ALAW": 0.02,
    "IMA_ADPCM": 0.02,
    "MS_ADPCM": 0.01,
    "GSM610": 0.05,
    "G721_32": 0.01,
    "NMS_ADPCM_16": 0.15,
    "NMS_ADPCM_24": 0.02,
    "NMS_ADPCM_32": 0.01,
}


def sine(rate: int = 16_000, seconds: float = 0.5, hz: float = 440.0, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def fault(file: Path, rate: int = 16_000) -> AudioFault:
    with pytest.raises(AudioFault) as caught:
        read_wave(file, rate)
    return caught.value


def loudest(wave: np.ndarray, rate: int) -> float:
    """The frequency (Hz) with the most power, by the peak of a zero-padded spectrum."""
    n = 1 << 20
    return float(np.argmax(np.abs(np.fft.rfft(wave * np.hanning(len(wave)), n))) * rate / n)


# What is read


@pytest.mark.parametrize("subtype", WAV_SUBTYPES)
def test_wav_of_every_subtype(tmp_path, subtype):
    rate = 8_000 if subtype.startswith(("G7", "NMS", "GSM")) else 16_000
    wave = sine(rate)
    file = tmp_path / "a.wav"
    soundfile.write(file, wave, rate, subtype=subtype)
    found = read_wave(file, rate)
    assert found.dtype == np.float32 and found.ndim == 1
    assert len(wave) <= len(found) <= len(wave) + 2048, "block codes fill their last block"
    learning = 500 if "ADPCM" in subtype or subtype.startswith("G") else 0  # samples until a predictor follows
    assert np.abs(found[: len(wave)] - wave)[learning:].max() <= WAV_SUBTYPES[subtype]


def test_all_subtypes_are_tested():
    """MPEG in WAV is a container of what is tested as MP3."""
    assert set(soundfile.available_subtypes("WAV")) <= {*WAV_SUBTYPES, "MPEG_LAYER_III"}


@pytest.mark.parametrize(
    ("name", "how", "rate", "worst"),
    [
        ("a.flac", {"subtype": "PCM_16"}, 44_100, 2**-15),
        ("a.flac", {"subtype": "PCM_24"}, 44_100, 2**-22),
        ("a.ogg", {"subtype": "VORBIS"}, 44_100, 0.05),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}, 48_000, 0.05),
        ("a.aiff", {"subtype": "PCM_16"}, 44_100, 2**-15),
        ("a.wav", {"format": "WAVEX", "subtype": "PCM_24"}, 44_100, 2**-22),
        ("a.wav", {"format": "RF64", "subtype": "PCM_16"}, 44_100, 2**-15),
        ("a.wav", {"subtype": "PCM_16", "endian": "BIG"}, 44_100, 2**-15),
    ],
)
def test_other_containers(tmp_path, name, how, rate, worst):
    wave = sine(rate)
    file = tmp_path / name
    soundfile.write(file, wave, rate, **how)
    found = read_wave(file, rate)
    assert len(found) == len(wave)
    inner = slice(rate // 20, -rate // 20)  # lossy codecs ring at the edges
    assert np.abs(found[inner] - wave[inner]).max() <= worst


def test_mp3(tmp_path):
    """An encoder may shift by its delay, so the sound is compared and not the samples."""
    wave = sine(44_100, 1.0)
    file = tmp_path / "a.mp3"
    soundfile.write(file, wave, 44_100)
    found = read_wave(file, 44_100)
    assert abs(len(found) - len(wave)) < 2500
    assert loudest(found, 44_100) == pytest.approx(440, abs=1)
    assert np.sqrt(np.mean(found[5000:35000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_full_scale_is_one_and_integers_are_exact(tmp_path):
    file = tmp_path / "a.wav"
    soundfile.write(file, np.array([-32768, -1, 0, 1, 32767], dtype=np.int16), 16_000)
    assert (read_wave(file, 16_000) * 32768).tolist() == [-32768, -1, 0, 1, 32767]


def test_pcm16_is_read_as_libsndfile_would(tmp_path):
    file = tmp_path / "a.wav"
    soundfile.write(file, np.arange(-32768, 32768, dtype=np.int16), 16_000)
    assert np.array_equal(read_wave(file, 16_000), soundfile.read(file, dtype="float32")[0])


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_int16_samples_may_be_kept(tmp_path, name):
    samples = np.array([-32768, -1, 0, 1, 32767], dtype=np.int16)
    soundfile.write(tmp_path / name, samples, 16_000)
    found = read_wave(tmp_path / name, 16_000, keep_int16=True)
    assert found.dtype == np.int16 and np.array_equal(found, samples)


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"), [(8_000, 1, "PCM_16"), (16_000, 2, "PCM_16"), (16_000, 1, "PCM_24")]
)
def test_resampled_mixed_or_finer_samples_are_float(tmp_path, rate, channels, subtype):
    file = tmp_path / "a.wav"
    soundfile.write(file, np.repeat(sine(rate)[:, None], channels, axis=1), rate, subtype=subtype)
    found = read_wave(file, 16_000, keep_int16=True)
    assert found.dtype == np.float32 and np.array_equal(found, read_wave(file, 16_000))


@pytest.mark.parametrize(("samples", "reason"), [([0, 0, 0], "silent"), ([], "empty")])
def test_faults_of_int16_samples_are_the_same(tmp_path, samples, reason):
    file = tmp_path / "a.wav"
    soundfile.write(file, np.array(samples, dtype=np.int16), 16_000)
    with pytest.raises(AudioFault, match=f"^{reason}$") as caught:
        read_wave(file, 16_000, keep_int16=True)
    assert (caught.value.wave is None) == (not samples)


def test_float_beyond_full_scale_is_kept(tmp_path):
    file = tmp_path / "a.wav"
    soundfile.write(file, sine(amplitude=3.0), 16_000, subtype="FLOAT")
    assert np.array_equal(read_wave(file, 16_000), sine(amplitude=3.0))


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("channels", [2, 5, 1024])
def test_channels_are_averaged(tmp_path, subtype, channels):
    """Channel c is c times the sine; the mean of 0..n-1 is (n - 1) / 2."""
    file = tmp_path / "a.wav"
    wave = sine(seconds=0.02)
    soundfile.write(file, wave[:, None] * np.arange(channels) / channels, 16_000, subtype=subtype)
    found = read_wave(file, 16_000)
    assert np.allclose(found, wave * (channels - 1) / 2 / channels, atol=2**-15)


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16"])
def test_channels_of_opposite_phase_are_a_fault_and_the_loudest_is_kept(tmp_path, subtype):
    """The mean of s and -1.01 s has -46 dB of their power, as dither or a codec would leave it."""
    file = tmp_path / "a.wav"
    soundfile.write(file, np.stack([sine(), -1.01 * sine()], axis=1), 16_000, subtype=subtype)
    found = fault(file)
    assert str(found) == "channels cancel out"
    assert found.wave is not None and np.allclose(found.wave, -1.01 * sine(), atol=2**-15)


@pytest.mark.parametrize("other", [0.0, -0.9, 1.0])
def test_channels_that_do_not_cancel_out_are_no_fault(tmp_path, other):
    soundfile.write(tmp_path / "a.wav", np.stack([sine(), other * sine()], axis=1), 16_000, subtype="FLOAT")
    assert np.allclose(read_wave(tmp_path / "a.wav", 16_000), (1 + other) / 2 * sine(), atol=1e-6)


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 11_127, 22_050, 22_255, 32_000, 44_099, 44_101, 48_000, 96_000, 192_000]
)
@pytest.mark.parametrize("expected", [44_100, 16_000])
def test_any_rate_keeps_pitch_length_and_level(tmp_path, rate, expected):
    """44,099 Hz and the old Macintosh rates have thousands of phases, which must not cost gigabytes."""
    file = tmp_path / "a.wav"
    soundfile.write(file, sine(rate, 1.0, 1000.0), rate, subtype="FLOAT")
    found = read_wave(file, expected)
    assert found.dtype == np.float32
    assert len(found) == pytest.approx(expected, rel=3e-4)
    assert loudest(found, expected) == pytest.approx(1000, rel=3e-4, abs=0.1)
    inner = found[expected // 10 : -expected // 10]
    assert np.sqrt(np.mean(inner**2)) == pytest.approx(0.5 / np.sqrt(2), rel=5e-3)


def test_a_usual_rate_is_resampled_exactly(tmp_path):
    file = tmp_path / "a.wav"
    soundfile.write(file, sine(48_000, 0.5, 440.0), 48_000, subtype="FLOAT")
    found = read_wave(file, 44_100)
    assert len(found) == 22_050
    inner = slice(500, -500)
    assert np.abs(found[inner] - sine(44_100, 0.5, 440.0)[inner]).max() < 1e-3


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_single_sample_is_a_wave(tmp_path, rate):
    file = tmp_path / "a.wav"
    soundfile.write(file, np.array([0.5]), rate, subtype="FLOAT")
    found = read_wave(file, 16_000)
    assert len(found) == 1 and found[0] != 0


# What is wrong


def test_a_clip_without_samples_is_empty(tmp_path):
    for name, subtype in (("a.wav", "PCM_16"), ("b.wav", "FLOAT"), ("c.wav", "PCM_24")):
        soundfile.write(tmp_path / name, np.zeros((0, 2)), 44_100, subtype=subtype)
        found = fault(tmp_path / name)
        assert str(found) == "empty" and found.wave is None


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_digital_silence_is_a_fault_that_keeps_its_wave(tmp_path, rate):
    file = tmp_path / "a.wav"
    soundfile.write(file, np.zeros(rate), rate, subtype="PCM_16")
    found = fault(file)
    assert str(found) == "silent"
    assert found.wave is not None and found.wave.tolist() == [0.0] * 16_000


def test_the_faintest_sound_is_not_silence(tmp_path):
    file = tmp_path / "a.wav"
    soundfile.write(file, np.array([0, 1, 0], dtype=np.int16), 16_000)
    assert read_wave(file, 16_000)[1] == 1 / 32768


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_samples_that_are_not_finite(tmp_path, value, rate):
    file = tmp_path / "a.wav"
    wave = sine(rate)
    wave[100] = value
    soundfile.write(file, np.stack([wave, sine(rate)], axis=1), rate, subtype="FLOAT")
    found = fault(file)
    assert str(found) == "non-finite samples" and found.wave is None


def test_numbers_too_large_for_single_precision(tmp_path):
    file = tmp_path / "a.wav"
    soundfile.write(file, np.full(10, 1e300), 16_000, subtype="DOUBLE")
    assert str(fault(file)) == "non-finite samples"


@pytest.mark.parametrize("value", [1e16, 1e20, -3e38])
def test_one_sample_beyond_any_scale_would_spoil_every_spectrum(tmp_path, value):
    soundfile.write(tmp_path / "a.wav", [0.1, value, 0.1], 16_000, subtype="FLOAT")
    assert str(fault(tmp_path / "a.wav")) == "samples beyond any scale"


def test_floats_on_the_scale_of_integers_are_sound(tmp_path):
    """Full scale of 32 bits, for a minute; and its log-mel is finite."""
    wave = (2.0**31 * np.sin(np.arange(60 * 16_000))).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    found = read_wave(tmp_path / "a.wav", 16_000)
    assert np.array_equal(found, wave)
    assert np.isfinite(LogMel()(found).astype(np.float16)).all()


def test_a_header_that_declares_days_needs_no_memory_and_loses_no_sound(tmp_path):
    """36 bits of samples: 137 GB of them."""
    file = tmp_path / "a.flac"
    soundfile.write(file, sine(), 16_000)
    data = bytearray(file.read_bytes())
    data[21:26] = bytes([data[21] | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])
    file.write_bytes(data)
    tracemalloc.start()
    found = fault(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(found) == "truncated" and found.wave is not None and len(found.wave) == 8_000
    assert peak < 20e6


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("zero.wav", b""),
        ("short.wav", b"RIFF"),
        ("junk.wav", bytes(range(256)) * 40),
        ("page.wav", b"<!DOCTYPE html><html><body>429 Too Many Requests</body></html>"),
        ("head.wav", b"RIFF\x24\x00\x00\x00WAVE"),
        ("junk.mp3", b"\0" * 5000),
        ("junk.raw", b"12345678"),
        ("junk.ogg", b"OggS" + b"\0" * 100),
    ],
)
def test_files_that_are_not_sound(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    text = str(fault(tmp_path / name))
    assert text.startswith("unreadable: ") and len(text) > len("unreadable: ")
    assert "\n" not in text and str(tmp_path) not in text, "the error names the clip already"


def test_an_error_of_the_system_is_no_fault_of_the_clip(tmp_path, monkeypatch):
    """A store would keep the fault when the file can be read again."""
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(OSError) as found:
            read_wave(path, 16_000)
        assert found.value.filename == str(path) and found.value.strerror
    file = tmp_path / "a.flac"
    soundfile.write(file, sine(), 16_000)
    monkeypatch.setattr(input.audio, "_decode_stream", lambda source, _: os.close(source.fileno()) or NOTHING)
    with pytest.raises(OSError, match="Bad file descriptor") as found:  # it fails in the middle
        read_wave(file, 16_000)
    assert found.value.filename == str(file)


@pytest.mark.parametrize("rate", [1, 100, 2_000_000_000])
def test_an_impossible_rate_is_a_damaged_header(tmp_path, rate):
    file = tmp_path / "a.wav"
    soundfile.write(file, sine(seconds=0.01), 16_000, subtype="PCM_16")
    data = bytearray(file.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    file.write_bytes(data)
    assert str(fault(file)).startswith("unreadable: ")


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        *[("WAV", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM")],
        *[("WAVEX", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT", "ULAW")],
    ],
)
def test_a_truncated_wav_keeps_what_could_be_read(tmp_path, kind, subtype):
    file = tmp_path / "a.wav"
    soundfile.write(file, sine(), 16_000, format=kind, subtype=subtype)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    found = fault(file)
    assert str(found) == "truncated"
    assert found.wave is not None and 2000 < len(found.wave) < 5500
    assert np.abs(found.wave - sine()[: len(found.wave)])[500:3500].max() < 0.05


def test_one_missing_byte_is_a_truncation(tmp_path):
    file = tmp_path / "a.wav"
    soundfile.write(file, sine(), 16_000, subtype="PCM_16")
    file.write_bytes(file.read_bytes()[:-1])
    assert str(fault(file)) == "truncated"


def test_a_truncated_flac_is_a_fault(tmp_path):
    file = tmp_path / "a.flac"
    soundfile.write(file, sine(seconds=2.0), 16_000)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert str(fault(file)) == "truncated"


# WAVs that are odd but legal, or wrong in a way that loses no sound: never truncated


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    padding = b"\0" * (len(data) % 2)
    return name + struct.pack("<I", len(data) if size is None else size) + data + padding


FORMAT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16))
FORMAT_8 = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 16_000, 1, 8))
DATA = (sine() * 32767).astype("<i2").tobytes()


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


LEGAL = {
    "plain": riff(FORMAT, chunk(b"data", DATA)),
    "a list before": riff(FORMAT, chunk(b"LIST", b"INFOISFT\x05\0\0\0Lavf\0\0"), chunk(b"data", DATA)),
    "a chunk before the format": riff(chunk(b"JUNK", b"\0" * 28), FORMAT, chunk(b"data", DATA)),
    "chunks behind": riff(FORMAT, chunk(b"data", DATA), chunk(b"LIST", b"INFO"), chunk(b"id3 ", b"ID3" + b"\0" * 40)),
    "an odd chunk before": riff(FORMAT, chunk(b"note", b"odd"), chunk(b"data", DATA)),
    "RIFF size of the whole file": riff(FORMAT, chunk(b"data", DATA), size=44 + len(DATA)),
    "RIFF size too large": riff(FORMAT, chunk(b"data", DATA), size=100_000),
    "RIFF size too small": riff(FORMAT, chunk(b"data", DATA), size=36),
    "RIFF size 0": riff(FORMAT, chunk(b"data", DATA), size=0),
    "streamed by ffmpeg": riff(FORMAT, chunk(b"data", DATA, 0xFFFFFFFF), size=0xFFFFFFFF),
    "streamed by sox": riff(FORMAT, chunk(b"data", DATA, 0x7FFFF000), size=0x7FFFF024),
    "streamed by arecord": riff(FORMAT, chunk(b"data", DATA, 0x80000000), size=0x80000024),
    "streamed by gstreamer": riff(FORMAT, chunk(b"data", DATA, 0x7FFF0000), size=0x7FFF0024),
    "bytes behind the end": riff(FORMAT, chunk(b"data", DATA)) + b"\0" * 1000,
    "a last chunk cut off": riff(FORMAT, chunk(b"data", DATA), b"LIST\x00\x10\x00\x00INFO", size=50_000),
}


@pytest.mark.parametrize("kind", LEGAL)
def test_a_legal_wav_is_never_truncated(tmp_path, kind):
    file = tmp_path / "a.wav"
    file.write_bytes(LEGAL[kind])
    found = read_wave(file, 16_000)
    assert (found[:8000] * 32768).tolist() == np.frombuffer(DATA, "<i2").tolist()


STEREO = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, 22_050, 88_200, 4, 16))
PLAIN = {
    **{kind: LEGAL[kind] for kind in LEGAL if not kind.startswith("streamed")},
    "stereo": riff(STEREO, chunk(b"data", DATA)),
    "a long format chunk": riff(FORMAT[:4] + struct.pack("<I", 18) + FORMAT[8:] + b"\0\0", chunk(b"data", DATA)),
}
NOT_PLAIN = {
    **{kind: LEGAL[kind] for kind in LEGAL if kind.startswith("streamed")},
    "cut short": PLAIN["plain"][:-2],
    "cut in the header": PLAIN["plain"][:30],
    "no samples": riff(FORMAT, chunk(b"data", b"")),
    "half a frame": riff(STEREO, chunk(b"data", DATA[:-2])),
    "8 bits": riff(FORMAT_8, chunk(b"data", DATA)),
    "no format": riff(chunk(b"data", DATA)),
    "a format of floats": riff(FORMAT.replace(b"\x01\0", b"\x03\0", 1), chunk(b"data", DATA)),
    "no channels": riff(FORMAT[:10] + b"\0\0" + FORMAT[12:], chunk(b"data", DATA)),
    "far behind other chunks": riff(FORMAT, chunk(b"JUNK", b"\0" * 5000), chunk(b"data", DATA)),
    "another container": b"RIFX" + PLAIN["plain"][4:],
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_wav_is_read_as_libsndfile_reads_it(tmp_path, kind):
    file = tmp_path / "a.wav"
    file.write_bytes(PLAIN[kind])
    with file.open("rb", buffering=0) as opened:
        found = _read_plain_wav(opened)
    samples, rate = soundfile.read(file, dtype="int16")
    assert found is not None and found[1] == rate
    assert found[0].shape == samples.shape and np.array_equal(found[0], samples)


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_other_files_are_left_to_libsndfile(tmp_path, kind):
    file = tmp_path / "a.wav"
    file.write_bytes(NOT_PLAIN[kind])
    with file.open("rb", buffering=0) as opened:
        assert _read_plain_wav(opened) is None


@pytest.mark.parametrize("padding", [b"", b"\0"], ids=["without", "with"])
def test_an_odd_data_chunk_with_and_without_its_padding_byte(tmp_path, padding):
    file = tmp_path / "a.wav"
    file.write_bytes(riff(FORMAT_8, b"data" + struct.pack("<I", 7) + bytes(range(1, 8)) + padding, size=43))
    assert len(read_wave(file, 16_000)) == 7


def test_a_file_cut_after_other_chunks_is_truncated(tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(LEGAL["an odd chunk before"][:-100])
    assert str(fault(file)) == "truncated"


@pytest.mark.skipif(not CLIP.is_file(), reason="../shared/data/fsdkaggle2018 is not here")
def test_a_clip_of_the_real_competition():
    """PCM16, 44.1 kHz mono."""
    found = read_wave(CLIP, 44_100)
    raw, rate = soundfile.read(CLIP, dtype="int16")
    assert rate == 44_100 and np.array_equal(found, raw / np.float32(32768))


@pytest.mark.skipif(not MINI.is_dir(), reason="../shared/data/us8k-mini is not here")
def test_clips_of_the_small_real_competition():
    """Ogg Vorbis at 22.05 kHz, and the two unscored test files: one empty WAV, one digital silence."""
    files = sorted((MINI / "audio_test").iterdir())
    assert len(read_wave(next(f for f in files if f.suffix == ".ogg"), 22_050)) == 4 * 22_050
    reasons = sorted(str(fault(f, 22_050)) for f in files if f.suffix == ".wav")
    assert reasons == ["empty", "silent"]
