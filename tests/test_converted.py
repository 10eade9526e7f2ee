"""Networks that travel converted by OpenVINO: the kernel predicts with them, without a conversion of its own."""

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sandbox import run_kernel, why_not
from small_wheels import make_wheel

import runs.converted
from configs.files import write
from configs.paths import Paths
from console.errors import UserError
from ensemble import blend
from models.engine import EngineChoice
from models.openvino_conversion import ConversionError
from runs.provenance import file_sha256
from runs.run_folder import read_trained
from submission.bundle import bundle
from submission.kernel_predict import predict
from submission.push import write_kernel
from submit import submit

pytest.importorskip("openvino", reason="OpenVINO is an optional package")
SLUG = "tiny-tagging"
# Refuses what is installed here, so that only a wheel of the bundle can bring it.
GATE = """
import os, sys


class Gate:
    def find_spec(self, name, path=None, target=None):
        bundled = any(os.path.isdir(os.path.join(place, name)) for place in sys.path if place.endswith("/site"))
        if name == "openvino" and not bundled:
            raise ImportError("the kernel imports openvino, which Kaggle lacks")


sys.meta_path[:] = [Gate(), *(finder for finder in sys.meta_path if "editable" not in repr(finder))]
"""
SHIM = """
__path__ = [{folder!r}]
__file__ = __path__[0] + "/__init__.py"
exec(compile(open(__file__).read(), __file__, "exec"))
"""


