"""docs/extending.md, run unchanged: its files train, predict and go into the bundle."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from configs.load import load_config
from configs.paths import Paths
from console.errors import UserError
from runs.network_code import network_code
from runs.predict import predict_test
from runs.run_folder import read_run, read_trained
from submission.bundle import bundle
from training.train import train_folds

ROOT = Path(__file__).parent.parent
FILES = ["my_net.py", "my_loss.py", "my_aug.py", "my_wave.py"]
TINY = ["folds.n_folds=2", "features.sample_rate=8000", "features.f_max=4000", "features.n_fft=256"]
TINY += ["features.hop_length=160", "features.n_mels=16", "train.epochs=1", "train.batch_size=16", "model.width=8"]
TINY += ["train.crop_seconds=1.0", "predict.window_seconds=1.0"]


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the page's code."""
    return re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "docs" / "extending.md").read_text(), re.M | re.S)


def page_in(folder: Path) -> str:
    """Write the files of the page there; its one command."""
    for language, text in blocks():
        if language in ("python", "yaml"):
            (folder / text.partition("\n")[0].removeprefix("# ")).write_text(text)
    (line,) = (text for language, text in blocks() if language == "bash")
    return line


def train(command: str, folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """The page's command in a folder of the user's, on two folds, with a smaller front-end."""
    python, verb, *words = shlex.split(command.replace("0..4", "0..1"))
    assert python == "python"
    words = [sys.executable, str(ROOT / verb), *words, "--input", "demo", "--work", "work", *TINY, *more]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files, trained by the page's command."""
    from input.demo import make_demo

    folder = tmp_path_factory.mktemp("extending")
    make_demo(folder / "demo", train_per_class=5, test_per_class=2)  # more than one part: the features' pool works
    done = train(page_in(folder), folder)
    assert done.returncode == 0, done.stderr
    assert "clips changed by my_wave:noisy" in done.stdout
    return folder


@pytest.fixture
def own(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A copy of it, in which commands run."""
    folder = Path(shutil.copytree(trained, tmp_path / "own"))
    for module in ("my_net", "my_loss", "my_aug", "my_wave"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(folder)
    return Paths(folder / "demo", folder / "work")


def test_each_example_is_about_ten_lines() -> None:
    lengths = [len(text.splitlines()) for language, text in blocks() if language == "python"]
    assert len(lengths) == 4 and max(lengths) <= 12


def test_the_run_is_made_from_the_page(trained: Path) -> None:
    run = read_run(trained / "work" / "runs" / "my_experiment" / "fold0")
    assert run.manifest.code == {file: sha256((trained / file).read_bytes()).hexdigest() for file in FILES}
    assert run.config.model.name == "my_net:small_net" and run.config.augment.wave == ("my_wave:noisy",)
    assert len(list((trained / "work" / "features").glob("*/manifest.json"))) == 3  # training, its copy, test


@pytest.mark.parametrize("file", FILES)
def test_a_finished_fold_notices_that_a_file_changed(own: Paths, file: str) -> None:
    cfg = load_config(Path("my_experiment.yaml"), TINY)
    scores = train_folds(cfg, [0], own)
    assert scores == [read_run(own.run("my_experiment", 0)).scores["map3"]]
    Path(file).write_text(Path(file).read_text() + "\n# another line\n")
    with pytest.raises(UserError, match=rf"fold0 was made from other code of {file}: .*--force"):
        train_folds(cfg, [0], own)


def test_features_of_a_changed_wave_augmentation_are_others(own: Paths) -> None:
    from configs.schema import FeatureConfig
    from features.store import store_key

    def key(wave: str | None = "my_wave:noisy") -> str:
        return store_key(FeatureConfig(), [], [], wave)

    first = key()
    assert first == key() != key(None)
    Path("my_wave.py").write_text("# faster\n" + Path("my_wave.py").read_text())
    assert key() != first


def test_the_kernel_predicts_from_the_bundle_alone(own: Paths, tmp_path: Path) -> None:
    from ensemble import blend
    from submit import submit

    blend(own, [], "geometric", "default", force=False)
    submit(own, "default", own.work / "submission.csv", None)
    folder = bundle(own, "default", "me", competition="demo")
    code = {str(file.relative_to(folder / "code")) for file in (folder / "code").glob("*.py")}
    assert code == {"my_net.py"}  # of the user's, what prediction needs
    assert "code/my_net.py" in json.loads((folder / "kit_manifest.json").read_text())["files"]
    for file in FILES:
        Path(file).unlink()
    output, scratch = tmp_path / "kernel.csv", tmp_path / "scratch"
    scratch.mkdir()
    words = ["--bundle", folder, "--inputs", own.input.parent, "--competition", "demo", "--output", output]
    command = [sys.executable, "-m", "submission.kernel_predict", *words]
    env = os.environ | {"PYTHONPATH": str(folder / "code"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), cwd=scratch, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"network of your own, my_net:small_net: {folder / 'code' / 'my_net.py'}" in done.stdout
    assert output.read_bytes() == (own.work / "submission.csv").read_bytes()


# A run folder, and code that is not what it was made with


def test_prediction_runs_no_other_code_than_the_runs(own: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    import pandas as pd

    fold = own.run("my_experiment", 0)
    clips = pd.DataFrame({"fname": ["a.wav"], "path": [None]})
    predict_test([fold], clips, own.features)
    assert f"network of your own, my_net:small_net: {Path('my_net.py').resolve()}" in capsys.readouterr().out
    Path("my_net.py").write_text("raise SystemExit('this must not run')\n")
    sys.modules.pop("my_net")
    with pytest.raises(UserError, match=r"fold0: made from other code of my_net\.py: bring back the file as it was"):
        predict_test([fold], clips, own.features)
    Path("my_net.py").unlink()
    with pytest.raises(UserError, match=r"fold0: model\.name: no file my_net\.py for my_net:small_net in "):
        predict_test([fold], clips, own.features)
    with pytest.raises(UserError, match=r"no file my_net\.py"):
        bundle_of(own)


def bundle_of(own: Paths) -> Path:
    from ensemble import blend

    blend(own, [], "geometric", "default", force=True)
    return bundle(own, "default", "me", competition="demo")


def test_a_run_from_elsewhere_cannot_bring_its_code(own: Paths) -> None:
    """Its config names a file next to it, and its manifest the sha256 of that file."""
    from configs.user_code import hashes
    from runs.provenance import file_sha256

    fold = own.run("my_experiment", 0)
    shutil.copyfile("my_net.py", fold / "evil.py")
    name = "work/runs/my_experiment/fold0/evil.py"
    config, manifest = (json.loads((fold / file).read_text()) for file in ("config.json", "manifest.json"))
    config["model"]["name"] = f"{name}:small_net"
    (fold / "config.json").write_text(json.dumps(config))
    manifest["files"]["config.json"] = file_sha256(fold / "config.json")
    manifest["code"] = hashes({name: fold / "evil.py"})
    (fold / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"fold0/evil\.py: code in .*work, where runs may come from elsewhere"):
        network_code(read_trained(fold))


def test_training_refuses_code_that_prediction_would(own: Paths) -> None:
    shutil.copyfile("my_net.py", own.work / "my_net.py")
    cfg = load_config(Path("my_experiment.yaml"), [*TINY, "model.name=work/my_net.py:small_net", "name=other"])
    with pytest.raises(UserError, match=r"work/my_net\.py: code in .*work"):
        train_folds(cfg, [0], own)
