"""Folds: a partition, balanced, no group on both sides, the same everywhere, written once."""

import hashlib
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs.schema import FoldConfig
from console.errors import UserError
from folds.assign import fold_hash, folds_of, group_numbers, grouping_column, load_folds, n_folds_of, parse_folds
from folds.stratify import assign_folds
from input.competition import Competition, load_competition, one_hot

REAL = Path("../shared/data/fsdkaggle2018")
MINI = Path("../shared/data/us8k-mini")
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/fsdkaggle2018 is not here")
needs_mini = pytest.mark.skipif(not MINI.is_dir(), reason="../shared/data/us8k-mini is not here")


def clips(n: int = 60, classes: int = 3, group_size: int = 1, seed: int = 0) -> pd.DataFrame:
    """A made-up training table; group_size clips in a row share a freesound_id and a label."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        group = i // group_size
        rows.append((f"{i:04}.wav", f"class{group % classes}", rng.random() < 0.4, str(1000 + group)))
    return pd.DataFrame(rows, columns=["fname", "label", "verified", "freesound_id"])


def cell_counts(folds: pd.DataFrame) -> pd.DataFrame:
    """(label x verified, fold) numbers of clips."""
    return folds.groupby(["label", "verified", "fold"]).size().unstack(fill_value=0)


def by_clip(folds: pd.DataFrame) -> dict[str, int]:
    return dict(zip(folds["fname"], folds["fold"].tolist(), strict=True))


def competition(train: pd.DataFrame, **facts) -> Competition:
    classes = tuple(sorted(set(train["label"])))
    targets = one_hot(train["label"].tolist(), classes)
    return Competition(Path("comp"), classes, train, pd.DataFrame({"fname": ["t"]}), targets, **facts)


def loaded(train: pd.DataFrame, folder: Path, **settings) -> pd.DataFrame:
    return load_folds(FoldConfig(**settings), competition(train), folder)


# By hand


def test_three_clips_of_a_class_go_to_three_folds():
    table = pd.DataFrame({"fname": ["a", "b", "c"], "label": "x", "verified": True, "group": ["1", "2", "3"]})
    assert sorted(assign_folds(table, 3, seed=0)) == [0, 1, 2]


def test_a_group_stays_whole_and_the_single_clips_fill_the_other_fold():
    """Two of a class share a recording: in two folds, the two single clips must go to the other one."""
    table = pd.DataFrame({"fname": ["a", "b", "c", "d"], "label": "x", "verified": True, "group": ["r", "r", "s", "t"]})
    fold = assign_folds(table, 2, seed=0).tolist()
    assert fold[0] == fold[1] and fold[2] == fold[3] and fold[0] != fold[2]


def test_verified_clips_are_balanced_separately():
    """Two verified and two unverified clips in two folds: one of each kind in each."""
    table = pd.DataFrame(
        {"fname": list("abcd"), "label": "x", "verified": [True, True, False, False], "group": list("1234")}
    )
    fold = assign_folds(table, 2, seed=0)
    assert fold[0] != fold[1] and fold[2] != fold[3]


# Properties


@pytest.mark.parametrize("n", [15, 60, 61, 203])
@pytest.mark.parametrize("n_folds", [2, 5, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_without_groups_every_cell_is_within_one_clip_of_its_share(tmp_path, n, n_folds, seed):
    folds = loaded(clips(n, seed=seed), tmp_path, n_folds=n_folds, seed=seed, group_column=None)
    counts = cell_counts(folds)
    share = counts.sum(axis=1) / n_folds
    assert counts.sub(share, axis=0).abs().max(axis=None) < 1
    assert sorted(folds["fname"]) == sorted(clips(n)["fname"]) and set(folds["fold"]) == set(range(n_folds))
    sizes = folds["fold"].value_counts()
    assert sizes.max() - sizes.min() <= counts.shape[0]


@pytest.mark.parametrize("group_size", [2, 3, 4])
def test_no_group_on_both_sides(tmp_path, group_size):
    folds = loaded(clips(120, group_size=group_size), tmp_path)
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    assert set(folds["fold"]) == set(range(5))
    of_label = folds.groupby(["label", "fold"]).size().unstack(fill_value=0)
    assert (of_label.max(axis=1) - of_label.min(axis=1)).max() <= group_size


def test_a_group_may_span_classes(tmp_path):
    train = clips(40).assign(freesound_id=["one"] * 10 + [str(i) for i in range(30)])
    folds = loaded(train, tmp_path)
    assert folds["fold"][:10].nunique() == 1


def test_any_column_may_group(tmp_path):
    train = clips(40).assign(session=[f"s{i % 8}" for i in range(40)])
    folds = loaded(train, tmp_path, group_column="session")
    assert (folds.groupby(train["session"])["fold"].nunique() == 1).all()
    assert (folds.groupby(train["freesound_id"])["fold"].nunique() == 1).all(), "singles are groups of one"


@pytest.mark.parametrize("nothing", ["", None, float("nan")])
def test_a_clip_without_a_group_is_a_group_of_its_own(tmp_path, nothing):
    """Or all of them would be one group."""
    train = clips(40)
    train["freesound_id"] = pd.Series([nothing] * 30 + ["7"] * 4 + [nothing] * 6, dtype=object)
    folds = loaded(train, tmp_path)
    assert folds["group"].nunique() == 37
    assert folds["fold"][30:34].nunique() == 1


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    train = clips(100, group_size=2)
    shuffled = train.sample(frac=1, random_state=3)
    one, other = loaded(train, tmp_path), loaded(shuffled, tmp_path)
    assert other["fname"].tolist() == shuffled["fname"].tolist(), "but the result keeps it"
    assert by_clip(one) == by_clip(other)
    assert fold_hash(one) == fold_hash(other)


def test_the_names_of_the_groups_do_not_matter(tmp_path):
    train = clips(100, group_size=2)
    renamed = train.assign(freesound_id=["x" + name[::-1] for name in train["freesound_id"]])
    assert by_clip(loaded(train, tmp_path)) == by_clip(loaded(renamed, tmp_path))


def test_another_seed_gives_other_folds(tmp_path):
    train = clips(100)
    assert by_clip(loaded(train, tmp_path, seed=0)) != by_clip(loaded(train, tmp_path, seed=1))


def test_the_same_folds_on_every_machine(tmp_path):
    """Pinned: whoever changes how folds are dealt parts with every run folder there is."""
    assert fold_hash(loaded(clips(50, group_size=2), tmp_path)) == "1860bedb8c4a"
    assert fold_hash(loaded(clips(50, group_size=2), tmp_path, group_column=None, seed=7)) == "0bc9c1617cd7"


def test_the_hash_by_hand():
    """sha256 of 'a.wav,x,0,1\\nb.wav,y,1,0', of which twelve digits."""
    by_hand = "0b28a76ee336"
    folds = pd.DataFrame({"fname": ["b.wav", "a.wav"], "label": ["y", "x"], "verified": [True, False], "fold": [0, 1]})
    assert fold_hash(folds) == by_hand
    assert fold_hash(folds[::-1]) == by_hand
    for other in ({"fold": [1, 0]}, {"label": ["x", "y"]}, {"verified": [True, True]}):
        assert fold_hash(folds.assign(**other)) != by_hand


# What is said


def test_grouping_off_names_the_leak(tmp_path, capsys):
    loaded(clips(40, group_size=2), tmp_path, group_column=None)
    warned = capsys.readouterr().err
    assert "grouping is off, but 40 clips share a freesound_id" in warned
    assert "training and validation" in warned and "too high" in warned


def test_grouping_off_without_shared_recordings_is_no_leak(tmp_path, capsys):
    loaded(clips(40), tmp_path, group_column=None)
    loaded(clips(40).assign(freesound_id=""), tmp_path, group_column=None)
    loaded(clips(40).drop(columns="freesound_id"), tmp_path, group_column=None)
    assert capsys.readouterr().err == ""


def test_a_competition_without_recordings_has_no_groups(tmp_path, capsys):
    folds = loaded(clips(40).drop(columns="freesound_id"), tmp_path)
    assert folds["group"].nunique() == 40
    said = capsys.readouterr().out
    assert "folds: clips are not grouped: no column is named by columns.group" in said and "freesound_id" not in said


def test_a_missing_group_column(tmp_path):
    with pytest.raises(
        UserError, match=r"folds\.group_column: .* no column 'sesion': use one of fname, label, verified, free"
    ):
        loaded(clips(40), tmp_path, group_column="sesion")


def test_more_folds_than_groups(tmp_path):
    with pytest.raises(UserError, match=r"folds\.n_folds: 2 groups of clips cannot fill 5 folds: use fewer folds"):
        loaded(clips(40, group_size=20), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_class_in_one_fold_and_a_class_too_small_are_named(tmp_path, capsys):
    train = clips(40)
    train.loc[:2, "label"] = "rare"
    train.loc[:2, "freesound_id"] = "same"
    loaded(train, tmp_path)
    warned = capsys.readouterr().err
    assert "classes with all clips in one fold, whose model cannot learn them: rare" in warned
    assert "classes with fewer clips than folds: rare" in warned


# Written once


def test_written_once_and_read_again(tmp_path, capsys):
    train = clips(40, group_size=2)
    first = loaded(train, tmp_path)
    (file,) = tmp_path.iterdir()
    assert f"40 clips in 5 folds -> {file}" in capsys.readouterr().out
    stamp = file.stat().st_mtime_ns
    again = loaded(train, tmp_path)
    pd.testing.assert_frame_equal(first, again)
    assert file.stat().st_mtime_ns == stamp and capsys.readouterr().out == ""
    assert first["verified"].dtype == bool and first["fold"].dtype == np.int64


def test_the_file_decides(tmp_path):
    """Folds that somebody moved by hand are taken as they are, and their hash tells."""
    train = clips(40)
    first = loaded(train, tmp_path)
    (file,) = tmp_path.iterdir()
    table = pd.read_csv(file, dtype=str)
    table.loc[0, "fold"] = str((int(table.loc[0, "fold"]) + 1) % 5)
    table.to_csv(file, index=False)
    again = loaded(train, tmp_path)
    assert again["fold"][0] != first["fold"][0]
    assert fold_hash(again) != fold_hash(first)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t[:-1],
        lambda t: t.iloc[::-1],
        lambda t: t.assign(fname="x" + t["fname"]),
        lambda t: t.assign(label="other"),
        lambda t: t.assign(verified="True"),
        lambda t: t.assign(group="other"),
        lambda t: t.assign(fold="5"),
        lambda t: t.assign(fold=""),
        lambda t: t.assign(fold="1.0"),
        lambda t: t.drop(columns="fold"),
        lambda t: t[:0],
    ],
)
def test_a_file_that_does_not_match_is_an_error_and_kept(tmp_path, spoil):
    train = clips(40)
    loaded(train, tmp_path)
    (file,) = tmp_path.iterdir()
    spoil(pd.read_csv(file, dtype=str)).to_csv(file, index=False)
    before = file.read_bytes()
    with pytest.raises(UserError, match=file.name):
        loaded(train, tmp_path)
    assert file.read_bytes() == before


def test_a_file_that_is_not_a_table_is_an_error(tmp_path):
    loaded(clips(40), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=file.name):
        loaded(clips(40), tmp_path)


def test_other_settings_and_other_clips_get_other_files(tmp_path):
    train = clips(40)
    loaded(train, tmp_path)
    for n, (table, settings) in enumerate(
        [
            (train, {"seed": 1}),
            (train, {"n_folds": 4}),
            (train, {"group_column": None}),
            (train[:-1], {}),
            (train.assign(label=train["label"].replace("class0", "class1")), {}),
            (train.assign(verified=True), {}),
            (train.assign(freesound_id="g" + train["label"] + train["fname"].str[3]), {}),
        ],
        start=2,
    ):
        loaded(table, tmp_path, **settings)
        assert len(list(tmp_path.iterdir())) == n


def test_awkward_names_survive_the_file(tmp_path):
    train = clips(10)
    train["fname"] = ["001", "NA", "nan", "a,b.wav", 'q"q.wav', "ü.wav", "1e5", "None", "x y", "true"]
    train["label"] = ["nan", "NA"] * 5
    folds = loaded(train, tmp_path, n_folds=2)
    assert loaded(train, tmp_path, n_folds=2)["fname"].tolist() == train["fname"].tolist() == folds["fname"].tolist()


def test_the_file_keeps_its_name_and_bytes(tmp_path):
    """Pinned: runs and blends made before tasks and own folds existed must find their folds again."""
    loaded(clips(50, group_size=2), tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.name == "folds-dc3f26afe708.csv"
    assert hashlib.sha256(file.read_bytes()).hexdigest()[:12] == "4f8dc9e4f104"


# The table's own folds


def own(n: int = 40, n_folds: int = 4, **facts) -> Competition:
    """Clips in fours of one recording, whose own folds keep these together."""
    train = clips(n, group_size=4).rename(columns={"freesound_id": "recording"})
    return competition(train.assign(fold=[i // 4 % n_folds for i in range(n)]), **facts)


def test_the_tables_own_folds_are_taken_as_they_are(tmp_path, capsys):
    of = own(group_column="recording")
    folds = load_folds(FoldConfig(), of, tmp_path)
    assert folds["fold"].tolist() == of.train["fold"].tolist() and n_folds_of(FoldConfig(), of) == 4
    assert list(folds) == ["fname", "label", "verified", "group", "fold"] and list(tmp_path.iterdir()) == []
    assert "folds: the competition's own 4; folds.n_folds=5 is not used" in capsys.readouterr().out
    assert (folds["group"] == of.train["recording"]).all()


def test_own_folds_that_split_a_recording_are_refused(tmp_path):
    of = own()
    of.train.loc[[0, 5], "fold"] = 3
    with pytest.raises(UserError, match=r"comp: .* split 2 groups by recording.*: 1000, 1001: .*group_column=null"):
        load_folds(FoldConfig(group_column="recording"), of, tmp_path)


def test_published_folds_that_split_a_recording_of_the_competition_are_taken(tmp_path):
    """Loading the competition warns of them: UrbanSound8K's own folds split five recordings."""
    of = own(group_column="recording")
    of.train.loc[[0, 5], "fold"] = 3
    assert load_folds(FoldConfig(), of, tmp_path)["fold"].tolist() == of.train["fold"].tolist()


