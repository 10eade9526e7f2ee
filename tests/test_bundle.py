"""submission.bundle: what goes into the dataset, and what does not."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_wheels import make_wheel

from blending.apply import read_blend
from configs.competition import ColumnNames, SubmissionForm, TableFile
from configs.paths import Paths
from console.errors import UserError
from input.layout import find_layout
from models import openvino_conversion
from submission import bundle as module
from submission import packed_competition, wheels
from submission.bundle import bundle, code_files, dataset_metadata
from submission.kernel_script import sha256
from submission.packed_competition import PackedCompetition, default_competition, read_packed, write_packed

REAL = Path(__file__).parents[1].parent / "shared" / "data" / "fsdkaggle2018" / "train.csv"


def classes_digest(classes: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(classes).encode()).hexdigest()[:12]


@pytest.fixture
def paths(blended: Paths, tmp_path: Path) -> Paths:
    shutil.copytree(blended.work, tmp_path / "work", ignore=shutil.ignore_patterns("features"))
    return Paths(blended.input, tmp_path / "work")


def test_the_manifest_names_every_file_with_size_and_hash(paths: Paths) -> None:
    folder = bundle(paths, "default", "me")
    manifest = json.loads((folder / "kit_manifest.json").read_text())
    files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert files - set(manifest["files"]) == {"kit_manifest.json", "dataset-metadata.json"}
    assert set(manifest["files"]) <= files
    for name, about in manifest["files"].items():
        assert about == {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
    assert manifest["competition"] == "tiny-tagging"


def test_it_holds_code_weights_and_the_blend_and_nothing_else(paths: Paths) -> None:
    folder = bundle(paths, "default", "me")
    assert {f.name for f in folder.iterdir()} == {
        *("code", "weights", "weights.json", "competition.json", "kit_manifest.json", "dataset-metadata.json"),
    }
    runs = {str(f.relative_to(folder / "weights")) for f in (folder / "weights").rglob("*") if f.is_file()}
    per_run = ("config.json", "classes.txt", "model.safetensors", "manifest.json")
    experiments = ("demo_resnetish", "demo_vggish")
    assert runs == {f"{name}/fold{k}/{file}" for name in experiments for k in (0, 1) for file in per_run}
    assert {f.suffix for f in (folder / "code").rglob("*") if f.is_file()} == {".py"}
    assert (folder / "code" / "submission" / "kernel_predict.py").exists()
    ensembled = json.loads((paths.ensembles / "default" / "weights.json").read_text())
    assert json.loads((folder / "weights.json").read_text()) == ensembled


def test_a_model_of_weight_0_stays_behind(paths: Paths) -> None:
    file = paths.ensembles / "default" / "weights.json"
    weights = json.loads(file.read_text())
    weights["models"]["demo_vggish"]["weight"] = 0.0
    file.write_text(json.dumps(weights))
    folder = bundle(paths, "default", "me")
    assert [f.name for f in (folder / "weights").iterdir()] == ["demo_resnetish"]
    assert list(json.loads((folder / "weights.json").read_text())["models"]) == ["demo_resnetish"]


def test_code_leaves_out_what_git_ignores_and_what_lies_deeper(tmp_path: Path) -> None:
    for name in ("models/net.py", "models/secret.py", "input/read.py", "input/raw/loot.py", "input/notes.txt", "x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert list(map(str, code_files(tmp_path))) == ["input/read.py", "models/net.py", "models/secret.py"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("secret*\n")
    assert list(map(str, code_files(tmp_path))) == ["input/read.py", "models/net.py"]


@pytest.mark.parametrize("where", ["outer repository", "no git"])
def test_code_is_packed_wherever_the_kit_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("kit/\n*.py\n")
    (tmp_path / "kit" / "models").mkdir(parents=True)
    (tmp_path / "kit" / "models" / "net.py").touch()
    if where == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    assert list(map(str, code_files(tmp_path / "kit"))) == ["models/net.py"]


@pytest.mark.parametrize(
    "lost", ["blending/log_linear.py", "blending/apply.py", "submission/kernel_predict.py", "configs/files.py"]
)
def test_a_bundle_without_a_module_that_predicts_is_not_finished(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """submission.kernel_predict imports the blending by way of three modules; it needs no fit."""
    monkeypatch.setattr(module, "code_files", lambda *given: [f for f in code_files(*given) if str(f) != lost])
    if lost == "blending/log_linear.py":
        bundle(paths, "default", "me")
        return
    with pytest.raises(UserError, match=lost.removesuffix(".py").replace("/", r"\.")):
        bundle(paths, "default", "me")
    assert not (paths.work / "kaggle" / "dataset").exists()


def test_a_bundle_is_there_while_the_next_one_is_made_and_two_may_be_made_at_once(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bundle(paths, "default", "me")
    bring_wheels = module.bring_wheels

    def meanwhile(*given: Any) -> list[str]:
        assert (first / "kit_manifest.json").exists()
        monkeypatch.setattr(module, "bring_wheels", bring_wheels)
        bundle(paths, "default", "you")
        assert "you/" in (first / "dataset-metadata.json").read_text()
        return []

    monkeypatch.setattr(module, "bring_wheels", meanwhile)
    bundle(paths, "default", "me")
    assert "me/" in (first / "dataset-metadata.json").read_text()
    assert [f.name for f in first.parent.iterdir() if not f.name.endswith(".lock")] == ["dataset"]


def test_a_run_that_is_replaced_while_it_is_packed_is_refused(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = paths.runs / "demo_vggish" / "fold1" / "manifest.json"
    copyfile = shutil.copyfile

    def meanwhile(source: Path, target: Path) -> None:
        if source == manifest:
            manifest.write_text(manifest.read_text() + "\n")
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", meanwhile)
    with pytest.raises(UserError, match="demo_vggish: its runs changed since they were blended"):
        bundle(paths, "default", "me")


def test_wheels_go_along_when_asked_for(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = make_wheel(tmp_path, "tiny")
    folder = bundle(paths, "default", "me", wheels=[wheel])
    assert (folder / "wheels" / wheel.name).read_bytes() == wheel.read_bytes()
    assert "no wheel brings" not in capsys.readouterr().err, "auto does without OpenVINO"
    with pytest.raises(UserError, match=r"--wheel .*absent\.whl: no such wheel"):
        bundle(paths, "default", "me", wheels=[tmp_path / "absent.whl"])
    asked: dict[str, Any] = {}
    monkeypatch.setattr(wheels, "download", lambda needs, *_: asked.update(needs=needs) or make_wheel(_[0], "openvino"))
    monkeypatch.setattr(module, "convert_runs", lambda weights, sample: ["demo_vggish"])
    monkeypatch.setattr(openvino_conversion, "is_installed", lambda: True)
    folder = bundle(paths, "default", "me", wheels=[wheels.AUTO], engine="auto", python="3.11")
    (need,) = asked["needs"]
    assert need.startswith("openvino") and (folder / "wheels" / "openvino-1.0-py3-none-any.whl").exists()
    assert json.loads((folder / "kit_manifest.json").read_text())["converted"] == ["demo_vggish"]
    monkeypatch.setattr(openvino_conversion, "is_installed", lambda: False)
    folder = bundle(paths, "default", "me", wheels=[make_wheel(tmp_path, "openvino")])
    assert "converted" not in json.loads((folder / "kit_manifest.json").read_text())
    assert "OpenVINO is not installed here, so the kernel converts the networks itself" in capsys.readouterr().err
    bundle(paths, "default", "me", engine="openvino")
    told = capsys.readouterr().err
    assert "no wheel brings openvino, which the kernel needs and Kaggle may lack: add --wheel auto\n" in told


@pytest.mark.parametrize(
    ("slug", "accepted"),
    [
        ("abcdef", True),
        ("a-2-b-c", True),
        ("x" * 50, True),
        ("abcde", False),
        ("x" * 51, False),
        ("Upper-case", False),
        ("-lead-ing", False),
        ("trailing-", False),
        ("double--hyphen", False),
        ("with space", False),
    ],
)
def test_slugs_that_kaggle_takes(slug: str, accepted: bool) -> None:
    if accepted:
        metadata = dataset_metadata("me", slug)
        assert metadata["id"] == f"me/{slug}"
        assert metadata["title"].lower().replace(" ", "-") == slug
        assert metadata["licenses"] == [{"name": "other"}]
    else:
        with pytest.raises(UserError, match="6 to 50 of a-z"):
            dataset_metadata("me", slug)


def test_a_long_competition_gets_a_slug_that_kaggle_takes(paths: Paths) -> None:
    folder = bundle(paths, "default", "me", competition="x" * 45 + "-longer-than-fifty")
    assert len(json.loads((folder / "dataset-metadata.json").read_text())["id"].split("/")[1]) <= 50


def test_it_asks_whose_dataset_it_is(paths: Paths) -> None:
    with pytest.raises(UserError, match="whose dataset"):
        bundle(paths, "default", None)


def test_a_competition_is_one_that_is_there(paths: Paths) -> None:
    """Or that is named: a mistyped folder would make a bundle for a competition of that name."""
    with pytest.raises(UserError, match=r"nope: no such folder: .*--input DIR or --competition"):
        bundle(Paths(paths.input.with_name("nope"), paths.work), "default", "me")
    with pytest.raises(UserError, match="A B/c: is no competition's address"):
        bundle(paths, "default", "me", "good-slug", competition="A B/c")


def test_without_its_folder_only_the_default_competition_is_packed(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other would be written in the form of FSDKaggle2018."""
    nowhere = Paths(paths.input.with_name("nope"), paths.work)
    file = paths.ensembles / "default" / "weights.json"
    with pytest.raises(UserError, match=r"nope: no such folder, .*has other classes \(.*: name the .* --input"):
        bundle(nowhere, "default", "me", competition="good-one")
    monkeypatch.setattr(packed_competition, "FSDKAGGLE2018_CLASSES", classes_digest(read_blend(file).classes))
    assert read_packed(bundle(nowhere, "default", "me", competition="good-one")) == PackedCompetition()
    several = replace(read_blend(file), task="multi_label", metric="lwlrap")
    with pytest.raises(UserError, match=r"the blend has task multi_label, metric lwlrap: name the .*--input DIR"):
        default_competition(nowhere.input, several)


