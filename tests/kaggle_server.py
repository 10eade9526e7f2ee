"""A stand-in for Kaggle that speaks the official client's protocol, keeps what it was sent, and fails on demand.

It serves http://localhost: on port 80 in a network namespace, or on any port as HTTP proxy.
"""

import base64
import io
import json
import threading
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

BASE = "http://localhost"
MODIFIED = formatdate(1_500_000_000, usegmt=True)


@dataclass
class Fault:
    """What the next request of a kind meets instead of its answer.

    cut: of an upload, keep that many bytes before answering; of a download, send that many and hang up.
    """

    status: int = 0
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass
class Request:
    """One request as it came. name: the API method, or PUT or GET for uploads and downloads."""

    name: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Blob:
    name: str
    size: int
    data: bytes = b""


@dataclass
class Dataset:
    """versions: file name -> bytes, as uploaded; the last is the current one."""

    about: dict[str, Any]
    versions: list[dict[str, bytes]]


class KaggleServer:
    """State is plain attributes: tests read and set them."""

    def __init__(self, port: int = 0, user: str = "tester", key: str = "not-a-key") -> None:
        self.user, self.key = user, key
        self.requests: list[Request] = []
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.competitions: dict[str, dict[str, bytes]] = {}  # slug -> file name -> bytes
        self.archives: dict[str, bytes] = {}  # sent instead of the competition's zip
        self.listed: dict[str, int] = {}  # sizes that the listing tells, where they are to differ
        self.blobs: dict[str, Blob] = {}
        self.datasets: dict[str, Dataset] = {}
        self.dataset_states = ["READY"]  # told one after the other after every upload; the last one stays
        self.kernels: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.kernel_answer: dict[str, Any] = {}  # added to the answer of SaveKernel
        self.kernel_states = ["QUEUED", "RUNNING", "COMPLETE"]
        self.kernel_output: dict[str, bytes] = {}
        self.kernel_outputs: dict[str, dict[str, bytes]] = {}  # of one kernel, instead
        self.kernel_log = ""
        self.run_kernel: Any = None  # called with (server, kernel) at SaveKernel
        self.limits = {"numToday": 1, "numTotal": 7, "numAllowedNow": 4}
        self.submissions: list[dict[str, Any]] = []
        self.verdict = {"status": "COMPLETE", "publicScore": "0.912", "privateScore": "0.905"}
        self.lose_answers = 0  # so many submissions arrive, but are answered with a 504
        self._states: dict[str, list[str]] = {}
        server = self

        class Handler(_Handler):
            kaggle = server

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """What makes the client talk to this server and to nothing else, with credentials of no worth."""
        proxy = f"http://127.0.0.1:{self.port}"  # for https, too: the server answers no CONNECT
        names = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
        return {
            **({} if self.port == 80 else dict.fromkeys(names, proxy)),
            "no_proxy": "",
            "NO_PROXY": "",
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "KAGGLE_USERNAME": self.user,
            "KAGGLE_KEY": self.key,
            "KAGGLE_CONFIG_DIR": str(home / "kaggle"),
            "HOME": str(home),
        }

    def fail(self, name: str, *faults: Fault) -> None:
        self.faults[name] += faults

    def names(self) -> list[str]:
        return [request.name for request in self.requests]

    def sent(self, name: str) -> list[Any]:
        """The bodies of all requests of a kind."""
        return [request.body for request in self.requests if request.name == name]

    def mount(self, dataset: str, folder: Path, unpacked: bool = True) -> None:
        """The current version as Kaggle mounts it: zips become folders."""
        folder.mkdir(parents=True)
        for name, data in self.datasets[dataset].versions[-1].items():
            if unpacked and name.endswith(".zip"):
                zipfile.ZipFile(io.BytesIO(data)).extractall(folder / name.removesuffix(".zip"))
            else:
                (folder / name).write_bytes(data)

    def mount_output(self, kernel: str, folder: Path) -> None:
        """What a kernel left, as Kaggle mounts it for another: zips stay packed."""
        for name, data in self.kernel_outputs[kernel].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

    def next_state(self, key: str, states: list[str], restart: bool = False) -> str:
        """The next of a list of states; the last one stays."""
        if restart or key not in self._states:
            self._states[key] = list(states)
        if restart:
            return ""
        queue = self._states[key]
        return queue.pop(0) if len(queue) > 1 else queue[0]


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


