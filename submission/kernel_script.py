"""The script kernel: finds the dataset that was pushed with it, checks it, and predicts or trains with the code in it.

Only the standard library is used before the files are checked. submission.push fills in the constants.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MANIFEST_NAME = "kit_manifest.json"
MANIFEST_SHA256 = ""
COMPETITION = ""
MODULE = "submission.kernel_predict"  # what does the work
OUTPUT = "submission.csv"
ARGUMENTS = ""  # more of its options


def main(inputs: Path = Path("/kaggle/input"), working: Path = Path("/kaggle/working")) -> None:
    """Leave the output of MODULE in `working`, or end with one line of cause and remedy."""
    with tempfile.TemporaryDirectory() as scratch:
        bundle = find_bundle(inputs, MANIFEST_SHA256)
        folder = unpacked(bundle, Path(scratch) / "bundle")
        check(folder, bundle)
        print(f"{bundle}: {MANIFEST_NAME} {MANIFEST_SHA256[:12]}, all files unchanged", flush=True)
        path = [str(folder / "code"), *map(str, installed_wheels(folder / "wheels", Path(scratch) / "site"))]
        path += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        command = [sys.executable, "-m", MODULE, "--bundle", folder, "--inputs", inputs]
        command += ["--competition", COMPETITION, "--scratch", scratch, "--output", working / OUTPUT]
        command += ARGUMENTS.split()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(list(map(str, command)), cwd=scratch, env=environment)
    if done.returncode:
        sys.exit(f"error: {MODULE} ended with status {done.returncode}, see its messages above")


def find_bundle(inputs: Path, expected: str) -> Path:
    """The folder with the manifest of that sha256, wherever Kaggle has mounted it."""
    found = {Path(folder): sha256(Path(folder, MANIFEST_NAME)) for folder in folders_with(inputs, MANIFEST_NAME)}
    for folder, digest in found.items():
        if digest == expected:
            return folder
    if found:
        there = ", ".join(f"{digest[:12]} in {folder}" for folder, digest in found.items())
        sys.exit(
            f"error: another version of the dataset is attached ({there}) than this kernel was pushed with "
            f"({expected[:12]}): wait until the new version is ready, then run submission.push again"
        )
    sys.exit(f"error: no {MANIFEST_NAME} under {inputs}: attach the dataset of submission.bundle to this kernel")


def folders_with(inputs: Path, name: str) -> list[str]:
    """Every folder under `inputs` with a file of that name, each once; links are followed, also one to itself."""
    found, seen = [], set()
    for folder, inner, files in os.walk(inputs, followlinks=True):
        place = Path(folder).stat()
        if (place.st_dev, place.st_ino) in seen:
            inner.clear()
        elif name in files:
            found.append(folder)
        seen.add((place.st_dev, place.st_ino))
    return found


def unpacked(bundle: Path, scratch: Path) -> Path:
    """The bundle itself, or a copy with its zips unpacked where Kaggle left them packed."""
    zips = sorted(bundle.glob("*.zip"))
    if not zips:
        return bundle
    scratch.mkdir(parents=True)
    for entry in bundle.iterdir():
        if entry not in zips:
            (scratch / entry.name).symlink_to(entry)
    for packed in zips:
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(scratch / packed.stem)  # it drops '..' and leading slashes
    return scratch


def check(folder: Path, bundle: Path) -> None:
    """Exit with an error where files of the manifest are missing or have other bytes."""
    listed = json.loads((bundle / MANIFEST_NAME).read_bytes())["files"]
    missing = [name for name in listed if not (folder / name).is_file()]
    changed = [name for name in listed if name not in missing and sha256(folder / name) != listed[name]["sha256"]]
    for fact, names in (("files are missing", missing), ("files changed", changed)):
        if names:
            some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            sys.exit(f"error: {bundle}: {fact}: {some}: run submission.bundle and submission.push again")


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def installed_wheels(wheels: Path, site: Path) -> list[Path]:
    """The folder that the bundle's wheels were installed into, without a network; empty where it has no wheels."""
    files = sorted(wheels.glob("*.whl"))
    if not files:
        return []
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    done = subprocess.run([sys.executable, "-m", "pip", "install", *quiet, "--target", str(site), *map(str, files)])
    if done.returncode:
        sys.exit(
            f"error: the wheels do not install here: {', '.join(f.name for f in files)}: bundle wheels for this Python"
        )
    return [site]


if __name__ == "__main__":
    main()
