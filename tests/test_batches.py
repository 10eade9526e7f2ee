"""Crops and windows: exact slices of the store, silence or the clip again where it ends, and every frame covered."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from configs.schema import FeatureConfig
from features.batches import Batches, draw_length, windows
from features.log_mel import LogMel
from features.store import Store, open_features

SILENCE = -13.8125  # what half precision makes of log(1e-6), to have equality
N_MELS = 3


def made_store(lengths: list[int]) -> Store:
    """Frame t of clip c is (100 c + t, its negative, 1): a frame names its clip."""
    length = np.array(lengths, dtype=np.int64)
    name = np.concatenate([100 * c + np.arange(n) for c, n in enumerate(lengths)]) if lengths else np.zeros(0)
    frames = np.stack([name, -name, np.ones_like(name)], axis=1).astype(np.float16)
    none = np.zeros((len(lengths), N_MELS), np.float32)
    return Store(
        key="0" * 12,
        fnames=tuple(f"{c}.wav" for c in range(len(lengths))),
        frames=frames,
        start=np.cumsum(length) - length,
        length=length,
        mean=none,
        mean_square=none,
        faults={},
        silence=SILENCE,
        frame_rate=100.0,
    )


def times(x: torch.Tensor) -> list[list[float]]:
    """The first mel of every clip: the names of its frames, or silence."""
    return x[:, 0, 0].tolist()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# at


def test_shape_and_type():
    x = Batches(made_store([20, 30])).at(np.array([0, 1, 1]), np.array([0, 0, 5]), 8)
    assert x.shape == (3, 1, N_MELS, 8) and x.dtype == torch.float32


def test_frames_from_the_first_on():
    x = Batches(made_store([20, 30, 10])).at(np.array([2, 0]), np.array([3, 16]), 4)
    assert times(x) == [[203, 204, 205, 206], [16, 17, 18, 19]]
    assert x[0, 0, 1].tolist() == [-203, -204, -205, -206] and x[0, 0, 2].tolist() == [1] * 4


def test_before_and_after_a_clip_is_silence_and_not_its_neighbour():
    x = Batches(made_store([4, 4, 4])).at(np.array([0, 1, 2, 1]), np.array([-2, -1, 2, 4]), 4)
    s = SILENCE
    assert times(x) == [[s, s, 0, 1], [s, 100, 101, 102], [202, 203, s, s], [s, s, s, s]]
    assert (x[3] == s).all(), "in every mel"


def test_a_batch_may_need_no_silence_at_all():
    assert times(Batches(made_store([6])).at(np.array([0, 0]), np.array([0, 2]), 4)) == [[0, 1, 2, 3], [2, 3, 4, 5]]


def test_a_clip_without_frames_is_silence():
    x = Batches(made_store([4, 0, 4])).at(np.array([1]), np.array([-2]), 4)
    assert (x == SILENCE).all()


def test_a_store_without_frames_is_silence():
    x = Batches(made_store([0, 0])).at(np.array([0, 1]), np.array([0, -2]), 4)
    assert x.shape == (2, 1, N_MELS, 4) and (x == SILENCE).all()


def test_the_store_is_unchanged():
    store = made_store([4, 9])
    before = store.frames.copy()
    batches = Batches(store)
    x = batches.at(np.array([0, 1]), np.array([-1, 0]), 6)
    x.zero_()
    assert np.array_equal(store.frames, before)
    assert times(batches.at(np.array([1]), np.array([0]), 3)) == [[100, 101, 102]]


def test_rows_may_repeat_and_come_in_any_order():
    x = Batches(made_store([5, 5, 5])).at(np.array([2, 0, 2, 1]), np.array([0, 1, 2, 0]), 2)
    assert times(x) == [[200, 201], [1, 2], [202, 203], [100, 101]]


# crop


def test_a_crop_is_an_exact_slice_from_anywhere():
    """40 frames and crops of 8: the 33 places all occur in 2,000 draws."""
    x = Batches(made_store([7, 40])).crop(np.ones(2000, dtype=np.int64), 8, rng())
    first = x[:, 0, 0, 0]
    assert torch.equal(x[:, 0, 0], first[:, None] + torch.arange(8.0))
    assert set(first.tolist()) == {100.0 + t for t in range(33)}


def test_a_crop_of_the_whole_clip():
    assert times(Batches(made_store([5])).crop(np.array([0]), 5, rng())) == [[0, 1, 2, 3, 4]]


def test_a_short_clip_is_whole_anywhere_in_the_silence():
    """3 frames in 8: six places."""
    rows = times(Batches(made_store([3])).crop(np.zeros(500, dtype=np.int64), 8, rng()))
    places = set()
    for row in rows:
        at = row.index(0.0)
        assert row == [SILENCE] * at + [0, 1, 2] + [SILENCE] * (5 - at)
        places.add(at)
    assert places == set(range(6))


def test_long_and_short_clips_in_one_batch():
    x = Batches(made_store([2, 50, 0])).crop(np.array([0, 1, 2]), 5, rng())
    assert sorted(times(x)[0])[-2:] == [0, 1] and times(x)[0].count(SILENCE) == 3
    assert times(x)[1] == [times(x)[1][0] + t for t in range(5)]
    assert times(x)[2] == [SILENCE] * 5


def test_the_generator_decides_the_crops():
    batches, rows = Batches(made_store([90, 90, 90])), np.array([0, 1, 2])
    one = batches.crop(rows, 8, rng(1))
    torch.manual_seed(123)
    assert torch.equal(one, batches.crop(rows, 8, rng(1)))
    assert not torch.equal(one, batches.crop(rows, 8, rng(2)))


# Padding "repeat"


def test_a_short_clip_is_repeated_before_its_start_and_after_its_end():
    x = Batches(made_store([3, 1, 4]), padding="repeat").at(np.array([0, 2, 1, 0]), np.array([-4, 1, 0, 5]), 8)
    assert times(x) == [
        [2, 0, 1, 2, 0, 1, 2, 0],
        [201, 202, 203, 200, 201, 202, 203, 200],
        [100] * 8,
        [2, 0, 1, 2, 0, 1, 2, 0],
    ]
    assert x[0, 0, 1].tolist() == [-v for v in times(x)[0]] and (x[:, 0, 2] == 1).all()


def test_a_clip_without_frames_stays_silent_next_to_a_repeated_one():
    x = Batches(made_store([2, 0, 2]), padding="repeat").at(np.array([1, 0, 1]), np.array([-2, -1, 0]), 4)
    assert times(x) == [[SILENCE] * 4, [1, 0, 1, 0], [SILENCE] * 4] and (x[0] == SILENCE).all()
    assert (Batches(made_store([0, 0]), padding="repeat").at(np.array([0, 1]), np.array([0, -2]), 4) == SILENCE).all()


def test_a_short_crop_is_the_clip_in_a_circle_from_random_places():
    rows = times(Batches(made_store([3]), padding="repeat").crop(np.zeros(500, dtype=np.int64), 8, rng()))
    assert all(b == (a + 1) % 3 for row in rows for a, b in pairwise(row))
    assert {row[0] for row in rows} == {0, 1, 2}


def test_padding_leaves_long_clips_and_the_generator_alone():
    """Both kinds of padding draw alike and differ nowhere but in the padding."""
    store, rows = made_store([2, 50, 8, 30, 7]), np.array([4, 3, 2, 1, 0] * 20)
    silent, again = (Batches(store, padding=padding).crop(rows, 8, rng(1)) for padding in ("silence", "repeat"))
    padded = silent == SILENCE
    assert padded.any() and torch.equal(silent[~padded], again[~padded]) and not (again == SILENCE).any()


def test_windows_of_a_short_clip_are_filled_in_the_same_way():
    """5 frames centred in 8: the window begins a frame and a half before, which is two."""
    store = made_store([5])
    clip, first = windows(store.length, 8)
    assert times(Batches(store, padding="repeat").at(clip, first, 8)) == [[3, 4, 0, 1, 2, 3, 4, 0]]


# Lengths of crops


def test_lengths_of_crops_are_drawn_from_the_shortest_to_the_longest():
    draw = rng()
    assert {draw_length(3, 6, draw) for _ in range(200)} == {3, 4, 5, 6}


def test_a_length_without_choice_leaves_the_generator_alone():
    draw = rng()
    assert draw_length(5, 5, draw) == 5 and draw.random() == rng().random()


# windows


@pytest.mark.parametrize(
    ("length", "first"),
    [
        (501, [0]),  # 5.000 s: one window, not two
        (500, [0]),
        (502, [0, 2]),
        (300, [-100]),  # centred
        (301, [-100]),
        (1, [-250]),
        (0, [-250]),
        (1000, [0, 500]),
        (1001, [0, 501]),  # 10.000 s: two
        (1002, [0, 251, 502]),
        (1400, [0, 450, 900]),
    ],
)
def test_windows_by_hand(length, first):
    clip, found = windows(np.array([length]), 500)
    assert found.tolist() == first and clip.tolist() == [0] * len(first)
    assert clip.dtype == found.dtype == np.int64


def test_windows_of_several_clips():
    clip, first = windows(np.array([300, 1000, 0, 501]), 500)
    assert clip.tolist() == [0, 1, 1, 2, 3]
    assert first.tolist() == [-100, 0, 500, -250, 0]


def test_windows_of_no_clips():
    clip, first = windows(np.zeros(0, dtype=np.int64), 500)
    assert len(clip) == len(first) == 0


@pytest.mark.parametrize("n_frames", [1, 2, 7, 50])
def test_windows_cover_every_frame_evenly(n_frames):
    """But for the one frame that k * n_frames + 1 leave out, as they do at 5.000 s."""
    lengths = np.arange(1, 420)
    clip, first = windows(lengths, n_frames)
    for i, length in enumerate(lengths):
        of_clip = first[clip == i]
        heard = np.zeros(length, dtype=bool)
        for start in of_clip:
            heard[max(start, 0) : start + n_frames] = True
        left_out = 1 if length % n_frames == 1 % n_frames and length > n_frames else 0
        assert (~heard).sum() <= left_out, (length, of_clip)
        if len(of_clip) > 1:
            assert of_clip[0] == 0 and of_clip[-1] == length - n_frames
            steps = np.diff(of_clip)
            assert steps.max() - steps.min() <= 1 and steps.min() >= 1
            assert (len(of_clip) - 1) * n_frames < length - 1, "no window more than needed"
        elif length <= n_frames:
            before, behind = -of_clip[0], of_clip[0] + n_frames - length
            assert abs(before - behind) <= 1, "a short clip lies in the middle"


@pytest.mark.parametrize(
    ("length", "overlap", "first"),
    [
        (501, 0.5, [0]),
        (502, 0.5, [0, 2]),
        (300, 0.9, [-100]),
        (750, 0.5, [0, 250]),
        (1000, 0.5, [0, 250, 500]),
        (1001, 0.5, [0, 167, 334, 501]),  # two steps of 250 would leave one of the 501 frames to go
        (950, 0.1, [0, 450]),
        (1000, 0.1, [0, 250, 500]),
        (0, 0.5, [-250]),
    ],
)
def test_overlapping_windows_by_hand(length, overlap, first):
    clip, found = windows(np.array([length]), 500, overlap)
    assert found.tolist() == first and clip.tolist() == [0] * len(first)


@pytest.mark.parametrize("overlap", [0.01, 0.1, 0.25, 1 / 3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("n_frames", [1, 2, 7, 50])
def test_the_next_window_covers_a_share_again(n_frames, overlap):
    lengths = np.arange(0, 420)
    clip, first = windows(lengths, n_frames, overlap)
    assert (np.bincount(clip) >= np.bincount(windows(lengths, n_frames)[0])).all()
    for i, length in enumerate(lengths):
        of_clip = first[clip == i]
        if length <= n_frames + 1:
            assert len(of_clip) == 1
            continue
        steps = np.diff(of_clip)
        assert of_clip[0] == 0 and of_clip[-1] == length - n_frames and steps.max() - steps.min() <= 1
        again = (n_frames - steps) / n_frames
        assert (again >= overlap - 1e-9).all() or steps.max() == 1, "a share, or all but one frame"
        wide = max(1, np.floor(n_frames * (1 - overlap) + 1e-9))
        assert (len(of_clip) - 2) * wide < length - n_frames, "no window more than needed"


# With a real store


def test_padding_is_the_log_mel_of_silence(tmp_path):
    """A clip padded with frames sounds as the same clip padded with silence, but for the frames at the seam."""
    cfg = FeatureConfig(sample_rate=8_000, n_fft=160, hop_length=80, n_mels=12, f_max=4_000.0)
    wave = (0.3 * rng().standard_normal(800)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 8_000, subtype="FLOAT")
    clips = pd.DataFrame({"fname": ["a.wav"], "path": [str(tmp_path / "a.wav")]})
    store = open_features(cfg, clips, tmp_path / "features")
    x = Batches(store).at(np.array([0]), np.array([-10]), 31)[0, 0].T.numpy()  # (31, 12): 10 + 11 + 10 frames
    truth = LogMel.from_config(cfg)(np.pad(wave, 800))
    away = np.r_[0:9, 11:20, 22:31]
    assert np.allclose(x[away], truth[away], atol=0.01)
    assert np.abs(x[:9]).min() > 13, "and is far from 0"


@pytest.mark.parametrize(("free", "fits"), [(60, False), (89, False), (91, True)])
def test_half_of_a_gpu_stays_for_the_network(monkeypatch, free, fits):
    """Of 100 MB; a store of 40 MB, where others may lie already."""
    batches = Batches(made_store([1]))
    batches.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * 10**6, 100 * 10**6))
    assert batches._fits(torch.zeros(20 * 10**6, dtype=torch.float16)) is fits
