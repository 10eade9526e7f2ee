"""The bundle as a private dataset on Kaggle: created, or a new version of it."""

import json
import tempfile
import time
from pathlib import Path

from console.errors import UserError
from console.output import say
from input.kaggle_client import Kaggle, KaggleFault
from submission.kernel_script import MANIFEST_NAME

POLL = 15.0  # seconds
LIMIT = 2 * 3600.0  # seconds that Kaggle may take to unpack it


def push_dataset(kaggle: Kaggle, bundle: Path, dataset: str) -> None:
    """Create the private dataset, or a new version of it, and wait until Kaggle has unpacked it. Raises UserError where
    there is one of that name that this kit did not make: it may be public, or somebody may need its files."""
    if dataset_version(kaggle, dataset) is None:
        say(f"{dataset}: creating a private dataset")
        create = kaggle.api.dataset_create_new
        answer = kaggle.call(
            f"creating {dataset}", create, str(bundle), public=False, quiet=False, dir_mode="zip", tries=1, bars=True
        )
        before = 0
    else:
        before = wait_for_dataset(kaggle, dataset, 0)  # Kaggle refuses a version while another is processed
        if is_up_to_date(kaggle, bundle, dataset):
            say(f"{dataset}: version {before} already holds this bundle")
            return
        say(f"{dataset}: creating the version after {before}")
        create, notes = kaggle.api.dataset_create_version, f"{MANIFEST_NAME} {digest_of(bundle)[:12]}"
        answer = kaggle.call(
            f"updating {dataset}", create, str(bundle), notes, quiet=False, dir_mode="zip", tries=1, bars=True
        )
    if answer.error or str(answer.status).lower() == "error":  # the client reports this without an exception
        reason = kaggle.redact(answer.error or "no reason given")
        raise UserError(f"{dataset}: Kaggle refuses it: {reason}: use another name with submission.bundle --slug")
    say(f"{dataset}: version {wait_for_dataset(kaggle, dataset, before)} is ready")


def digest_of(bundle: Path) -> str:
    """sha256 of the manifest, which names every file of the bundle."""
    from runs.provenance import file_sha256

    return file_sha256(bundle / MANIFEST_NAME)


def dataset_version(kaggle: Kaggle, dataset: str) -> tuple[str, int] | None:
    """The dataset's status and its current version; None where there is no such dataset of this user."""
    try:
        found = kaggle.call(f"looking for {dataset}", kaggle.api.dataset_status, dataset, format="json")
    except KaggleFault as fault:
        if fault.status in (403, 404):  # what Kaggle answers for a dataset of another user, too
            return None
        raise
    about = json.loads(found)
    return about["status"], about["current_version_number"] or 0


def wait_for_dataset(kaggle: Kaggle, dataset: str, after: int) -> int:
    """The number of the ready version that follows `after`. Raises UserError where Kaggle fails or takes too long."""
    for _ in range(round(LIMIT / POLL)):
        status, version = dataset_version(kaggle, dataset) or ("absent", 0)
        if status in ("failed", "deleted"):
            raise UserError(f"{dataset}: Kaggle's processing {status}: run submission.push again")
        if status == "ready" and version > after:
            return version
        time.sleep(POLL)
    raise UserError(f"{dataset}: not ready after {LIMIT / 3600:.0f} hours: see {address_of(dataset)}")


def address_of(dataset: str) -> str:
    return f"https://www.kaggle.com/datasets/{dataset}"


def is_up_to_date(kaggle: Kaggle, bundle: Path, dataset: str) -> bool:
    """Whether the dataset already holds this bundle: then an interrupted push does not upload it again. Raises
    UserError where it holds no bundle at all."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            method = kaggle.api.dataset_download_file
            kaggle.call(f"reading {dataset}", method, dataset, MANIFEST_NAME, path=folder, force=True)
        except KaggleFault as fault:
            if fault.status == 404:
                fact = f"the name is taken by a dataset that is not of this kit ({address_of(dataset)})"
                raise UserError(f"{dataset}: {fact}: use another with --slug") from None
            raise
        return Path(folder, MANIFEST_NAME).exists() and digest_of(Path(folder)) == digest_of(bundle)
