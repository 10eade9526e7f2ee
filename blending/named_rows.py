"""The order of the rows and columns in somebody's .npz, by the names that lie in it beside the probabilities."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from console.errors import UserError, list_some
from input.names import nfc

# Keys that people give to an order. Such an array is never passed over.
ORDER_KEY = re.compile(
    r"name|file|clip|classes|labels|columns|(^|_)(ids?|idx|index|indices|rows?|keys?|order|perm)($|_)"
)


def find_orders(
    file: Path, arrays: Mapping[str, np.ndarray], axes: Mapping[str, Sequence[str]], truth: Sequence[str]
) -> dict[str, np.ndarray]:
    """Axis -> where each of its names stands in the file. An axis that the file does not name is left out.

    arrays: all of the file but the probabilities. axes: fnames of "oof" and of "test", and "classes", in our order;
    truth: the label of each clip of "oof". Folders and extensions of names do not count.
    Raises UserError where two arrays disagree, and on an array that may be an order and is not understood.
    """
    orders: dict[str, np.ndarray] = {}
    strange: list[str] = []
    for key, values in arrays.items():
        if not _may_be_order(key, values, axes):
            continue
        axis, order = _axis_of(key, values, axes)
        if axis in orders and not np.array_equal(orders[axis], order):
            raise UserError(f"{file}: {key} and another array give two orders of {axis}: leave one of them out")
        if axis:
            orders[axis] = order
        elif values.dtype.kind in "USV":
            strange.append(key)
        elif not np.array_equal(values, np.arange(values.size)):
            raise UserError(f"{file}: {key} may be another order of rows: {_remedy(key)}")
    at = orders.get("oof", np.arange(len(truth)))
    for key in strange:
        given = _texts(arrays[key])
        if len(given) != len(truth) or [given[i] for i in at] != list(truth):
            raise UserError(_not_understood(file, key, given, axes, truth))
    return orders


def _may_be_order(key: str, values: np.ndarray, axes: Mapping[str, Sequence[str]]) -> bool:
    """Text of a length that fits or under a key that does; whole numbers where both do. A single text is a remark."""
    n_train, n_test, n_classes = (len(axes[axis]) for axis in ("oof", "test", "classes"))
    fits = not {n_train, n_test, n_classes, n_train + n_test}.isdisjoint(values.shape)
    named = ORDER_KEY.search(key.lower()) is not None
    if values.dtype.kind in "USV":
        return values.ndim > 0 and (fits or named)
    return values.dtype.kind in "iu" and values.ndim == 1 and fits and named and "label" not in key.lower()


def _axis_of(key: str, values: np.ndarray, axes: Mapping[str, Sequence[str]]) -> tuple[str, np.ndarray]:
    """The axis that the array names and its order; '' where there is none, or where two fit and the key tells none."""
    names = _texts(values) if values.dtype.kind in "US" else []
    found = {axis: order for axis, ours in axes.items() if len(order := _positions(names, ours))}
    if len(found) > 1:  # training and test clips of the same names
        expected = "test" if "test" in key.lower() else "oof" if re.search("oof|train|val", key.lower()) else ""
        found = {axis: order for axis, order in found.items() if axis == expected}
    return next(iter(found.items()), ("", np.empty(0, dtype=np.int64)))


def _positions(names: Sequence[str], ours: Sequence[str]) -> np.ndarray:
    """Where each of ours stands among the names, (len(ours),); empty where they are not the same."""
    for bare in (str, _bare):
        index = {bare(name): i for i, name in enumerate(names)}
        expected = [bare(name) for name in ours]
        if len(index) == len(names) == len(expected) and set(expected) == set(index):
            return np.array([index[name] for name in expected])
    return np.empty(0, dtype=np.int64)


def _bare(name: str) -> str:
    return PurePosixPath(nfc(name).replace("\\", "/")).stem


def _texts(values: np.ndarray) -> list[str]:
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.ravel().tolist()]


def _not_understood(
    file: Path, key: str, given: Sequence[str], axes: Mapping[str, Sequence[str]], truth: Sequence[str]
) -> str:
    """The line that says what of the array is in the way."""
    if len(set(given)) < len(given) and len(given) == len(truth) and set(given) <= set(axes["classes"]):
        return f"{file}: {key} is not the label column of train.csv: name the rows too, with fname=array of text"
    known = set().union(*({*ours, *map(_bare, ours)} for ours in axes.values()))
    if unknown := [name for name in dict.fromkeys(given) if name not in known and _bare(name) not in known]:
        return f"{file}: {key} names what neither the tables nor classes.txt do: {list_some(unknown)}: {_remedy(key)}"
    return f"{file}: {key} holds {len(given)} names, not each clip or class of one table once: {_remedy(key)}"


def _remedy(key: str) -> str:
    return f"give fname and fname_test as text, each clip once, or leave {key} out where rows and columns are in order"
