"""One fold's rows, labels, weights and prior, by hand."""

import numpy as np
import pandas as pd
import pytest

from configs.schema import TrainConfig
from console.errors import UserError
from tests.conftest import MakeStore
from training.fold_data import FoldData, split

CLASSES = ("bark", "siren", "unheard")
FOLDS = pd.DataFrame(  # in another order than the store, whose 3.wav is left out
    {
        "fname": ["4.wav", "0.wav", "2.wav", "1.wav", "5.wav"],
        "label": ["siren", "bark", "bark", "bark", "siren"],
        "verified": [True, False, True, True, False],
        "fold": [0, 1, 0, 1, 1],
    }
)


def parts(make_store: MakeStore, fold: int = 0, folds: pd.DataFrame = FOLDS, **train: object) -> FoldData:
    store = make_store([np.zeros((2, 3))] * 6)
    return split(TrainConfig(**train), folds, store, CLASSES, fold)  # type: ignore[arg-type]


def test_rows_are_joined_by_fname(make_store: MakeStore) -> None:
    found = parts(make_store)
    assert found.train.tolist() == [0, 1, 5]
    assert found.val.tolist() == [4, 2]
    assert found.val_fnames == ("4.wav", "2.wav")
    assert found.val_verified.tolist() == [True, True]
    assert found.labels.tolist() == [0, 0, 0, -1, 1, 1]
    assert found.verified.tolist() == [False, True, True, False, True, False]
    np.testing.assert_allclose(found.prior, [2 / 3, 1 / 3, 0])  # of the training side; a class unheard there has none


def test_labels_as_distributions(make_store: MakeStore) -> None:
    found = parts(make_store)
    assert found.targets.dtype == np.float32
    assert found.targets.tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_train_and_validation_never_meet(make_store: MakeStore) -> None:
    for fold in (0, 1):
        found = parts(make_store, fold)
        assert set(found.train) | set(found.val) == {0, 1, 2, 4, 5}
        assert not set(found.train) & set(found.val)


def test_unverified_labels_weigh_less(make_store: MakeStore) -> None:
    assert parts(make_store).weights.tolist() == [1, 1, 1, 0, 1, 1]
    assert parts(make_store, unverified_weight=0.3).weights.tolist() == [0.3, 1, 1, 0, 1, 0.3]


def test_class_weights_by_hand(make_store: MakeStore) -> None:
    """Training side: two bark, one siren of three clips and three classes: 3 / (3 * 2) and 3 / (3 * 1)."""
    found = parts(make_store, class_weights=True, unverified_weight=0.5)
    np.testing.assert_allclose(found.weights, [0.25, 0.5, 0.5, 0, 1, 0.5])


def test_a_side_without_clips_is_refused(make_store: MakeStore) -> None:
    with pytest.raises(UserError, match=r"fold 2 has no clips to validate on: 5 clips need fewer folds\.n_folds"):
        parts(make_store, fold=2)
    with pytest.raises(UserError, match="fold 0 has no clips to train on"):
        parts(make_store, fold=0, folds=FOLDS.assign(fold=0))


def test_finetuning_needs_a_verified_training_clip(make_store: MakeStore) -> None:
    """1.wav alone is verified outside of fold 0."""
    none = FOLDS.assign(verified=FOLDS["fold"] == 0)
    assert parts(make_store, finetune_epochs=2).train.tolist() == [0, 1, 5]
    assert parts(make_store, folds=none).train.tolist() == [0, 1, 5]
    with pytest.raises(UserError, match=r"finetune_epochs=2: none of the .* fold 0 is verified: use .*=0"):
        parts(make_store, folds=none, finetune_epochs=2)


def test_a_label_without_a_training_clip_is_named(make_store: MakeStore, capsys: pytest.CaptureFixture[str]) -> None:
    parts(make_store)
    told = "fold 0: no training clip has the label, which its model cannot know: unheard"
    assert capsys.readouterr().err == f"warning: {told}\n"


def test_a_clip_that_the_store_lacks_raises(make_store: MakeStore) -> None:
    with pytest.raises(KeyError, match=r"9\.wav"):
        parts(make_store, folds=FOLDS.assign(fname=["9.wav", *FOLDS["fname"][1:]]))
