"""python -m models.export: a run's network as a file that other programs read."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import models.export
from configs.paths import Paths
from console.errors import UserError
from models.export import export
from models.tagger import load_tagger
from runs.run_folder import read_trained

openvino = pytest.importorskip("openvino", reason="OpenVINO is an optional package")


def test_an_exported_network_answers_as_the_run_for_any_number_and_length_of_windows(
    blended: Paths, tmp_path: Path
) -> None:
    run = blended.run("demo_resnetish", 0)
    out = tmp_path / "exported"
    export(run, "openvino", out)
    assert sorted(file.name for file in out.iterdir()) == ["about.json", "network.bin", "network.xml"]
    trained = read_trained(run)
    about = json.loads((out / "about.json").read_text())
    assert (about["run"], about["n_frames"], about["format"]) == (trained.id, "any", "openvino")
    assert tuple(about["classes"]) == trained.classes
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    network = openvino.Core().compile_model(out / "network.xml", "CPU", settings)
    tagger = load_tagger(trained.config, trained.weights)
    for shape in ((1, 90), (5, 131)):
        x = torch.randn(shape[0], 1, len(tagger.mean), shape[1]) * tagger.std.view(-1, 1) + tagger.mean.view(-1, 1)
        with torch.inference_mode():
            np.testing.assert_allclose(network({0: x.numpy()})[0], tagger(x), atol=1e-3)
    before = (out / "about.json").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"exported: exists: --force replaces it"):
        export(run, "openvino", out)
    assert (out / "about.json").stat().st_mtime_ns == before
    export(run, "openvino", out, replace=True)
    assert (out / "about.json").stat().st_mtime_ns != before
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"photos: exists: it is no exported network: choose another --output"):
        export(run, "openvino", tmp_path / "photos", replace=True)
    with pytest.raises(
        UserError, match=r"demo_resnetish: no folder of a fold: name one, such as \S+demo_resnetish/fold0$"
    ):
        export(run.parent, "openvino", tmp_path / "other")


@pytest.mark.parametrize("experiment", ["demo_resnetish", "demo_vggish"])
def test_an_onnx_file_is_read_by_onnx_runtime(blended: Paths, tmp_path: Path, experiment: str) -> None:
    """For windows of any length, also with a pooling to a grid, by the mean and by the maximum."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is an optional package")
    pytest.importorskip("onnxscript", reason="ONNX is an optional package")
    run = blended.run(experiment, 0)
    export(run, "onnx", tmp_path / "exported")
    trained = read_trained(run)
    tagger = load_tagger(trained.config, trained.weights)
    network = onnxruntime.InferenceSession(tmp_path / "exported" / "network.onnx")
    assert json.loads((tmp_path / "exported" / "about.json").read_text())["n_frames"] == "any"
    x = torch.randn(3, 1, len(tagger.mean), 131)
    x = x * tagger.std.view(-1, 1) + tagger.mean.view(-1, 1)
    with torch.inference_mode():
        np.testing.assert_allclose(network.run(None, {"log_mel": x.numpy()})[0], tagger(x), atol=1e-3)


def test_a_network_that_cannot_be_exported_is_one_line_and_leaves_nothing(
    blended: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import models.openvino_conversion as engine

    monkeypatch.setattr(engine, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match=r"fold0: resnetish\d+: converted it differs from PyTorch"):
        export(blended.run("demo_resnetish", 0), "openvino", tmp_path / "exported")
    assert not [file for file in tmp_path.iterdir() if not file.name.startswith(".")]


def test_what_onnx_lacks_is_named(blended: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VGGish ends in an adaptive maximum, which has no ONNX operator; here it is not put in other words."""
    pytest.importorskip("onnxscript", reason="ONNX is an optional package")
    monkeypatch.setattr(models.export, "with_onnx_operators", lambda tagger: tagger)
    with pytest.raises(
        UserError, match=r"vggish: ONNX cannot .*: No ONNX function .*max_pool2d.*: try --format openvino$"
    ):
        export(blended.run("demo_vggish", 0), "onnx", tmp_path / "exported")


def test_help_imports_no_torch() -> None:
    code = "import sys; import models.export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
