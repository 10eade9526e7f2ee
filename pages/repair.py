"""The page to repair labels: the likely errors one after the other, to hear and to decide."""

import csv
import errno
import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from blending.candidates import Candidates
from configs.files import write
from configs.paths import Paths
from console.errors import UserError, count
from input.competition import Competition
from input.corrections import read_corrections
from pages import sound
from pages.clips import Clip, clip_rows
from pages.page import render
from pages.report import add_pictures, add_sound, named
from pages.serve import PageServer
from runs.run_folder import Run


def repair_data(
    found: pd.DataFrame, competition: Competition, candidates: Candidates, runs: list[list[Run]], paths: Paths
) -> dict[str, Any]:
    """The data of the page, for `page.render`; its clips are those of `found`, as `suspects` lists them, the likeliest
    error first, with pictures and no sound yet. Raises UserError where none is listed."""
    if found.empty:
        raise UserError(f"{paths.work}: no label is likely wrong: nothing to repair")
    probs = candidates.oof.mean(axis=0, dtype=np.float64)
    clips = [clip for clip in clip_rows(candidates, probs, found) if clip["doubt"] >= 0]
    clips.sort(key=lambda clip: clip["doubt"])
    add_pictures(clips, range(len(clips)), competition, runs, paths)
    place = f"{competition.folder.resolve()}\0{candidates.task}\0" + "\0".join(candidates.classes)
    return named(candidates) | {
        "mode": "repair",
        "title": f"Labels of {competition.folder.name}",
        "facts": [f"{count(len(clips), 'clip')} whose label is likely wrong, by {', '.join(candidates.names)}."],
        "identity": hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:12],
        "save": "",
        "before": [],
        "clips": clips,
    }


def write_page(data: dict[str, Any], competition: Competition, page: Path, with_sound: bool = False) -> None:
    """The page as a file that plays the original sound files and saves by download. with_sound: short copies beside it,
    which play where a browser cannot play the original."""
    add_sound(data["clips"], competition, page, range(len(data["clips"])) if with_sound else (), "copy")
    write(page, render(data))


def page_server(
    data: dict[str, Any], competition: Competition, file: Path, port: int = 0, copies: Path | None = None
) -> PageServer:
    """A server of the page that saves decisions in `file`; it waits to be run. copies: a folder for short copies of the
    sound, as in `write_page`. Raises UserError on a port in use."""
    path = dict(zip(competition.train["fname"], competition.train["path"], strict=True))
    sounds = [path[clip["name"]] for clip in data["clips"]]
    clips = [clip | {"sound": f"clips/{i}" if sounds[i] else ""} for i, clip in enumerate(data["clips"])]
    if copies:
        sounds += sound.copies(sounds, copies)
        clips = [clip | {"copy": f"clips/{i}" if sounds[i] else ""} for i, clip in enumerate(clips, len(clips))]
    page = render(data | {"clips": clips, "save": "corrections"})
    try:
        return PageServer(page, sounds, saver(file, competition, clips), port)
    except (PermissionError, OverflowError) as error:
        raise UserError(f"--serve {port}: {error}: name another port") from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise UserError(f"--serve {port}: the port is taken: name another") from None


def saver(file: Path, competition: Competition, clips: list[Clip]) -> Callable[[Mapping[str, str]], None]:
    """A function that writes decisions (fname -> label, '' to drop it) into a file of corrections, besides those that
    are in the file now; there whole or not at all. It raises UserError, and writes nothing, on a clip that is not
    listed and on a label that is none."""
    train, classes, task = competition.train, competition.classes, competition.task
    before = read_corrections(file, train, classes, task) if file.exists() else {}
    listed = {clip["name"] for clip in clips}

    def save(decisions: Mapping[str, str]) -> None:
        if unknown := sorted(set(decisions) - listed):
            raise UserError(f"{unknown[0]}: not one of the listed clips")
        for label in set(decisions.values()):
            parts = label.split("|") if task == "multi_label" else [label]
            if not set(parts) <= {"", *classes}:
                raise UserError(f"{label}: no label of the competition")
        if not (now := before | dict(decisions)):
            return file.unlink(missing_ok=True)  # all is undone: nobody reads a table without rows
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("fname", "label"))
        rows.writerows(now.items())
        return write(file, text.getvalue())

    return save
