"""The official Kaggle client, imported only here, with retries, hidden secrets and errors in one line."""

import contextlib
import io
import math
import os
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO, TypeVar

from console.errors import UserError

T = TypeVar("T")

CREDENTIALS = (
    "create a token at https://www.kaggle.com/settings/api and save it as ~/.kaggle/access_token (chmod 600), "
    "or set KAGGLE_API_TOKEN"
)
REMEDIES = {
    401: f"Kaggle rejects these credentials: {CREDENTIALS}",
    429: "too many requests: wait a few minutes, then run the same command again",
    None: "no answer from Kaggle: check the network, then run the same command again",
}
OUTAGE = "Kaggle has an internal error: run the same command again later"
TRIES = 5
LONGEST_WAIT = 300.0  # seconds; a longer Retry-After is an error instead of a wait


class KaggleFault(UserError):
    """A request that failed. status: the HTTP status, None without an answer; retry_after: seconds, if it says so."""

    def __init__(self, text: str, status: int | None, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status is None or self.status == 429 or self.status >= 500


class Kaggle:
    """The client, signed in. `api` is the client itself: pass its methods to `call`.

    Raises UserError if the client is not installed or there are no credentials.
    """

    def __init__(self) -> None:
        self._secrets = [os.environ[key] for key in ("KAGGLE_API_TOKEN", "KAGGLE_KEY") if os.environ.get(key)]
        with self._quiet():  # importing it signs in, and prints help if that fails
            try:
                from kaggle.api.kaggle_api_extended import KaggleApi
            except ImportError as error:
                raise UserError(f"no Kaggle client ({error}): pip install kaggle==2.2.4 six") from None
        self.api = KaggleApi()
        try:
            self.call("signing in", self.api.authenticate)
        except SystemExit:
            raise UserError(f"no Kaggle credentials: {CREDENTIALS}") from None
        self.user: str = self.api.config_values["username"]
        config = self.api.config_values
        self._secrets += [config[key] for key in ("key", "token") if config.get(key)]
        self._secrets += [b64encode(f"{self.user}:{key}".encode()).decode() for key in self._secrets]  # as sent
        self._check_uploads()

    def call(
        self,
        what: str,
        method: Callable[..., T],
        *args: Any,
        hints: Mapping[int, str] | None = None,
        tries: int = TRIES,
        bars: bool = False,
        **kwargs: Any,
    ) -> T:
        """method(*args, **kwargs) without the client's output, repeated after temporary errors.

        what: start of the error message; hints: HTTP status -> remedy, besides the general ones; bars: show progress
        bars on a terminal. Raises KaggleFault if Kaggle refuses, UserError if the client does.
        """
        for attempt in range(1, tries + 1):
            try:
                with self._quiet(bars):
                    return self._once(what, method, args, kwargs, hints or {})
            except KaggleFault as fault:
                wait = fault.retry_after if fault.retry_after is not None else 2.0**attempt
                if attempt == tries or not fault.temporary or wait > LONGEST_WAIT:
                    raise
            time.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _once(self, what: str, method: Callable[..., T], args: Any, kwargs: Any, hints: Mapping[int, str]) -> T:
        from requests import RequestException

        try:
            return method(*args, **kwargs)
        except RequestException as error:
            status = None if error.response is None else error.response.status_code
            remedy = hints.get(status or 0) or REMEDIES.get(status) or (OUTAGE if (status or 0) >= 500 else "")
            answer = _server_text(error)
            text = ": ".join(part for part in (what, f"{status} {answer}" if status else answer, remedy) if part)
            raise KaggleFault(self.redact(text), status, _retry_after(error)) from None
        except (ValueError, OSError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(self.redact(f"{what}: {' '.join(str(error).split())}")) from None

    @contextlib.contextmanager
    def _quiet(self, bars: bool = False) -> Iterator[None]:
        """Hide the client's help, notices and, with VERBOSE set, request headers that contain the token."""
        shown: Any = _Redacting(sys.stderr, self.redact) if bars and sys.stderr.isatty() else io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(shown):
            yield

    def redact(self, text: str) -> str:
        """The text without secrets, which a server may echo."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _check_uploads(self) -> None:
        """Raise on a failed upload: the client itself would continue without that file."""
        upload = self.api._upload_blob

        def whole(path: str, *args: Any, **kwargs: Any) -> Any:
            token = upload(path, *args, **kwargs)
            if token is None:
                name = os.path.basename(path)  # noqa: PTH119
                raise UserError(f"uploading {name}: Kaggle did not accept it: run the same command again")
            return token

        self.api._upload_blob = whole


class _Redacting:
    """A terminal's stream that hides secrets."""

    def __init__(self, stream: TextIO, redact: Callable[[str], str]) -> None:
        self.stream, self.redact = stream, redact

    def write(self, text: str) -> int:
        return self.stream.write(self.redact(text))

    def flush(self) -> None:
        self.stream.flush()


def _server_text(error: Any) -> str:
    """The server's message; the client's own text for a failed request is only the status."""
    if error.response is None:
        return type(error).__name__
    try:
        body = error.response.json()
        text = str(body.get("message") or body.get("error") or "")
    except (ValueError, AttributeError):
        text = "" if "<html" in error.response.text[:500].lower() else error.response.text
    return " ".join((text or error.response.reason or "").split())[:300]


def _retry_after(error: Any) -> float | None:
    if error.response is None:
        return None
    try:
        seconds = float(error.response.headers["Retry-After"])
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except (KeyError, ValueError):  # absent, or a date
        return None
