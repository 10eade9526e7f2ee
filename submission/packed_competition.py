"""competition.json in a bundle: the competition as it was understood here, so that the kernel guesses nothing."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from configs.competition import CompetitionConfig, SubmissionForm, TableFile
from configs.forms import read_json
from configs.paths import Paths
from console.errors import UserError

if TYPE_CHECKING:
    from blending.apply import Blend

FILE = "competition.json"
SAMPLE = "sample_submission.csv"


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


def write_packed(file: Path, packed: PackedCompetition) -> None:
    file.write_text(json.dumps(asdict(packed), indent=1, sort_keys=True, ensure_ascii=False), encoding="utf-8")


def read_packed(bundle: Path) -> PackedCompetition:
    """Raises UserError where competition.json is damaged."""
    if not (bundle / FILE).exists():
        return PackedCompetition()
    return read_json(bundle / FILE, PackedCompetition, "make the bundle again with submission.bundle")
