"""Download a competition from Kaggle, or the copy of FSDKaggle2018 on Zenodo, into input/<slug>/.

python -m input.download
python -m input.download --zenodo
"""

import json
import re
import urllib.request
import zipfile
from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from configs.files import lock
from configs.paths import Paths
from console.command_line import run_command
from console.errors import UserError, list_some
from console.options import FOLDER, command_parser
from console.output import say, warn
from input.fetch import fetch
from input.kaggle_client import Kaggle
from input.layout import find_layout
from input.names import nfc
from input.zips import BROKEN, unpack_zips

ZENODO_RECORD = "https://zenodo.org/api/records/2552860"  # FSDKaggle2018
PAGE = 200  # files


def main() -> None:
    parser = command_parser(__doc__.partition("\n")[0], prog="python -m input.download")
    parser.add_argument(
        "slug", nargs="?", default=Paths.input.name, help="URL or slug of the competition (%(default)s)"
    )
    parser.add_argument("--input", **FOLDER, help="where it goes (input/<slug>)")
    parser.add_argument("--zenodo", action="store_true", help="FSDKaggle2018 as published on Zenodo: no account needed")
    args = parser.parse_args()
    slug = slug_of(args.slug)
    folder = args.input or Paths.input.with_name(slug)
    if args.zenodo:
        download_zenodo(folder)
    else:
        download_competition(slug, folder)


def slug_of(address: str) -> str:
    """The slug in a URL with 'competitions/', or a slug unchanged. Raises UserError on anything else."""
    found = re.search(r"/(?:competitions|c)/([^/?#]+)", address)
    slug = found[1] if found else address
    if not re.fullmatch(r"[A-Za-z0-9-]+", slug):
        raise UserError(f"{address!r}: not a competition: use the last part of its URL, like {Paths.input.name}")
    return slug


def download_competition(slug: str, folder: Path) -> None:
    """Download, unpack and check a competition. Existing files are kept and partial downloads continued.

    Raises UserError without credentials, without accepted rules, on a wrong slug, or on files of the wrong size.
    """
    kaggle = Kaggle()
    sizes = listed_sizes(kaggle, slug)
    say(f"{slug}: {len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB")
    with _alone(folder):
        if misfits(folder, sizes):
            kaggle.call(
                f"downloading {slug} (run the same command to continue)",
                kaggle.api.competition_download_files,
                *(slug, str(folder)),
                hints=hints_for(slug),
                quiet=False,
                tries=1,  # the client itself tries six times and continues partial downloads
                bars=True,
            )
            unpack(folder / f"{slug}.zip", folder)
        if wrong := misfits(folder, sizes):
            raise UserError(
                f"{folder}: not of the size that Kaggle lists: {list_some(wrong)}: remove them and try again"
            )
        (folder / f"{slug}.zip").unlink(missing_ok=True)  # unpacked and checked: free its space
    find_layout(folder)
    say(f"complete -> {folder}")


def _alone(folder: Path) -> AbstractContextManager[None]:
    return lock(folder / "download", on_wait=lambda: say(f"{folder}: waiting for the process that downloads there"))


def hints_for(slug: str) -> dict[int, str]:
    address = f"https://www.kaggle.com/competitions/{slug}"
    return {
        403: f"accept the rules at {address}/rules, or correct the slug if that page does not exist",
        404: f"there is no {address}: the slug is the last part of a competition's URL",
    }


def listed_sizes(kaggle: Kaggle, slug: str) -> dict[str, int]:
    """Size in bytes of every file that the competition lists."""
    sizes: dict[str, int] = {}
    page: str | None = None
    while page is None or page:
        what = f"listing the files of {slug}"
        listing = kaggle.call(
            what, kaggle.api.competition_list_files, slug, page_token=page, page_size=PAGE, hints=hints_for(slug)
        )
        sizes |= {file.name: file.total_bytes for file in listing.files}
        page = listing.next_page_token or ""
    return sizes


def misfits(folder: Path, sizes: dict[str, int]) -> list[str]:
    """Listed files that are missing, in any Unicode form, or have another size."""
    wrong = [name for name, size in sizes.items() if not _has_size(folder / name, size)]
    there = {nfc(str(file.relative_to(folder))): file for file in folder.rglob("*")} if wrong else {}
    return [name for name in wrong if not _has_size(there.get(nfc(name), folder / name), sizes[name])]


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a downloaded zip; remove a broken one, because the client would take it for complete."""
    try:
        unpack_zips(folder)
    except UserError as error:
        if not _is_whole(archive):
            archive.unlink(missing_ok=True)
            raise
        warn(f"skipped: {error}")  # perhaps another zip; the listed files are checked next


def _is_whole(archive: Path) -> bool:
    try:
        with zipfile.ZipFile(archive) as source:
            return source.testzip() is None
    except (*BROKEN, OSError):
        return False


def download_zenodo(folder: Path, record: str = ZENODO_RECORD) -> None:
    """Download the record's zips, check their md5 sums, unpack them.

    Raises UserError without an answer, or if a file does not match the record.
    """
    files = [file for file in _zenodo_json(record)["files"] if file["key"].endswith(".zip")]
    say(f"{record}: {len(files)} zips, {sum(file['size'] for file in files) / 1e6:.1f} MB")
    with _alone(folder):
        for file in files:
            target = folder / file["key"]
            if not _has_size(target, file["size"]):
                fetch(file["links"]["self"], target, file["size"], file["checksum"])
    find_layout(folder)  # unpacks
    say(f"complete -> {folder}")


def _zenodo_json(record: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(record, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except (OSError, ValueError, HTTPException) as error:
        raise UserError(f"{record}: no answer ({error}): check the network, then run the same command") from None


if __name__ == "__main__":
    run_command(main)
