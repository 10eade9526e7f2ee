"""input.download against the stand-in server, with the real client."""

import hashlib
import json
from pathlib import Path

import pytest
from kaggle_server import BASE, Fault, KaggleServer, archive_of

from console.errors import UserError
from input.download import download_competition, download_zenodo, slug_of

SIZE = 3_000_000  # the client writes whole megabytes
FILES = {
    "train.csv": b"fname,label\na.wav,Bark\n",
    "sample_submission.csv": b"fname,label\nb.wav,Bark\n",
    "audio_train.zip": archive_of({"a.wav": bytes(SIZE)}),
    "audio_test.zip": archive_of({"audio_test/b.wav": bytes(range(256)) * 100}),
}


@pytest.fixture
def server(kaggle: KaggleServer) -> KaggleServer:
    kaggle.competitions["tiny"] = dict(FILES)
    return kaggle


def test_downloads_unpacks_and_checks(server: KaggleServer, tmp_path: Path) -> None:
    folder = tmp_path / "input" / "tiny"
    download_competition("tiny", folder)
    assert (folder / "train.csv").read_bytes() == FILES["train.csv"]
    assert (folder / "audio_train" / "a.wav").read_bytes() == bytes(SIZE)
    assert (folder / "audio_test" / "b.wav").read_bytes() == bytes(range(256)) * 100
    assert not (folder / "tiny.zip").exists()
    assert len(server.sent("ListDataFiles")) == 2  # four files on pages of three


def test_existing_files_are_not_downloaded_again(server: KaggleServer, tmp_path: Path) -> None:
    download_competition("tiny", tmp_path / "tiny")
    download_competition("tiny", tmp_path / "tiny")
    assert server.names().count("DownloadDataFiles") == 1


def test_a_truncated_download_continues(server: KaggleServer, tmp_path: Path, naps: list[float]) -> None:
    server.fail("GET", Fault(cut=1_500_000))
    download_competition("tiny", tmp_path / "tiny")
    ranges = [r.headers.get("Range") for r in server.requests if r.name == "GET"]
    assert ranges == [None, "bytes=1048576-"]


def test_an_interrupted_download_continues_in_another_run(
    server: KaggleServer, tmp_path: Path, naps: list[float]
) -> None:
    server.fail("GET", Fault(cut=1_500_000), *[Fault(cut=0)] * 6)
    with pytest.raises(UserError, match=r"downloading tiny \(run the same command to continue\)") as refused:
        download_competition("tiny", tmp_path / "tiny")
    assert "\n" not in str(refused.value)
    server.faults.clear()
    download_competition("tiny", tmp_path / "tiny")
    ranges = [r.headers.get("Range") for r in server.requests if r.name == "GET"]
    assert ranges[-1] == "bytes=1048576-"
    assert (tmp_path / "tiny" / "audio_train" / "a.wav").exists()


def test_a_size_that_differs_from_the_listing_is_an_error(server: KaggleServer, tmp_path: Path) -> None:
    server.listed["train.csv"] = 999
    with pytest.raises(UserError, match=r"not of the size that Kaggle lists: train\.csv"):
        download_competition("tiny", tmp_path / "tiny")


def test_a_broken_zip_is_removed(server: KaggleServer, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    download_competition("tiny", folder)
    (folder / "train.csv").unlink()
    whole = archive_of(FILES)
    at = whole.index(FILES["train.csv"])
    server.archives["tiny"] = whole[:at] + b"X" + whole[at + 1 :]
    with pytest.raises(UserError, match=r"cannot be unpacked \(Bad CRC-32"):
        download_competition("tiny", folder)
    assert not (folder / "tiny.zip").exists()
    server.archives.clear()
    download_competition("tiny", folder)
    assert (folder / "train.csv").read_bytes() == FILES["train.csv"]


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (Fault(401, "Unauthenticated"), "create a token at https://www.kaggle.com/settings/api"),
        (Fault(403, "Permission 'competitions.participate' was denied"), "accept the rules at https://www.kaggle.com"),
        (Fault(404, "Competition not found"), "the slug is the last part of a competition's URL"),
    ],
)
def test_an_error_of_kaggle_is_one_line_of_cause_and_remedy(
    server: KaggleServer, tmp_path: Path, fault: Fault, remedy: str
) -> None:
    server.fail("ListDataFiles", fault)
    with pytest.raises(UserError) as refused:
        download_competition("tiny", tmp_path / "tiny")
    text = str(refused.value)
    assert f"{fault.status} {fault.message}" in text
    assert remedy in text
    assert "\n" not in text


