"""A synthetic demo competition in Kaggle's layout: sounds that people can tell apart, with some faults.

python -m input.demo input/demo
python -m input.demo input/demo_multilabel --multi-label
"""

from pathlib import Path
from typing import TYPE_CHECKING

from configs.files import new_folder
from console.command_line import run_command
from console.errors import UserError
from console.options import as_path, command_parser
from console.output import progress, say
from input.demo_multi_label import write_multi_label

if TYPE_CHECKING:  # imported where used, so that --help is fast
    import numpy as np
    import pandas as pd

TRAIN_PER_CLASS = 30
TEST_PER_CLASS = 20
VERIFIED_SHARE = 0.4
WRONG_SHARE = 0.25  # of the unverified labels
MARKER = "demo.txt"


def main() -> None:
    example = "example: python -m input.demo input/demo"
    parser = command_parser(__doc__.partition("\n")[0], example, "python -m input.demo")
    parser.add_argument("folder", type=as_path, help="where to write it")
    parser.add_argument("--train", type=int, default=TRAIN_PER_CLASS, help="clips per class (%(default)s)")
    parser.add_argument("--test", type=int, default=TEST_PER_CLASS, help="clips per class (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random sounds (%(default)s)")
    parser.add_argument("--multi-label", action="store_true", help="mixtures of sounds, in FSDKaggle2019's layout")
    args = parser.parse_args()
    make_demo(args.folder, args.train, args.test, args.seed, args.multi_label)


def make_demo(
    folder: Path, train_per_class: int, test_per_class: int, seed: int = 0, multi_label: bool = False
) -> None:
    """Write train.csv, train_post_competition.csv (freesound_id), audio_train/, audio_test/, sample_submission.csv and
    test_labels.csv (fname, label, usage). Two more test files are not scored: an empty WAV and digital silence.
    multi_label: see `input.demo_multi_label`.

    A demo with the same numbers is kept; a demo with other numbers is replaced. Raises UserError if the folder has
    other content.
    """
    import numpy as np

    if min(train_per_class, test_per_class) < 1 or seed < 0:
        raise UserError("--train and --test must be at least 1, --seed at least 0")
    kind = "demo competition of several labels" if multi_label else "demo competition"
    about = f"{kind}: {train_per_class} training and {test_per_class} test clips per class, seed {seed}\n"
    if (folder / MARKER).exists() and (folder / MARKER).read_text() == about:
        say(f"{folder}: exists, {about.strip()}")
        return

    def check() -> None:
        if folder.exists() and not (folder / MARKER).exists():
            raise UserError(f"{folder}: exists and is not a demo competition: choose a new folder")

    folder = folder.absolute()  # in case the current folder is replaced
    check()
    with new_folder(folder, check) as partial:
        rng = np.random.default_rng(seed)
        if multi_label:
            write_multi_label(partial, train_per_class, test_per_class, rng)
        else:
            train = _synthesise(partial / "audio_train", train_per_class, "training", rng)
            test = _synthesise(partial / "audio_test", test_per_class, "test", rng)
            _write_tables(partial, train, test, rng)
        (partial / MARKER).write_text(about)
    say(f"{about.strip()} -> {folder}")


def _synthesise(folder: Path, per_class: int, what: str, rng: "np.random.Generator") -> "pd.DataFrame":
    """Clips of every class; up to three come from one recording (same source, other level and noise)."""
    import numpy as np
    import pandas as pd
    import soundfile

    from input.demo_sounds import RATE, SOUNDS, make_clip

    folder.mkdir(parents=True)
    clips = []
    with progress(f"demo: {what} clips", per_class * len(SOUNDS), "clips") as advance:
        for label, sound in SOUNDS.items():
            made = 0
            while made < per_class:
                recording = int(rng.integers(100_000, 1_000_000))
                for _ in range(min(int(rng.integers(1, 4)), per_class - made)):
                    fname = f"{rng.integers(2**32):08x}.wav"
                    wave = make_clip(sound, np.random.default_rng(recording), rng)
                    soundfile.write(folder / fname, wave, RATE, subtype="PCM_16")
                    clips.append((fname, label, recording))
                    made += 1
                    advance(1)
    table = pd.DataFrame(clips, columns=["fname", "label", "freesound_id"])
    return table.sort_values("fname", ignore_index=True)


def _write_tables(folder: Path, train: "pd.DataFrame", test: "pd.DataFrame", rng: "np.random.Generator") -> None:
    import numpy as np
    import pandas as pd
    import soundfile

    from input.demo_sounds import RATE, SOUNDS

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


if __name__ == "__main__":
    run_command(main)
