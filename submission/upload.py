"""Submit a file to a competition, and wait for its score."""

import time
from pathlib import Path
from typing import Any

from console.errors import UserError
from console.output import say
from input.kaggle_client import Kaggle, KaggleFault

TRIES = 5
POLL = 10.0  # seconds
LIMIT = 3600.0  # seconds that a score may take


def submit_file(kaggle: Kaggle, competition: str, file: Path, message: str) -> None:
    """Upload a submission and print its score. Raises UserError on a refusal, a spent allowance or a rejected file."""
    check_allowance(kaggle, competition)
    ref = upload(kaggle, competition, file, message)
    say(f"{file}: submitted to {competition} (submission {ref}), waiting for its score")
    say(wait_for_score(kaggle, competition, ref))


def check_allowance(kaggle: Kaggle, competition: str) -> None:
    """Print how many submissions are left today. Raises UserError where none is."""
    step = f"looking up the submission limits of {competition}"
    limits = kaggle.call(step, kaggle.api.competition_get_submission_limits, competition, hints=hints_for(competition))
    if limits.num_allowed_now > 0:
        say(f"{competition}: {limits.num_allowed_now} submissions left today")
    elif limits.limited_by_total:
        raise UserError(f"{competition}: all of its {limits.num_total} submissions are used")
    elif limits.num_today > 0:
        raise UserError(
            f"{competition}: today's {limits.num_today} submissions are used: submit again after midnight UTC"
        )
    else:  # zero of everything: Kaggle knows no team of this user there
        say(f"{competition}: Kaggle gives no limit; if it refuses the file, join at {hints_for(competition)[403]}")


def hints_for(competition: str) -> dict[int, str]:
    address = f"https://www.kaggle.com/competitions/{competition}"
    return {
        400: f"see {address}/submissions",
        403: f"{address}/rules and accept the rules",
        404: f"check that {address} exists and still takes submissions",
    }


def upload(kaggle: Kaggle, competition: str, file: Path, message: str) -> int:
    """The number of the new submission. Unlike the client, which stops at the first 503, this tries again, but not
    where the submission arrived although its answer was lost."""
    known = {s.ref for s in submissions(kaggle, competition)}
    step = f"submitting {file.name}"
    for attempt in range(1, TRIES + 1):
        try:
            answer = kaggle.call(
                step,
                kaggle.api.competition_submit,
                *(str(file), message, competition),
                hints=hints_for(competition),
                quiet=True,
                tries=1,
            )
            if answer.message != kaggle.api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
                return int(answer.ref)
            last = KaggleFault(f"{step}: the upload failed {attempt} times: run the same command again later", None)
        except KaggleFault as fault:
            if not fault.temporary:
                raise
            last = fault
        time.sleep(2.0**attempt)
        if arrived := [s.ref for s in submissions(kaggle, competition) if s.ref not in known]:
            return int(max(arrived))
    raise last


def submissions(kaggle: Kaggle, competition: str) -> list[Any]:
    """The latest submissions, newest first."""
    step = f"listing the submissions to {competition}"
    method = kaggle.api.competition_submissions
    return list(kaggle.call(step, method, competition, hints=hints_for(competition)) or [])


def wait_for_score(kaggle: Kaggle, competition: str, ref: int) -> str:
    """The line with the score. Raises UserError where Kaggle rejects the file, or takes too long."""
    for _ in range(round(LIMIT / POLL)):
        found = next((s for s in submissions(kaggle, competition) if s.ref == ref), None)
        if found is not None and found.status.name == "ERROR":
            reason = kaggle.redact(found.error_description or "no reason given")
            raise UserError(f"submission {ref}: Kaggle rejects the file: {reason}")
        if found is not None and found.status.name == "COMPLETE":
            scores = [f"{kind} {score}" for kind, score in _scores(found) if score]
            return f"submission {ref}: {', '.join(scores) or 'scored, but no score is shown yet'}"
        time.sleep(POLL)
    address = f"https://www.kaggle.com/competitions/{competition}/submissions"
    raise UserError(f"submission {ref}: no score after {LIMIT / 60:.0f} minutes: see {address}")


def _scores(submission: Any) -> list[tuple[str, str | None]]:
    return [("public score", submission.public_score), ("private score", submission.private_score)]