def test_own_folds_that_split_a_recording_may_be_accepted_and_are_warned_of(tmp_path, capsys):
    of = own(group_column="recording")
    load_folds(FoldConfig(group_column=None), of, tmp_path)
    assert capsys.readouterr().err == "", "all recordings are whole"
    of.train.loc[[0, 5], "fold"] = 3
    load_folds(FoldConfig(group_column=None), of, tmp_path)
    assert "grouping is off, but 8 clips share a recording" in capsys.readouterr().err


def test_a_class_in_one_of_the_own_folds_is_named(tmp_path, capsys):
    of = own()
    of.train["label"] = np.where(of.train["fold"] == 2, "rare", of.train["label"])
    load_folds(FoldConfig(group_column=None), competition(of.train), tmp_path)
    assert "classes with all clips in one fold, whose model cannot learn them: rare" in capsys.readouterr().err


@pytest.mark.parametrize(("folds", "named"), [([0] * 40, "0"), ([1, 2] * 20, "1, 2"), ([0, 2] * 20, "0, 2")])
def test_own_folds_with_gaps_are_refused(folds, named):
    with pytest.raises(UserError, match=f"comp: the training table's folds are {named}: at least two"):
        n_folds_of(FoldConfig(), competition(clips(40).assign(fold=folds)))


