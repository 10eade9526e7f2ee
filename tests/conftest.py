"""A feature store in memory, for tests of what is done with it."""

from collections.abc import Callable

import numpy as np
import pytest

from features.store import Store

MakeStore = Callable[..., Store]


@pytest.fixture
def make_store() -> MakeStore:
    """make_store(clips, ...): clips are (n_frames, n_mels) arrays; they are called 0.wav, 1.wav, ..."""

    def make(clips: list[np.ndarray], frame_rate: float = 10.0, silence: float = -10.0) -> Store:
        length = np.array([len(clip) for clip in clips])
        n_mels = clips[0].shape[1]

        def per_clip(power: int) -> np.ndarray:
            return np.array([(c.astype(float) ** power).mean(0) if len(c) else np.zeros(n_mels) for c in clips])

        return Store(
            key="test",
            fnames=tuple(f"{i}.wav" for i in range(len(clips))),
            frames=np.concatenate(clips).astype(np.float16),
            start=np.cumsum(length) - length,
            length=length,
            mean=per_clip(1).astype(np.float32),
            mean_square=per_clip(2).astype(np.float32),
            faults={f"{i}.wav": "empty" for i, n in enumerate(length) if n == 0},
            silence=silence,
            frame_rate=frame_rate,
        )

    return make
