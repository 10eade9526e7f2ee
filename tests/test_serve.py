"""The server of the page to repair labels answers its own page alone."""

import http.client
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from blending.label_errors import find_doubts
from configs.paths import Paths
from console.errors import UserError
from find_label_errors import open_browser
from input.corrections import read_corrections
from pages.repair import page_server, saver
from pages.serve import PageServer


class Client:
    """One request after the other, each with its own connection; what was saved lies in `saved`."""

    def __init__(self, server: PageServer, saved: list[Mapping[str, str]]) -> None:
        self.server, self.saved, self.own = server, saved, {"Host": server.host, "Origin": f"http://{server.host}"}

    def ask(self, place: str, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, bytes, str]:
        connection = http.client.HTTPConnection(self.server.host, timeout=20)
        try:
            connection.putrequest(method, place, skip_host=True)
            for name, value in (self.own | {name.replace("_", "-"): value for name, value in headers.items()}).items():
                if value:
                    connection.putheader(name, value)
            if method == "POST" and "Content_Length" not in headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers.get("Content-Range", "")
        finally:
            connection.close()

    def post(self, body: bytes, place: str = "corrections", **headers: str) -> int:
        headers = {"Content_Type": "application/json"} | headers
        return self.ask(f"/{self.server.token}/{place}", "POST", body, **headers)[0]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    (tmp_path / "clip.wav").write_bytes(bytes(range(100)))
    (tmp_path / "secret.txt").write_text("secret")
    saved = list[Mapping[str, str]]()
    with PageServer("<p>page", [str(tmp_path / "clip.wav"), None, str(tmp_path / "gone.wav")], saved.append) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Client(server, saved)
        server.shutdown()


def test_the_page_its_clips_and_parts_of_them(client: Client) -> None:
    token = client.server.token
    assert len(token) >= 32 and client.server.server_address[0] == "127.0.0.1"
    assert client.ask(f"/{token}/") == (200, b"<p>page", "")
    assert client.ask(f"/{token}/clips/0") == (200, bytes(range(100)), "")
    assert client.ask(f"/{token}/clips/0", Range="bytes=10-12") == (206, bytes([10, 11, 12]), "bytes 10-12/100")
    assert client.ask(f"/{token}/clips/0", Range="bytes=98-") == (206, bytes([98, 99]), "bytes 98-99/100")
    assert client.ask(f"/{token}/clips/0", Range="bytes=98-500") == (206, bytes([98, 99]), "bytes 98-99/100")
    assert client.ask(f"/{token}/clips/0", Range="bytes=100-")[0] == 416
    assert client.post(b'{"a.wav": "Bell"}') == 200 and client.saved == [{"a.wav": "Bell"}]


INSIDE = "corrections", "?", "../secret.txt", "%2e%2e/secret.txt", "clips", "clips/../../secret.txt"
CLIPS = [f"clips/{number}" for number in ("", "1", "2", "3", "-1", "0/", "0?", "00000000000")]


@pytest.mark.parametrize("place", [*(f"/{{t}}/{place}" for place in (*INSIDE, *CLIPS)), "/", "//", "/{t}", "/{t}x/"])
def test_every_other_path_is_refused(client: Client, place: str) -> None:
    assert client.ask(place.format(t=client.server.token))[:2] == (404, b"")
    for token in (client.server.token[:-1], "", "secret.txt", "%00"):
        assert client.ask(f"/{token}/")[:2] == (404, b"")


@pytest.mark.parametrize(
    "foreign",
    [
        {"Host": "evil.example"},
        {"Host": "localhost"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_foreign_host_or_origin_gets_nothing(client: Client, foreign: dict[str, str]) -> None:
    assert client.ask(f"/{client.server.token}/", **foreign)[:2] == (404, b"")
    assert client.post(b'{"a.wav": "Bell"}', **foreign) == 404 and not client.saved


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Origin": ""}, 404),  # no browser's page sends that
        (b"{}", {"Content_Type": "text/plain"}, 404),  # what a form of another page can send
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"a.wav": 1}', {}, 400),
        (b"\xff", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"{}", {"Content_Length": "10000001"}, 413),
        (b"{}", {"Content_Length": "-1"}, 413),
    ],
)
def test_what_is_no_decision_is_not_saved(client: Client, body: bytes, headers: dict[str, str], status: int) -> None:
    assert client.post(body, **headers) == status and not client.saved
    assert client.post(b"{}", place="clips/0") == 404
    assert client.ask(f"/{client.server.token}/", "PUT")[0] == 501


def test_only_listed_clips_and_labels_are_saved(blended: Paths, tmp_path: Path) -> None:
    """A name with a comma is not one of this competition; the quoting is that of Python's csv."""
    doubts, file = find_doubts(blended, []), tmp_path / "corrections.csv"
    names = doubts.listed["fname"].tolist()
    clips = [{"name": name} for name in names]
    save = saver(file, doubts.competition, clips)
    save({names[0]: "Bell", names[1]: ""})
    before = file.read_bytes()
    save({})
    assert not file.exists(), "all was undone"
    file.write_bytes(before)
    unlisted = next(name for name in doubts.competition.train["fname"] if name not in names)
    for wrong, fact in (
        ({unlisted: "Bell"}, "not one of the listed"),
        ({names[0]: "bell"}, "no label"),
        ({names[0]: "Bell|Tone"}, "no label"),
    ):
        with pytest.raises(UserError, match=fact):
            save(wrong)
    assert file.read_bytes() == before
    train, classes = doubts.competition.train, doubts.competition.classes
    assert read_corrections(file, train, classes) == {names[0]: "Bell", names[1]: ""}
    saver(file, doubts.competition, clips)({names[1]: "Tone"})
    assert read_corrections(file, train, classes) == {names[0]: "Bell", names[1]: "Tone"}


def test_a_port_in_use_is_named(blended: Paths, tmp_path: Path, client: Client) -> None:
    doubts = find_doubts(blended, [])
    data = {"mode": "repair", "title": "", "clips": []}
    port = client.server.server_port
    with pytest.raises(UserError, match=f"--serve {port}: the port is taken: name another"):
        page_server(data, doubts.competition, tmp_path / "c.csv", port)


def test_the_verb_serves_until_ctrl_c_and_alone(blended: Paths, tmp_path: Path) -> None:
    command = [sys.executable, "find_label_errors.py", "--input", str(blended.input), "--work", str(blended.work)]
    command += ["--serve", "--corrections", str(tmp_path / "c.csv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        address = next(line for line in process.stdout if "http://" in line).split()[-1]
        assert str(tmp_path / "c.csv") in process.stdout.readline()
        host, _, place = address.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request("GET", f"/{place}")
        assert b'"mode":"repair"' in connection.getresponse().read()
        connection.close()
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode == 2 and "another process saves corrections in it" in second.stderr
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    assert process.returncode == 0 and f"input.corrections={tmp_path / 'c.csv'}" in said and not complained


def test_a_browser_is_opened_where_there_is_a_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = list[str]()
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    open_browser("http://127.0.0.1/")
    assert not opened and "no screen here" in capsys.readouterr().out
    monkeypatch.setenv("DISPLAY", ":0")
    open_browser("http://127.0.0.1/")
    assert opened == ["http://127.0.0.1/"]
