"""What CI's script does around make."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_environments_of_other_branches_stay_until_nobody_used_them_for_two_days(tmp_path: Path) -> None:
    for name in ("make", "chromium", "chromedriver"):
        script(tmp_path / name)
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


@pytest.mark.parametrize("apt_works", [True, False])
def test_a_browser_is_installed_without_asking_or_left_out(tmp_path: Path, apt_works: bool) -> None:
    """On a PATH that has no browser, as in CI; what apt-get was told, and that make runs in any case."""
    for name in ("bash", "env", "dirname", "cat", "sha256sum", "cut", "mkdir", "touch", "find", "rm", "timeout"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    log = tmp_path / "log"
    script(tmp_path / "id", "echo 0")
    script(tmp_path / "make", f'echo "make $1" >> {log}')
    script(tmp_path / "apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {log}', "exit 0" if apt_works else "exit 1")
    env = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    said = subprocess.run([ROOT / ".ci" / "run"], env=env, check=True, capture_output=True, text=True).stdout
    asked = log.read_text().splitlines()
    assert asked[-3:] == ["make setup", "make lint", "make test"]
    install = "noninteractive install -qy --no-install-recommends chromium chromium-driver"
    assert asked[:-3] == [" update -q", install][: 1 + apt_works]
    assert ("tests of pages are skipped" in said) == (not apt_works)


def script(file: Path, *lines: str) -> None:
    file.write_text("\n".join(("#!/bin/sh", *lines, "")))
    file.chmod(0o755)
