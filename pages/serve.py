"""A server for one page on this machine alone: the page, the sound of its clips and the saving of decisions."""

import hmac
import json
import mimetypes
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from configs.forms import from_json
from console.errors import UserError

LARGEST = 10_000_000  # bytes of decisions
LOOPBACK = "127.0.0.1"


class PageServer(ThreadingHTTPServer):
    """`address` has a token that other pages and users of the machine do not know; every other path, a foreign Host
    (a name that was made to point here) and a foreign Origin are refused.

    page: HTML. sounds: the file of every clip, at clips/<number>; None where there is none. save: called with the
    decisions, one request at a time; a UserError is answered with its text. port: 0 takes a free one.
    """

    daemon_threads = True

    def __init__(
        self, page: str, sounds: Sequence[str | None], save: Callable[[Mapping[str, str]], None], port: int = 0
    ) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.page, self.sounds, self.save, self.saving = (
            page.encode("utf-8", "surrogateescape"),
            sounds,
            save,
            threading.Lock(),
        )
        self.token, self.host = secrets.token_urlsafe(24), f"{LOOPBACK}:{self.server_port}"

    @property
    def address(self) -> str:
        return f"http://{self.host}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds of a silent connection

    def do_GET(self) -> None:
        place = self._place()
        clip = re.fullmatch(r"clips/([0-9]{1,9})", place or "")
        if place == "":
            self._answer(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif clip and int(clip[1]) < len(self.server.sounds) and (file := self.server.sounds[int(clip[1])]):
            self._sound(Path(file))
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        as_json = self.headers.get("Content-Type", "") == "application/json"  # no form of another page can send it
        if self._place() != "corrections" or self.headers.get("Origin") is None or not as_json:
            return self._refuse(HTTPStatus.NOT_FOUND)
        if not re.fullmatch("[0-9]{1,9}", size) or int(size) > LARGEST:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            decisions = from_json(dict[str, str], json.loads(self.rfile.read(int(size))))
            with self.server.saving:
                self.server.save(decisions)
        except (UserError, ValueError, RecursionError, OSError) as error:
            self.close_connection = True
            return self._answer(HTTPStatus.BAD_REQUEST, str(error).encode("utf-8", "replace"), "text/plain")
        return self._answer(HTTPStatus.OK, b"saved", "text/plain")

    def _place(self) -> str | None:
        """The path after the token; None for a request that is not of our page."""
        if self.headers.get_all("Host") != [self.server.host]:
            return None
        if self.headers.get("Origin", f"http://{self.server.host}") != f"http://{self.server.host}":
            return None
        token, slash, place = self.path.removeprefix("/").partition("/")
        known = hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode())
        return place if known and slash else None

    def _sound(self, file: Path) -> None:
        """The file, or the range of it that a player asks for."""
        try:
            with file.open("rb") as stream:
                size = stream.seek(0, 2)
                asked = re.fullmatch(r"bytes=([0-9]{1,18})-([0-9]{0,18})", self.headers.get("Range", ""))
                first = int(asked[1]) if asked else 0
                last = min(int(asked[2] or size), size - 1) if asked else size - 1
                if asked and not first <= last:
                    return self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
                if asked:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                self.send_header("Accept-Ranges", "bytes")
                self._headers(last - first + 1, mimetypes.guess_type(file.name)[0] or "application/octet-stream")
                stream.seek(first)
                left = last - first + 1
                while left and (block := stream.read(min(left, 1 << 16))):
                    self.wfile.write(block)
                    left -= len(block)
        except (ConnectionError, TimeoutError):  # the player has heard enough
            self.close_connection = True
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND)

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True  # what else it sent is not read
        self._answer(status, b"", "text/plain")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self._headers(len(body), kind)
        self.wfile.write(body)

    def _headers(self, size: int, kind: str) -> None:
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(size),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",  # it would tell the token
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Resource-Policy": "same-origin",
            **({"Connection": "close"} if self.close_connection else {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()

    def version_string(self) -> str:
        return "audio-tagging-kit"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal belongs to the command."""
