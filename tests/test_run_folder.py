"""A run folder is whole or visibly unfinished, whatever happens when."""

import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import files
from configs.forms import from_json, to_json
from configs.schema import Config, ModelConfig, TrainConfig, to_dict
from console.errors import UserError
from runs import run_folder
from runs.predictions import Predictions, load_predictions, save_predictions
from runs.provenance import git_revision, library_versions
from runs.run_folder import (
    CHECKPOINT,
    FILES,
    Manifest,
    Origin,
    SoundHash,
    check_same_data,
    check_same_settings,
    finish_run,
    is_begun,
    partial_of,
    read_run,
    recover,
    unfinished,
)

CFG = Config(name="exp")
ORIGIN = Origin(n_folds=2, fold_hash="f0", sound_hash=SoundHash(train="a", test="b"), test_faults={"t2.wav": "empty"})
MANIFEST = Manifest(**vars(ORIGIN), experiment="exp", fold=0)
CLASSES = ("a", "b", "c")
OOF = Predictions(("x.wav", "y.wav"), np.float32([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]))
TEST = Predictions(("t1.wav", "t2.wav"), np.float32([[0.2, 0.2, 0.6], [1 / 3, 1 / 3, 1 / 3]]))


@pytest.fixture
def final(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "exp" / "fold0"


def train(final: Path, score: float = 0.5, restart: bool = False, cfg: Config = CFG) -> None:
    """What train_fold.py does to the folder."""
    with unfinished(final, cfg, ORIGIN, restart) as partial:
        (partial / CHECKPOINT).write_text("epochs")
        finish(partial, final, score, cfg)


def finish(partial: Path, final: Path, score: float = 0.5, cfg: Config = CFG) -> None:
    (partial / "model.safetensors").write_bytes(b"weights")
    (partial / "metrics.csv").write_text("epoch\n1\n")
    finish_run(partial, final, cfg, CLASSES, OOF, TEST, {"map3": score}, MANIFEST)


def test_what_is_written_reads_back(final: Path) -> None:
    train(final)
    run = read_run(final)
    assert (run.experiment, run.fold, run.classes, run.scores) == ("exp", 0, CLASSES, {"map3": 0.5})
    assert run.config == CFG
    assert run.oof.fnames == OOF.fnames and np.array_equal(run.oof.probs, OOF.probs)
    assert run.test.fnames == TEST.fnames and np.array_equal(run.test.probs, TEST.probs)
    assert run.manifest.test_faults == {"t2.wav": "empty"}
    assert sorted(f.name for f in final.iterdir()) == sorted((*FILES, "manifest.json"))
    assert sorted(f.name for f in final.parent.iterdir()) == [".fold0.lock", "fold0"]


def test_the_id_changes_with_the_content_and_only_with_it(final: Path) -> None:
    train(final)
    first = read_run(final).id
    train(final, restart=True)
    assert read_run(final).id == first
    train(final, score=0.6, restart=True)
    assert read_run(final).id != first


def test_predictions_are_joined_by_fname() -> None:
    assert np.array_equal(OOF.of(["y.wav", "x.wav"], "oof"), OOF.probs[::-1])
    with pytest.raises(UserError, match=r"oof: clips without a prediction: z\.wav"):
        OOF.of(["x.wav", "z.wav"], "oof")


def test_predictions_have_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        save_predictions(tmp_path / name, OOF)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = load_predictions(tmp_path / "a.npz")
    assert again.fnames == OOF.fnames and again.probs.dtype == np.float32


@pytest.mark.parametrize("probs", [OOF.probs[:1], OOF.probs[0], OOF.probs[None]], ids=["rows", "flat", "cube"])
def test_predictions_have_a_row_per_name(tmp_path: Path, probs: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", fname=np.array(OOF.fnames), probs=probs)
    with pytest.raises(UserError, match=r"a\.npz: cannot read the predictions: fname .* do not match"):
        load_predictions(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("fold", "n_folds"), [("0", 2), (2, 2), (-1, 2), (0.0, 2), (True, 2), (0, float("nan")), (0, None)]
)
def test_the_fold_of_a_manifest_is_a_number(final: Path, fold: object, n_folds: object) -> None:
    train(final)
    manifest = json.loads((final / "manifest.json").read_text())
    (final / "manifest.json").write_text(json.dumps(manifest | {"fold": fold, "n_folds": n_folds}))
    with pytest.raises(UserError, match=r"not a finished run of this kit .*fold.* train that fold"):
        read_run(final)


def test_an_unfinished_fold_is_visibly_so_and_goes_on(final: Path) -> None:
    with pytest.raises(KeyboardInterrupt), unfinished(final, CFG, ORIGIN, restart=False) as partial:
        (partial / CHECKPOINT).write_text("two epochs")
        raise KeyboardInterrupt
    assert not final.exists() and partial == partial_of(final) and partial.name == "fold0.partial"
    with pytest.raises(UserError, match="not a finished run"):
        read_run(partial)
    with unfinished(final, CFG, ORIGIN, restart=False) as partial:
        assert (partial / CHECKPOINT).read_text() == "two epochs"
    with unfinished(final, CFG, ORIGIN, restart=True) as partial:
        assert not (partial / CHECKPOINT).exists()


def test_a_fold_is_begun_where_an_epoch_of_the_same_settings_lies(final: Path) -> None:
    other = Config(name="exp", train=TrainConfig(epochs=7))
    train(final)
    assert not is_begun(final, CFG)
    with unfinished(final, CFG, ORIGIN, restart=True) as partial:
        assert not is_begun(final, CFG)
        (partial / CHECKPOINT).write_text("one epoch")
    assert is_begun(final, CFG) and not is_begun(final, other)
    (partial / "config.json").write_text('{"torn')
    assert not is_begun(final, CFG)


def test_an_unfinished_fold_with_other_settings_or_data_is_refused(final: Path) -> None:
    with unfinished(final, CFG, ORIGIN, restart=False) as partial:
        (partial / CHECKPOINT).write_text("two epochs")
    other = Config(name="exp", train=TrainConfig(epochs=7))
    with pytest.raises(UserError, match=r"fold0\.partial was begun with other settings \(train\.epochs: 60 -> 7\)"):
        train(final, cfg=other)
    for changed, what in (
        ({"fold_hash": "f"}, "folds"),
        ({"sound_hash": SoundHash(train="c", test="b")}, "sound files"),
    ):
        with (
            pytest.raises(UserError, match=rf"fold0\.partial was begun from other {what}: .*--force"),
            unfinished(final, CFG, replace(ORIGIN, **changed), restart=False),
        ):
            pass
    assert (partial / CHECKPOINT).read_text() == "two epochs"
    train(final, cfg=other, restart=True)
    assert read_run(final).config == other


def test_without_a_finished_epoch_other_settings_are_welcome(final: Path) -> None:
    with unfinished(final, CFG, ORIGIN, restart=False) as partial:
        (partial / "config.json").write_text('{"torn')  # killed as it was written
    train(final, cfg=Config(name="exp", train=TrainConfig(epochs=7)))
    assert read_run(final).config.train.epochs == 7


def test_two_processes_do_not_train_the_same_fold(final: Path) -> None:
    final.parent.mkdir(parents=True)
    with (final.parent / ".fold0.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)  # even a shared one keeps out who wants it alone
        with pytest.raises(UserError, match="fold0: another process is training this fold"):
            train(final, restart=True)
    train(final)  # the lock of a process that is gone does not matter


def test_force_keeps_the_old_folder_until_the_new_one_is_whole(final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(final, score=0.1)
    with unfinished(final, CFG, ORIGIN, restart=True) as partial:
        assert read_run(final).scores == {"map3": 0.1}
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(run_folder, "_publish", interrupt)
            finish(partial, final, 0.9)
        assert read_run(final).scores == {"map3": 0.1}
        finish(partial, final, 0.9)
    assert read_run(final).scores == {"map3": 0.9}
    assert sorted(f.name for f in final.parent.iterdir()) == [".fold0.lock", "fold0"]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("moment", range(13))
def test_a_kill_while_it_finishes_loses_nothing(
    final: Path, monkeypatch: pytest.MonkeyPatch, older: bool, exchange: bool, moment: int
) -> None:
    """Every file operation is a moment to be killed at, also where two names cannot be exchanged."""
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    if older:
        train(final, score=0.1)
    kill_at_operation(monkeypatch, moment)
    try:
        train(final, score=0.9, restart=older)
        killed = False
    except SystemExit:
        killed = True
    monkeypatch.undo()
    if exchange and older:
        assert final.exists(), "at no moment is it gone"
    before = read_run(final).scores["map3"] if final.exists() else None
    whole = (partial_of(final) / "manifest.json").exists()
    recover(final)
    assert final.exists() or not (older or whole)
    if final.exists():
        assert read_run(final).scores["map3"] in ((0.9,) if whole or not killed or before == 0.9 else (0.1,))
    elif moment > 2:  # it goes on from its epoch
        assert (partial_of(final) / CHECKPOINT).exists()
    train(final, score=0.9, restart=True)
    assert read_run(final).scores == {"map3": 0.9}
    assert sorted(f.name for f in final.parent.iterdir()) == [".fold0.lock", "fold0"]


def kill_at_operation(monkeypatch: pytest.MonkeyPatch, moment: int) -> Iterator[int]:
    """The process ends before the `moment`-th rename, exchange or removal; what counts them."""
    count = iter(range(1000))
    operations = [(Path, "rename"), (Path, "replace"), (Path, "unlink"), (files, "_exchange"), (shutil, "rmtree")]
    for where, name in operations:
        monkeypatch.setattr(where, name, _killing(getattr(where, name), count, moment))
    return count


def _killing(operation: Any, count: Any, moment: int) -> Any:
    def killed(*given: Any, **more: Any) -> Any:
        if (now := next(count)) == moment:
            raise SystemExit
        if now > moment >= 0:
            return False  # nothing more is done by a process that is gone
        return operation(*given, **more)

    return killed


def test_the_moments_above_cover_all_operations(final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for older in (False, True):
        with monkeypatch.context() as patch:
            count = kill_at_operation(patch, -1)
            train(final, restart=older)
        # an old attempt, six small files, the checkpoint, the folder's name, two folders that may be left, begun.json
        assert next(count) == 12


@pytest.mark.parametrize("name", [name for name in FILES if name != "model.safetensors"])
def test_damaged_and_absent_files_are_refused(final: Path, name: str) -> None:
    train(final)
    whole = (final / name).read_bytes()
    (final / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=rf"fold0: files changed since the run was finished: {name}; .*--force"):
        read_run(final)
    (final / name).unlink()
    with pytest.raises(UserError, match=r"fold0: not a finished run of this kit .*--force"):
        read_run(final)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"files": 3}', '{"experiment": "exp", "fold": 0}'])
def test_a_manifest_of_something_else_is_refused(final: Path, text: str) -> None:
    train(final)
    (final / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="fold0: not a finished run of this kit"):
        read_run(final)


def test_settings_of_another_version_are_told(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_dict(CFG) | {"optimiser": "sgd"}))
    with pytest.raises(UserError, match=r"fold0 was made with settings that this version cannot read .*'optimiser'"):
        check_same_settings(file, CFG, "fold0 was made")
    older = to_dict(CFG)
    del older["train"]["compile"]  # a setting that came later has its default
    file.write_text(json.dumps(older))
    check_same_settings(file, CFG, "fold0 was made")
    for text in ("", "[]", '{"train": 3}'):
        file.write_text(text)
        with pytest.raises(UserError, match="--force"):
            check_same_settings(file, CFG, "fold0 was made")


def test_three_differences_are_named(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_dict(CFG)))
    other = Config(name="exp", model=ModelConfig(name="vggish", width=8), train=TrainConfig(lr=1, epochs=2))
    told = r"other settings \(4: model\.name: resnetish18 -> vggish, model\.width: 64 -> 8, .* and 1 more\)"
    with pytest.raises(UserError, match=told):
        check_same_settings(file, other, "fold0 was made")


def test_data_of_a_run_without_the_facts_is_refused() -> None:
    with pytest.raises(UserError, match="it was made from other sound files"):
        check_same_data(replace(ORIGIN, sound_hash=SoundHash()), ORIGIN, "it was made")
    check_same_data(replace(MANIFEST, seconds=3), ORIGIN, "it was made")


def test_other_test_sound_matters_only_to_whom_it_taught() -> None:
    heard, now = ORIGIN, replace(ORIGIN, sound_hash=SoundHash(train="a", test="c"))
    check_same_data(heard, now, "it was made")
    for there in (replace(heard, pseudo_runs={"a": "1"}), heard):
        with pytest.raises(UserError, match="it was made from other sound files"):
            check_same_data(there, replace(now, pseudo_runs={"a": "1"}), "it was made")


def test_predictions_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "oof.npz").write_bytes(b"no zip")
    for name in ("oof.npz", "absent.npz"):
        with pytest.raises(UserError, match=f"{name}: cannot read the predictions"):
            load_predictions(tmp_path / name)


def test_the_revision_is_that_of_the_kit_and_not_of_what_it_lies_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a", "--allow-empty"]
    for command in (["init", "-q"], commit):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (tmp_path / "kit").mkdir()
    whole = git_revision(tmp_path)
    assert whole and len(whole) == 40 and git_revision(tmp_path / "kit") is None
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))  # as in a hook
    assert git_revision(tmp_path / "kit") is None and git_revision(tmp_path) == whole
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert git_revision(tmp_path) is None


def test_another_version_of_ones_own_metric_is_another_run() -> None:
    """A run of an older version, whose manifest does not name the metric's file, stays as good as it was."""
    now = replace(ORIGIN, metric="my_metric:score", metric_code={"my_metric.py": "b"})
    check_same_data(now, now, "it was made")
    check_same_data(replace(now, metric_code={}), now, "it was made")
    with pytest.raises(UserError, match=r"it was made with another version of the metric my_metric:score: choose a na"):
        check_same_data(replace(now, metric_code={"my_metric.py": "a"}), now, "it was made")
    assert from_json(Manifest, to_json(Manifest(**vars(ORIGIN), experiment="a", fold=0))).metric_code == {}


def test_the_environment_names_the_code_and_the_libraries(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    found = library_versions()
    assert set(found) == {
        "python",
        "torch",
        "torchaudio",
        "timm",
        "pytorch-lightning",
        "numpy",
        "pandas",
        "soundfile",
    }
    assert all(found.values())
