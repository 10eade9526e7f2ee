"""The options that commands share."""

import argparse
import importlib
import sys
from pathlib import Path

import pytest

from console.options import as_seconds, command_parser, share

ROOT = Path(__file__).parent.parent
COMMANDS = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted({*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")})
    if file.parent != ROOT / "tests" and "= command_parser(" in file.read_text(encoding="utf-8")
]


def test_shared_options_are_those_of_every_command_with_a_help_of_its_own() -> None:
    parser = command_parser("What it does.", "examples:\n  as typed")
    share(parser, "input", "runs", "message", "overrides", work="where", force="again")
    args = parser.parse_intermixed_args(["a=1", "--runs", "x", "y", "-m", "text", "--force", "b=2"])
    assert (args.input, args.work) == (Path("input/freesound-audio-tagging"), Path("work"))
    assert (args.runs, args.message, args.force, args.overrides) == (["x", "y"], "text", True, ["a=1", "b=2"])
    said = parser.format_help()
    assert "--work DIR" in said and "where" in said and "again" in said and "examples:\n  as typed" in said
    assert "folder of all output" not in said and "the competition (input/freesound-audio-tagging)" in said


def test_a_mistyped_option_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = command_parser("What it does.", prog="python -m some.command")
    share(parser, "work", "force")
    for argument in ("--wrok=x", "--forc", "--a\nb"):
        with pytest.raises(SystemExit) as end:
            parser.parse_args([argument])
        shown = argument.replace("\n", "\\n")
        line = f"error: unrecognized arguments: {shown} (python -m some.command --help lists the options)\n"
        assert (end.value.code, capsys.readouterr().err) == (2, line)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("80m", 4800), ("1h20m", 4800), ("1h20min", 4800), ("90s", 90), ("2h", 7200), ("1m5s", 65)),
        *(("5s", 5), ("1min", 60), ("0.5s", 0.5), ("1.5min", 90)),
    ],
)
def test_a_time(text: str, seconds: float) -> None:
    assert as_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "80", "0m", "m", "5m1h", "-5m", ".h", "80 m", "٣m", "5 cows", f"{10**400}s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no time: write 5s, 80m or 1h20m"):
        as_seconds(text)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(name).main()
    lines = capsys.readouterr().out.splitlines()
    assert lines and [line for line in lines if len(line) > 80] == []


def test_every_command_is_there() -> None:
    assert {"train_fold", "tune", "predict", "report", "input.describe", "models.export"} <= set(COMMANDS)


@pytest.mark.parametrize(("name", "words"), [("predict", ["a.wav", "--every"]), ("submit", ["--budget"])])
def test_every_time_is_read_by_one_rule(
    name: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [name, *words, "5 cows"])
    with pytest.raises(SystemExit):
        importlib.import_module(name).main()
    assert f"argument {words[-1]}: '5 cows' is no time: write 5s, 80m or 1h20m" in capsys.readouterr().err
