"""MP3s of variable bitrate, with and without a Xing frame, which declares their length."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from input.audio import AudioFault, read_wave
from input.mpeg import _frame

RATE = 44_100


def mp3(file: Path, constant: bool = False, rate: int = RATE) -> list[bytes]:
    """The frames of two loud seconds and one quiet; the first one is the Xing frame."""
    rng = np.random.default_rng(0)
    loud, quiet = 0.2 * rng.normal(size=2 * rate), (0.2 if constant else 1e-5) * rng.normal(size=rate)
    how = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE"}
    how |= {"bitrate_mode": "CONSTANT", "compression_level": 0.5} if constant else {}
    with soundfile.SoundFile(file, "w", rate, 1, **how) as out:
        out.write(np.concatenate([loud, quiet]))
    data, frames = file.read_bytes(), []
    while data:
        frame = _frame(data[:4])
        assert frame is not None
        frames.append(data[: frame.length])
        data = data[frame.length :]
    return frames


def patched(frame: bytes, at: int, value: int) -> bytes:
    """The Xing frame with another number behind its name: 4 flags, 8 frames, 12 bytes."""
    at += frame.index(b"Xing")
    return frame[:at] + value.to_bytes(4, "big") + frame[at + 4 :]


def fault(file: Path) -> AudioFault:
    with pytest.raises(AudioFault) as caught:
        read_wave(file, RATE)
    return caught.value


@pytest.mark.parametrize(
    ("header", "length", "samples"),
    [
        ("fffb9064", 417, 1152),  # MPEG 1, layer 3, 128 kbit/s at 44.1 kHz: 144 * 128000 / 44100
        ("fffb9264", 418, 1152),  # padded
        ("fff340c4", 72 * 32_000 // 22_050, 576),  # MPEG 2, layer 3, 32 kbit/s at 22.05 kHz
        ("ffe340c4", 72 * 32_000 // 11_025, 576),  # MPEG 2.5
        ("fffda064", 144 * 192_000 // 44_100, 1152),  # MPEG 1, layer 2
        ("ffffa064", 12 * 320_000 // 44_100 * 4, 384),  # MPEG 1, layer 1
    ],
)
def test_the_size_of_a_frame(header: str, length: int, samples: int) -> None:
    frame = _frame(bytes.fromhex(header))
    assert frame is not None and (frame.length, frame.samples) == (length, samples)


@pytest.mark.parametrize("header", ["", "fffb", "fffb0064", "fffbf064", "fffb9c64", "ffeb9064", "fff99064", "00fb9064"])
def test_bytes_that_are_not_a_frame(header: str) -> None:
    assert _frame(bytes.fromhex(header)) is None


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_without_a_xing_frame_all_frames_are_read(tmp_path: Path, rate: int) -> None:
    """But for the decoder's own delay of 529 samples."""
    frames = mp3(tmp_path / "a.mp3", rate=rate)
    (tmp_path / "a.mp3").write_bytes(b"".join(frames[1:]))
    n = (len(frames) - 1) * (1152 if rate == 44_100 else 576)
    assert len(soundfile.read(tmp_path / "a.mp3")[0]) < 0.9 * n, "libsndfile guesses"
    assert len(read_wave(tmp_path / "a.mp3", rate)) == n - 529


def test_a_constant_bitrate_is_read_as_libsndfile_reads_it(tmp_path: Path) -> None:
    frames = mp3(tmp_path / "a.mp3", constant=True)
    (tmp_path / "a.mp3").write_bytes(b"".join(frames[1:]))
    found = read_wave(tmp_path / "a.mp3", RATE)
    assert len(found) == 1152 * (len(frames) - 1)
    assert np.array_equal(found, soundfile.read(tmp_path / "a.mp3", dtype="float32")[0])


def test_a_xing_frame_that_declares_too_little_or_nothing_is_corrected(tmp_path: Path) -> None:
    frames = mp3(tmp_path / "a.mp3")
    whole = read_wave(tmp_path / "a.mp3", RATE)
    (tmp_path / "a.mp3").write_bytes(patched(frames[0], 8, 20) + b"".join(frames[1:]))
    assert np.array_equal(read_wave(tmp_path / "a.mp3", RATE), whole)
    (tmp_path / "a.mp3").write_bytes(patched(frames[0], 4, 0) + b"".join(frames[1:]))
    assert len(read_wave(tmp_path / "a.mp3", RATE)) >= len(whole)


def test_joined_files_are_all_read(tmp_path: Path) -> None:
    frames = mp3(tmp_path / "a.mp3")
    n, data = len(read_wave(tmp_path / "a.mp3", RATE)), b"".join(frames)
    (tmp_path / "a.mp3").write_bytes(data + b"TAG" + bytes(125) + data)
    assert len(read_wave(tmp_path / "a.mp3", RATE)) > 2 * n


@pytest.mark.parametrize("xing", [True, False])
@pytest.mark.parametrize("lacking", [1, 100, 5000])
def test_a_cut_file_is_truncated(tmp_path: Path, xing: bool, lacking: int) -> None:
    data = b"".join(mp3(tmp_path / "a.mp3")[not xing :])
    (tmp_path / "a.mp3").write_bytes(data[:-lacking])
    found = fault(tmp_path / "a.mp3")
    assert str(found) == "truncated" and found.wave is not None and len(found.wave) > RATE


def test_a_file_with_fewer_frames_than_its_xing_frame_declares_is_truncated(tmp_path: Path) -> None:
    frames = mp3(tmp_path / "a.mp3")
    (tmp_path / "a.mp3").write_bytes(b"".join(frames[:-1]))
    assert str(fault(tmp_path / "a.mp3")) == "truncated"


def test_an_encoder_may_count_the_xing_frame_too(tmp_path: Path) -> None:
    frames = mp3(tmp_path / "a.mp3")
    (tmp_path / "a.mp3").write_bytes(patched(frames[0], 8, len(frames)) + b"".join(frames[1:]))
    assert len(read_wave(tmp_path / "a.mp3", RATE)) > 2.9 * RATE


def test_bytes_between_frames_are_named_and_tags_and_padding_are_not(tmp_path: Path) -> None:
    frames = mp3(tmp_path / "a.mp3")
    n = len(read_wave(tmp_path / "a.mp3", RATE))
    for between in (b"TAG" + bytes(range(1, 126)), bytes(300)):
        (tmp_path / "a.mp3").write_bytes(b"".join(frames[:50]) + between + b"".join(frames[50:]))
        assert len(read_wave(tmp_path / "a.mp3", RATE)) == n
    (tmp_path / "a.mp3").write_bytes(b"".join(frames[:50]) + b"junk" * 50 + b"".join(frames[50:]))
    found = fault(tmp_path / "a.mp3")
    assert str(found) == "damaged: bytes between frames" and found.wave is not None and len(found.wave) == n
