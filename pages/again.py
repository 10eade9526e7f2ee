"""The report of a blend whose test clips changed: the one that its folder has, with what to expect now."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blending import report as short
from blending.candidates import Candidates
from blending.ensemble_folder import Ensemble
from configs.files import write
from console.errors import count
from pages.page import DATA, render


def report_again(folder: Path) -> Callable[[Path, Ensemble, Candidates], None]:
    """What writes the report into the folder that takes the place of this one: the short one of ensemble.py, or where
    report.py wrote the whole one, that, with its copies of sound. All else on it is of training clips, and stays."""

    def report(partial: Path, ensemble: Ensemble, candidates: Candidates) -> None:
        short.write_report(partial, ensemble, candidates)
        if (data := data_of(folder / "report.html")) is None:
            return
        data["expected"] = expectation(ensemble, candidates.metric.title)
        write(partial / "report.html", render(data))
        if (folder / "sound").is_dir():
            shutil.copytree(folder / "sound", partial / "sound")

    return report


def data_of(page: Path) -> dict[str, Any] | None:
    """What `pages.page.render` was given; None of another page, or where there is none."""
    text = page.read_text(encoding="utf-8", errors="surrogateescape") if page.is_file() else ""
    found = re.search(re.escape(DATA) + "(.*)</script>", text)
    try:
        data = json.loads(found[1]) if found else None
    except ValueError:
        return None
    return data if isinstance(data, dict) and data.get("mode") == "report" else None


def expectation(ensemble: Ensemble, title: str) -> str:
    """What to expect on the test clips, in words. title: of the metric."""
    compared, expected = ensemble.comparison, ensemble.comparison.expected
    low, high = expected.interval
    clips = f"the {count(expected.clips, 'test clip')}" if expected.clips else "new clips"
    are = "is" if expected.clips == 1 else "are"
    decide = "decides" if compared.rows == 1 else "decide"
    return (
        f"If {clips} {are} like the {count(compared.rows, 'clip')} that {decide}, expect {title} of about "
        f"{expected.score:.3f}. In 95 of 100 such cases it lies between {low:.3f} and {high:.3f}."
    )
