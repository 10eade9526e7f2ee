"""Long recordings in even sections: a store whose clips are parts of the clips of another."""

from dataclasses import dataclass, replace

import numpy as np

from features.store import Store


@dataclass(frozen=True)
class Sections:
    """Section i is what lies between start[i] and end[i] of clip[i]; all (sections,)."""

    clip: np.ndarray  # row of the clip
    start: np.ndarray  # seconds
    end: np.ndarray  # seconds


def even_sections(store: Store, seconds: float) -> Sections:
    """Every clip cut every `seconds`; a rest shorter than half of that joins the section before it.

    A clip without frames has no section. Raises ValueError where `seconds` is shorter than a frame.
    """
    if seconds * store.frame_rate < 1:
        raise ValueError(f"{seconds:g} s is shorter than a frame of the features, {1 / store.frame_rate:g} s")
    duration = store.length / store.frame_rate
    count = np.where(store.length > 0, np.maximum(np.floor(duration / seconds + 0.5), 1), 0).astype(np.int64)
    clip = np.repeat(np.arange(len(count)), count)
    nth = np.arange(len(clip)) - np.repeat(np.cumsum(count) - count, count)
    end = np.where(nth == count[clip] - 1, duration[clip], (nth + 1) * seconds)
    return Sections(clip, nth * seconds, end)


def cut(store: Store, sections: Sections) -> Store:
    """The sections as clips, for prediction; names, statistics and faults are those of the clips that they are cut
    from. store: the same clips as `even_sections` had, maybe at another frame rate; a clip that has no frame there has
    none in its sections."""
    clip, length = sections.clip, store.length[sections.clip]
    first = np.clip(np.round(sections.start * store.frame_rate).astype(np.int64), 0, np.maximum(length - 1, 0))
    end = np.clip(np.round(sections.end * store.frame_rate).astype(np.int64), np.minimum(first + 1, length), length)
    return replace(
        store,
        fnames=tuple(store.fnames[row] for row in clip.tolist()),
        start=store.start[clip] + first,
        length=end - first,
        mean=store.mean[clip],
        mean_square=store.mean_square[clip],
    )
