"""Lines, tables, progress, and how errors are reported."""

import errno
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import rich
import rich.console
import torch

from console import output as console
from console.command_line import run_command
from console.errors import UserError, list_some
from console.output import muted, progress, say, table, warn


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test says so."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_results_go_to_stdout_and_warnings_to_stderr(capsys):
    say("a result")
    warn("a risk")
    assert capsys.readouterr() == ("a result\n", "warning: a risk\n")


def test_a_table_is_aligned(capsys):
    table(["model", "oof"], [["a", "0.5"], ["longer", "10.25"]])
    assert capsys.readouterr().out == "model     oof\na         0.5\nlonger  10.25\n"


def test_a_table_may_be_empty(capsys):
    table(["model", "oof"], [])
    assert capsys.readouterr().out == "model  oof\n"


def test_a_table_fits_80_columns(capsys):
    """The two long columns share 80 - 3 - 2 * 2 = 73 columns, 36 and 37; the short one stays."""
    table(["what", "n", "goal"], [["a" * 30 + " " + "b" * 30, "100", "c" * 40 + " d"]])
    assert capsys.readouterr().out.splitlines() == [
        f"what{' ' * 36}n{' ' * 35}goal",
        f"{'a' * 30}{' ' * 8}100  {'c' * 37}",
        f"{'b' * 30}{' ' * 45}ccc d",
    ]


def test_a_user_error_is_one_line_and_status_2(capsys):
    def main() -> None:
        raise UserError("train.csv: lacks the column label")

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "error: train.csv: lacks the column label\n")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "work/features"), "work/features: Permission denied"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left on device: free some space, then run the same command",
        ),  # while writing: no name
    ],
)
def test_an_error_of_the_system_is_one_line_and_status_2(capsys, error, message):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


@pytest.mark.parametrize(
    "greedy",
    [
        lambda: np.ones(1 << 50),
        lambda: torch.ones(1 << 50),
        lambda: throw(torch.OutOfMemoryError("CUDA out of\nmemory")),
    ],
)
def test_out_of_memory_is_one_line_and_status_2(capsys, greedy):
    with pytest.raises(SystemExit) as ended:
        run_command(greedy)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: out of memory (") and "train.batch_size" in err and err.count("\n") == 1


def test_another_runtime_error_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="shapes"):
        run_command(lambda: throw(RuntimeError("shapes")))


def throw(error: Exception) -> None:
    raise error


def test_ctrl_c_is_status_130(capsys):
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted: run the same command to continue\n"


def test_after_force_ctrl_c_names_the_command_that_continues(capsys, monkeypatch):
    """With --force it would start again."""

    def main() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["train_fold.py", "--fold", "0", "--force"])
    with pytest.raises(SystemExit):
        run_command(main)
    assert capsys.readouterr().err == "interrupted: run the same command without --force to continue\n"


@pytest.mark.parametrize("fault", [ZeroDivisionError(), OSError("a library's own")])
def test_a_bug_keeps_its_traceback(fault):
    def main() -> None:
        raise fault

    with pytest.raises(type(fault)):
        run_command(main)


def test_without_a_terminal_plain_lines_show_progress(capsys, clock):
    """10 clips: after 5 s nothing is printed, after 10 s 4 of them are done: 0.4 a second, 15 s for the other 6."""
    with progress("features", 10, "clips") as advance:
        clock(5)
        advance(2)
        clock(5)
        advance(2)
        clock(1)
        advance(1)
        clock(20)
        advance(5)
    assert capsys.readouterr().out == "features: 4/10 clips, 0.4 clips/s, 15 s left\n"


def test_nothing_done_yet_has_no_rate(capsys, clock):
    with progress("features", 10, "clips", every=0) as advance:
        clock(60)
        advance(0)
        assert capsys.readouterr().out == ""
        advance(1)
    assert capsys.readouterr().out.startswith("features: 1/10 clips")


@pytest.mark.parametrize("shared", [None, io.StringIO()])
def test_on_a_terminal_a_bar(monkeypatch, shared):
    """Also where another library has used rich before, with an output that is no terminal."""
    monkeypatch.setattr(rich, "_console", rich.console.Console(file=shared) if shared else None)
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress("features", 4, "clips") as advance:
        for _ in range(4):
            advance(1)
        say("between")
    shown = screen.getvalue()
    assert "features" in shown and "4/4" in shown and "between" in shown and "\x1b[" in shown