def test_folds_of_the_competition_limit_what_may_be_asked_for():
    assert folds_of("0..3", FoldConfig(), own()) == [0, 1, 2, 3] and n_folds_of(FoldConfig(), competition(clips())) == 5
    with pytest.raises(UserError, match=r"--folds 4: folds go from 0 to 3 \(the competition's own\)"):
        folds_of("4", FoldConfig(), own(), "--folds")
    assert parse_folds("7", None) == []
    with pytest.raises(UserError, match="write 3"):
        parse_folds("x", None)


# Which column groups


@pytest.mark.parametrize(
    ("setting", "named", "column"),
    [
        ("freesound_id", None, "freesound_id"),
        ("freesound_id", "recorder", "recorder"),
        ("session", "recorder", "session"),
        (None, "recorder", None),
    ],
)
def test_the_experiment_decides_before_the_competition(setting, named, column):
    of = competition(clips(), group_column=named)
    assert grouping_column(FoldConfig(group_column=setting), of) == column


def test_the_competitions_column_keeps_clips_together(tmp_path):
    train = clips(40).drop(columns="freesound_id").assign(recorder=[f"r{i % 8}" for i in range(40)])
    folds = load_folds(FoldConfig(), competition(train, group_column="recorder"), tmp_path)
    assert (folds.groupby(train["recorder"])["fold"].nunique() == 1).all()
    assert group_numbers(train, "recorder").max() == 7