@pytest.mark.skipif(not REAL.is_file(), reason="../shared/data/fsdkaggle2018 is not here")
def test_the_default_competition_is_known_by_its_classes() -> None:
    classes = sorted(set(pd.read_csv(REAL)["label"]))
    assert len(classes) == 41 and classes_digest(classes) == packed_competition.FSDKAGGLE2018_CLASSES


@pytest.mark.parametrize("owner", ["me/you", "me you", " me", "https://www.kaggle.com/me", "me\n"])
def test_an_owner_is_one_name(paths: Paths, owner: str) -> None:
    told = re.escape(owner.replace("\n", r"\n"))  # an error is one line
    with pytest.raises(UserError, match=f"--owner {told}: your Kaggle name as it stands in the address"):
        bundle(paths, "default", owner)


def test_runs_that_changed_since_the_blend_are_refused(paths: Paths) -> None:
    manifest = paths.runs / "demo_vggish" / "fold1" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(UserError, match="demo_vggish: its runs changed since they were blended"):
        bundle(paths, "default", "me")
    assert not (paths.work / "kaggle" / "dataset").exists()


def test_damaged_weights_are_refused(paths: Paths) -> None:
    weights = paths.runs / "demo_vggish" / "fold1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"X")
    with pytest.raises(UserError, match=r"files changed since the run was finished: model\.safetensors"):
        bundle(paths, "default", "me")


