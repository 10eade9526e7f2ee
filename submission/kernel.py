"""A script kernel on Kaggle: written, pushed, waited for, and its errors in one line."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from console.errors import UserError
from console.output import say
from input.kaggle_client import Kaggle, KaggleFault
from submission import kernel_script as script
from submission.bundle import title_of

MACHINE = "NvidiaTeslaT4"  # two of them; the faster P100 is no longer offered
POLL = 15.0  # seconds
LIMIT = 13 * 3600.0  # seconds; Kaggle stops a kernel after 12 hours at most, and it may have to queue
REFUSALS = {  # what Kaggle's words contain -> remedy
    "session count": "wait until another of your sessions has ended, or stop it, then run the same command again",
    "quota": "your GPU hours of the week are used: see https://www.kaggle.com/settings, or use --machine cpu",
    "already in use": "the name is taken: use another with --slug",
    "notebook not found": "the name is taken by another account's kernel, or Kaggle deleted yours: use another --slug",
}


def write_kernel(
    folder: Path,
    kernel: str,
    constants: Mapping[str, str],
    dataset: str,
    competition: str,
    machine: str,
    internet: bool = False,
    sources: Sequence[str] = (),
) -> None:
    """kernel.py: kernel_script with its constants filled in, and kernel-metadata.json. kernel: owner/slug; sources:
    kernels whose output it reads."""
    text = Path(script.__file__).read_text()
    for name, value in constants.items():
        before = f'{name} = "{getattr(script, name)}"'
        assert text.count(before) == 1
        text = text.replace(before, f'{name} = "{value}"')
    metadata = {
        "id": kernel,
        "title": title_of(kernel.split("/")[1]),  # the client only warns where title and id disagree
        "code_file": "kernel.py",
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": machine != "cpu",
        "enable_tpu": False,
        "enable_internet": internet,  # the client sends true where this is absent
        "machine_shape": "" if machine == "cpu" else machine,
        "dataset_sources": [dataset],
        "competition_sources": [competition],
        "kernel_sources": list(sources),
        "model_sources": [],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernel.py").write_text(text)
    (folder / "kernel-metadata.json").write_text(json.dumps(metadata, indent=1))


def push_kernel(kaggle: Kaggle, folder: Path, kernel: str) -> None:
    """Raises UserError where Kaggle refuses the kernel or does not attach one of its inputs."""
    try:
        answer = kaggle.call(f"pushing {kernel}", kaggle.api.kernels_push, str(folder), tries=1)
    except KaggleFault as fault:
        raise KaggleFault(_with_remedy(str(fault)), fault.status, fault.retry_after) from None
    if answer.error:
        raise UserError(_with_remedy(f"{kernel}: Kaggle refuses it: {kaggle.redact(answer.error)}"))
    refused = [*answer.invalid_dataset_sources, *answer.invalid_competition_sources, *answer.invalid_kernel_sources]
    if refused:  # the client only prints this, and the kernel runs without its input
        raise UserError(
            f"{kernel}: Kaggle did not attach {', '.join(refused)}: join the competition, check the names, push again"
        )
    say(f"{kernel}: version {answer.version_number} pushed: {answer.url}")


def _with_remedy(text: str) -> str:
    return ": ".join([text.rstrip("."), *(remedy for words, remedy in REFUSALS.items() if words in text.lower())][:2])


def check_free(kaggle: Kaggle, kernel: str) -> list[str]:
    """The texts of the kernel's files, none where there is no such kernel. Raises UserError where it is not of this
    kit: a push would replace it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            kaggle.call(f"looking for {kernel}", kaggle.api.kernels_pull, kernel, folder)
        except KaggleFault as fault:
            if fault.status in (403, 404):  # there is none
                return []
            raise
        texts = [file.read_text(errors="replace") for file in Path(folder).iterdir()]
    if not any(script.MANIFEST_NAME in text for text in texts):
        raise UserError(f"{kernel}: the name is taken by a kernel that is not of this kit: use another with --slug")
    return texts


def is_under_way(kaggle: Kaggle, kernel: str, texts: Sequence[str], folder: Path) -> bool:
    """Whether the kernel with these texts is that of `folder`, and has not ended: an earlier push arrived, although its
    answer did not, and a second one would take GPU hours for the same work."""
    same = (folder / "kernel.py").read_text() in texts
    return same and status_of(kaggle, kernel)[0] in ("new_script", "queued", "running")


def status_of(kaggle: Kaggle, kernel: str) -> tuple[str, str]:
    """'queued', 'running', 'complete', 'error', ..., and the message of a failure. Raises UserError where there is no
    such kernel."""
    try:
        answer = kaggle.call(f"looking up the status of {kernel}", kaggle.api.kernels_status, kernel)
    except UserError as error:
        status = error.status if isinstance(error, KaggleFault) else None
        if status == 404 or "cannot access kernel" in str(error).lower():  # the client's words for 401 and 403
            raise KernelFailed(f"{kernel}: no such kernel of yours on Kaggle: push it again") from None
        raise
    return answer.status.name.lower(), answer.failure_message or ""


def wait_for_kernel(kaggle: Kaggle, kernel: str) -> None:
    """Wait until the kernel is complete. Raises UserError with the kernel's own message where it fails, or takes too
    long."""
    last = ""
    for _ in range(round(LIMIT / POLL)):
        status, failure = status_of(kaggle, kernel)
        if status != last:
            say(f"{kernel}: {status}")
        last = status
        if status == "complete":
            return
        check_not_failed(kaggle, kernel, status, failure)
        time.sleep(POLL)
    raise UserError(f"{kernel}: not done after {LIMIT / 3600:.0f} hours: {address_of(kernel)}")


def check_complete(kaggle: Kaggle, kernel: str) -> None:
    """Raises UserError where the kernel has not ended, KernelFailed where it failed."""
    status, failure = status_of(kaggle, kernel)
    check_not_failed(kaggle, kernel, status, failure)
    if status != "complete":
        raise UserError(f"{kernel}: still {status}: fetch it later ({address_of(kernel)})")


def check_not_failed(kaggle: Kaggle, kernel: str, status: str, failure: str) -> None:
    """Raises KernelFailed with the last words of a kernel that failed or was cancelled."""
    if status in ("error", "cancel_requested", "cancel_acknowledged"):
        message = last_words(kaggle, kernel) or kaggle.redact(failure) or "no message"
        raise KernelFailed(f"{kernel}: ended with {status}: {message} ({address_of(kernel)})")


class KernelFailed(UserError):
    """A kernel that ended without its output."""


def last_words(kaggle: Kaggle, kernel: str) -> str:
    return kaggle.redact(last_message(kaggle.call(f"reading the log of {kernel}", kaggle.api.kernels_logs, kernel)))


def last_message(log: str) -> str:
    """The kernel's first 'error:' line, else its last one. A log is a JSON list of {stream_name, time, data}."""
    try:
        text = "".join(str(part.get("data", "")) for part in json.loads(log))
    except (ValueError, AttributeError):
        text = log
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "")


def address_of(kernel: str) -> str:
    return f"https://www.kaggle.com/code/{kernel}"
