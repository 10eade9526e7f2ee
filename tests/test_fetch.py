"""models.fetch against a server on this machine."""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from configs.checkpoint import PRETRAINED, WEIGHTS, Checkpoint, load_checkpoint
from configs.load import load_config
from console.errors import UserError
from models.fetch import fetch_checkpoint, list_checkpoints

DATA = bytes(range(256)) * 20_000  # 5.12 MB
SUM = "sha256:" + hashlib.sha256(DATA).hexdigest()
NAMES = sorted(file.stem for file in PRETRAINED.glob("*.yaml"))


class Server(ThreadingHTTPServer):
    """Serves DATA. cut: hang up after so many bytes; whole: ignore Range; kind: Content-Type."""

    cut: int | None = None
    whole = False
    kind = "application/octet-stream"

    def __init__(self) -> None:
        self.ranges: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/w.pt"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(re.findall(r"\d+", asked)[0]) if asked and not self.server.whole else 0
        if start >= len(DATA):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(DATA)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", self.server.kind)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        self.wfile.write(DATA[start : start + (self.server.cut or len(DATA))])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.shutdown()


def checkpoint(server: Server | None, checksum: str | None = SUM) -> Checkpoint:
    return Checkpoint("w.pt", "https://page.org", "MIT", 5.1, 1.3, 0.4, 10.0, server and server.url, checksum)


def error_of(what: Checkpoint, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        fetch_checkpoint("tiny", what, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_says_licence_and_size_then_downloads(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = fetch_checkpoint("tiny", checkpoint(server), tmp_path / "weights")
    assert file.read_bytes() == DATA
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "tiny: MIT, 5.1 MB, https://page.org" and last == f"complete -> {file}"
    fetch_checkpoint("tiny", checkpoint(server), tmp_path / "weights")
    assert server.ranges == [None], "a file that is there is not downloaded again"


@pytest.mark.parametrize("checksum", [SUM, None])
def test_an_interrupted_download_continues(server: Server, tmp_path: Path, checksum: str | None) -> None:
    server.cut = 1_000_000
    fact = error_of(checkpoint(server, checksum), tmp_path)
    assert "download stopped at 1000000 of 5120000 bytes: run the same command to continue" in fact
    assert not (tmp_path / "w.pt").exists()
    server.cut = None
    assert fetch_checkpoint("tiny", checkpoint(server, checksum), tmp_path).read_bytes() == DATA
    assert server.ranges == [None, "bytes=1000000-"]


def test_a_server_that_cannot_continue_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.whole = True
    (tmp_path / "w.pt.part").write_bytes(b"x" * 1000)
    assert fetch_checkpoint("tiny", checkpoint(server), tmp_path).read_bytes() == DATA


def test_a_part_that_is_already_whole_is_checked_and_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.pt.part").write_bytes(DATA)
    assert fetch_checkpoint("tiny", checkpoint(server), tmp_path).read_bytes() == DATA


def test_a_part_longer_than_the_file_is_an_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.pt.part").write_bytes(DATA + b"x")
    assert "HTTP Error 416" in error_of(checkpoint(server), tmp_path)
    assert not (tmp_path / "w.pt").exists()


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_another_checksum_is_an_error(server: Server, tmp_path: Path, algorithm: str) -> None:
    wrong = checkpoint(server, f"{algorithm}:{hashlib.new(algorithm, b'other').hexdigest()}")
    found = hashlib.new(algorithm, DATA).hexdigest()
    assert f"{algorithm} is {found}, expected " in error_of(wrong, tmp_path)
    assert not [file for file in tmp_path.iterdir() if not file.name.endswith(".lock")]
    (tmp_path / "w.pt").write_bytes(DATA)
    fact = error_of(wrong, tmp_path)
    assert fact.startswith(f"{tmp_path / 'w.pt'}: not the published file ({algorithm} is {found}, ")
    assert fact.endswith("delete it, then run the same command")


def test_a_web_page_is_no_checkpoint(server: Server, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"
    assert "a web page instead of a file: download w.pt by hand" in error_of(checkpoint(server, None), tmp_path)
    assert not (tmp_path / "w.pt").exists()


def test_offline_it_names_the_file_and_the_folder(tmp_path: Path) -> None:
    with Server() as closed:
        pass
    fact = error_of(checkpoint(closed), tmp_path)
    assert "Connection refused" in fact
    assert fact.endswith(
        f"without internet access, download w.pt from {closed.url} elsewhere and copy it to {tmp_path}/"
    )


def test_without_an_address_it_names_the_page(tmp_path: Path) -> None:
    assert error_of(checkpoint(None), tmp_path) == (
        "tiny: no address to download it from: download w.pt from https://page.org elsewhere "
        f"and copy it to {tmp_path}/"
    )


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"^'mn11_as': no such checkpoint: use one of \d+: ast, .*, passt$"):
        load_checkpoint("mn11_as")


def test_all_are_listed_in_80_columns(capsys: pytest.CaptureFixture) -> None:
    list_checkpoints()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == NAMES
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", NAMES)
def test_every_checkpoint_is_an_experiment_that_starts_from_it(name: str) -> None:
    found, cfg = load_checkpoint(name), load_config(PRETRAINED / f"{name}.yaml")
    assert cfg.name == name
    assert cfg.model.weights == str(WEIGHTS / found.file)
    assert found.licence in ("MIT", "Apache-2.0", "BSD-3-Clause", "CC-BY-4.0")
    assert 0.8 < found.megabytes / (4 * found.parameters) < 1.3, "weights are float32"
    assert found.url is None or found.url.startswith("https://")
    digits = {"md5": 32, "sha256": 64, "": 0}
    algorithm, _, digest = (found.checksum or "").partition(":")
    assert re.fullmatch(rf"[0-9a-f]{{{digits[algorithm]}}}", digest)
    assert f"--config configs/pretrained/{name}.yaml" in (PRETRAINED / f"{name}.yaml").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("wrong", "fact"), [({"checksum": "crc:1"}, "checksum must start"), ({"file": "../w.pt"}, "file must be a name")]
)
def test_a_checkpoint_out_of_bounds_is_an_error(wrong: dict[str, str], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        replace(checkpoint(None), **wrong)  # type: ignore[arg-type]