@pytest.fixture(scope="module")
def full(blended: Paths, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The runs of `blended` in fp32, and a sample submission that asks for probabilities."""
    root = tmp_path_factory.mktemp("full")
    paths = Paths(root / "in" / SLUG, root / "work")
    shutil.copytree(blended.input, paths.input)
    shutil.copytree(blended.work, paths.work, ignore=shutil.ignore_patterns("features", "ensembles", "submission*"))
    for fold in paths.runs.glob("*/fold?"):
        config, manifest = (json.loads((fold / name).read_text()) for name in ("config.json", "manifest.json"))
        config["train"]["precision"] = "fp32"
        write(fold / "config.json", json.dumps(config))
        manifest["files"]["config.json"] = file_sha256(fold / "config.json")
        write(fold / "manifest.json", json.dumps(manifest))
    classes = sorted(set(pd.read_csv(paths.input / "train.csv")["label"]), reverse=True)
    sample = pd.read_csv(paths.input / "sample_submission.csv")
    sample[["fname"]].assign(**dict.fromkeys(classes, 0)).to_csv(paths.input / "sample_submission.csv", index=False)
    blend(paths, [], "geometric", "default", force=False)
    submit(paths, "default", paths.work / "submission.csv", None, refresh=True)
    return paths


@pytest.fixture(scope="module")
def converted(full: Paths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both experiments converted, and a wheel that brings the openvino of this machine."""
    spec = find_spec("openvino")
    assert spec and spec.origin
    shim = {"openvino/__init__.py": SHIM.format(folder=str(Path(spec.origin).parent))}
    wheel = make_wheel(
        tmp_path_factory.mktemp("wheels"), "openvino", version("openvino"), ["numpy<2.6.0,>=1.16.6"], files=shim
    )
    return bundle(full, "default", "me", wheels=[wheel])


def test_the_bundle_holds_the_networks_and_their_hashes(converted: Path) -> None:
    manifest = json.loads((converted / "kit_manifest.json").read_text())
    assert manifest["converted"] == ["demo_resnetish", "demo_vggish"] and manifest["engine"] == "auto"
    for name in manifest["converted"]:
        for fold in (0, 1):
            there = {file.name for file in (converted / "weights" / name / f"fold{fold}" / "converted").iterdir()}
            assert there in ({"any.xml", "any.bin"}, {"200.xml", "200.bin", "100.xml", "100.bin"})
            for file in there:
                assert f"weights/{name}/fold{fold}/converted/{file}" in manifest["files"]


def test_a_kernel_without_network_installs_openvino_from_the_bundle_and_answers_as_pytorch_here(
    full: Paths, converted: Path, tmp_path: Path
) -> None:
    """Probabilities within 1e-4 in fp32, and the same first three classes of each clip in the same order."""
    inputs, script = tmp_path / "inputs", tmp_path / "src" / "kernel.py"
    shutil.copytree(full.input, inputs / SLUG, ignore=shutil.ignore_patterns("test_labels.csv", "train*"))
    shutil.copytree(converted, inputs / "tiny-tagging-kit")
    write_kernel(script.parent, converted, "tester/tiny-tagging-kit", SLUG, "cpu")
    (inputs / "gate").mkdir()
    (inputs / "gate" / "sitecustomize.py").write_text(GATE)
    script.write_text(
        script.read_text().replace('"--scratch", scratch', '"--engine", "openvino", "--scratch", scratch')
    )
    place = str(inputs / "gate") if why_not() else "/kaggle/input/gate"
    done = run_kernel(script, inputs, tmp_path / "working", {"PYTHONPATH": place, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "working" / "report.json").read_text())
    assert report["engines"] == ["openvino"] and "PyTorch predicts" not in done.stderr
    here, there = (pd.read_csv(file).set_index("fname") for file in submissions(full, tmp_path / "working"))
    assert list(here.columns) == list(there.columns) and list(here.index) == list(there.index)
    np.testing.assert_allclose(there, here, atol=1e-4)
    first_three = [np.argsort(-table.to_numpy(), axis=1, kind="stable")[:, :3] for table in (here, there)]
    assert (first_three[0] == first_three[1]).all()
    assert (here.to_numpy() != there.to_numpy()).any(), "the same bits would be PyTorch's"


def submissions(paths: Paths, working: Path) -> tuple[Path, Path]:
    return paths.work / "submission.csv", working / "submission.csv"


def test_nothing_is_converted_where_the_networks_are_there(
    full: Paths, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(torch.jit, "trace", refuse)
    predict(converted, full.input.parent, SLUG, tmp_path / "out" / "submission.csv", tmp_path, "openvino")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["engines"] == ["openvino"]


def test_a_changed_network_is_not_used(full: Paths, converted: Path, tmp_path: Path) -> None:
    copy, out = tmp_path / "bundle", tmp_path / "out" / "submission.csv"
    shutil.copytree(converted, copy)
    file = next(copy.glob("weights/demo_vggish/fold1/converted/*.bin"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"converted/\S+\.bin: changed since it was bundled: make the bundle again"):
        predict(copy, full.input.parent, SLUG, out, tmp_path, "openvino")
    file.unlink()
    with pytest.raises(UserError, match=r"converted/\S+\.bin: missing since it was bundled"):
        predict(copy, full.input.parent, SLUG, out, tmp_path, "openvino")


def test_a_network_that_does_not_convert_goes_as_pytorch(
    full: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = replace(full, work=tmp_path / "work")
    shutil.copytree(full.work, paths.work, ignore=shutil.ignore_patterns("features", "kaggle"))
    check = runs.converted.check_equal

    def but_vggish(tagger, *args):  # type: ignore[no-untyped-def]
        if "VGGish" in type(tagger.backbone).__name__:
            raise ConversionError("OpenVINO cannot do this")
        check(tagger, *args)

    monkeypatch.setattr(runs.converted, "check_equal", but_vggish)
    folder = bundle(paths, "default", "me", engine="openvino")
    told = capsys.readouterr()
    assert "warning: demo_vggish: vggish: OpenVINO cannot do this: it goes as PyTorch\n" in told.err
    assert "converted for OpenVINO: 1 of 2 experiments" in told.out
    assert not list(folder.glob("weights/demo_vggish/*/converted"))
    monkeypatch.setattr(torch.jit, "trace", None)
    predict(folder, full.input.parent, SLUG, tmp_path / "out" / "submission.csv", tmp_path)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["engines"] == ["openvino", "torch"]
    assert "PyTorch predicts" not in capsys.readouterr().err, "what was told at bundling is not told again"


def test_a_network_of_fixed_size_has_a_file_for_each_length(full: Paths, tmp_path: Path) -> None:
    run = read_trained(full.run("demo_resnetish", 0))
    with pytest.MonkeyPatch.context() as patch:
        write_one = runs.converted._write

        def fixed(tagger, lengths, file, any_length):  # type: ignore[no-untyped-def]
            write_one(tagger, lengths, file, any_length)
            if any_length:
                raise ConversionError("it answers otherwise")

        patch.setattr(runs.converted, "_write", fixed)
        runs.converted.write_converted(run, tmp_path / "converted")
    names = sorted(file.name for file in (tmp_path / "converted").iterdir())
    assert names == ["100.bin", "100.xml", "200.bin", "200.xml"]
    listed = {f"converted/{name}": file_sha256(tmp_path / "converted" / name) for name in names}
    found = runs.converted.find_converted(tmp_path, listed, "again")
    assert found == {tmp_path: {n: str(tmp_path / "converted" / f"{n}.xml") for n in (100, 200)}}


def test_without_openvino_an_older_bundle_and_auto_are_pytorch_s(blended: Paths, tmp_path: Path) -> None:
    """A bundle without `converted` in its manifest: networks are converted where they predict."""
    assert EngineChoice("openvino").converted is None
    paths = replace(blended, work=tmp_path / "work")
    shutil.copytree(blended.work, paths.work, ignore=shutil.ignore_patterns("features"))
    folder = bundle(paths, "default", "me")
    assert "converted" not in json.loads((folder / "kit_manifest.json").read_text())
    predict(folder, blended.input.parent, SLUG, tmp_path / "out" / "submission.csv", tmp_path, "openvino")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["engines"] == ["openvino"]
