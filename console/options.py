"""The parser of all commands, with the options that several of them share."""

import argparse
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, NoReturn

from console.errors import UserError
from console.output import complain

INPUT, WORK = Path("input/freesound-audio-tagging"), Path("work")
NUMBER = r"\d+(?:\.\d+)?"


def expand_home(text: str) -> Path:
    """The path, with a leading ~ or ~user as that home folder. Raises UserError where there is no such home.

    A shell leaves the ~ in --work=~/w as it is, and pathlib would make a folder of that name. ./~ is a folder named ~.
    """
    path = Path(text)
    if not text.startswith("~"):
        return path.absolute() if path.parts[:1] and path.parts[0].startswith("~") else path  # no library expands it
    if path.parts[0] == "~" and not Path(os.environ.get("HOME", "/")).is_absolute():
        raise UserError(f"{text}: the environment variable HOME is {os.environ['HOME']!r}: write the path in full")
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no home folder {path.parts[0]}: write the path in full") from None


def as_path(text: str) -> Path:
    """`expand_home` for argparse, the type of every path option."""
    try:
        return expand_home(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def as_seconds(text: str) -> float:
    """Seconds of '5s', '80m', '1h20m', '1min' or '0.5s', for argparse. A number needs its unit."""
    parts = [rf"(?:({NUMBER}){unit})?" for unit in ("h", "m(?:in)?", "s")]
    found = re.fullmatch("".join(parts), text, re.ASCII)
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + seconds
    if not 0 < total < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 5s, 80m or 1h20m")
    return total


FILE: dict[str, Any] = {"type": as_path, "metavar": "FILE"}
FOLDER: dict[str, Any] = {"type": as_path, "metavar": "DIR"}
ENGINES = ["torch", "openvino", "auto", "int8"]
COMPILED = ("openvino", "int8")  # those of OpenVINO
SHARED: dict[str, dict[str, Any]] = {
    "--input": FOLDER | {"default": INPUT, "help": "the competition (%(default)s)"},
    "--as": {
        "dest": "described_by",
        "metavar": "NAME",
        "help": "ready description or file that describes it (found in its folder)",
    },
    "--work": FOLDER | {"default": WORK, "help": "folder of all output (%(default)s)"},
    "--config": FILE | {"help": "experiment file (configs/resnetish18.yaml)"},
    "--runs": {"nargs": "+", "metavar": "NAME", "default": [], "help": "experiments (all finished ones)"},
    "--predictions": FOLDER | {"help": "blend the <model>.npz in DIR, not runs"},
    "--ensemble": {"default": "default", "metavar": "NAME", "help": "work/ensembles/NAME/ (%(default)s)"},
    "--competition": {"metavar": "SLUG", "help": "its address on Kaggle (the name of the input folder)"},
    "--message": {"metavar": "TEXT", "help": "the submission's description"},
    "--force": {"action": "store_true", "help": "make it again even if nothing changed"},
    "--engine": {
        "choices": ENGINES,
        "default": "torch",
        "help": "what predicts on a CPU; auto: the faster of the first two; int8: less exact, needs NNCF (%(default)s)",
    },
    "--budget": {
        "type": as_seconds,
        "metavar": "TIME",
        "help": "leave out what the blend needs least until predicting takes at most so long: 80m, 1h20m, 90s",
    },
    "--jobs": {"type": int, "metavar": "N", "default": 1, "help": "processes at once (%(default)s)"},
    "--on": {"metavar": "ADDRESS", "help": "run the jobs on a Ray cluster: ray, or ray://host:10001"},
    "overrides": {"nargs": "*", "metavar": "key=value", "help": "override a config value: train.epochs=3"},
}


class _Parser(argparse.ArgumentParser):
    """argparse would print the whole usage before its error: ten lines, of which the last one counts."""

    def error(self, message: str) -> NoReturn:
        complain("error:", f"{UserError(message)} ({self.prog} --help lists the options)")
        sys.exit(2)


def command_parser(doc: str | None, examples: str = "", prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of a command. doc: its module's docstring; prog: 'python -m package.module', if it is not a verb."""
    form = argparse.RawDescriptionHelpFormatter  # keeps the lines of the examples
    about = "\n\n".join(textwrap.fill(part, 79) for part in (doc or "").split("\n\n"))
    return _Parser(prog, None, about, examples, formatter_class=form, allow_abbrev=False)


def share(parser: argparse._ActionsContainer, *names: str, **texts: str) -> None:
    """Add options of SHARED, by name or, for another help text, as name=help."""
    for name in (*names, *texts):
        option = name if name in SHARED else f"--{name}"
        more = {"help": texts[name]} if name in texts else {}
        flags = ("-m", option) if option == "--message" else (option,)
        parser.add_argument(*flags, **SHARED[option] | more)
