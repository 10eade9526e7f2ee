"""Run a command as Kaggle runs a kernel: no network, no HOME, /kaggle/input read-only, /kaggle/working empty."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

# Root of a new user namespace may mount and chroot: a copy of / made of bind mounts, with /kaggle in it.
ENTER = """
set -e
root=$(mktemp -d)
mount -t tmpfs none "$root"
for entry in /*; do
    if [ -L "$entry" ]; then cp -P "$entry" "$root$entry"
    elif [ -d "$entry" ] && [ "$entry" != /kaggle ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"
    fi
done
mkdir -p "$root/kaggle/input" "$root/kaggle/working" "$root/kaggle/src"
mount --bind "$INPUT" "$root/kaggle/input"
mount -o remount,bind,ro "$root/kaggle/input"
mount --bind "$WORKING" "$root/kaggle/working"
mount --bind "$SOURCE" "$root/kaggle/src"
mount -o remount,bind,ro "$root/kaggle/src"
exec chroot "$root" /usr/bin/env -i -C /kaggle/working PATH="$PATH" $VARIABLES "$@"
"""

# mount, chroot and ip may lie where an ordinary user's PATH does not look.
TOOLS = f"{os.environ['PATH']}:/usr/sbin:/sbin"

# Without namespaces, the script's main is called with the folders' real places.
BARE = "import runpy, sys; from pathlib import Path; main = runpy.run_path(sys.argv[1])['main']; "
BARE += "main(Path(sys.argv[2]), Path(sys.argv[3]))"


@cache
def why_not() -> str:
    """'' where namespaces are permitted, else the reason."""
    probe = "mount -t tmpfs none /mnt && ip link show lo"
    try:
        done = subprocess.run(
            ["unshare", "-rnm", "sh", "-c", probe], capture_output=True, text=True, env={"PATH": TOOLS}
        )
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or "unshare failed"


def run_kernel(
    script: Path, inputs: Path, working: Path, variables: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run predict.py with `inputs` as /kaggle/input and `working`, made anew, as /kaggle/working."""
    working.mkdir(parents=True)
    if why_not():
        command = [sys.executable, "-c", BARE, str(script), str(inputs), str(working)]
        env = {"PATH": os.environ["PATH"], **variables}
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=working)
    places = {"INPUT": str(inputs), "WORKING": str(working), "SOURCE": str(script.parent)}
    told = " ".join(f"{key}={value}" for key, value in variables.items())
    env = {"PATH": TOOLS, "VARIABLES": told, **places}
    command = ["unshare", "-rnm", "sh", "-c", ENTER, "sh", sys.executable, f"/kaggle/src/{script.name}"]
    return subprocess.run(command, capture_output=True, text=True, env=env)
