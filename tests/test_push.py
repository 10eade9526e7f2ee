"""submission.push against the stand-in server, with the real client: what it sends, and what it says when it fails."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from kaggle_server import Dataset, Fault, KaggleServer
from sandbox import why_not
from small_wheels import make_wheel

from configs.paths import Paths
from console.errors import UserError
from submission.bundle import bundle
from submission.kernel import last_message
from submission.kernel_script import sha256
from submission.push import push

DATASET, KERNEL = "tester/tiny-tagging-kit", "tester/tiny-tagging-kit-predict"


@pytest.fixture
def paths(blended: Paths, kaggle: KaggleServer, tmp_path: Path, naps: list[float]) -> Paths:
    """A bundle of one's own, and a stand-in whose kernel writes what the local submit.py wrote."""
    work = tmp_path / "work"
    shutil.copytree(blended.work, work, ignore=shutil.ignore_patterns("features"))
    paths = Paths(blended.input, work)
    bundle(paths, "default", kaggle.user, None)
    kaggle.competitions["tiny-tagging"] = {}
    kaggle.run_kernel = answer_of(paths)
    return paths


def answer_of(paths: Paths):  # type: ignore[no-untyped-def]
    def run(server: KaggleServer, kernel: str) -> None:
        manifest = sha256(paths.work / "kaggle" / "dataset" / "kit_manifest.json")
        server.kernel_output = {
            "submission.csv": (paths.work / "submission.csv").read_bytes(),
            "report.json": json.dumps({"manifest_sha256": manifest}).encode(),
        }

    return run