class _Handler(BaseHTTPRequestHandler):
    kaggle: KaggleServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        name = path.rpartition("/")[2]
        body = json.loads(raw or b"{}")
        self.kaggle.requests.append(Request(name, path, dict(self.headers), body))
        if self._fault(name):
            return
        try:
            self._check_credentials()
            answer = getattr(self, f"_on_{name}", self._on_unknown)(body)
        except Refusal as refusal:
            self._json(refusal.status, {"code": refusal.status, "message": refusal.message})
        else:
            if answer is not None:
                self._json(200, answer)

    def do_PUT(self) -> None:
        path = urlsplit(self.path).path
        blob = self.kaggle.blobs[path.rpartition("/")[2]]
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        assert not chunked, "the client sends whole files"
        self.kaggle.requests.append(Request("PUT", path, dict(self.headers), len(data)))
        span = self.headers.get("Content-Range", "")
        if not span:
            blob.data = b""
        if not span.startswith("bytes */"):
            fault = self.kaggle.faults["PUT"].pop(0) if self.kaggle.faults["PUT"] else None
            blob.data += data if fault is None else data[: fault.cut or 0]
            if fault is not None:
                self._json(fault.status, {}, fault.headers)
                return
        if len(blob.data) == blob.size:
            self._json(200, {})
        else:
            self._json(308, {}, {"Range": f"bytes=0-{len(blob.data) - 1}"} if blob.data else {})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.kaggle.requests.append(Request("GET", path, dict(self.headers), None))
        if self.kaggle.faults["GET"] and self.kaggle.faults["GET"][0].cut is None and self._fault("GET"):
            return
        kind, _, name = path.lstrip("/").partition("/")
        if kind == "archive":
            slug = name.removesuffix(".zip")
            self._send_file(self.kaggle.archives.get(slug) or archive_of(self.kaggle.competitions[slug]))
        elif kind == "output":
            own = {
                f"{ref}/{file}": data
                for ref, there in self.kaggle.kernel_outputs.items()
                for file, data in there.items()
            }
            self._send_file(own[name] if name in own else self.kaggle.kernel_output[name])
        elif kind == "dataset":
            owner, slug, file = name.split("/")
            self._send_file(self.kaggle.datasets[f"{owner}/{slug}"].versions[-1][file])
        else:
            self._json(404, {"code": 404, "message": f"no {path}"})

    # security, competitions

    def _on_IntrospectToken(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"active": body.get("token") == self.kaggle.key, "username": self.kaggle.user}

    def _on_ListDataFiles(self, body: dict[str, Any]) -> dict[str, Any]:
        files = sorted(self._competition(body).items())
        first = int(body.get("pageToken") or 0)
        last = first + min(int(body.get("pageSize") or 20), 3)  # pages are short here: several are always needed
        page = [{"name": n, "totalBytes": self.kaggle.listed.get(n, len(d))} for n, d in files[first:last]]
        return {"files": page, "nextPageToken": str(last) if last < len(files) else ""}

    def _on_DownloadDataFiles(self, body: dict[str, Any]) -> None:
        self._competition(body)
        self._redirect(f"{BASE}/archive/{body['competitionName']}.zip?signature=x")

    def _on_GetSubmissionLimits(self, body: dict[str, Any]) -> dict[str, Any]:
        self._competition(body)
        return self.kaggle.limits

    def _on_StartSubmissionUpload(self, body: dict[str, Any]) -> dict[str, Any]:
        self._competition(body)
        return self._start_upload(body["fileName"], body["contentLength"])

    def _on_CreateSubmission(self, body: dict[str, Any]) -> dict[str, Any]:
        blob = self._finished(body["blobFileTokens"])
        ref = 1000 + len(self.kaggle.submissions)
        about = {"ref": ref, "fileName": blob.name, "description": body.get("submissionDescription", "")}
        self.kaggle.submissions.append(about | {"competition": body["competitionName"], "data": blob.data})
        if self.kaggle.lose_answers:
            self.kaggle.lose_answers -= 1
            raise Refusal(504, "timed out")
        return {"message": "Successfully submitted", "ref": ref}

    def _on_ListSubmissions(self, body: dict[str, Any]) -> dict[str, Any]:
        found = []
        for submission in reversed(self.kaggle.submissions):
            shown = {key: submission[key] for key in ("ref", "fileName", "description")}
            state = self.kaggle.next_state(f"submission {submission['ref']}", ["PENDING", "PENDING", "DONE"])
            found.append(shown | (self.kaggle.verdict if state == "DONE" else {"status": "PENDING"}))
        return {"submissions": found}

    # blobs, datasets

    def _on_StartBlobUpload(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._start_upload(body["name"], body["contentLength"])

    def _on_GetDatasetStatus(self, body: dict[str, Any]) -> dict[str, Any]:
        ref = self._dataset(body)
        return {"status": self.kaggle.next_state(ref, self.kaggle.dataset_states)}

    def _on_GetDataset(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"currentVersionNumber": len(self.kaggle.datasets[self._dataset(body)].versions)}

    def _on_DownloadDataset(self, body: dict[str, Any]) -> None:
        self._redirect(f"{BASE}/dataset/{self._dataset(body)}/{body['fileName']}")

    def _on_CreateDataset(self, body: dict[str, Any]) -> dict[str, Any]:
        ref = f"{body['ownerSlug']}/{body['slug']}"
        self.kaggle.datasets[ref] = Dataset(body, [self._files(body["files"])])
        self.kaggle.next_state(ref, self.kaggle.dataset_states, restart=True)
        return {"status": "Ok", "url": f"{BASE}/datasets/{ref}"}

    def _on_CreateDatasetVersion(self, body: dict[str, Any]) -> dict[str, Any]:
        ref = self._dataset(body)
        self.kaggle.datasets[ref].versions.append(self._files(body["body"]["files"]))
        self.kaggle.next_state(ref, self.kaggle.dataset_states, restart=True)
        return {"status": "Ok", "url": f"{BASE}/datasets/{ref}"}

    # kernels

    def _on_SaveKernel(self, body: dict[str, Any]) -> dict[str, Any]:
        ref = body["slug"]
        self.kaggle.kernels[ref].append(body)
        self.kaggle.next_state(ref, self.kaggle.kernel_states, restart=True)
        if self.kaggle.run_kernel:
            self.kaggle.run_kernel(self.kaggle, ref)
        about = {"ref": ref, "versionNumber": len(self.kaggle.kernels[ref]), "url": f"{BASE}/code/{ref}"}
        return about | self.kaggle.kernel_answer

    def _on_GetKernelSessionStatus(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"status": self.kaggle.next_state(self._kernel(body), self.kaggle.kernel_states)}

    def _on_GetKernel(self, body: dict[str, Any]) -> dict[str, Any]:
        sent = self.kaggle.kernels[self._kernel(body)][-1]
        blob = {"source": sent["text"], "language": "python", "kernelType": "script", "slug": body["kernelSlug"]}
        return {"blob": blob, "metadata": {}}

    def _on_ListKernelSessionOutput(self, body: dict[str, Any]) -> dict[str, Any]:
        ref = self._kernel(body)
        own = self.kaggle.kernel_outputs.get(ref)
        names, place = sorted(self.kaggle.kernel_output if own is None else own), "" if own is None else f"{ref}/"
        first = int(body.get("pageToken") or 0)
        last = first + min(int(body.get("pageSize") or 20), 5)  # pages are short here
        files = [{"url": f"{BASE}/output/{place}{name}", "fileName": name} for name in names[first:last]]
        page = {"nextPageToken": str(last)} if last < len(names) else {}
        return {"files": files, "log": self.kaggle.kernel_log, **page}

    def _on_unknown(self, body: dict[str, Any]) -> dict[str, Any]:
        raise Refusal(404, f"the stand-in knows no {self.path}")

    # what they share

    def _check_credentials(self) -> None:
        basic = base64.b64encode(f"{self.kaggle.user}:{self.kaggle.key}".encode()).decode()
        if self.headers.get("Authorization") not in (f"Basic {basic}", f"Bearer {self.kaggle.key}"):
            raise Refusal(401, "Unauthenticated")

    def _competition(self, body: dict[str, Any]) -> dict[str, bytes]:
        if body["competitionName"] not in self.kaggle.competitions:
            raise Refusal(404, "Competition not found")
        return self.kaggle.competitions[body["competitionName"]]

    def _dataset(self, body: dict[str, Any]) -> str:
        ref = f"{body['ownerSlug']}/{body['datasetSlug']}"
        if ref not in self.kaggle.datasets:
            raise Refusal(403, "Permission 'datasets.get' was denied")
        return ref

    def _kernel(self, body: dict[str, Any]) -> str:
        ref = f"{body['userName']}/{body['kernelSlug']}"
        if not self.kaggle.kernels[ref]:
            raise Refusal(403, "Permission 'kernels.get' was denied")
        return ref

    def _start_upload(self, name: str, size: int) -> dict[str, Any]:
        token = f"blob{len(self.kaggle.blobs)}"
        self.kaggle.blobs[token] = Blob(name, size)
        return {"token": token, "createUrl": f"{BASE}/upload/{token}"}

    def _finished(self, token: str) -> Blob:
        blob = self.kaggle.blobs[token]
        if len(blob.data) != blob.size:
            raise Refusal(400, f"{blob.name} was not uploaded")
        return blob

    def _files(self, listed: list[dict[str, Any]]) -> dict[str, bytes]:
        blobs = [self._finished(file["token"]) for file in listed]
        return {blob.name: blob.data for blob in blobs}

    def _fault(self, name: str) -> bool:
        if not self.kaggle.faults[name]:
            return False
        fault = self.kaggle.faults[name].pop(0)
        self._json(fault.status, {"code": fault.status, "message": fault.message}, fault.headers)
        return True

    def _redirect(self, address: str) -> None:
        self.send_response(302)
        self.send_header("Location", address)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_file(self, data: bytes) -> None:
        first = 0
        if wanted := self.headers.get("Range"):
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        rest = data[first:]
        headers = {"Content-Length": str(len(rest)), "Accept-Ranges": "bytes", "ETag": '"one"'}
        for key, value in (headers | {"Last-Modified": MODIFIED, "Content-Type": "application/zip"}).items():
            self.send_header(key, value)
        self.end_headers()
        faults = self.kaggle.faults["GET"]
        if faults and faults[0].cut is not None:
            rest = rest[: faults.pop(0).cut]
        self.wfile.write(rest)

    def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(raw)),
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(raw)


def archive_of(files: dict[str, bytes]) -> bytes:
    """A zip of these files, the same bytes every time."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), data)
    return packed.getvalue()
