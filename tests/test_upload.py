"""submission.upload and submit.py --upload against the stand-in server, with the real client."""

from pathlib import Path

import pytest
from kaggle_server import Fault, KaggleServer

from configs.paths import Paths
from console.errors import UserError
from input.kaggle_client import Kaggle
from submission.upload import submit_file

SLUG = "tiny-tagging"


@pytest.fixture
def file(tmp_path: Path, kaggle: KaggleServer, naps: list[float]) -> Path:
    kaggle.competitions[SLUG] = {}
    file = tmp_path / "submission.csv"
    file.write_text("fname,label\na.wav,Bark Meow Cello\n")
    return file


def refusal(file: Path) -> str:
    with pytest.raises(UserError) as refused:
        submit_file(Kaggle(), SLUG, file, "one")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_bytes_arrive_and_the_score_is_printed(
    file: Path, kaggle: KaggleServer, capsys: pytest.CaptureFixture[str]
) -> None:
    submit_file(Kaggle(), SLUG, file, "one")
    (sent,) = kaggle.submissions
    assert (sent["data"], sent["description"], sent["fileName"]) == (file.read_bytes(), "one", "submission.csv")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "tiny-tagging: 4 submissions left today"
    assert said[-1] == "submission 1000: public score 0.912, private score 0.905"
    assert kaggle.names().count("ListSubmissions") == 4  # what was there, two that are pending, the score


def test_a_503_in_the_middle_of_the_upload_is_tried_again(file: Path, kaggle: KaggleServer) -> None:
    kaggle.fail("PUT", Fault(503, cut=10))
    submit_file(Kaggle(), SLUG, file, "one")
    assert [s["data"] for s in kaggle.submissions] == [file.read_bytes()]
    assert kaggle.names().count("StartSubmissionUpload") == 2


def test_an_upload_that_never_gets_through_is_an_error(file: Path, kaggle: KaggleServer, naps: list[float]) -> None:
    kaggle.fail("PUT", *[Fault(503, cut=10)] * 5)
    assert refusal(file) == ("submitting submission.csv: the upload failed 5 times: run the same command again later")
    assert naps == [2.0, 4.0, 8.0, 16.0, 32.0]


def test_an_outage_after_the_submission_arrived_does_not_submit_twice(file: Path, kaggle: KaggleServer) -> None:
    """CreateSubmission does its work, but its answer is lost."""
    kaggle.lose_answers = 1
    submit_file(Kaggle(), SLUG, file, "one")
    assert len(kaggle.submissions) == 1
    assert kaggle.names().count("CreateSubmission") == 1


def test_an_outage_before_it_arrived_is_tried_again(file: Path, kaggle: KaggleServer) -> None:
    kaggle.fail("CreateSubmission", Fault(502, "bad gateway"))
    submit_file(Kaggle(), SLUG, file, "one")
    assert (len(kaggle.submissions), kaggle.names().count("CreateSubmission")) == (1, 2)


def test_the_daily_limit_is_checked_before_the_upload(file: Path, kaggle: KaggleServer) -> None:
    kaggle.limits = {"numToday": 5, "numTotal": 9, "numAllowedNow": 0}
    assert refusal(file) == "tiny-tagging: today's 5 submissions are used: submit again after midnight UTC"
    assert "StartSubmissionUpload" not in kaggle.names()


def test_the_limit_of_the_whole_competition_is_an_error(file: Path, kaggle: KaggleServer) -> None:
    kaggle.limits = {"numToday": 0, "numTotal": 2, "numAllowedNow": 0, "limitedByTotal": True}
    assert refusal(file) == "tiny-tagging: all of its 2 submissions are used"


def test_a_daily_limit_that_the_server_knows_better_is_an_error(file: Path, kaggle: KaggleServer) -> None:
    fact = "Your team has used its daily Submission allowance (5) today, please try again tomorrow UTC."
    kaggle.fail("CreateSubmission", Fault(400, fact))
    assert f"400 {fact}" in refusal(file)
    assert kaggle.names().count("CreateSubmission") == 1


def test_an_unknown_allowance_does_not_stop_a_late_submission(file: Path, kaggle: KaggleServer) -> None:
    kaggle.limits = {}
    submit_file(Kaggle(), SLUG, file, "one")
    assert len(kaggle.submissions) == 1


def test_a_rejected_file_is_an_error(file: Path, kaggle: KaggleServer) -> None:
    kaggle.verdict = {"status": "ERROR", "errorDescription": "Evaluation Exception: Row 3 has an unknown label"}
    assert refusal(file) == (
        "submission 1000: Kaggle rejects the file: Evaluation Exception: Row 3 has an unknown label"
    )


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(401, "Unauthenticated"), "Kaggle rejects these credentials"),
        (Fault(403, "denied"), "tiny-tagging/rules and accept the rules"),
        (Fault(404, "Not found"), "exists and still takes submissions"),
    ],
)
def test_refusals(file: Path, kaggle: KaggleServer, fault: Fault, message: str) -> None:
    kaggle.fail("GetSubmissionLimits", fault)
    assert message in refusal(file)


def test_429_waits_as_long_as_the_server_says(file: Path, kaggle: KaggleServer, naps: list[float]) -> None:
    kaggle.fail("ListSubmissions", Fault(429, "slow down", {"Retry-After": "9"}))
    submit_file(Kaggle(), SLUG, file, "one")
    assert naps[0] == 9.0


def test_a_long_wait_is_an_error_instead(file: Path, kaggle: KaggleServer, naps: list[float]) -> None:
    kaggle.fail("ListSubmissions", Fault(429, "slow down", {"Retry-After": "3600"}))
    assert "too many requests: wait a few minutes" in refusal(file)
    assert naps == []


def test_submit_py_uploads_what_it_wrote(
    kaggle: KaggleServer, naps: list[float], blended: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import submit

    kaggle.competitions[SLUG] = {}
    output = tmp_path / "out.csv"
    arguments = ["--input", str(blended.input), "--work", str(blended.work), "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["submit.py", *arguments, "--upload", "-m", "by hand"])
    submit.main()
    (sent,) = kaggle.submissions
    assert (sent["data"], sent["competition"]) == (output.read_bytes(), SLUG)


def test_submit_py_needs_a_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import submit

    monkeypatch.setattr("sys.argv", ["submit.py", "--upload"])
    with pytest.raises(SystemExit):
        submit.main()
    assert "-m TEXT" in capsys.readouterr().err
