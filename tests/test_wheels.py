"""submission.wheels: what a kernel lacks is brought, and what cannot work there is found here."""

import os
import sys
from pathlib import Path

import pytest
from small_wheels import make_wheel

from console.errors import UserError
from submission import bundle
from submission import wheels as module
from submission.wheels import AUTO, gather_wheels, needed

OTHER = "3.11" if sys.version_info[:2] != (3, 11) else "3.10"  # than the Python that runs pip


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes for the only index there is."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_auto_brings_the_closed_set_for_kaggles_python(index: Path, tmp_path: Path) -> None:
    """Needs of needs, by the markers of Kaggle's Python, and nothing of what Kaggle has."""
    tag = f"cp{OTHER.replace('.', '')}-cp{OTHER.replace('.', '')}-manylinux_2_28_x86_64"
    engine = make_wheel(index, "engine", "2.0", ["numpy<3", "inner>=1", f"old; python_version<='{OTHER}'"], tag)
    make_wheel(index, "engine", "2.0", tag="cp39-cp39-manylinux_2_28_x86_64")
    make_wheel(index, "engine", "2.0", tag=f"{tag.rpartition('-')[0]}-win_amd64")
    make_wheel(index, "engine", "3.0", tag=tag)
    make_wheel(index, "inner", "1.5", ["deeper", "test_only; extra == 'test'", "win; sys_platform == 'win32'"])
    make_wheel(index, "inner", "0.5")
    make_wheel(index, "deeper", "1.0", ["engine"])
    make_wheel(index, "old")
    brought = gather_wheels([AUTO], ["engine==2.0"], tmp_path / "wheels", OTHER)
    assert sorted(brought) == ["deeper", "engine", "inner", "old"]
    assert names(tmp_path / "wheels") == [
        "deeper-1.0-py3-none-any.whl",
        engine.name,
        "inner-1.5-py3-none-any.whl",
        "old-1.0-py3-none-any.whl",
    ]


def test_a_file_is_completed_by_auto_and_refused_without(index: Path, tmp_path: Path) -> None:
    engine, inner = make_wheel(tmp_path, "engine", "2.0", ["inner>=1"]), make_wheel(index, "inner", "1.5")
    assert gather_wheels([engine, AUTO], ["engine==1.0"], tmp_path / "a") == ["engine", "inner"], (
        "the file that is given"
    )
    with pytest.raises(UserError, match=r"engine-2\.0\S+: needs inner>=1, which neither .* --wheel auto brings it$"):
        gather_wheels([engine], [], tmp_path / "b")
    assert gather_wheels([engine, inner], [], tmp_path / "c") == ["engine", "inner"]
    assert gather_wheels([AUTO], [], tmp_path / "d") == [] and not (tmp_path / "d").exists()


def test_wheels_that_cannot_work_there_are_refused(index: Path, tmp_path: Path) -> None:
    def refused(*files: Path) -> str:
        with pytest.raises(UserError) as error:
            gather_wheels(files, [], tmp_path / f"wheels-{len(names(tmp_path))}", "3.12")
        assert "\n" not in str(error.value)
        return str(error.value)

    engine, inner = make_wheel(tmp_path, "engine", "2.0", ["inner>=2"]), make_wheel(tmp_path, "inner", "1.0")
    assert "needs inner>=2, and 1.0 comes along: give a wheel of another version" in refused(engine, inner)
    assert "inner comes twice, 1.0 and 2.0" in refused(inner, make_wheel(tmp_path, "inner", "2.0"))
    assert "would replace Kaggle's own numpy" in refused(make_wheel(tmp_path, "numpy", "2.4"))
    for tag in ("cp311-cp311-manylinux_2_28_x86_64", "cp312-cp312-manylinux_2_28_aarch64", "cp312-cp312-win_amd64"):
        other = make_wheel(tmp_path, "other", "1.0", tag=tag)
        assert "not for Kaggle's Python 3.12 on Linux x86_64: use --wheel auto" in refused(other)
    for tag in ("cp312-cp312-manylinux2014_x86_64", "cp38-abi3-manylinux_2_17_x86_64", "py2.py3-none-any"):
        gather_wheels([make_wheel(tmp_path, "other", "1.0", tag=tag)], [], tmp_path / tag)
    damaged = tmp_path / "odd-1.0-py3-none-any.whl"
    damaged.write_bytes(b"wheel")
    assert "odd-1.0-py3-none-any.whl: is no wheel (File is not a zip file)" in refused(damaged)
    assert "nameless.whl: is no wheel" in refused(Path(damaged.rename(tmp_path / "nameless.whl")))
    assert "absent.whl: no such wheel" in refused(tmp_path / "absent.whl")


