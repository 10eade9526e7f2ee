"""competition.json in a bundle: the competition as it was understood here, so that the kernel guesses nothing."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from configs.competition import CompetitionConfig, SubmissionForm, TableFile
from configs.forms import read_json
from configs.paths import Paths
from console.errors import UserError, list_some

if TYPE_CHECKING:
    from blending.apply import Blend

FILE = "competition.json"
SAMPLE = "sample_submission.csv"
FSDKAGGLE2018_CLASSES = "ccf60dfd301b"  # start of the sha256 of its 41 classes, sorted, one a line


@dataclass(frozen=True)
class PackedCompetition:
    """The defaults are those of FSDKaggle2018: older bundles hold no competition.json."""

    config: CompetitionConfig = field(default_factory=lambda: CompetitionConfig(sample_submission=TableFile(SAMPLE)))
    form: SubmissionForm = field(default_factory=SubmissionForm)
    test_pattern: str = "audio_test/{name}"  # the sound of a test clip, within the competition's folder


def pack_competition(paths: Paths, blend: "Blend") -> PackedCompetition:
    """Raises UserError where the competition has no test clips, or other classes than the blend."""
    from input.competition import load_competition
    from input.layout import find_layout

    competition = load_competition(paths.input, sound=False, described_by=paths.described_by)
    if competition.test.empty:
        raise UserError(f"{paths.input}: has no test set: a kernel has nothing to predict")
    if competition.classes != blend.classes:
        raise UserError(f"{paths.input}: has other classes than the blend: use the --input that it was made from")
    config = find_layout(paths.input, sound=False, described_by=paths.described_by).config
    return PackedCompetition(config, competition.form, competition.test_pattern)


def default_competition(folder: Path, blend: "Blend") -> PackedCompetition:
    """FSDKaggle2018, for which a bundle may be made where no folder is there. Raises UserError on a blend of another
    task, metric or classes: without its folder nothing says what the kernel has to write."""
    digest = hashlib.sha256("\n".join(blend.classes).encode()).hexdigest()[:12]
    other = [f"task {blend.task}"] if blend.task != "single_label" else []
    other += [f"metric {blend.metric}"] if blend.metric != "map@3" else []
    other += [f"other classes ({list_some(blend.classes, 3)})"] if digest != FSDKAGGLE2018_CLASSES else []
    if other:
        raise UserError(
            f"{folder}: no such folder, so the kernel would write a submission of fsdkaggle2018, but the blend has "
            f"{', '.join(other)}: name the competition's folder with --input DIR"
        )
    return PackedCompetition()


def write_packed(file: Path, packed: PackedCompetition) -> None:
    file.write_text(json.dumps(asdict(packed), indent=1, sort_keys=True, ensure_ascii=False), encoding="utf-8")


def read_packed(bundle: Path) -> PackedCompetition:
    """Raises UserError where competition.json is damaged."""
    if not (bundle / FILE).exists():
        return PackedCompetition()
    return read_json(bundle / FILE, PackedCompetition, "make the bundle again with submission.bundle")
