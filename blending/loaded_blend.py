"""A finished blend with its networks: probabilities of any sound file, from Python and for predict.py."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from blending.apply import Blend, apply_blend, read_blend
from configs.files import recover
from configs.paths import Paths
from console.errors import UserError, list_some
from features.sections import even_sections
from features.store import open_features
from input.sound_files import sounds_under
from runs.predictions import mean_of_folds
from runs.run_folder import Trained, finished_folds, read_trained


@dataclass(frozen=True)
class LoadedBlend:
    """A blend and the trained folds of each model that counts in it."""

    folder: Path
    blend: Blend
    runs: dict[str, list[Trained]]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.blend.classes

    def predict(
        self, paths: str | Path | Iterable[str | Path], every: float | None = None, engine: str = "torch"
    ) -> pd.DataFrame:
        """Probabilities of sound files: file, then a column per class; a row per file.

        paths: files, and folders whose sound files are all taken, those of inner folders too. every: seconds; a row per
        section of that length then, with start and end (seconds) after file; the last one may be up to half as long
        again, or half as long. engine: what predicts on a CPU: torch, openvino, auto (the faster of both) or int8.
        Files that cannot be read have no row; attrs["faults"] of the table names these, and files that were damaged or
        silent, with the reason. Raises UserError where a path does not exist, a folder holds no sound, `every` is no
        length, a trained fold is damaged, or OpenVINO or NNCF is asked for and not installed.
        """
        if every is not None and (isinstance(every, str) or not 0 < every < float("inf")):
            raise UserError(f"every={every!r}: expected seconds above 0, as a number")
        files = sounds_under([paths] if isinstance(paths, (str, Path)) else paths)
        clips = pd.DataFrame({"fname": files, "path": files})
        with tempfile.TemporaryDirectory(prefix="predict-") as scratch:
            return self._predict(clips, Path(scratch), every, engine)

    def _predict(self, clips: pd.DataFrame, scratch: Path, every: float | None, engine: str) -> pd.DataFrame:
        from runs.clips import frozen_file_of, open_clips  # here: a blend is loaded without torch
        from runs.predict import check_engine, predict_test

        check_engine(engine)  # before any work is done
        first = next(iter(self.runs.values()))[0]  # it decides where sections lie; what it heard tells of faults
        if every is None:
            store, sections = open_clips(first.config, clips, scratch, frozen_file_of(first)), None
        else:
            store = open_features(replace(first.config.features, trim_db=None), clips, scratch)
            try:
                sections = even_sections(store, every)
            except ValueError as error:
                raise UserError(f"sections: {error}") from None
        folders = [run.folder for runs in self.runs.values() for run in runs]
        answers = predict_test(folders, clips, scratch, sections=sections, engine=engine)
        probs = dict(zip(folders, answers, strict=True))
        means = {name: mean_of_folds([probs[run.folder].probs for run in runs]) for name, runs in self.runs.items()}
        blended = pd.DataFrame(apply_blend(self.blend, means).astype(np.float32), columns=list(self.classes))
        if sections is None:
            silent = np.array(["silent" in store.faults.get(file, "") for file in store.fnames])
            heard = np.flatnonzero((store.length > 0) | silent)  # a frozen network has nothing for silence
            keys, blended = {"file": clips["fname"].to_numpy()[heard]}, blended.iloc[heard].reset_index(drop=True)
        else:
            keys = {"file": clips["fname"].to_numpy()[sections.clip], "start": sections.start, "end": sections.end}
        found = pd.concat([pd.DataFrame(keys), blended], axis=1)
        found.attrs["faults"] = store.faults
        return found


def load_blend(folder: str | Path) -> LoadedBlend:
    """The blend in work/ensembles/<name>/, with the runs in work/runs/ that it was made from; or one in a bundle.

    Raises UserError where it is no blend of ours, a run that counts is missing, or one changed since.
    """
    folder = Path(folder)
    recover(folder)
    if not (file := folder / "weights.json").is_file():
        command = "python ensemble.py" + (f" --name {folder.name}" if folder.name != "default" else "")
        raise UserError(
            f"{folder}: no blend (it has no weights.json): {command} --work DIR makes DIR/ensembles/{folder.name}"
        )
    blend = read_blend(file, "make it again with ensemble.py --force")
    inside = folder / "weights"  # of a bundle
    runs = inside if inside.is_dir() else Paths(work=folder.resolve().parents[1]).runs
    found = {}
    for name, model in blend.used.items():
        found[name] = [read_trained(one) for one in finished_folds(runs / name)]
        if sorted(run.id for run in found[name]) != sorted(model.ids):
            fact = "changed since" if found[name] else "is missing"
            raise UserError(f"{runs / name}: {fact}, but the blend {folder} needs it: {_remedy(model.ids)}")
    return LoadedBlend(folder, blend, found)


def _remedy(ids: Sequence[str]) -> str:
    return "make the blend again with ensemble.py" if ids else "bring back its runs"


def summary(table: pd.DataFrame, classes: Sequence[str], top: int) -> list[str]:
    """A line per row of a table of `predict`: where, and the `top` most probable classes with their probabilities."""
    probs = table[list(classes)].to_numpy()
    best = np.argsort(-probs, axis=1, kind="stable")[:, :top]
    where = table["file"].astype(str)
    if "start" in table:
        where += [f" {start:g}-{end:g} s" for start, end in zip(table["start"], table["end"], strict=True)]
    return [
        f"{place}: " + ", ".join(f"{classes[c]} {row[c]:.2f}" for c in order)
        for place, row, order in zip(where, probs, best, strict=True)
    ]


def check_one_recording(files: Sequence[str]) -> None:
    """Raises UserError where a label track would be of several files."""
    if len(files) > 1:
        raise UserError(f"a label track is of one recording: use a .csv for {list_some(files)}")


def audacity_labels(table: pd.DataFrame, classes: Sequence[str], several: bool) -> str:
    """A label track of Audacity: start, end (seconds) and label with tabs between, one line per label.

    table: of `predict` for one recording in sections. several: all labels of at least 0.5 count, not the most probable.
    Neighbouring sections of one label are one line. Raises UserError for more than one recording.
    """
    if "start" not in table:
        raise UserError("a label track is of a recording in sections: predict with every=SECONDS")
    check_one_recording(table["file"].unique().tolist())
    probs = table[list(classes)].to_numpy()
    present = probs >= 0.5 if several else probs.argmax(axis=1)[:, None] == np.arange(len(classes))
    lines = []
    for c, name in enumerate(classes):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], present[:, c], [False]]).astype(int)))
        for first, end in edges.reshape(-1, 2):
            lines.append((table["start"].iloc[first], table["end"].iloc[end - 1], name))
    return "".join(f"{start:.3f}\t{end:.3f}\t{name}\n" for start, end, name in sorted(lines))
