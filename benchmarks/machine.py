"""What a result depends on: commit, processor, memory, load, libraries."""

import os
import platform
from collections.abc import Collection
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from runs.provenance import git_revision

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
LIBRARIES = ("torch", "torchaudio", "librosa", "numpy", "soundfile", "pytorch-lightning")


def describe(seconds: int, points: Collection[int] = ()) -> str:
    """A paragraph for RESULTS.md. points: of these alone."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    one, five, _ = os.getloadavg()
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    command = f"python -m benchmarks.run --points {' '.join(map(str, sorted(points)))}" if points else "make bench"
    commit = git_revision(Path(__file__).parent) or "unknown"
    return (
        f"{of_points(points)}Commit {commit}, {now} UTC, in {seconds} s: `{command}`.\n"
        f"{processor()}, {cores} cores, {memory:.0f} GiB of memory, {gpu()}; load at the end {one:.1f}, five minutes "
        f"before {five:.1f}.\nPython {platform.python_version()}, {libraries}."
    )


def of_points(points: Collection[int]) -> str:
    """How a paragraph begins that is about these alone."""
    return f"Points {', '.join(map(str, sorted(points)))} anew: " if points else ""


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    has = [flag for flag in FLAGS if flag in facts.get("flags", "").split()]
    return f"{facts.get('model name', platform.machine())} ({', '.join(has) or 'no vector flags known'})"


def gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
