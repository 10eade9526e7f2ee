"""notebooks/run_all.ipynb, run unchanged: from nothing to a submission, and a report that plays in its output."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "run_all.ipynb"
NOT_COPIED = (".git", ".venv", "work", "docs", "tests", "build", "*.egg-info", "__pycache__", ".*_cache")


def run(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Executed there by this Python, whatever is installed for Jupyter elsewhere."""
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def said(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit's files without what was made in it."""
    folder = tmp_path_factory.mktemp("notebook") / "kit"
    shutil.copytree(ROOT, folder, ignore=lambda at, names: ignored(Path(at), names))
    return folder


def ignored(at: Path, names: list[str]) -> set[str]:
    """Competitions, which lie in input/, and what git ignores."""
    data = {name for name in names if at == ROOT / "input" and (at / name).is_dir()}
    return data | set(shutil.ignore_patterns(*NOT_COPIED)(str(at), names))


@pytest.fixture(scope="module")
def executed(kit: Path) -> Iterator[nbformat.NotebookNode]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(kit))
        patch.setenv("IPYTHONDIR", str(kit.parent / "ipython"))
        patch.setenv("JUPYTER_PATH", "")
        yield run(nbformat.read(NOTEBOOK, as_version=4), kit / "notebooks")


def test_it_runs_from_nothing_to_a_submission(executed: nbformat.NotebookNode, kit: Path) -> None:
    text = "\n".join(said(cell) for cell in executed.cells if cell.cell_type == "code")
    assert "error:" not in text and "Traceback" not in text, text
    submission = pd.read_csv(kit / "work/notebook/submission.csv")
    sample = pd.read_csv(kit / "input/demo_notebook/sample_submission.csv")
    assert submission["fname"].tolist() == sample["fname"].tolist() and submission["label"].notna().all()
    for name in ("demo_resnetish", "demo_vggish"):
        assert len(list((kit / f"work/notebook/runs/{name}").glob("fold?/manifest.json"))) == 3
    data = [output.data for cell in executed.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("<audio" in one.get("text/html", "") for one in data) == 3, "clips to hear"
    assert sum("image/png" in one for one in data) == 1, "their log-mels"


def test_its_report_plays_in_the_output(executed: nbformat.NotebookNode, tmp_path: Path, chromium: Any) -> None:
    """As a notebook shows it: in a frame without an address of its own, far from the kit's files."""
    (shown,) = [
        output.data["text/html"]
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if "srcdoc" in output.get("data", {}).get("text/html", "")
    ]
    (tmp_path / "output.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{shown}")
    from tests.test_pages import Page

    page = Page(chromium, (tmp_path / "output.html").as_uri())
    chromium.switch_to.frame(0)
    try:
        assert re.fullmatch(r"(\d+) of \1 clips", page.text("#count"))
        page.run("document.querySelector('#list').focus()")
        page.play()
    finally:
        chromium.switch_to.default_content()


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    assert NOTEBOOK.stat().st_size < 20_000 and set(notebook.metadata) == {"kernelspec", "language_info"}
    assert 'INPUT = ""' in notebook.cells[1].source and "**For real data** set `INPUT`" in notebook.cells[0].source


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ("audio-tagging-kit", "-m pip install -q --no-index --find-links wheels audio-tagging-kit"),
        ("datasets/somebody/audio-tagging-kit-2", "-m pip install -q --no-index --find-links wheels audio-tagging-kit"),
        (None, "-m pip install -q ."),
    ],
)
def test_where_the_kit_is_not_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None, asked: str
) -> None:
    """From a dataset on Kaggle with its wheels, else cloned; the second cells alone, with a pip that only notes."""
    (source := tmp_path / "source").mkdir()
    (source / "train_fold.py").touch()
    if place:
        (source / "wheels").mkdir()
        shutil.copytree(source, tmp_path / "held" / place)
    else:
        for words in (
            ["init", "-q"],
            ["add", "."],
            ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
        ):
            subprocess.run(["git", *words], cwd=source, check=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\necho "$PWD $@" >> {tmp_path}/asked\n[ "$3" != show ]\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    (tmp_path / "empty").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells = notebook.cells[1:4]
    settings, _, install = notebook.cells
    settings.source = settings.source.replace("ADDRESS_OF_THE_REPOSITORY", str(source))
    settings.source = settings.source.replace('"/kaggle/input"', repr(str(tmp_path / "held")))
    install.source = install.source.replace("Path(sys.executable).parent", repr(str(tmp_path / "bin")))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    run(notebook, tmp_path / "empty")
    here = tmp_path / "empty" / "audio-tagging-kit"
    lines = (tmp_path / "asked").read_text().splitlines()
    assert lines == [f"{here} -m pip show -q audio-tagging-kit", f"{here} {asked}"]