def test_a_wrong_slug_is_an_error(server: KaggleServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no https://www\.kaggle\.com/competitions/tinny"):
        download_competition("tinny", tmp_path / "tinny")


def test_too_many_requests_wait_as_long_as_the_server_says(
    server: KaggleServer, tmp_path: Path, naps: list[float]
) -> None:
    server.fail("ListDataFiles", Fault(429, "slow down", {"Retry-After": "7"}))
    download_competition("tiny", tmp_path / "tiny")
    assert naps == [7.0]


def test_an_outage_is_retried_then_an_error(server: KaggleServer, tmp_path: Path, naps: list[float]) -> None:
    server.fail("ListDataFiles", *[Fault(503, "unavailable")] * 5)
    with pytest.raises(UserError, match="503 unavailable: Kaggle has an internal error"):
        download_competition("tiny", tmp_path / "tiny")
    assert naps == [2.0, 4.0, 8.0, 16.0]


def test_without_credentials_it_says_how_to_get_them(
    server: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    with pytest.raises(UserError, match=r"no Kaggle credentials: create a token at .*settings/api"):
        download_competition("tiny", tmp_path / "tiny")
    assert server.requests == []


ZIPS = {
    "FSDKaggle2018.meta.zip": archive_of(
        {
            "FSDKaggle2018.meta/train_post_competition.csv": b"fname,label,manually_verified\na.wav,Bark,1\n",
            "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv": b"fname,label,usage\nb.wav,Bark,Public\n",
        }
    ),
    "FSDKaggle2018.audio_train.zip": archive_of({"FSDKaggle2018.audio_train/a.wav": bytes(5000)}),
    "FSDKaggle2018.audio_test.zip": archive_of({"FSDKaggle2018.audio_test/b.wav": bytes(5000)}),
}


def zenodo(server: KaggleServer, lie: bool = False) -> str:
    """The stand-in's copy of the record; `lie` makes one checksum wrong."""
    files = [
        {
            "key": name,
            "size": len(data),
            "checksum": "md5:" + hashlib.md5(data + (b"x" if lie and "meta" in name else b"")).hexdigest(),
            "links": {"self": f"{BASE}/output/{name}"},
        }
        for name, data in ZIPS.items()
    ]
    server.kernel_output = {**ZIPS, "record": json.dumps({"files": files}).encode()}
    return f"{BASE}/output/record"


def test_zenodo_files_are_checked_against_their_sums(server: KaggleServer, tmp_path: Path) -> None:
    record = zenodo(server)
    download_zenodo(tmp_path / "fsd", record)
    assert (tmp_path / "fsd" / "FSDKaggle2018.audio_train" / "a.wav").exists()
    download_zenodo(tmp_path / "fsd", record)
    assert [r.path for r in server.requests if r.path.endswith("meta.zip")] == ["/output/FSDKaggle2018.meta.zip"]


def test_a_zenodo_file_with_another_sum_is_an_error(server: KaggleServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"meta\.zip: md5 is [0-9a-f]{32}, expected [0-9a-f]{32}"):
        download_zenodo(tmp_path / "fsd", zenodo(server, lie=True))
    assert not list((tmp_path / "fsd").glob("*meta*"))


def test_a_zenodo_download_continues(server: KaggleServer, tmp_path: Path) -> None:
    record = zenodo(server)
    server.fail("GET", Fault(cut=SIZE), Fault(cut=100))  # the record passes
    with pytest.raises(UserError, match="download stopped at 100 of"):
        download_zenodo(tmp_path / "fsd", record)
    download_zenodo(tmp_path / "fsd", record)
    assert "bytes=100-" in [r.headers.get("Range") for r in server.requests]
    assert (tmp_path / "fsd" / "FSDKaggle2018.meta").is_dir()


@pytest.mark.parametrize(
    ("given", "slug"),
    [
        ("freesound-audio-tagging", "freesound-audio-tagging"),
        ("https://www.kaggle.com/competitions/tiny-tagging", "tiny-tagging"),
        ("https://www.kaggle.com/c/tiny-tagging/rules?x=1", "tiny-tagging"),
    ],
)
def test_a_url_gives_its_slug(given: str, slug: str) -> None:
    assert slug_of(given) == slug


@pytest.mark.parametrize("given", ["", "a/b", "../x", "https://example.org/data.zip"])
def test_other_text_than_a_competition_is_an_error(given: str) -> None:
    with pytest.raises(UserError, match="use the last part of its URL"):
        slug_of(given)
