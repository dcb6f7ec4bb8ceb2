"""The policies: their ends, formulas and robustness; and the rule by which a text leaves."""

from __future__ import annotations

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fastbert_jax.config import ExitConfig, PolicyName
from fastbert_jax.errors import UserError
from fastbert_jax.inference.policies import (
    entropy_uncertainty,
    exit_indices,
    layer_thresholds,
    make_policy,
    margin,
    max_probability,
    patience,
    top_entropy,
)

EDGES = (PolicyName.ENTROPY, PolicyName.TOP_ENTROPY, PolicyName.MARGIN)
"""Policies that go from 0 to 1, whatever the number of classes."""


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("classes", [2, 3, 6, 10, 37, 1000])
def test_certain_is_exactly_0_and_uniform_exactly_1(classes: int, name: PolicyName, dtype: jnp.dtype) -> None:
    logits_BxN = np.full((4, classes), -200, np.float32)
    logits_BxN[0, classes // 2] = 200
    logits_BxN[1] = -np.inf
    logits_BxN[1, -1] = -3  # every other probability is 0
    logits_BxN[2], logits_BxN[3] = 7.5, 0
    policy = make_policy(ExitConfig(policy=name, top=6))
    judge = jax.jit(lambda logits_BxN: policy.judge(policy.start(4), logits_BxN)[1])
    np.testing.assert_array_equal(
        judge(jnp.asarray(logits_BxN, dtype)), np.array([0, 0, 1, 1], np.float32), strict=True
    )


def test_a_wholly_uncertain_text_stays_at_speed_1() -> None:
    uncertainty_LxB = np.stack([entropy_uncertainty(jnp.zeros((1, 37))), np.zeros(1, np.float32)])
    assert exit_indices(uncertainty_LxB, 1.0) == 1


@pytest.mark.parametrize("name", [PolicyName.ENTROPY, PolicyName.TOP_ENTROPY])
def test_one_class_is_refused(name: PolicyName) -> None:
    with pytest.raises(ValueError, match="expected logits of two classes or more, found 1"):
        make_policy(ExitConfig(policy=name)).judge((), jnp.zeros((3, 1)))


def test_it_is_the_papers_equation_7() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 4, 6)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = scipy.stats.entropy(probabilities, axis=-1) / np.log(6)
    np.testing.assert_allclose(entropy_uncertainty(jnp.asarray(logits)), expected, atol=1e-6)


@hypothesis.given(arrays.arrays(np.float32, (3, 5), elements=st.floats(width=32)))
def test_any_logits_give_a_number_between_0_and_1(logits: np.ndarray) -> None:
    uncertainty = np.asarray(entropy_uncertainty(jnp.asarray(logits)))
    assert np.all((uncertainty >= 0) & (uncertainty <= 1))


def test_a_broken_answer_is_never_sure_and_a_ruled_out_class_is_fine() -> None:
    logits = jnp.array([[np.nan, 0, 0], [np.inf, 0, 0], [5, -np.inf, -np.inf], [0, 0, -np.inf]], jnp.float32)
    np.testing.assert_allclose(entropy_uncertainty(logits), [1, 1, 0, np.log(2) / np.log(3)], rtol=1e-6)


def test_bfloat16_logits_are_judged_in_float32() -> None:
    logits = jnp.array([1.5, -0.25, 0.5], jnp.bfloat16)
    assert entropy_uncertainty(logits).dtype == jnp.float32
    assert entropy_uncertainty(logits) == entropy_uncertainty(logits.astype(jnp.float32))


LOGITS = np.random.default_rng(1).normal(0, 3, (6, 40)).astype(np.float32)


def test_top_entropy_is_that_of_the_most_probable_classes_alone() -> None:
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    top = np.sort(probabilities)[:, -5:]
    expected = scipy.stats.entropy(top / top.sum(-1, keepdims=True), axis=-1) / np.log(5)
    np.testing.assert_allclose(top_entropy(LOGITS, top=5), expected, atol=1e-6)
    few = LOGITS[:, :3]
    np.testing.assert_allclose(top_entropy(few, top=5), entropy_uncertainty(few), atol=1e-6)


def test_max_probability_and_margin() -> None:
    probabilities = np.sort(np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True))
    np.testing.assert_allclose(max_probability(LOGITS), 1 - probabilities[:, -1], atol=1e-6)
    np.testing.assert_allclose(margin(LOGITS), 1 - (probabilities[:, -1] - probabilities[:, -2]), atol=1e-6)


def test_patience_counts_exits_in_a_row_that_agree() -> None:
    labels = [3, 3, 1, 1, 1, 1]
    found, policy = [], patience(2)
    memory = policy.start(1)
    for label in labels:
        memory, judged = policy.judge(memory, jnp.asarray(np.eye(5, dtype=np.float32)[[label]]))
        found.append(float(judged[0]))
    assert found == [1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("name", PolicyName)
def test_a_broken_answer_is_never_sure_whatever_the_policy(name: PolicyName) -> None:
    policy = make_policy(ExitConfig(policy=name, patience=1))
    broken = np.full((2, 4), np.nan, np.float32)
    broken[1] = [np.nan, 0, 9, 0]
    memory = policy.start(2)
    for _ in range(3):
        memory, judged = policy.judge(memory, jnp.asarray(broken))
        assert judged.dtype == jnp.float32
        np.testing.assert_array_equal(judged, 1)


def test_the_exits_that_are_asked() -> None:
    assert ExitConfig().asked(4) == (True,) * 4
    assert ExitConfig(every=2).asked(5) == (False, True, False, True, True)
    assert ExitConfig(layers=(1, 3)).asked(4) == (True, False, True, True)
    with pytest.raises(UserError, match="exits.layers: expected layers up to 4, found"):
        ExitConfig(layers=(5,)).asked(4)
    for settings in ({"top": 1}, {"patience": 0}, {"every": 0}, {"layers": (0,)}, {"layers": (2,), "every": 2}):
        with pytest.raises(UserError, match="exits"):
            ExitConfig(**settings)


def test_a_text_leaves_strictly_below_speed_and_the_last_layer_takes_the_rest() -> None:
    uncertainty_LxB = np.array([[0.1, 0.5, 0.9, 0.9], [0.0, 0.2, 0.9, 0.4], [0.0, 0.0, 0.9, 0.0]], np.float32)
    np.testing.assert_array_equal(exit_indices(uncertainty_LxB, 0.5), [0, 1, 2, 1])
    np.testing.assert_array_equal(exit_indices(uncertainty_LxB, 0.0), [2, 2, 2, 2])
    np.testing.assert_array_equal(exit_indices(uncertainty_LxB, np.array([0, 1, 0])), [1, 1, 1, 1])


def test_thresholds_are_float32_one_per_layer() -> None:
    assert layer_thresholds(0.1, 3).tolist() == [np.float32(0.1)] * 3
    assert layer_thresholds(np.array([0.1, 0.2]), 2).dtype == np.float32


@pytest.mark.parametrize("speed", [[0.5], [0.5, 0.5], [[0.5] * 3], [0.5, [0.5], 0], "fast", "0.5", None])
def test_thresholds_that_do_not_fit_are_refused(speed: object) -> None:
    with pytest.raises(UserError) as error:
        layer_thresholds(speed, 3)
    assert str(error.value) == f"speed: expected one number or 3 numbers in [0, 1], found {speed!r}"
