"""Where files are, and ~ in paths of the command line."""

import argparse
import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import submit
from blending.candidates import finished_runs
from configs.paths import Paths
from console.errors import UserError, count
from console.options import as_path, expand_home

COMMANDS = ("train_fold", "tune", "ensemble", "submit", "predict", "find_label_errors")
COMMANDS += ("submission.bundle", "submission.push", "submission.kernel_predict")
COMMANDS += ("input.demo", "input.download", "ablation.run", "benchmarks.run")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~/w", "/home/me/w"),
        ("~", "/home/me"),
        ("~/a/../b", "/home/me/a/../b"),
        ("a/~/w", "a/~/w"),
        ("w~", "w~"),
        ("/~/w", "/~/w"),
        ("", "."),
    ],
)
def test_a_leading_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, text: str, path: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home(text) == Path(path)


def test_a_folder_that_is_named_tilde_is_written_with_a_dot() -> None:
    """In full, or pandas would take it for the home folder."""
    assert expand_home("./~/w") == Path.cwd() / "~" / "w"


@pytest.mark.parametrize("home", ["", "relative"])
def test_a_relative_home_is_an_error(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", home)
    with pytest.raises(UserError, match=rf"^~/w: the environment variable HOME is '{home}': write the path in full$"):
        expand_home("~/w")


def test_a_missing_home_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^~nobody-here/w: there is no home folder ~nobody-here: write the path in"):
        expand_home("~nobody-here/w")
    monkeypatch.setattr(
        os.path, "expanduser", lambda path: path
    )  # as where neither HOME nor the user's number is known
    with pytest.raises(UserError, match=r"^~/w: there is no home folder ~: write the path in full$"):
        expand_home("~/w")


class Parsed(Exception):
    """Ends a command where it would read its command line."""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_path_option_knows_the_tilde(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    parsers: list[argparse.ArgumentParser] = []

    def stop(self: argparse.ArgumentParser) -> None:
        parsers.append(self)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", stop)
    with pytest.raises(Parsed):
        importlib.import_module(name).main()
    types = {action.dest: action.type for action in parsers[0]._actions}
    assert Path not in types.values()
    named = {action.dest for action in parsers[0]._actions if action.metavar in ("DIR", "FILE")}
    assert as_path in types.values() and all(types[dest] is as_path for dest in named)


def test_a_missing_home_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["submit.py", "--work=~nobody-here/w"])
    with pytest.raises(SystemExit) as ended:
        submit.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: argument --work: ~nobody-here/w: there is no home folder ~nobody-here: "
        "write the path in full (submit.py --help lists the options)\n"
    )


def test_a_count_has_its_plural() -> None:
    assert [count(n, "clip") for n in (0, 1, 2)] == ["0 clips", "1 clip", "2 clips"]
    assert [count(n, "class") for n in (1, 2)] == ["1 class", "2 classes"]


def test_a_hint_names_the_options_that_were_given() -> None:
    """What follows a command needs the same folders and description; the defaults go without saying."""
    assert Paths().options == ""
    named = Paths(Path("my data"), Path("w"), "esc50")
    assert named.options == " --input 'my data' --as esc50 --work w"
    with pytest.raises(UserError, match=r"fold 0\.\.4 --input 'my data' --as esc50 --work w$"):
        finished_runs(named.runs, [], SimpleNamespace(folder=named.input, described_by="esc50", train=()))  # type: ignore[arg-type]
