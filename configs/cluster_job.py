"""A job on a node of a cluster: what Ray calls there, and the lines that it prints."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from console.errors import UserError

begun = 1  # how often the job of this process was begun


def node_name() -> str:
    """Of the machine that this runs on, as errors name it."""
    from ray.util import get_node_ip_address

    return f"node {os.uname().nodename} ({get_node_ip_address()})"


class Lines:
    """An actor beside the driver: holds what the jobs print until the driver takes it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []  # 'out' or 'err', and the line
        self.begun: dict[int, int] = {}

    def begin(self, job: int, node: str) -> int:
        """How often that job was begun, this time included: more than once if its process or node was lost."""
        self.begun[job] = self.begun.get(job, 0) + 1
        if self.begun[job] > 1:
            self.put("out", f"begun again on {node}, because its process or node was lost")
        return self.begun[job]

    def put(self, stream: str, line: str) -> None:
        self.lines.append((stream, line))

    def take(self) -> list[tuple[str, str]]:
        taken, self.lines = self.lines, []
        return taken


class LineStream(io.TextIOBase):
    """A standard stream whose lines go to the driver."""

    def __init__(self, lines: Any, name: str) -> None:
        self._lines, self._name, self._rest, self._sent = lines, name, "", list[Any]()

    def write(self, text: str) -> int:
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            self._sent = [self._lines.put.remote(self._name, line)]
        return len(text)

    def finish(self) -> None:
        """Wait until the driver can take all lines."""
        import ray

        self.write("\n" if self._rest else "")
        ray.get(self._sent)


def run_job(
    lines: Any, folder: str, marker: Path, number: int, function: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """function(*args, **kwargs) in the driver's current folder, where the node has one of that name, or else in that of
    the code. Raises UserError on a node that joined late and does not see `work`."""
    import ray

    global begun
    begun = ray.get(lines.begin.remote(number, node_name()))
    if not marker.with_name(f".{marker.name}.lock").exists():
        raise UserError(f"{node_name()}: {marker.parent} is not there: put it on storage that all nodes mount")
    with suppress(OSError):
        os.chdir(folder)
    out, err = LineStream(lines, "out"), LineStream(lines, "err")
    try:
        with redirect_stdout(out), redirect_stderr(err):
            return function(*args, **kwargs)
    finally:
        out.finish()
        err.finish()
