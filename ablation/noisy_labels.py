"""A competition with true labels -> the same sound with labels as noisy as FSDKaggle2018's, equal on every machine.

In FSDKaggle2018 3,710 of 9,473 labels are verified, so about 60 % are not. Its authors estimate that at least 65 to
70 % of the unverified labels of each class are right (E. Fonseca et al., "General-purpose tagging of Freesound audio
with AudioSet labels", DCASE 2018).
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from configs.files import write
from console.errors import UserError, count, list_some
from input.names import file_key

if TYPE_CHECKING:
    import pandas as pd

    from input.competition import Competition


UNVERIFIED = 0.60  # of all clips
WRONG = 0.25  # of the unverified ones


def noisy_labels(train: "pd.DataFrame", seed: int) -> "pd.DataFrame":
    """The table with other `label` and `verified`: exactly round(0.6 n) clips unverified, a quarter of these wrong.

    A wrong label is drawn evenly from the other classes. The draws are hashes of seed and fname, so neither the order
    of the rows nor the machine matters. Other columns stay.
    """
    classes = sorted(set(train["label"]))
    truth = dict(zip(train["fname"], train["label"], strict=True))
    unverified = sorted(truth, key=lambda fname: _draw(seed, "unverified", fname))[: round(UNVERIFIED * len(truth))]
    wrong = sorted(unverified, key=lambda fname: _draw(seed, "wrong", fname))[: round(WRONG * len(unverified))]
    given = dict(truth)
    for fname in wrong:
        others = [name for name in classes if name != truth[fname]]
        given[fname] = others[_draw(seed, "label", fname) % len(others)]
    return train.assign(label=train["fname"].map(given), verified=~train["fname"].isin(unverified))


def write_noisy(clean: "Competition", folder: Path, seed: int) -> None:
    """Kaggle's layout in `folder`: new tables, and links to the sound of `clean`, whose labels must all be true.

    Files that are right already are not touched. Raises UserError if a label of `clean` is not verified.
    """
    from input.layout import find_layout

    if not clean.train["verified"].all():
        n = int((~clean.train["verified"]).sum())
        raise UserError(f"{clean.folder}: {count(n, 'label')} not verified: use a competition with true labels only")
    layout = find_layout(clean.folder, described_by=clean.described_by)
    if layout.test_audio is None or len(layout.train_audio) != 1:
        raise UserError(f"{clean.folder}: expected one folder of training clips and one of test clips")
    for clips, place in ((clean.train, layout.train_audio[0]), (clean.test, layout.test_audio)):
        if odd := [
            path for path, name in zip(clips["path"], clips["fname"], strict=True) if not _lies(path, place, name)
        ]:
            raise UserError(f"{place}: expected every clip in it by the name in its table, not {list_some(odd, 3)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, sound in (("audio_train", layout.train_audio[0]), ("audio_test", layout.test_audio)):
        link = folder / name
        if not link.is_symlink() or link.readlink() != sound.resolve():
            link.unlink(missing_ok=True)
            link.symlink_to(sound.resolve(), target_is_directory=True)
    table = noisy_labels(clean.train, seed)
    table = table.assign(manually_verified=table["verified"].astype(int)).drop(columns=["verified", "path"])
    if clean.group_column not in (None, "freesound_id"):
        table["freesound_id"] = table[clean.group_column]  # by which Kaggle's layout is grouped
    _write(table[["fname", "label", "manually_verified"]], folder / "train.csv")
    _write(table, folder / "train_post_competition.csv")
    _write(clean.test[["fname"]].assign(label=" ".join(clean.classes[:3])), folder / "sample_submission.csv")


def _lies(path: str | None, place: Path, name: str) -> bool:
    return path is not None and Path(path).parent == place and file_key(Path(path).name) == file_key(name)


def _draw(seed: int, what: str, fname: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{what}:{fname}".encode(), digest_size=8).digest())


def _write(table: "pd.DataFrame", file: Path) -> None:
    text = table.to_csv(index=False, lineterminator="\n")
    if not file.exists() or file.read_bytes() != text.encode():
        write(file, text)