# The real tables


@needs_real
@pytest.mark.parametrize("group_column", ["freesound_id", None])
def test_the_real_table_is_balanced_to_a_clip(tmp_path, group_column):
    folds = loaded(load_competition(REAL, sound=False).train, tmp_path, group_column=group_column)
    assert fold_hash(folds) == "aa18d44add81", "as ever, and clips of one recording are few"
    counts = cell_counts(folds)
    assert len(folds) == 9473 and counts.shape == (82, 5)
    assert counts.sub(counts.sum(axis=1) / 5, axis=0).abs().max(axis=None) < 1


@needs_mini
def test_the_small_real_table_keeps_recordings_together(tmp_path):
    train = load_competition(MINI, sound=False).train
    folds = loaded(train, tmp_path)
    assert (folds.groupby(train["freesound_id"])["fold"].nunique() == 1).all()
    assert train["freesound_id"].duplicated(keep=False).sum() > 400, "or the test shows nothing"
    sizes, counts = folds["fold"].value_counts(), cell_counts(folds)
    assert sizes.max() - sizes.min() <= 4
    assert counts.sub(counts.sum(axis=1) / 5, axis=0).abs().max(axis=None) < 4, "a group has up to 4 clips"


# Folds as people write them


@pytest.mark.parametrize(
    ("text", "folds"),
    [
        ("3", [3]),
        ("0..4", [0, 1, 2, 3, 4]),
        ("0,2,4", [0, 2, 4]),
        ("4, 0..1", [0, 1, 4]),
        ("1..1", [1]),
        ("2,2", [2]),
    ],
)
def test_folds_as_people_write_them(text: str, folds: list[int]) -> None:
    assert parse_folds(text, 5) == folds


@pytest.mark.parametrize("text", ["", "a", "1-3", "3..1", "0...4", "..4", "0..", "-1", "1,,2", "0..a", "1.5", "²"])
def test_other_text_than_folds_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match=r"write 3, 0\.\.4 or 0,2,4"):
        parse_folds(text, 5)


@pytest.mark.parametrize("text", ["5", "0..5", "0..99999999999999", "0,7"])
def test_folds_that_do_not_exist(text: str) -> None:
    with pytest.raises(UserError, match=r"folds go from 0 to 4 \(folds\.n_folds=5\)"):
        parse_folds(text, 5)
