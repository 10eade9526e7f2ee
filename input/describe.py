"""Look at a competition's folder that nobody described, say what is understood, and write a draft competition.yaml.

The draft has a comment at each guess. A competition.yaml that is there stays.
"""

from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from configs.competition import TableFile
from configs.description import FILE_NAME
from configs.files import write
from configs.forms import to_json
from console.command_line import run_command
from console.errors import UserError, count, list_some
from console.options import as_path, command_parser, share
from console.output import say, warn
from input.competition import Competition, load_competition
from input.labels import label_matrix
from input.layout import Layout, find_layout
from input.names import nfc

EXAMPLES = """examples:
  python -m input.describe input/my-competition
  python train_fold.py --fold 0..4 --input input/my-competition
"""


def main() -> None:
    parser = command_parser(__doc__, EXAMPLES, "python -m input.describe")
    parser.add_argument("folder", type=as_path, metavar="DIR", help="the competition")
    share(parser, "as")
    args = parser.parse_args()
    describe(args.folder, args.described_by)


def describe(folder: Path, described_by: str | None = None) -> Competition:
    """Print what is understood and write the draft. Raises UserError as `load_competition` does; the draft is written
    before, so that it can be corrected."""
    layout = find_layout(folder, described_by=described_by)
    file = folder / FILE_NAME
    if layout.source == FILE_NAME or file.exists():
        say(f"{file}: is there and stays")
    else:
        write(file, draft(layout))
        say(f"{file}: a draft, with a comment at each guess: correct it")
    found = load_competition(folder, skip_missing=True, described_by=described_by)
    for line in facts(found):
        say(line)
    check_trainable(found)
    return found


def check_trainable(of: Competition) -> None:
    """What training checks before its work. Raises UserError on a metric of one's own that cannot be used; warns of
    what the settings of an experiment can mend, as folds without a score."""
    from configs.schema import FoldConfig
    from folds.assign import load_folds
    from folds.scorable import check_scorable
    from metrics.metric import find_metric

    find_metric(of.metric, of.task)
    try:
        with TemporaryDirectory() as scratch, redirect_stdout(StringIO()):
            folds = load_folds(FoldConfig(), of, Path(scratch))
        check_scorable(of, folds, sorted(set(folds["fold"])))
    except UserError as error:
        warn(f"training with the default folds would stop: {error}")


def draft(layout: Layout) -> str:
    """The text of a competition.yaml that says what was understood."""
    lines = [f"# {layout.folder.name}, understood by {layout.source}; what has a comment is a guess"]
    for key, value in _plain(layout).items():
        if isinstance(value, dict) and key in ("columns", "audio", "submission"):
            lines.append(f"{key}:")
            lines += [_line(f"  {name}", one, layout.guesses.get(f"{key}.{name}")) for name, one in value.items()]
        else:
            lines.append(_line(key, value, layout.guesses.get(key)))
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any, why: str | None) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False).strip()
    text = text.removesuffix("\n...").removesuffix("...").strip()
    return f"{key}: {text}" + (f"  # {why}" if why else "")


def _plain(layout: Layout) -> dict[str, Any]:
    """The values that say something: tables by their files, lists instead of tuples, no empty ones. A column that a
    description turns off stays so: it would be guessed again."""
    cfg, values = layout.config, to_json(layout.config)
    for key in ("train", "details"):
        values[key] = [_short(table) for table in values[key]]
    for key in ("test", "sample_submission"):
        values[key] = _short(values[key]) if values.get(key) else None
    values["label_separator"] = cfg.label_separator
    off = [key for key, value in vars(cfg.columns).items() if value is None and f"columns.{key}" not in layout.guesses]
    values["columns"] = {"name": cfg.columns.name, "label": cfg.columns.label} | values["columns"]
    values["columns"] |= dict.fromkeys(off)
    values["secondary_weight"] = cfg.secondary_weight
    values["classes"], values["no_label"] = list(cfg.classes), list(cfg.no_label)
    if cfg.columns.secondary_labels is None:
        values.pop("secondary_weight", None)
    empty = {"classes", "no_label", "details"}
    if cfg.audio.class_folders or all(table.audio for table in cfg.train):  # else a pattern that nothing uses
        values["audio"].pop("train", None)
    if not layout.has_test:
        values["audio"].pop("test", None)
    if cfg.audio.class_folders is None:
        values["audio"].pop("class_folders", None)
    return {key: value for key, value in values.items() if value or key not in empty}


