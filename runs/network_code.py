"""The code of a run's network where that is the user's own: found, and known to be what the run was made with.

A run folder names its network and the sha256 of its files, and holds none of them. What runs is a file of the person
who gives the command, if its bytes are those that the manifest has; a folder from elsewhere cannot bring its own.
"""

from pathlib import Path

from configs.user_code import hashes, is_user_code, source_files
from console.errors import UserError, list_some
from runs.run_folder import Trained

KIT = Path(__file__).resolve().parents[1]


def network_code(run: Trained) -> dict[str, Path]:
    """'my_file.py' -> file, of all that a run's network is made of; none for a network of the kit.

    Nothing of it is executed. Raises UserError where a file is missing, changed since the run, or in the work folder.
    """
    name = run.config.model.name
    if not is_user_code(name):
        return {}
    files = source_files(name, f"{run.folder}: model.name")
    check_no_code_inside(files, run.folder.parents[2])
    made, there = run.manifest.code, hashes(files)
    if changed := [file for file in there if there[file] != made.get(file)]:
        raise UserError(
            f"{run.folder}: made from other code of {list_some(changed)}: bring back the file as it was, or train it "
            f"again with --force"
        )
    return files


def check_no_code_inside(files: dict[str, Path], work: Path) -> None:
    """Raises UserError where code lies in the work folder, whose content may come from elsewhere. A bundle holds the
    kit itself, and the code that was packed with it."""
    inside = [str(file) for file in files.values() if file.is_relative_to(work.resolve())]
    if inside and not KIT.is_relative_to(work.resolve()):
        raise UserError(
            f"{list_some(inside)}: code in {work}, where runs may come from elsewhere: move it out of there"
        )
