"""input.kaggle_client: ways to sign in, and that no secret is ever shown."""

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CANARY
from kaggle_server import Fault, KaggleServer
from test_push import answer_of

from configs.paths import Paths
from console.errors import UserError
from input.kaggle_client import Kaggle
from submission.bundle import bundle


def test_the_client_talks_to_the_stand_in_only(kaggle: KaggleServer) -> None:
    from kaggle.api.kaggle_api_extended import KaggleApi

    assert KaggleApi.args == ["--local"]
    assert Kaggle().user == "tester"


def test_an_access_token_signs_in(kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    token = Path(os.environ["HOME"], ".kaggle", "access_token")
    token.parent.mkdir()
    token.write_text(CANARY + "\n")
    assert Kaggle().user == "tester"
    assert kaggle.sent("IntrospectToken") == [{"token": CANARY}]


@pytest.mark.parametrize("fault", [None, Fault(401, f"bad token {CANARY}")])
def test_a_rejected_token_is_an_error_that_does_not_show_it(
    kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch, fault: Fault | None
) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", CANARY)
    kaggle.key = "another"
    if fault:
        kaggle.fail("IntrospectToken", fault)
    with pytest.raises(UserError, match="create a token at https") as refused:
        Kaggle()
    assert CANARY not in str(refused.value)


def test_a_token_that_the_server_echoes_is_hidden(kaggle: KaggleServer) -> None:
    client = Kaggle()
    basic = base64.b64encode(f"{kaggle.user}:{CANARY}".encode()).decode()
    kaggle.fail("ListDataFiles", Fault(400, f"who is {CANARY}? You sent Basic {basic}"))
    with pytest.raises(UserError) as refused:
        client.call("listing", client.api.competition_list_files, "tiny")
    assert str(refused.value) == "listing: 400 who is ***? You sent Basic ***"


def test_no_answer_is_an_error(kaggle: KaggleServer, naps: list[float]) -> None:
    client = Kaggle()
    kaggle.close()
    with pytest.raises(UserError, match="no answer from Kaggle: check the network"):
        client.call("listing", client.api.competition_list_files, "tiny", tries=1)


def everything_written(*folders: Path) -> bytes:
    return b"".join(f.read_bytes() for folder in folders for f in sorted(folder.rglob("*")) if f.is_file())


@pytest.mark.parametrize("verbose", ["", "1"])
def test_the_token_appears_nowhere(blended: Paths, kaggle: KaggleServer, tmp_path: Path, verbose: str) -> None:
    """Bundle, push and submit from the command line; VERBOSE makes the client itself print its headers."""
    work = tmp_path / "work"
    shutil.copytree(blended.work, work, ignore=shutil.ignore_patterns("features"))
    paths = Paths(blended.input, work)
    kaggle.competitions["tiny-tagging"] = {}
    kaggle.run_kernel = answer_of(paths)
    kaggle.kernel_states, kaggle.verdict = ["COMPLETE"], {"status": "ERROR", "errorDescription": f"no, {CANARY}"}
    env = {**os.environ, "VERBOSE": verbose, "PYTHONPATH": str(Path(__file__).parent.parent)}
    places = ["--input", str(paths.input), "--work", str(work)]
    code = "import runpy, sys, time; time.sleep = lambda seconds: None; module = sys.argv.pop(1); "
    code += "runpy.run_module(module, run_name='__main__')"
    said = ""
    for command in (["submission.bundle"], ["submission.push", "--submit", "-m", "canary"]):
        words = [sys.executable, "-c", code, *command, *places]
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        said += done.stdout + done.stderr
    assert "Kaggle rejects the file: no, ***" in said
    assert CANARY not in said
    sent = [r for r in kaggle.requests if CANARY in str(r.body) or CANARY in r.path]
    assert sent == []
    assert all(CANARY.encode() not in data for d in kaggle.datasets.values() for v in d.versions for data in v.values())
    written = everything_written(work, Path(os.environ["HOME"]))
    assert CANARY.encode() not in written
    assert b"kit_manifest.json" in written  # the search reads what it should


def test_the_bundle_excludes_credentials(blended: Paths, tmp_path: Path) -> None:
    """A token lies in the work folder or next to the code."""
    work = tmp_path / "work"
    shutil.copytree(blended.work, work, ignore=shutil.ignore_patterns("features"))
    for place in (work / "kaggle.json", work / "runs" / "demo_vggish" / "fold0" / "access_token"):
        place.write_text(CANARY)
    folder = bundle(Paths(blended.input, work), "default", "me")
    assert CANARY.encode() not in everything_written(folder)