def test_an_absent_blend_is_an_error(paths: Paths) -> None:
    with pytest.raises(UserError, match=r"no such blend: python ensemble\.py --input .+ --work .+ makes it"):
        bundle(paths, "none", "me")


def test_too_large_a_bundle_is_refused(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 1000)
    with pytest.raises(UserError, match=r"blend fewer experiments .*model\.safetensors"):
        bundle(paths, "default", "me")
    assert not (paths.work / "kaggle" / "dataset").exists()


def test_the_same_again_has_the_same_manifest(paths: Paths) -> None:
    first = (bundle(paths, "default", "me") / "kit_manifest.json").read_bytes()
    assert (bundle(paths, "default", "me") / "kit_manifest.json").read_bytes() == first


def test_it_describes_the_competition(paths: Paths) -> None:
    """Read back equal, also the columns that it does not have: null is not the default."""
    packed = read_packed(bundle(paths, "default", "me"))
    assert (packed.form, packed.test_pattern) == (SubmissionForm(), "audio_test/{name}")
    assert packed.config == find_layout(paths.input).config
    assert packed.config.sample_submission == TableFile("sample_submission.csv")
    odd = replace(packed, config=replace(packed.config, columns=ColumnNames(label=None), secondary_weight=None))
    write_packed(paths.work / "competition.json", odd)
    assert read_packed(paths.work) == odd
    (paths.work / "competition.json").write_text("[]")
    with pytest.raises(UserError, match=r"competition\.json: it is \[\]: make the bundle again"):
        read_packed(paths.work)


def test_an_older_bundle_has_no_description(tmp_path: Path) -> None:
    packed = read_packed(tmp_path)
    assert packed.form == SubmissionForm() and packed.config.sample_submission == TableFile("sample_submission.csv")


def test_a_competition_that_the_blend_does_not_fit_is_refused(paths: Paths, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(paths.input, other)
    train = (other / "train.csv").read_text().replace(",Bell,", ",Gong,")
    (other / "train.csv").write_text(train)
    (other / "train_post_competition.csv").unlink()
    with pytest.raises(
        UserError, match="other: has other classes than the blend: use the --input that it was made from"
    ):
        bundle(Paths(other, paths.work), "default", "me", competition="good-one")
    assert not (paths.work / "kaggle" / "dataset").exists()
