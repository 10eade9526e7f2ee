"""The wheels that a kernel without internet needs: brought by pip, and checked here instead of on Kaggle."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from console.errors import UserError, list_some
from console.options import COMPILED
from console.output import say

AUTO = Path("auto")  # --wheel auto
PYTHON = "3.12"  # of Kaggle's image in August 2026: the first lines of a kernel tell it
GLIBC = 35  # 2.35, of its Ubuntu 22.04
OLDER = ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64")
PLATFORMS = [*(f"manylinux_2_{n}_x86_64" for n in range(GLIBC, 4, -1)), *OLDER]
# Never brought: what was compiled for Kaggle's numpy or torch needs just that one. Their versions are not known here.
ON_KAGGLE = {
    *("numpy", "pandas", "scipy", "torch", "torchvision", "torchaudio", "timm", "safetensors", "huggingface-hub"),
    *("soundfile", "scikit-learn", "pyyaml", "matplotlib", "pillow", "requests", "joblib", "threadpoolctl"),
}
NO_ANSWER = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "Temporary failure", "NewConnection")


@dataclass(frozen=True)
class Wheel:
    """What the name and the METADATA of a wheel say."""

    file: Path
    name: str  # in its canonical form
    version: Version
    requires: tuple[Requirement, ...]  # all that METADATA lists; see `requirements_of`
    python: str  # Kaggle's


def gather_wheels(given: Sequence[Path], needs: Sequence[str], target: Path, python: str = PYTHON) -> list[str]:
    """Put wheels into `target`, which is not made where there are none; returns the names of the packages.

    given: files, and AUTO for all that they and `needs` need and Kaggle lacks. needs: requirements of what predicts,
    such as openvino==2026.4.1. python: Kaggle's, such as 3.12. Raises UserError on a file that is no wheel for Kaggle,
    a requirement that nothing meets, and where pip cannot bring one.
    """
    files = [file for file in given if file != AUTO]
    for file in files:
        if file.suffix != ".whl" or not file.is_file():
            raise UserError(f"--wheel {file}: no such wheel: fetch it with pip download, or use --wheel auto")
        target.mkdir(exist_ok=True)
        shutil.copyfile(file, target / file.name)
    wheels = read_wheels(target, python)
    if AUTO in given:
        there = {wheel.name for wheel in wheels}
        todo = [text for text in needs if canonicalize_name(Requirement(text).name) not in there]
        asked = set[str]()
        while todo := [text for text in [*todo, *map(str, lacking(wheels).values())] if text not in asked]:
            asked.update(todo)  # what comes may have needs of its own
            download(todo, target, python)
            wheels, todo = read_wheels(target, python), []
        brought = [wheel.file.name for wheel in wheels if wheel.name not in there]
        say(f"--wheel auto: {list_some(brought, 9) if brought else 'Kaggle has all that is needed'}")
    check_closed(wheels)
    return [wheel.name for wheel in wheels]


def read_wheels(folder: Path, python: str) -> list[Wheel]:
    """The wheels in a folder. Raises UserError on one that is damaged, or is not for this Python on Linux x86_64."""
    return [read_wheel(file, python) for file in sorted(folder.glob("*.whl"))]


def read_wheel(file: Path, python: str) -> Wheel:
    """Raises UserError as `read_wheels`."""
    try:
        name, version, _, tags = parse_wheel_filename(file.name)
        with zipfile.ZipFile(file) as archive:
            inner = [path for path in archive.namelist() if path.endswith(".dist-info/METADATA")]
            raw, _ = parse_email(archive.read(inner[0]))
        every = [Requirement(text) for text in raw.get("requires_dist", [])]
    except (InvalidWheelFilename, InvalidRequirement, zipfile.BadZipFile, IndexError) as error:
        fact = str(error) or type(error).__name__
        raise UserError(f"--wheel {file.name}: is no wheel ({fact}): fetch it with pip download") from None
    if not tags & kaggle_tags(python):
        raise UserError(f"--wheel {file.name}: not for Kaggle's Python {python} on Linux x86_64: use --wheel auto")
    return Wheel(file, name, version, tuple(every), python)


def kaggle_tags(python: str) -> frozenset[Tag]:
    """Of the wheels that install there."""
    numbers = tuple(map(int, python.split(".")))
    interpreter = f"cp{''.join(map(str, numbers))}"
    own = cpython_tags(numbers, [interpreter], PLATFORMS)
    return frozenset([*own, *compatible_tags(numbers, interpreter, PLATFORMS)])


def marker_environment(python: str) -> dict[str, str]:
    """What requirements may depend on, there. pip itself takes it from the Python that it runs in."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_release": "",
        "platform_version": "",
        "os_name": "posix",
    }


