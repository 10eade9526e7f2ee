"""The contracts in pyproject.toml name every folder and verb, and the one of our own kind sees every import."""

import subprocess
import tomllib
from pathlib import Path

import pytest
from grimp import ImportGraph
from importlinter.configuration import configure

from tests.verb_contract import VerbContract

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def test_every_folder_and_every_verb_is_within_the_walls() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [Path(file) for file in tracked.split()]
    folders = {file.parts[0] for file in files if len(file.parts) > 1} - {"tests"}
    verbs = {file.stem for file in files if len(file.parts) == 1}
    layers, not_by_us, verbs_wall, *_ = SETTINGS["contracts"]
    assert set(SETTINGS["root_packages"]) == folders == set(not_by_us["source_modules"])
    assert {name for layer in layers["layers"] for name in layer.split(" | ")} == folders
    assert set(not_by_us["forbidden_modules"]) == verbs == set(verbs_wall["source_modules"])


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("import json", True),
        ("from own import part", True),
        ("import other_verb", False),
        ("def f():\n    from other.part import X", False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from other import part", False),
    ],
)
def test_the_contract_of_the_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, kept: bool) -> None:
    """Two folders, own and other, and two verbs; other_verb was imported by a folder, as if it were a library."""
    configure()
    graph = ImportGraph()
    for module in ("own", "own.part", "other", "other.part"):
        graph.add_module(module)
    graph.add_module("other_verb", is_squashed=True)
    (tmp_path / "verb.py").write_text(line + "\n")
    (tmp_path / "other_verb.py").touch()
    monkeypatch.chdir(tmp_path)
    options = {
        "source_modules": ["verb", "other_verb"],
        "forbidden_modules": ["verb", "other_verb", "own", "other"],
        "ignore_imports": ["verb -> own.**"],
        "unmatched_ignore_imports_alerting": "none",
    }
    session = {"root_packages": ["own", "other"], "include_external_packages": True}
    assert VerbContract("verbs", session, options).check(graph, verbose=False).kept == kept
