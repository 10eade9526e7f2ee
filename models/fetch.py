"""Download published weights into input/weights/, as configs/pretrained/<name>.yaml describes them.

python -m models.fetch            lists them
python -m models.fetch mn10_as
"""

from pathlib import Path

from configs.checkpoint import PRETRAINED, WEIGHTS, Checkpoint, load_checkpoint
from configs.files import lock
from console.command_line import run_command
from console.errors import UserError
from console.options import FOLDER, command_parser
from console.output import say, table
from input.fetch import fetch, misfit


def main() -> None:
    parser = command_parser(__doc__.partition("\n")[0], prog="python -m models.fetch")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a file in configs/pretrained (without: list them)")
    parser.add_argument("--to", **FOLDER, default=WEIGHTS, help="where they go (%(default)s)")
    args = parser.parse_args()
    checkpoints = {name: load_checkpoint(name) for name in args.names}  # a wrong name stops before any download
    for name, checkpoint in checkpoints.items():
        fetch_checkpoint(name, checkpoint, args.to)
    if not checkpoints:
        list_checkpoints()


def list_checkpoints() -> None:
    rows = []
    for file in sorted(PRETRAINED.glob("*.yaml")):
        known = load_checkpoint(file.stem)
        size = f"{known.megabytes:.0f}"
        rows.append([file.stem, f"{known.parameters:.1f}", size, f"{known.mean_ap:.3f}", known.licence])
    table(["name", "million weights", "MB", "AudioSet mAP", "licence"], rows)


def fetch_checkpoint(name: str, checkpoint: Checkpoint, folder: Path) -> Path:
    """Download a checkpoint, or continue; a complete file is kept, and checked where a checksum is published.

    Raises UserError without an answer, naming the file to bring, and if the checksum differs.
    """
    target = folder / checkpoint.file
    say(f"{name}: {checkpoint.licence}, {checkpoint.megabytes:g} MB, {checkpoint.page}")
    by_hand = f"download {checkpoint.file} from {checkpoint.url or checkpoint.page} elsewhere and copy it to {folder}/"
    with lock(target, on_wait=lambda: say(f"{target}: waiting for another process that downloads it")):
        if target.exists():
            if checkpoint.checksum and (fact := misfit(target, checkpoint.checksum)):
                raise UserError(f"{target}: not the published file ({fact}): delete it, then run the same command")
        elif checkpoint.url is None:
            raise UserError(f"{name}: no address to download it from: {by_hand}")
        else:
            try:
                fetch(checkpoint.url, target, checksum=checkpoint.checksum)
            except UserError as error:
                raise UserError(f"{error}; without internet access, {by_hand}") from None
    say(f"complete -> {target}")
    return target


if __name__ == "__main__":
    run_command(main)
