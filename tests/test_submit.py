"""submit.py where the test clips are not those that the runs were trained beside."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from configs.paths import Paths
from submit import submit


def test_clips_that_the_runs_have_not_seen_are_predicted_from_the_weights(
    blended: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = Paths(tmp_path / "input", tmp_path / "work")
    shutil.copytree(blended.input, paths.input)
    shutil.copytree(blended.work, paths.work, ignore=shutil.ignore_patterns("features"))
    sample = pd.read_csv(paths.input / "sample_submission.csv")
    first = sample["fname"][0]
    shutil.copyfile(paths.input / "audio_test" / first, paths.input / "audio_test" / "new.wav")
    new = pd.DataFrame({"fname": ["new.wav"], "label": sample["label"][:1]})
    pd.concat([new, sample[2:]]).to_csv(paths.input / "sample_submission.csv", index=False)
    submit(paths, "default", tmp_path / "out.csv", None)
    old = pd.read_csv(blended.work / "submission.csv").set_index("fname")["label"]
    found = pd.read_csv(tmp_path / "out.csv")
    assert "its stored probabilities lack test clips: predicting from the weights" in capsys.readouterr().out
    assert found["fname"].tolist() == ["new.wav", *sample["fname"][2:]]
    assert found["label"].tolist() == [old[first], *old[sample["fname"][2:]]]