def test_auto_brings_what_an_extra_needs(index: Path, tmp_path: Path) -> None:
    """And one version of what two of them need."""
    make_wheel(index, "engine", "2.0", ["Tool[fast]", "shared<4", "inner"])
    make_wheel(index, "inner", "1.0", ["shared>=2"])
    make_wheel(index, "tool", "1.0", ["gear; extra == 'fast'", "never; extra == 'slow'", "tool[full]; extra == 'fast'"])
    make_wheel(index, "gear", "1.0")
    for version in ("1.0", "3.0", "5.0"):
        make_wheel(index, "shared", version)
    brought = gather_wheels([AUTO], ["engine", "inner"], tmp_path / "wheels", "3.12")
    assert brought == ["engine", "gear", "inner", "shared", "tool"]
    assert "shared-3.0-py3-none-any.whl" in names(tmp_path / "wheels")
    (tmp_path / "wheels" / "gear-1.0-py3-none-any.whl").unlink()
    there = [tmp_path / "wheels" / name for name in names(tmp_path / "wheels")]
    with pytest.raises(UserError, match=r"tool-1\.0\S+: needs gear, which neither comes along nor is Kaggle's"):
        gather_wheels(there, [], tmp_path / "third")


def test_kaggles_python_is_checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--kaggle-python", "3.x", "--wheel", "auto"], "--kaggle-python 3.x: expected 3.N, such as 3.12"),
        (["--kaggle-python", "3.13"], "--kaggle-python says what --wheel is for: add --wheel auto"),
    ):
        monkeypatch.setattr(sys, "argv", ["submission.bundle", *words])
        with pytest.raises(SystemExit):
            bundle.main()
        assert message in capsys.readouterr().err


def test_the_version_that_is_installed_is_brought_whatever_its_spelling(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        def __init__(self, name: str | None, version: str) -> None:
            self.name, self.version = name, version

    here = [Installed(None, "0"), Installed("AI_Edge.LiteRT", "1.0")]
    monkeypatch.setattr("importlib.metadata.distributions", lambda: here)
    for version in ("1.0", "2.0"):
        make_wheel(index, "ai_edge_litert", version)
    (tmp_path / "net.tflite").write_bytes(b"")
    assert bundle.bring_wheels([AUTO], "torch", tmp_path, "3.12") == ["ai-edge-litert"]
    assert names(tmp_path / "wheels") == ["ai_edge_litert-1.0-py3-none-any.whl"]


def test_what_the_index_lacks_is_one_line(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "engine", "2.0", ["gone>=1"])
    with pytest.raises(UserError, match=r"the index has no wheel of gone>=1 for Python 3\.12 on Linux x86_64: see"):
        gather_wheels([AUTO], ["engine"], tmp_path / "a", "3.12")
    with pytest.raises(UserError, match=r"the index has no wheel of engine==3\.0 for Python"):
        gather_wheels([AUTO], ["engine==3.0"], tmp_path / "b")


def test_without_internet_or_pip_it_is_one_line(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens there
    monkeypatch.delenv("PIP_NO_INDEX")
    with pytest.raises(UserError, match=r"auto: no answer from the package index for engine: try again online"):
        gather_wheels([AUTO], ["engine"], tmp_path / "a")
    (tmp_path / "python").write_text("#!/bin/sh\necho $0: No module named pip >&2; exit 1\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match=r"python has no pip: python -m ensurepip, or name the wheels of engine$"):
        gather_wheels([AUTO], ["engine"], tmp_path / "b")


def test_what_predicts_needs_what_it_needs() -> None:
    files = [Path("a/net.onnx"), Path("b/net.tflite"), Path("c/weights.pth")]
    assert needed("torch", [], {}) == [] and needed("torch", files[2:], {}) == []
    assert needed("auto", [], {"openvino": "2026.4.1"}) == ["openvino==2026.4.1"], "that of the conversion"
    assert needed("openvino", files, {}) == ["ai-edge-litert", "onnxruntime", "openvino"]
