"""The demo competition with several labels per clip, in FSDKaggle2019's layout: mixtures of the demo's sounds."""

from pathlib import Path
from typing import TYPE_CHECKING

from console.output import progress

if TYPE_CHECKING:  # imported where used, so that --help is fast
    import numpy as np
    import pandas as pd

SHARES = (0.5, 0.3, 0.2)  # of clips with one, two, three labels
WRONG_SHARE = 0.25  # of the clips of train_noisy.csv: one label is replaced


def write_multi_label(folder: Path, train_per_class: int, test_per_class: int, rng: "np.random.Generator") -> None:
    """train_curated.csv and train_noisy.csv (fname, labels), half of the training clips each, their folders of the same
    names, test/, sample_submission.csv with a column per class, and test_labels.csv (fname, labels, usage). Two more
    test files are not scored: an empty WAV and digital silence.

    per_class: clips whose first sound is of that class.
    """
    import numpy as np
    import pandas as pd
    import soundfile

    from input.demo_sounds import RATE, SOUNDS

    half = (train_per_class + 1) // 2
    for name, per_class in (("curated", half), ("noisy", train_per_class - half)):
        clips = _synthesise(folder / f"train_{name}", per_class, f"{name} training", rng)
        if name == "noisy":
            wrong = rng.random(len(clips)) < WRONG_SHARE
            clips["labels"] = [
                _mislabel(row, rng) if bad else row for row, bad in zip(clips["labels"], wrong, strict=True)
            ]
        clips.assign(labels=clips["labels"].map(",".join)).to_csv(folder / f"train_{name}.csv", index=False)

    test = _synthesise(folder / "test", test_per_class, "test", rng)
    soundfile.write(folder / "test" / "empty.wav", np.zeros(0), RATE, subtype="PCM_16")
    soundfile.write(folder / "test" / "silent.wav", np.zeros(RATE), RATE, subtype="PCM_16")
    usage = np.where(rng.random(len(test)) < 0.2, "Public", "Private")
    unscored = pd.DataFrame({"fname": ["empty.wav", "silent.wav"], "labels": "None", "usage": "Ignored"})
    truth = pd.concat([test.assign(labels=test["labels"].map(",".join), usage=usage), unscored]).sort_values("fname")
    truth.to_csv(folder / "test_labels.csv", index=False)
    truth[["fname"]].assign(**dict.fromkeys(SOUNDS, 0)).to_csv(folder / "sample_submission.csv", index=False)


def _synthesise(folder: Path, per_class: int, what: str, rng: "np.random.Generator") -> "pd.DataFrame":
    """fname and labels, a tuple of one to three."""
    import pandas as pd
    import soundfile

    from input.demo_sounds import RATE, SOUNDS, make_mixture

    folder.mkdir(parents=True)
    names, clips = list(SOUNDS), []
    with progress(f"demo: {what} clips", per_class * len(SOUNDS), "clips") as advance:
        for first in names * per_class:
            more = rng.choice([name for name in names if name != first], rng.choice(3, p=SHARES), replace=False)
            labels = (first, *map(str, more))
            fname = f"{rng.integers(2**32):08x}.wav"
            wave = make_mixture([SOUNDS[label] for label in labels], rng)
            soundfile.write(folder / fname, wave, RATE, subtype="PCM_16")
            clips.append((fname, tuple(sorted(labels))))
            advance(1)
    return pd.DataFrame(clips, columns=["fname", "labels"]).sort_values("fname", ignore_index=True)


def _mislabel(labels: tuple[str, ...], rng: "np.random.Generator") -> tuple[str, ...]:
    """The labels with one of them replaced by one that is not among them."""
    from input.demo_sounds import SOUNDS

    lost = rng.integers(len(labels))
    other = rng.choice([name for name in SOUNDS if name not in labels])
    return tuple(sorted((*labels[:lost], *labels[lost + 1 :], str(other))))
