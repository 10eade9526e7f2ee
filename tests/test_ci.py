"""What CI's script does around make."""

import os
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_environments_of_other_branches_stay_until_nobody_used_them_for_two_days(tmp_path: Path) -> None:
    make = tmp_path / "make"
    make.write_text("#!/bin/sh\n")
    make.chmod(0o755)
    kept = tmp_path / "cache" / "audio-tagging-kit"
    for name, days in (("venv-yesterday", 1), ("venv-old", 3), ("other", 3)):
        (kept / name).mkdir(parents=True)
        os.utime(kept / name, times=(time.time() - 86_400 * days,) * 2)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for _ in range(2):  # the second finds its own environment aged, and uses it
        subprocess.run([ROOT / ".ci" / "run"], env=env, check=True)
        left = {folder.name for folder in kept.iterdir()}
        (own,) = left - {"venv-yesterday", "other"}
        os.utime(kept / own, times=(time.time() - 86_400 * 3,) * 2)
