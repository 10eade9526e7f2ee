"""Workers are separate processes that end with this one and print through it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.processes import worker_processes
from console.errors import UserError

OUTLIVED = "import time; from configs.processes import worker_processes\n" + (
    "with worker_processes(2, 'sleeps') as pool:\n"
    "    print(*pool._processes, flush=True)\n"
    "    [pool.submit(time.sleep, 60) for _ in range(9)]\n"
    "    time.sleep(60)\n"
)


def report() -> tuple[int, str, bool]:
    return os.getpid(), os.environ["OMP_NUM_THREADS"], sys.stdout.isatty()


def print_lines(letter: str, folder: Path) -> None:
    (folder / letter).touch()
    while len(list(folder.iterdir())) < 2:  # both at once
        time.sleep(0.01)
    for _ in range(2000):
        print(letter * 200, flush=True)
    os.write(1, f"{letter} of C code\n".encode())


def fail() -> None:
    raise UserError("a.wav: no")


def is_alive(pid: int) -> bool:
    """False also for a process that ended and was not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ended(pids: list[int]) -> bool:
    for _ in range(500):
        if not any(map(is_alive, pids)):
            return True
        time.sleep(0.02)
    return False


def test_even_one_worker_is_another_process_with_its_threads_and_no_terminal() -> None:
    with worker_processes(1, "reports", threads=3) as pool:
        found = [job.result() for job in [pool.submit(report) for _ in range(3)]]
    assert len(set(found)) == 1 and found[0][1:] == ("3", False)
    assert found[0][0] != os.getpid() and ended([found[0][0]])


def test_lines_of_workers_come_out_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # which makes two writes of a line
    with worker_processes(2, "prints") as pool:
        for letter in "ab":
            pool.submit(print_lines, letter, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted([*["a" * 200, "b" * 200] * 2000, "a of C code", "b of C code"])


def test_an_exception_in_a_worker_is_raised_here_and_ends_the_others() -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"^a\.wav: no$"), worker_processes(2, "fails") as pool:
        pids = list(pool._processes)  # type: ignore[attr-defined]
        pool.submit(time.sleep, 60)
        pool.submit(fail).result()
    assert ended(pids) and time.monotonic() - began < 30


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_only_the_parent_handles_a_signal_and_ends_the_workers(how: signal.Signals) -> None:
    """A terminal also signals the workers, which must not end before this process ends them. In a process of its own: a
    signal that is meant for pytest's could end a worker of pytest-xdist, which then hangs."""
    code = f"import signal, test_processes; test_processes.signalled(signal.{how.name})"
    places = f"{Path(__file__).parent}:{Path(__file__).parents[1]}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def signalled(how: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), worker_processes(2, "sleeps") as pool:
        jobs = [pool.submit(time.sleep, 60) for _ in range(9)]
        pids = list(pool._processes)  # type: ignore[attr-defined]
        for pid in pids:
            os.kill(pid, how)
        time.sleep(0.5)
        assert all(map(is_alive, pids)) and not any(job.done() for job in jobs)
        os.kill(os.getpid(), how)
        time.sleep(60)
    assert ended(pids) and signal.getsignal(signal.SIGTERM) == before


def test_a_killed_worker_is_one_line_with_the_remedy() -> None:
    message = "^a process that counts ended too early: .* out of memory: run the same command to continue$"
    with pytest.raises(UserError, match=message), worker_processes(2, "counts") as pool:
        jobs = [pool.submit(time.sleep, 60) for _ in range(9)]
        pids = list(pool._processes)  # type: ignore[attr-defined]
        os.kill(pids[0], signal.SIGKILL)
        jobs[0].result()
    assert ended(pids)


def test_the_workers_of_a_killed_process_end() -> None:
    process = subprocess.Popen([sys.executable, "-c", OUTLIVED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = list(map(int, process.stdout.readline().split()))
    with contextlib.closing(process.stdout):
        process.kill()
        process.wait()
        assert len(pids) == 2 and ended(pids)


MASK = "import signal; from configs.processes import SIGNALS, worker_processes\n" + (
    "with worker_processes(1, 'waits') as pool:\n"
    "    print(pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result() >= SIGNALS)\n"
)


def test_signals_are_blocked_in_the_first_workers_too() -> None:
    """The resource tracker, which Python starts with the first worker, unblocks signals."""
    done = subprocess.run([sys.executable, "-c", MASK], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")


SPEAKS = (
    "from configs.processes import worker_processes; from console.command_line import run_command\n"
    "def main():\n"
    "    with worker_processes(2, 'speaks') as pool:\n"
    "        code = 'from console.output import *\\nfor i in range({n}): say(\"G\\xe4nse\")'\n"
    "        [job.result() for job in [pool.submit(exec, code) for _ in 'ab']]\n"
    "run_command(main)\n"
)


def speak(n: int, shell: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Two workers that print n lines each, with a redirection or a pipe of the shell."""
    env = {**os.environ, "PYTHON": sys.executable, "CODE": SPEAKS.format(n=n), **variables}
    command = ["bash", "-o", "pipefail", "-c", f'"$PYTHON" -c "$CODE" {shell}']
    return subprocess.run(command, capture_output=True, env=env, timeout=60)


def test_a_closed_pipe_ends_the_workers() -> None:
    done = speak(10**9, "| head -n 1", PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout, done.stderr) == (141, "Gänse\n".encode(), b"")


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", rb"G\xe4nse"), ("latin-1", b"G\xe4nse")])
def test_lines_of_workers_reach_a_terminal_of_another_encoding(encoding: str, shown: bytes) -> None:
    done = speak(1, "", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout, done.stderr) == (0, (shown + b"\n") * 2, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_workers_need_no_standard_streams(closed: str) -> None:
    done = speak(1, closed, PYTHONIOENCODING="utf-8")
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout == (b"" if ">&-" in closed.split() else "Gänse\nGänse\n".encode())


def card() -> str | None:
    time.sleep(0.3)  # the other worker gets the next call
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_each_worker_sees_a_gpu_of_its_own() -> None:
    with worker_processes(2, "looks", cards=["3", "MIG-1a"]) as pool:
        seen = [job.result() for job in [pool.submit(card) for _ in range(6)]]
    assert set(seen) == {"3", "MIG-1a"}