def requirements_of(wheels: Iterable[Wheel]) -> list[tuple[Wheel, Requirement]]:
    """What each wheel requires on Kaggle, also for the extras that another one asks of it, as in tool[fast]."""
    extras = {wheel.name: {""} for wheel in wheels}
    while True:
        found = [(wheel, one) for wheel in wheels for one in wheel.requires if _counts(one, wheel, extras[wheel.name])]
        asked = {(canonicalize_name(one.name), extra) for _, one in found for extra in one.extras}
        if not (new := {(name, extra) for name, extra in asked if extra not in extras.get(name, {extra})}):
            return found
        for name, extra in new:
            extras[name].add(extra)


def _counts(one: Requirement, wheel: Wheel, extras: Iterable[str]) -> bool:
    if one.marker is None:
        return True
    environment = marker_environment(wheel.python)
    return any(one.marker.evaluate(environment | {"extra": extra}) for extra in extras)


def lacking(wheels: Sequence[Wheel]) -> Mapping[str, Requirement]:
    """Package -> what all require of it, without markers, where no wheel brings it and Kaggle does not have it."""
    versions = {wheel.name: wheel.version for wheel in wheels}
    found = dict[str, Requirement]()
    for _, one in requirements_of(wheels):
        name = canonicalize_name(one.name)
        if name not in versions and name not in ON_KAGGLE:
            every = one.specifier & found[name].specifier if name in found else one.specifier
            found[name] = Requirement(f"{name}{every}")
    return found


def check_closed(wheels: Sequence[Wheel]) -> None:
    """Raises UserError where a wheel needs a package that is neither brought nor Kaggle's, or another version, and
    where one is brought that is numpy or torch or comes twice."""
    versions: dict[str, Version] = {}
    for wheel in wheels:
        if wheel.name in ("numpy", "torch"):
            raise UserError(f"--wheel {wheel.file.name}: would replace Kaggle's own {wheel.name}: leave it out")
        if wheel.name in versions:
            raise UserError(f"--wheel: {wheel.name} comes twice, {versions[wheel.name]} and {wheel.version}: give one")
        versions[wheel.name] = wheel.version
    gone = lacking(wheels)
    for wheel, one in requirements_of(wheels):
        name = canonicalize_name(one.name)
        if name in gone:
            fact = f"needs {one.name}{one.specifier}, which neither comes along nor is Kaggle's"
            raise UserError(f"--wheel {wheel.file.name}: {fact}: --wheel auto brings it")
        if name in versions and not one.specifier.contains(versions[name], prereleases=True):
            fact = f"needs {one.name}{one.specifier}, and {versions[name]} comes along"
            raise UserError(f"--wheel {wheel.file.name}: {fact}: give a wheel of another version")


def download(requirements: Sequence[str], target: Path, python: str) -> None:
    """Bring a wheel of each, without what they need. Raises UserError where pip finds none or reaches no index."""
    target.mkdir(exist_ok=True)
    options = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    options += [part for platform in PLATFORMS for part in ("--platform", platform)]
    options += ["--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none", "--retries", "1"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--dest", str(target)]
    command = [sys.executable, "-m", "pip", "download", *quiet, *options, *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return
    what = list_some(requirements, 9)
    if "No module named pip" in done.stderr:
        raise UserError(f"--wheel auto: {sys.executable} has no pip: python -m ensurepip, or name the wheels of {what}")
    if any(sign in done.stderr for sign in NO_ANSWER):
        raise UserError(f"--wheel auto: no answer from the package index for {what}: try again online, or name files")
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    missing = [line.rpartition(" found for ")[2] for line in errors if "No matching distribution" in line]
    if missing:
        fact = f"the index has no wheel of {list_some(missing)} for Python {python} on Linux x86_64"
        raise UserError(f"--wheel auto: {fact}: see that --kaggle-python is right, or use --engine torch")
    fact = errors[-1].removeprefix("ERROR: ") if errors else f"status {done.returncode}"
    raise UserError(f"--wheel auto: pip cannot bring {what}: {fact[:200]}")


def needed(engine: str, frozen_files: Iterable[Path], versions: Mapping[str, str | None]) -> list[str]:
    """Requirements of what predicts: of the engine, and of the files of frozen networks. versions: of what is installed
    here; the same one is brought, so that it answers alike."""
    packages = {"openvino"} if engine in (*COMPILED, "auto") else set[str]()
    readers = {".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}
    packages |= {readers[file.suffix] for file in frozen_files if file.suffix in readers}
    return [f"{name}=={here}" if (here := versions.get(name)) else name for name in sorted(packages)]