def test_a_note_replaces_the_count_in_80_columns(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress("fsdkaggle2018_best fold 0", 40000, "clips") as advance:
        advance(64, "epoch 13/80 loss 0.12 map3 0.654")
        advance(64, "epoch 13/80 loss 0.12 map3 0.654")
    shown = screen.getvalue()
    assert "fold 0" in shown and "epoch 13/80 loss 0.12 map3 0.654" in shown and "128/" not in shown


def test_muted_output_is_discarded(capsys):
    with muted():
        say("a result")
        warn("a doubt")
    say("news")
    assert capsys.readouterr() == ("news\n", "")


def test_prefixes_are_coloured_on_a_terminal_only(monkeypatch):
    """ANSI: 33 is yellow, 31 is red, 0 ends a colour."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    warn("a [risk]")
    with pytest.raises(SystemExit):
        run_command(lambda: throw(UserError("the end")))
    assert screen.getvalue() == "\x1b[33mwarning:\x1b[0m a [risk]\n\x1b[31merror:\x1b[0m the end\n"
    monkeypatch.setenv("NO_COLOR", "1")
    warn("plain")
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", plain := io.StringIO())
    warn("plain")
    assert screen.getvalue().endswith("\nwarning: plain\n") and plain.getvalue() == "warning: plain\n"


def test_an_error_inside_progress_is_raised(capsys):
    with pytest.raises(UserError), progress("features", 4, "clips"):
        raise UserError("stop")


def test_the_first_ten_are_named_and_all_are_counted():
    assert list_some(["a", "b"]) == "2: a, b"
    assert list_some(["a"]) == "a" and list_some([]) == "none"  # a count would say nothing
    assert list_some(range(10)) == "10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert list_some(range(240)) == "240: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... and 230 more"
    assert list_some(iter("abc"), most=2) == "3: a, b, ... and 1 more"


def test_printing_needs_no_heavy_import():
    heavy = "{'rich', 'numpy', 'torch', 'pandas', 'yaml', 'pydantic'}"
    code = f"import sys, console.output, configs.paths; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def run_python(code: str, shell: str = "", **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Run `code` in a new process, with a redirection or a pipe of the shell."""
    command = f'"$PYTHON" -c "$CODE" {shell}'
    env = {**os.environ, "PYTHON": sys.executable, "CODE": code, **variables}
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, env=env)


IMPORTS = """
from console.command_line import run_command
from console.errors import UserError
from console.output import progress, say, table, warn
"""
MANY = IMPORTS + "run_command(lambda: [say('x' * 99) for _ in range(10_000)])"


def test_a_reader_may_close_the_pipe_early():
    done = run_python(MANY, "| head -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (141, b"x" * 99 + b"\n", b"")  # as of any command
    done = run_python(MANY, "2>&1 | head -n 1")
    assert (done.returncode, done.stdout) == (141, b"x" * 99 + b"\n")
    code = IMPORTS + "import argparse, time\ntime.sleep(0.2)\n"
    done = run_python(
        code + "run_command(lambda: argparse.ArgumentParser().parse_args(['-h']))", "| true", PYTHONUNBUFFERED=""
    )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_broken_pipe_elsewhere_is_an_error(capsys):
    with pytest.raises(SystemExit):
        run_command(lambda: throw(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert capsys.readouterr().err == "error: Broken pipe\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_without_standard_streams_nothing_is_printed_and_no_file_takes_their_number(tmp_path, closed):
    code = f"""{IMPORTS}
import os, sys
from console.command_line import *; from console.output import *
say("before"); warn("before")
def main():
    with open({str(tmp_path / "file")!r}, "w") as file:
        assert file.fileno() > 2
        say("hello"); warn("careful"); table(["a"], [["b"]])
        with progress("features", 2, "clips", every=0) as advance:
            advance(1)
        os.write(1, b"of a C library"); os.write(2, b"of a C library")
        file.write("mine")
    raise UserError("the end")
run_command(main)
"""
    done = run_python(code, closed)
    assert done.returncode == 2
    assert (tmp_path / "file").read_text() == "mine"
    assert (b"hello" in done.stdout) == (">&-" not in closed.split())
    assert (b"error: the end" in done.stderr) == ("2>&-" not in closed)
    assert b"careful" not in done.stdout


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", rb"G\xe4nse"), ("latin-1", b"G\xe4nse"), ("utf-8", b"G\xc3\xa4nse")]
)
def test_a_terminal_of_another_encoding_is_no_error(encoding, shown):
    code = f"""{IMPORTS}
import argparse
from console.command_line import *; from console.output import *
say("G\\xe4nse \\udcff"); table(["G\\xe4nse"], [["1"]])
run_command(lambda: argparse.ArgumentParser(prog="G\\xe4nse").parse_args(["--help"]))
"""
    done = run_python(code, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(shown) == 3 and rb"\udcff" in done.stdout