def _short(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key == "file" or value != getattr(TableFile("x"), key)}


def facts(of: Competition) -> list[str]:
    """What a person checks first: sounds, labels, folds and leaks."""
    truth = label_matrix(of.train["label"], of.classes)
    per_class, per_clip = truth.sum(axis=0), Counter(truth.sum(axis=1).tolist())
    order = np.argsort(-per_class, kind="stable")
    counts = ", ".join(f"{n} with {labels}" for labels, n in sorted(per_clip.items()))
    lines = [
        f"sound: train {_sounds(of.train['path'].tolist())}; test {_sounds(of.test['path'].tolist())}",
        f"classes: {list_some(f'{of.classes[i]} ({per_class[i]})' for i in order)}",
        f"labels per clip: {counts}; {count(int(of.train['verified'].sum()), 'clip')} verified",
    ]
    if "fold" in of.train:
        sizes = of.train["fold"].value_counts().sort_index()
        lines.append("folds of its own: " + ", ".join(f"{fold}: {count(n, 'clip')}" for fold, n in sizes.items()))
    return lines + [f"leak: {leak}" for leak in leaks(of)]


def _sounds(paths: list[str | None]) -> str:
    """Clips, seconds and rates, from the headers."""
    import soundfile

    seconds, rates, unreadable = [], Counter[int](), 0
    for path in paths:
        try:
            about = soundfile.info(path)
        except (TypeError, soundfile.LibsndfileError):
            unreadable += 1
            continue
        seconds.append(about.duration)
        rates[about.samplerate] += 1
    if not seconds:
        return count(len(paths), "clip") + (f", {unreadable} missing or unreadable" if unreadable else "")
    low, middle, high = np.quantile(seconds, [0, 0.5, 1])
    text = (
        f"{count(len(paths), 'clip')}, {low:.1f} to {high:.1f} s (median {middle:.1f}), {sum(seconds) / 3600:.2f} h, "
    )
    text += " and ".join(f"{rate} Hz" for rate, _ in rates.most_common(3))
    return text + (f", {unreadable} missing or unreadable" if unreadable else "")


def leaks(of: Competition) -> list[str]:
    """What is on both sides: names in training and test set, files of the same bytes, groups in several folds."""
    found = []
    if both := sorted(set(of.train["fname"].map(nfc)) & set(of.test["fname"].map(nfc))):
        found.append(f"names in the training and the test set: {list_some(both)}")
    if twins := _same_bytes(of):
        found.append(f"test clips that are training clips under another name: {list_some(twins)}")
    if "fold" in of.train and of.group_column in of.train:
        shared = of.train[of.train[of.group_column] != ""].groupby(of.group_column)["fold"].nunique()
        if several := sorted(map(str, shared[shared > 1].index)):
            found.append(f"clips of one {of.group_column} in several folds: {list_some(several)}")
    return found


def _same_bytes(of: Competition) -> list[str]:
    """'test.wav = train.wav' for files of the same content; only files of the same size are read."""
    sizes: dict[int, list[str]] = {}
    for path in of.train["path"].dropna():
        sizes.setdefault(Path(path).stat().st_size, []).append(path)
    found = []
    for path in of.test["path"].dropna():
        if (size := Path(path).stat().st_size) and (near := [one for one in sizes.get(size, ()) if one != path]):
            data = Path(path).read_bytes()
            found += [f"{Path(path).name} = {Path(one).name}" for one in near if Path(one).read_bytes() == data][:1]
    return found


if __name__ == "__main__":
    run_command(main)