def refusal(paths: Paths, **options) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as refused:
        push(paths, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_dataset_arrives_whole_and_private(paths: Paths, kaggle: KaggleServer, tmp_path: Path) -> None:
    kaggle.dataset_states = ["NOT_YET_PERSISTED", "BLOBS_DECOMPRESSED", "READY"]
    push(paths)
    about = kaggle.datasets[DATASET].about
    assert (about["title"], about["licenseName"], about["isPrivate"]) == ("Tiny Tagging Kit", "other", True)
    kaggle.mount(DATASET, tmp_path / "mounted")
    sent = paths.work / "kaggle" / "dataset"
    there = {str(f.relative_to(sent)): f.read_bytes() for f in sent.rglob("*") if f.is_file()}
    del there["dataset-metadata.json"]
    arrived = tmp_path / "mounted"
    assert {str(f.relative_to(arrived)): f.read_bytes() for f in arrived.rglob("*") if f.is_file()} == there
    before_kernel = kaggle.names()[: kaggle.names().index("SaveKernel")]
    assert before_kernel.count("GetDatasetStatus") == 5  # two look-ups that find none, then three polls


def test_the_kernel_is_private_offline_and_has_its_sources(paths: Paths, kaggle: KaggleServer) -> None:
    assert push(paths).read_bytes() == (paths.work / "submission.csv").read_bytes()
    (sent,) = kaggle.sent("SaveKernel")
    text = sent.pop("text")
    assert sent == {
        "slug": KERNEL,
        "newTitle": "Tiny Tagging Kit Predict",
        "language": "python",
        "kernelType": "script",
        "isPrivate": True,
        "enableGpu": True,
        "enableTpu": False,
        "enableInternet": False,
        "machineShape": "NvidiaTeslaT4",
        "datasetDataSources": [DATASET],
        "competitionDataSources": ["tiny-tagging"],
    }
    assert f'MANIFEST_SHA256 = "{sha256(paths.work / "kaggle" / "dataset" / "kit_manifest.json")}"' in text
    assert 'COMPETITION = "tiny-tagging"' in text


def test_without_a_gpu(paths: Paths, kaggle: KaggleServer) -> None:
    push(paths, machine="cpu")
    (sent,) = kaggle.sent("SaveKernel")
    assert (sent["enableGpu"], sent.get("machineShape", "")) == (False, "")


def test_a_second_push_makes_a_version_only_of_what_changed(paths: Paths, kaggle: KaggleServer) -> None:
    push(paths)
    uploads = kaggle.names().count("StartBlobUpload")
    push(paths)
    assert kaggle.names().count("StartBlobUpload") == uploads
    assert len(kaggle.kernels[KERNEL]) == 2
    wheel = make_wheel(paths.work, "tiny")
    bundle(paths, "default", kaggle.user, None, [wheel])
    push(paths)
    old, new = kaggle.datasets[DATASET].versions
    assert zipfile.ZipFile(io.BytesIO(new["wheels.zip"])).read(wheel.name) == wheel.read_bytes()
    assert "wheels.zip" not in old
    assert kaggle.sent("CreateDatasetVersion")[0]["body"]["versionNotes"].startswith("kit_manifest.json ")


def test_a_dataset_of_another_kind_is_not_replaced(paths: Paths, kaggle: KaggleServer) -> None:
    kaggle.datasets[DATASET] = Dataset({}, [{"mine.csv": b"a,b"}])
    kaggle.fail("DownloadDataset", Fault(404, "Not found"))
    assert f"{DATASET}: the name is taken by a dataset that is not of this kit (https://" in (text := refusal(paths))
    assert text.endswith("use another with --slug") and len(kaggle.datasets[DATASET].versions) == 1


def test_an_upload_cut_by_a_503_goes_on(paths: Paths, kaggle: KaggleServer, tmp_path: Path) -> None:
    kaggle.fail("PUT", Fault(503, cut=200))
    push(paths)
    spans = [r.headers["Content-Range"] for r in kaggle.requests if r.name == "PUT" and "Content-Range" in r.headers]
    size = spans[0].removeprefix("bytes */")
    assert spans == [f"bytes */{size}", f"bytes 200-{int(size) - 1}/{size}"]
    kaggle.mount(DATASET, tmp_path / "mounted")  # fails on a damaged zip


def test_a_file_that_cannot_be_uploaded_stops_the_push(paths: Paths, kaggle: KaggleServer) -> None:
    """The client itself would leave it out and make the dataset."""
    kaggle.fail("PUT", Fault(400))
    assert "Kaggle did not accept it" in refusal(paths)
    assert kaggle.datasets == {}


def test_429_is_waited_out(paths: Paths, kaggle: KaggleServer, naps: list[float]) -> None:
    kaggle.fail("StartBlobUpload", Fault(429, "slow down", {"Retry-After": "3"}))
    kaggle.fail("CreateDataset", Fault(429, "slow down", {"Retry-After": "4"}))
    kaggle.fail("GetKernelSessionStatus", Fault(429, "slow down", {"Retry-After": "5"}))
    push(paths)
    assert [nap for nap in naps if nap in (3.0, 4.0, 5.0)] == [3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("method", "fault", "message"),
    [
        ("GetDatasetStatus", Fault(401, "Unauthenticated"), "Kaggle rejects these credentials: create a token"),
        ("CreateDataset", Fault(400, "quota exceeded"), "creating tester/tiny-tagging-kit: 400 quota exceeded"),
        ("SaveKernel", Fault(403, "phone verification needed"), f"pushing {KERNEL}: 403 phone verification needed"),
    ],
)
def test_a_server_error_is_one_line(
    paths: Paths, kaggle: KaggleServer, method: str, fault: Fault, message: str
) -> None:
    kaggle.fail(method, fault)
    assert message in refusal(paths)


def test_a_dataset_that_fails_to_unpack_is_an_error(paths: Paths, kaggle: KaggleServer) -> None:
    kaggle.dataset_states = ["BLOBS_RECEIVED", "FAILED"]
    assert "Kaggle's processing failed: run submission.push again" in refusal(paths)


def test_a_taken_slug_is_an_error(paths: Paths, kaggle: KaggleServer) -> None:
    """The client looks it up itself, and ends well with an error in its answer."""
    kaggle.fail("GetDatasetStatus", Fault(403, "denied"))
    push_once = paths.work / "kaggle" / "dataset"
    from kaggle_server import Dataset

    kaggle.datasets[DATASET] = Dataset({}, [{"other.bin": b""}])
    assert push_once.exists()
    text = refusal(paths)
    assert "already in use" in text
    assert "submission.bundle --slug" in text


def test_a_source_that_was_not_attached_is_an_error(paths: Paths, kaggle: KaggleServer) -> None:
    kaggle.kernel_answer = {"invalidCompetitionSources": ["tiny-tagging"]}
    assert "Kaggle did not attach tiny-tagging: join the competition" in refusal(paths)


def test_a_kernel_that_is_refused_is_an_error(paths: Paths, kaggle: KaggleServer) -> None:
    kaggle.kernel_answer = {"error": "Maximum batch GPU session count of 2 reached."}
    text = refusal(paths)
    assert (
        "Kaggle refuses it: Maximum batch GPU session count of 2 reached: wait until another of your sessions" in text
    )


def test_a_kernel_that_fails_is_an_error_with_its_own_message(paths: Paths, kaggle: KaggleServer) -> None:
    kaggle.kernel_states = ["QUEUED", "RUNNING", "ERROR"]
    parts = ["Traceback ...\n", "error: another version of the data", "set is attached: push again\n", "tail\n"]
    kaggle.kernel_log = json.dumps([{"stream_name": "stderr", "time": 1.0, "data": part} for part in parts])
    assert "ended with error: error: another version of the dataset is attached: push again (https://" in refusal(paths)


def test_last_message() -> None:
    assert last_message('[{"data": "one\\n"}, {"data": "two\\n"}]') == "two"
    assert last_message("plain\ntext") == "text"
    assert last_message("") == ""


def test_an_output_of_another_bundle_is_refused(paths: Paths, kaggle: KaggleServer) -> None:
    def stale(server: KaggleServer, kernel: str) -> None:
        server.kernel_output = {"report.json": b'{"manifest_sha256": "0"}', "submission.csv": b"fname,label\n"}

    kaggle.run_kernel = stale
    assert "made from another bundle" in refusal(paths)


def test_an_invalid_output_is_refused(paths: Paths, kaggle: KaggleServer) -> None:
    write = answer_of(paths)

    def shorter(server: KaggleServer, kernel: str) -> None:
        write(server, kernel)
        server.kernel_output["submission.csv"] = b"fname,label\n"

    kaggle.run_kernel = shorter
    assert "its clips are not those of the sample submission" in refusal(paths)


def test_a_changed_bundle_is_not_pushed(paths: Paths, kaggle: KaggleServer) -> None:
    (paths.work / "kaggle" / "dataset" / "weights.json").write_text("{}")
    assert "files changed: weights.json" in refusal(paths)
    assert kaggle.requests == []


def test_somebody_elses_bundle_is_not_pushed(paths: Paths, kaggle: KaggleServer) -> None:
    bundle(paths, "default", "somebody", None)
    assert "made for somebody/tiny-tagging-kit, but you are tester" in refusal(paths)


def test_submit_looks_up_the_limit_first_and_waits_for_the_score(
    paths: Paths, kaggle: KaggleServer, capsys: pytest.CaptureFixture[str]
) -> None:
    push(paths, submit=True, message="two small ones")
    names = kaggle.names()
    assert names.index("GetSubmissionLimits") < names.index("StartBlobUpload")
    (submission,) = kaggle.submissions
    assert submission["data"] == (paths.work / "submission.csv").read_bytes()
    assert (submission["competition"], submission["description"]) == ("tiny-tagging", "two small ones")
    assert "submission 1000: public score 0.912, private score 0.905" in capsys.readouterr().out


def test_a_spent_allowance_stops_before_anything_is_uploaded(paths: Paths, kaggle: KaggleServer) -> None:
    kaggle.limits = {"numToday": 5, "numTotal": 9, "numAllowedNow": 0}
    assert "today's 5 submissions are used: submit again after midnight UTC" in refusal(paths, submit=True)
    assert kaggle.names() == ["GetSubmissionLimits"]


@pytest.mark.skipif(bool(why_not()), reason=f"no namespaces here: {why_not()}")
def test_the_same_on_port_80_of_a_namespace(paths: Paths, tmp_path: Path) -> None:
    """Without a proxy: the client talks to http://localhost itself, in a process of its own, by the command line."""
    script = f"""
import json, subprocess, sys, os
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from kaggle_server import KaggleServer
from test_push import answer_of
from configs.paths import Paths
paths = Paths(Path({str(paths.input)!r}), Path({str(paths.work)!r}))
server = KaggleServer(port=80)
server.competitions["tiny-tagging"] = {{}}
server.run_kernel = answer_of(paths)
server.kernel_states, server.dataset_states = ["COMPLETE"], ["READY"]
home = Path({str(tmp_path)!r}) / "other-home"
home.mkdir()
env = {{k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("KAGGLE")}}
command = [sys.executable, "-m", "submission.push", "--input", str(paths.input), "--work", str(paths.work)]
done = subprocess.run(command, env=env | server.environment(home), capture_output=True, text=True)
print(json.dumps([done.returncode, done.stdout, done.stderr, sorted(server.datasets), sorted(server.kernels)]))
"""
    enter = 'ip link set lo up && exec "$@"'
    command = ["unshare", "-rn", "sh", "-c", enter, "sh", sys.executable, "-c", script]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    status, out, err, datasets, kernels = json.loads(done.stdout)
    assert (status, err, datasets, kernels) == (0, "", [DATASET], [KERNEL])
    assert out.endswith(f"-> {paths.work / 'kaggle' / 'submission.csv'}\n")
