"""Point 9: how soon a browser shows the report of many clips."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measure import Row
from blending.candidates import Candidates
from console.errors import UserError
from pages.clips import clip_rows
from pages.page import render
from pages.screenshots import chromium

CLIPS, CLASSES, MODELS = 10_000, 41, 4  # as FSDKaggle2018
PICTURES, PICTURE = 300, "data:image/png;base64," + "A" * 4000  # as many as report.py makes, of their size
SECONDS = 2.0
PATIENCE = 600.0  # seconds until a page that stays empty is given up
SEEN = """
const paint = performance.getEntriesByName("first-contentful-paint")[0], row = document.querySelector(".clip .name");
return paint && row && performance.timing.loadEventEnd
  ? [paint.startTime, performance.timing.loadEventEnd - performance.timing.navigationStart] : null;
"""


def measure(quick: bool) -> list[Row]:
    what = f"first paint of the report of {CLIPS:,} clips, from disk, in Chromium without a GPU"
    try:
        with tempfile.TemporaryDirectory() as folder, chromium() as browser:
            page = Path(folder, "report.html")
            page.write_text(report_of(CLIPS), encoding="utf-8")
            found = [seconds_to_paint(browser, page) for _ in range(2 if quick else 6)][1:]
    except UserError as error:
        return [Row(9, what, f"not measured: {error}")]
    seconds = statistics.median(found)
    return [Row(9, what, f"{seconds:.2f} s", goal=f"under {SECONDS:g} s", met=seconds < SECONDS)]


def seconds_to_paint(browser: Any, page: Path) -> float:
    """Until there is something to see and the first clips are drawn, whichever is later."""
    browser.get("about:blank")
    browser.get(page.as_uri())
    end = time.monotonic() + PATIENCE
    while not (found := browser.execute_script(SEEN)):
        if time.monotonic() > end:
            raise UserError(f"Chromium has drawn no clip within {PATIENCE:g} s")
    return float(max(found)) / 1000


def report_of(n_clips: int) -> str:
    """A page of so many clips, with random predictions."""
    rng = np.random.default_rng(0)
    classes = tuple(f"class {k:02}" for k in range(CLASSES))
    truth = np.eye(CLASSES, dtype=bool)[rng.integers(0, CLASSES, n_clips)]
    oof = rng.dirichlet(np.full(CLASSES, 0.1), (MODELS, n_clips)) / 2 + truth / 2
    c = Candidates(
        names=tuple(f"model {m}" for m in range(MODELS)),
        ids=((),) * MODELS,
        classes=classes,
        fnames=tuple(f"{i:08x}.wav" for i in range(n_clips)),
        truth=truth,
        verified=rng.random(n_clips) < 0.4,
        fold=np.zeros(n_clips, int),
        group=np.arange(n_clips),
        oof=oof.astype(np.float32),
        test_fnames=(),
        test=np.zeros((MODELS, 0, CLASSES)),
        test_faults={},
    )
    blend = oof.mean(axis=0)
    clips = clip_rows(c, blend, pd.DataFrame({"fname": [], "given": [], "suggested": []}))
    for clip in clips:
        clip["sound"] = f"../../../input/freesound-audio-tagging/audio_train/{clip['name']}"
    for clip in clips[:PICTURES]:
        clip["picture"] = PICTURE
    confusion = np.zeros((CLASSES, CLASSES), int)
    np.add.at(confusion, (truth.argmax(axis=1), blend.argmax(axis=1)), 1)
    data: dict[str, Any] = {
        "mode": "report",
        "title": "Blend",
        "facts": [],
        "expected": "",
        "methods": None,
        "experiments": [],
    }
    more = {"curves": [], "classes": list(classes), "models": list(c.names), "task": c.task}
    return render(data | more | {"confusion": confusion.tolist(), "clips": clips})
