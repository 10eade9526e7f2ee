"""Random JSON and damaged bytes in run folders, weights, blends, stores and journals: a UserError or a right result."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blending.ensemble_folder import load_ensemble, make_ensemble, save_ensemble
from configs.forms import to_json
from configs.schema import Config, FeatureConfig, FoldConfig, ModelConfig, differences, to_dict
from console.errors import UserError
from ensemble import show
from features.store import open_features
from models.tagger import build_tagger, load_tagger, save_tagger
from runs.predictions import Predictions
from runs.provenance import file_sha256
from runs.run_folder import (
    FILES,
    TRAINED,
    Manifest,
    Origin,
    SoundHash,
    finish_run,
    is_begun,
    partial_of,
    read_run,
    read_trained,
    recover,
    unfinished,
)
from tests.fuzzing import fuzz
from tests.test_ensemble_folder import made
from training.lit_tagger import SAVED
from training.trainer import finished_epochs
from tuning.study import finished, open_study

CFG = Config(name="exp", model=ModelConfig(name="resnetish10", width=8), folds=FoldConfig(n_folds=2))
ORIGIN = Origin(n_folds=2, fold_hash="f0", sound_hash=SoundHash(train="a", test="b"), test_faults={"t2.wav": "empty"})
MANIFEST = Manifest(**vars(ORIGIN), experiment="exp", fold=0)
CLASSES = ("a", "b", "c")
OOF = Predictions(("x.wav", "y.wav"), np.float32([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]), np.array([3, 4]))

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([10**18, -(10**400), 2**63]), st.floats(), st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
PLACES = st.lists(st.integers(0, 9), min_size=1, max_size=4)
DAMAGES = st.tuples(st.sampled_from(["cut", "flip", "insert", "all"]), st.floats(0, 1), st.binary(max_size=20))


def put(tree: Any, place: list[int], value: Any) -> Any:
    """`value` somewhere in a tree of dicts and lists; where it leads to nothing, instead of it."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    if not place or not keys:
        return value
    key = keys[place[0] % len(keys)]
    tree[key] = put(tree[key], place[1:], value)
    return tree


def change_json(file: Path, place: list[int], value: Any) -> None:
    file.write_text(json.dumps(put(json.loads(file.read_text()), place, value)))


def damage(file: Path, how: tuple[str, float, bytes]) -> None:
    kind, share, noise = how
    whole = file.read_bytes()
    at = min(int(share * len(whole)), len(whole) - 1)
    flipped = whole[:at] + bytes([whole[at] ^ (noise or b"\1")[0] or 1]) + whole[at + 1 :]
    changed = {"cut": whole[:at], "flip": flipped, "insert": whole[:at] + noise + whole[at:], "all": noise}
    file.write_bytes(changed[kind])


def seal(folder: Path) -> None:
    """The manifest names the files as they are now: what is wrong in them must be seen by itself."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: file_sha256(folder / name) for name in FILES}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a blend, a store, a study and a checkpoint."""
    root = tmp_path_factory.mktemp("whole")
    with unfinished(root / "fold0", CFG, ORIGIN, restart=False) as partial:
        ones = np.ones(CFG.features.n_mels, np.float32)
        tagger = build_tagger(CFG, np.full(3, 1 / 3, np.float32), 0 * ones, ones)
        save_tagger(tagger.state_dict(), partial / "model.safetensors")
        (partial / "metrics.csv").write_text("epoch\n1\n")
        finish_run(partial, root / "fold0", CFG, CLASSES, OOF, OOF, {"map3": 0.5}, MANIFEST)
    save_ensemble(make_ensemble(made(clips=40), "stack"), root / "stack")
    save_ensemble(make_ensemble(made(clips=40), "log_linear"), root / "log_linear")
    open_features(FeatureConfig(), pd.DataFrame({"fname": ["a.wav", "b.wav"], "path": [None, None]}), root / "features")
    study = open_study(root / "study", {"config": to_dict(CFG)})
    study.optimize(lambda trial: trial.suggest_float("train.lr", 0, 1), n_trials=2)
    torch.save({key: [1] for key in SAVED}, root / "last.ckpt")
    return root


