"""Point 7: what a command imports before it answers."""

import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, Work, by_turns, median, quotient

ROOT = Path(__file__).parent.parent
HELP = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("imported:", *sorted({"torch", "pandas", "pytorch_lightning", "timm"} & set(sys.modules)))
"""
IMPORTS = """
import ast, importlib, sys
from pathlib import Path
for node in ast.walk(ast.parse(Path(sys.argv[1]).read_text())):
    if isinstance(node, ast.ImportFrom):
        importlib.import_module(node.module)
print("imported:", *sorted({"pytorch_lightning", "timm"} & set(sys.modules)))
"""


def measure(quick: bool) -> list[Row]:
    verbs = sorted(path.name for path in ROOT.glob("*.py"))
    ways: dict[str, Work] = {verb: partial(python, "-c", HELP, verb) for verb in verbs}
    ways["torch"] = partial(python, "-c", "import torch, pandas")
    times = by_turns(ways, 1 if quick else 3)
    rows = []
    for verb in verbs:
        found = imported(python("-c", HELP, verb))
        here, there = (f"{median(times, way):.2f} s" for way in (verb, "torch"))
        ratio, goal = f"{quotient(times, 'torch', verb):.0f}x", "neither torch nor pandas"
        what = f"{verb} --help imports {found or goal}; peer: importing both"
        rows.append(Row(7, what, here, there, ratio, goal, not found))
    for verb in ("ensemble.py", "submit.py"):
        found = imported(python("-c", IMPORTS, verb))
        what = f"all modules that {verb} imports, also in functions"
        rows.append(Row(7, what, found or "neither", goal="neither Lightning nor timm", met=not found))
    return rows


def python(*args: str) -> str:
    """Standard output of a new Python process in the project's root. Raises CalledProcessError."""
    return subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def imported(output: str) -> str:
    return output.rpartition("imported:")[2].strip()
