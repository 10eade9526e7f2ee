"""Random predictions from elsewhere and random weights: the right result or a UserError, never anything else."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from blending.external_predictions import candidates_from_predictions
from configs.schema import Config, ModelConfig
from console.errors import UserError
from models.build import build_model
from models.starting_weights import load_weights, read_state
from tests.fuzzing import fuzz

CLASSES = ["ant", "bat", "cat"]
CLIPS, TEST_CLIPS = [f"{i}.wav" for i in range(6)], ["t.wav", "u.wav"]
CELLS = st.one_of(
    st.sampled_from([*CLIPS[:2], *CLASSES, "0", "1", "", "\u00b2", "9" * 25, "nan", '"', "\ufeff"]), st.text(max_size=3)
)
DTYPES = st.sampled_from(["f2", "f4", "f8", "i8", "u1", "?", "c8", "U5", "S5", "O", "M8[s]", "V4"])


@fuzz
@given(
    st.lists(st.tuples(*[CELLS] * 4), max_size=6),
    st.lists(st.sampled_from(["fname", "label", "manually_verified", "fold", "x"]), max_size=5),
    st.one_of(st.binary(max_size=20), st.sampled_from([b"ant\nbat\ncat\n", b"ant bat cat", b"ant\nant\nbat"])),
)
def test_any_tables(tmp_path: Path, rows: list[tuple[str, ...]], header: list[str], classes: bytes) -> None:
    write_folder(tmp_path)
    (tmp_path / "classes.txt").write_bytes(classes)
    lines = [",".join(header), *map(",".join, rows)]
    (tmp_path / "train.csv").write_text("\n".join(lines), "utf-8", "surrogateescape")
    read_or_refused(tmp_path)


@fuzz
@given(
    st.dictionaries(
        st.sampled_from(["oof", "test", "fname", "fname_test", "classes", "ids", "label", "remark"]),
        st.tuples(st.lists(st.integers(0, 7), max_size=3), DTYPES, st.integers(0, 2**32 - 1)),
        max_size=6,
    ),
    st.booleans(),
)
def test_any_arrays(tmp_path: Path, arrays: dict[str, tuple[list[int], str, int]], whole: bool) -> None:
    write_folder(tmp_path)
    given_arrays: dict[str, Any] = probabilities() if whole else {}
    given_arrays |= {key: random_array(*how) for key, how in arrays.items()}
    np.savez(tmp_path / "m.npz", **given_arrays)
    read_or_refused(tmp_path)


@fuzz
@given(
    st.permutations(CLIPS), st.permutations(TEST_CLIPS), st.permutations(CLASSES), st.sets(st.sampled_from([0, 1, 2]))
)
def test_any_order_that_is_named_is_undone(
    tmp_path: Path, clips: list[str], test_clips: list[str], classes: list[str], named: set[int]
) -> None:
    """An axis without names stays in the order of the tables."""
    write_folder(tmp_path)
    orders = [(CLIPS, clips), (TEST_CLIPS, test_clips), (CLASSES, classes)]
    at = [
        [ours.index(n) for n in theirs] if i in named else list(range(len(ours)))
        for i, (ours, theirs) in enumerate(orders)
    ]
    names = {
        key: np.array(theirs) for i, (key, (_, theirs)) in enumerate(zip("abc", orders, strict=True)) if i in named
    }
    plain = probabilities()
    np.savez(tmp_path / "m.npz", oof=plain["oof"][at[0]][:, at[2]], test=plain["test"][at[1]][:, at[2]], **names)
    found = candidates_from_predictions(tmp_path)
    np.testing.assert_array_equal(found.oof[0], plain["oof"])
    np.testing.assert_array_equal(found.test[0], plain["test"])


@fuzz
@given(st.binary(max_size=40), st.integers(0, 400), st.integers(0, 255))
def test_any_damage_of_an_npz(tmp_path: Path, tail: bytes, place: int, byte: int) -> None:
    write_folder(tmp_path)
    file = tmp_path / "m.npz"
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= byte
    file.write_bytes(bytes(content[: len(content) - len(tail)]) + tail)
    read_or_refused(tmp_path)


STATE = build_model(Config(model=ModelConfig(name="resnetish10", width=8)), 3).state_dict()
NAMES = [*list(STATE)[:4], "head.2.weight", "module", "model", "weight", "", ".", "..", "n_averaged"]
PREFIXES = st.lists(st.sampled_from(["module.", "_orig_mod.", "model.", "net.", "backbone.", "a.b."]), max_size=3).map(
    "".join
)
TENSORS = st.sampled_from(
    [torch.zeros(shape, dtype=kind) for shape in ((), (0,), (8,), (8, 1, 7, 7), (8, 3, 7, 7), (8, 0, 7, 7), (3, 64))
     for kind in (torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64)]
)  # fmt: skip
NESTED = st.recursive(
    st.one_of(TENSORS, st.none(), st.floats(), st.text(max_size=3)),
    lambda inner: st.dictionaries(st.sampled_from([*NAMES, "state_dict", "model_state_dict", 3]), inner, max_size=4),
    max_leaves=8,
)


@fuzz
@given(
    NESTED,
    PREFIXES,
    st.dictionaries(st.sampled_from(NAMES), TENSORS, max_size=2),
    st.sampled_from(["state_dict", "net", "x"]),
)
def test_any_state_dict(tmp_path: Path, other: Any, prefix: str, changes: dict[str, Any], key: str) -> None:
    """Whole under a prefix, with other tensors in some places, beside whatever else; and whatever else alone."""
    file = tmp_path / "start.pth"
    for held in ({key: {prefix + k: v for k, v in (STATE | changes).items()}, "beside": other}, other):
        torch.save(held, file)
        network = build_model(Config(model=ModelConfig(name="resnetish10", width=8)), 3)
        try:
            load_weights(network, read_state(file), str(file))
        except UserError as error:
            assert "\n" not in str(error) and "start.pth" in str(error)
            assert changes or key == "x" or held is other
            continue
        found = network.state_dict()
        same = [k for k in STATE if k not in changes]
        assert held is not other and all(torch.equal(found[k], STATE[k]) for k in same)


@fuzz
@given(st.binary(max_size=60), st.sampled_from([".pth", ".safetensors", ".ckpt"]))
def test_any_bytes_are_no_weights(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"start{suffix}").write_bytes(content)
    try:
        read_state(tmp_path / f"start{suffix}")
    except UserError as error:
        assert "start" in str(error)


def write_folder(folder: Path) -> None:
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    rows = [f"{fname},{CLASSES[i % 3]},1,{i % 2}" for i, fname in enumerate(CLIPS)]
    (folder / "train.csv").write_text("\n".join(["fname,label,manually_verified,fold", *rows]))
    (folder / "sample_submission.csv").write_text("\n".join(["fname", *TEST_CLIPS]))
    np.savez(folder / "m.npz", **probabilities())


def probabilities() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.dirichlet(np.ones(3), n).astype(np.float32) for key, n in (("oof", 6), ("test", 2))}


def random_array(shape: list[int], dtype: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype in ("U5", "S5", "O"):
        return rng.choice([*CLIPS, *TEST_CLIPS, *CLASSES], shape).astype(dtype)
    raw = rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)


def read_or_refused(folder: Path) -> None:
    try:
        found = candidates_from_predictions(folder)
    except UserError as error:
        assert "\n" not in str(error) and str(folder) in str(error)
        return
    assert found.oof.shape == (1, len(found.fnames), 3) and found.test.shape == (1, len(found.test_fnames), 3)
    for probs in (found.oof, found.test):
        np.testing.assert_allclose(probs.sum(axis=2), 1, atol=0.011)
    assert found.fold.dtype == np.int64 and found.fold.min() >= 0 and set(found.label_index.tolist()) <= {0, 1, 2}