@pytest.fixture
def fresh(whole: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A part of it to be changed, made anew at each call."""

    def copy(name: str) -> Path:
        shutil.rmtree(tmp_path, ignore_errors=True)
        tmp_path.mkdir()
        copied = shutil.copytree if (whole / name).is_dir() else shutil.copyfile
        return Path(copied(whole / name, tmp_path / name))

    return copy


def use_run(folder: Path) -> None:
    """What the commands do with it."""
    run = read_run(folder)
    assert 0 <= run.fold < len(range(run.manifest.n_folds)) and f"{run.scores['map3']:.4f}"
    assert differences(run.config, Config()) and run.experiment.upper() is not None
    for one in (run.oof, run.test):
        assert one.of(one.fnames, "rows").shape == (len(one.fnames), len(run.classes))
    assert set(run.manifest.skipped) | set(run.manifest.test_faults) is not None


@fuzz
@given(st.sampled_from(["config.json", "scores.json", "manifest.json"]), PLACES, VALUES, st.booleans())
def test_any_json_in_a_run(fresh: Callable[[str], Path], name: str, place: list[int], value: Any, sealed: bool) -> None:
    folder = fresh("fold0")
    change_json(folder / name, place, value)
    if sealed and name != "manifest.json":
        seal(folder)
    use_or_refuse(lambda: use_run(folder))


@fuzz
@given(st.sampled_from(["classes.txt", "oof.npz", "config.json", "manifest.json"]), DAMAGES, st.booleans())
def test_damaged_files_in_a_run(fresh: Callable[[str], Path], name: str, how: Any, sealed: bool) -> None:
    folder = fresh("fold0")
    damage(folder / name, how)
    if sealed and name != "manifest.json":
        seal(folder)
    use_or_refuse(lambda: use_run(folder))


@fuzz
@given(
    st.dictionaries(
        st.sampled_from(["fname", "probs", "size"]),
        st.tuples(st.sampled_from(["f4", "f8", "i8", "U5", "O", "?"]), st.lists(st.integers(0, 3), max_size=3)),
    )
)
def test_any_arrays_in_a_run(fresh: Callable[[str], Path], arrays: dict[str, tuple[str, list[int]]]) -> None:
    folder = fresh("fold0")
    there: dict[str, Any] = {"fname": np.array(OOF.fnames), "probs": OOF.probs, "size": OOF.size}
    np.savez(folder / "oof.npz", **there | {key: np.zeros(shape, kind) for key, (kind, shape) in arrays.items()})
    seal(folder)
    use_or_refuse(lambda: use_run(folder))


@fuzz
@given(DAMAGES, st.booleans())
def test_damaged_weights(fresh: Callable[[str], Path], how: tuple[str, float, bytes], in_header: bool) -> None:
    folder = fresh("fold0")
    file = folder / "model.safetensors"
    kind, share, noise = how
    whole_weights = file.read_bytes()
    damage(file, (kind, share * 2000 / file.stat().st_size if in_header else share, noise))
    if file.read_bytes() != whole_weights:
        with pytest.raises(UserError, match="files changed"):
            read_trained(folder)
    seal(folder)
    use_or_refuse(lambda: load_tagger(CFG, read_trained(folder).weights)(torch.zeros(1, 1, 64, 128)))


@fuzz
@given(DAMAGES)
def test_a_damaged_checkpoint(fresh: Callable[[str], Path], how: tuple[str, float, bytes]) -> None:
    file = fresh("last.ckpt")
    damage(file, how)
    use_or_refuse(lambda: finished_epochs(file))


@fuzz
@given(
    st.sampled_from(["stack", "log_linear"]),
    st.sampled_from(["weights.json", "scores.json", "comparison.json"]),
    PLACES,
    VALUES,
)
def test_any_json_in_a_blend(fresh: Callable[[str], Path], blend: str, name: str, place: list[int], value: Any) -> None:
    folder = fresh(blend)
    change_json(folder / name, place, value)
    use_or_refuse(lambda: show(load_ensemble(folder)))


@fuzz
@given(st.sampled_from(["weights.json", "comparison.json", "oof.npz", "test.npz"]), DAMAGES)
def test_damaged_files_in_a_blend(fresh: Callable[[str], Path], name: str, how: tuple[str, float, bytes]) -> None:
    folder = fresh("stack")
    damage(folder / name, how)
    use_or_refuse(lambda: show(load_ensemble(folder)))


@fuzz
@given(st.sampled_from(["manifest.json", "index.npz"]), PLACES, VALUES, DAMAGES)
def test_a_damaged_store(fresh: Callable[[str], Path], name: str, place: list[int], value: Any, how: Any) -> None:
    folder = fresh("features")
    (store,) = (entry for entry in folder.iterdir() if entry.is_dir())
    if name == "manifest.json":
        change_json(store / name, place, value)
    else:
        damage(store / name, how)
    clips = pd.DataFrame({"fname": ["a.wav", "b.wav"], "path": [None, None]})
    use_or_refuse(lambda: open_features(FeatureConfig(), clips, folder).rows(["a.wav"]))


@fuzz
@given(st.integers(0, 30), st.one_of(st.binary(max_size=20), VALUES.map(lambda value: json.dumps(value).encode())))
def test_a_damaged_journal(fresh: Callable[[str], Path], at: int, line: bytes) -> None:
    folder = fresh("study")
    lines = (folder / "journal.log").read_bytes().splitlines()
    lines.insert(at % len(lines), line.replace(b"\n", b" "))
    (folder / "journal.log").write_bytes(b"\n".join(lines) + b"\n")
    use_or_refuse(lambda: [trial.value for trial in finished(open_study(folder))])
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@fuzz
@given(st.sampled_from([*TRAINED, "manifest.json", "begun.json", "last.ckpt"]), DAMAGES)
def test_a_damaged_folder_that_was_begun(fresh: Callable[[str], Path], name: str, how: Any) -> None:
    final = fresh("fold0")
    partial = partial_of(final)
    shutil.copytree(final, partial)
    (partial / "last.ckpt").write_bytes(b"an epoch")
    (partial / "begun.json").write_text(json.dumps(to_json(ORIGIN)))
    damage(partial / name, how)
    if name != "manifest.json":
        (partial / "manifest.json").unlink()
    assert is_begun(final, CFG) in (True, False)
    recover(final)

    def go_on() -> None:
        with unfinished(final, CFG, ORIGIN, restart=False):
            pass

    use_or_refuse(go_on)


def use_or_refuse(use: Callable[[], object]) -> None:
    """Whatever else is raised fails the test."""
    try:
        use()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
