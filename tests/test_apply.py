"""How weights.json is applied: by hand, and what must not matter."""

from dataclasses import replace

import numpy as np
import pytest

from blending.apply import FLOOR, Blend, Model, apply_blend, quantiles_of, rank_mean, sharpen
from runs.predictions import geometric

A = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
B = np.array([[0.2, 0.6, 0.2], [0.4, 0.3, 0.3]])


def about(method: str, offsets: list[float] | None = None) -> Blend:
    return Blend(method, {"a": Model(0.75), "b": Model(0.25)}, offsets)


def test_arithmetic_by_hand() -> None:
    # 3/4 of 0.6 and 1/4 of 0.2 is 0.5
    blend = apply_blend(about("arithmetic"), {"a": A, "b": B})
    assert np.allclose(blend[0], [0.5, 0.375, 0.125])


def test_geometric_by_hand() -> None:
    # roots of (0.8 x 0.2, 0.2 x 0.8) are 0.4 and 0.4: half and half
    assert np.allclose(geometric(np.array([[[0.8, 0.2]], [[0.2, 0.8]]]), np.array([0.5, 0.5])), 0.5)


def test_rank_mean_by_hand() -> None:
    # a beats 2, 1, 0 classes; b ties two for 0.5 and beats both with its second: 0.5, 2, 0.5; the mean 1.25, 1.5, 0.25
    stack = np.array([[[0.6, 0.3, 0.1]], [[0.2, 0.6, 0.2]]])
    assert np.allclose(rank_mean(stack, np.array([0.5, 0.5])) * 3, [[1.25, 1.5, 0.25]])


def test_log_linear_by_hand() -> None:
    # one model of weight 1 and an offset of log 2 on the last class: odds of (0.6, 0.3, 0.1) become (0.6, 0.3, 0.2)
    blend = Blend("log_linear", {"a": Model(1.0)}, [0.0, 0.0, np.log(2)])
    odds = (A[:1] + FLOOR) * [1, 1, 2]
    assert np.allclose(apply_blend(blend, {"a": A[:1]}), odds / odds.sum())


def test_temperature_one_changes_little_and_a_low_one_sharpens() -> None:
    assert np.allclose(sharpen(A, 1.0), A, atol=2 * FLOOR)
    # (0.6 : 0.3)^(1 / 0.5) is 4 : 1
    sharp = sharpen(A, 0.5)[0]
    assert sharp[0] / sharp[1] == pytest.approx(4, rel=0.02)


def test_stack_by_hand() -> None:
    # the identity on centred logs, twice, is the same as the log of p^2
    eye = np.eye(3).tolist()
    models = {"a": Model(0.5, coefficients=eye), "b": Model(0.5, coefficients=eye)}
    blend = apply_blend(Blend("stack", models, [0, 0, 0]), {"a": A, "b": A})
    odds = (A + FLOOR) ** 2
    assert np.allclose(blend, odds / odds.sum(axis=1, keepdims=True))


ALL = [
    about("single"),
    about("arithmetic"),
    about("geometric"),
    about("rank"),
    about("greedy"),
    about("weights"),
    about("log_linear", offsets=[0.1, -0.2, 0.3]),
]


@pytest.mark.parametrize("made", ALL, ids=lambda made: made.method)
def test_neither_the_order_of_clips_nor_of_models_matters(made: Blend) -> None:
    rng = np.random.default_rng(0)
    probs = {name: rng.dirichlet(np.ones(3), size=50) for name in "ab"}
    order = rng.permutation(50)
    blend = apply_blend(made, probs)
    assert np.allclose(blend.sum(axis=1), 1)
    assert np.allclose(apply_blend(made, {name: p[order] for name, p in probs.items()}), blend[order])
    swapped = replace(made, models=dict(reversed(made.models.items())))
    assert np.allclose(apply_blend(swapped, probs), blend)


def test_a_model_of_weight_zero_may_be_absent_and_another_may_not() -> None:
    blend = Blend("arithmetic", {"a": Model(1.0), "b": Model(0.0)})
    assert np.allclose(apply_blend(blend, {"a": A}), A)
    with pytest.raises(KeyError):
        apply_blend(blend, {"b": B})


def test_a_pool_of_models_that_know_nothing_is_its_offsets() -> None:
    blend = Blend("log_linear", {"a": Model(0.0)}, [0.0, 0.0, np.log(2)])
    assert np.allclose(apply_blend(blend, {"a": A}), [0.25, 0.25, 0.5])


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        apply_blend(about("nonsense"), {"a": A, "b": B})


def test_ranks_refer_to_the_quantiles_and_no_two_values_become_equal() -> None:
    values = np.linspace(-3, 5, 401)[:, None]
    knots = quantiles_of(values).tolist()
    blend = Blend("rank", {"a": Model(1.0, quantiles=knots)}, task="multi_label", metric="macro_roc_auc")
    found = apply_blend(blend, {"a": np.array([[-9.0], [-3.0], [1.0], [5.0], [9.0]])})[:, 0]
    assert found[2] == pytest.approx(0.5)
    assert (np.diff(found) > 0).all() and found[0] > 0 and found[-1] < 1
    one = apply_blend(blend, {"a": np.array([[1.0]])})
    assert one[0, 0] == found[2], "a clip's blend does not depend on the others"


def test_several_labels_are_pooled_by_sigmoids() -> None:
    half = np.array([[0.5, 0.5]])
    pool = Blend("log_linear", {"a": Model(0.5, class_weights=[0.0, 1.0])}, [np.log(3), 0.0], task="multi_label")
    assert np.allclose(apply_blend(pool, {"a": half}), [[0.75, 0.5]])
    moved = Blend("arithmetic", {"a": Model(1.0)}, task="multi_label", thresholds=[0.2, 0.8])
    assert np.allclose(apply_blend(moved, {"a": np.array([[0.2, 0.8]])}), 0.5)
    assert np.allclose(apply_blend(moved, {"a": np.array([[0.1, 0.9]])}), [[0.25, 0.75]])
