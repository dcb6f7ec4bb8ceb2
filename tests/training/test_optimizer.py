"""Properties of the optimizer: what decays, when the rate peaks, what clipping bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fastbert_jax.config import BertConfig, PhaseConfig
from fastbert_jax.model.bert import Bert
from fastbert_jax.training.step import Optimizer, decay_mask, schedule

STEP = jnp.int32(0)

CONFIG = BertConfig(vocab_size=10, hidden_size=8, num_layers=2, num_heads=2, feed_forward_size=8)


def test_decay_shrinks_matrices_and_nothing_else():
    params = {"model": jax.tree.map(jnp.ones_like, Bert(CONFIG).init(jax.random.key(0)))}
    optimizer = Optimizer(PhaseConfig(weight_decay=0.1, learning_rate=0.1, warmup=0.0), 10)
    nothing, states = jax.tree.map(jnp.zeros_like, params), optimizer.init(params, ["model"])
    after, _ = jax.jit(lambda: optimizer.update(nothing, states, params, step=STEP, rates={"model": 1.0}))()
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        if path[-1].key in ("bias", "scale"):
            assert (leaf == 1).all(), path
        else:
            np.testing.assert_allclose(leaf, 0.99, rtol=1e-6, err_msg=str(path))


def test_decay_mask_names_every_kernel_and_embedding():
    mask = decay_mask(Bert(CONFIG).init(jax.random.key(0)))
    decayed = {path[-1].key for path, kept in jax.tree_util.tree_leaves_with_path(mask) if kept}
    assert decayed == {"kernel", "embedding"}


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_rate_rises_to_its_peak_and_falls_to_zero_at_the_last_step(warmup):
    rate = schedule(PhaseConfig(learning_rate=3e-4, warmup=warmup), total_steps=100)
    with jax.numpy_dtype_promotion("standard"):
        values = np.array([rate(step) for step in range(101)])
    peak = round(100 * warmup)
    np.testing.assert_allclose(values[peak], 3e-4, rtol=1e-6)
    assert (np.diff(values[: peak + 1]) > 0).all() and (np.diff(values[peak:]) < 0).all()
    assert values[100] == 0 and values[99] > 0
    assert warmup == 0 or values[0] == 0


def test_clipping_bounds_the_gradient_that_adam_sees():
    params = {"model": {"kernel": jnp.zeros(4)}}
    huge = {"model": {"kernel": jnp.full(4, 1e6)}}

    def momentum(clip_norm: float) -> float:
        optimizer = Optimizer(PhaseConfig(clip_norm=clip_norm, learning_rate=1e-3), 10)
        states = optimizer.init(params, ["model"])
        _, states = optimizer.update(huge, states, params, step=STEP, rates={"model": 1.0})
        return float(optax.tree.norm(optax.tree.get(states, "mu")))

    np.testing.assert_allclose(momentum(1.0), 0.1, rtol=1e-5)
    assert momentum(0.0) > 1e5


def test_rates_multiply_the_step_of_their_path_alone():
    params = {"model": {"backbone": {"kernel": jnp.zeros(3)}, "last_exit": {"kernel": jnp.zeros(3)}}}
    gradients = jax.tree.map(jnp.ones_like, params)
    optimizer = Optimizer(PhaseConfig(learning_rate=0.1, warmup=0.0, weight_decay=0.0), 10)
    rates = {"model/backbone": 1.0, "model/last_exit": 8.0}
    after, _ = optimizer.update(gradients, optimizer.init(params, rates), params, step=STEP, rates=rates)
    np.testing.assert_allclose(after["model"]["backbone"]["kernel"], -0.1, rtol=1e-4)
    np.testing.assert_allclose(after["model"]["last_exit"]["kernel"], -0.8, rtol=1e-4)


def test_a_rate_may_be_a_function_of_the_step_with_a_number_for_each_layer():
    params = {"model": {"layers": {"kernel": jnp.zeros((3, 2, 2)), "bias": jnp.zeros((3, 2))}}}
    gradients = jax.tree.map(jnp.ones_like, params)
    optimizer = Optimizer(PhaseConfig(learning_rate=0.1, warmup=0.0, weight_decay=0.0, clip_norm=0.0), 1000)
    rates = {"model/layers": lambda step: jnp.where(jnp.arange(3) <= step, 1.0, 0.0)}
    states = optimizer.init(params, rates)
    for step, moving in ((0, 1), (1, 2)):
        after, _ = optimizer.update(gradients, states, params, step=jnp.int32(step), rates=rates)
        for leaf in jax.tree.leaves(after):
            np.testing.assert_allclose(leaf[:moving], -0.1, rtol=1e-2)
            assert not np.any(leaf[moving:])


def test_one_path_is_optax_adamw():
    settings = PhaseConfig(learning_rate=0.1, warmup=0.2, weight_decay=0.1, clip_norm=1.0)
    params = {"model": {"kernel": jnp.linspace(-1.0, 1.0, 6), "bias": jnp.ones(2)}}
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule(settings, total_steps=10), eps=1e-6, weight_decay=0.1, mask=decay_mask),
    )
    ours, expected = params, params
    optimizer, state = Optimizer(settings, 10), theirs.init(params)
    states = optimizer.init(params, ["model"])
    for step in range(5):
        gradients = jax.tree.map(lambda leaf, step=step: jnp.cos(leaf + step), params)
        ours, states = optimizer.update(gradients, states, ours, step=jnp.int32(step), rates={"model": 1.0})
        with jax.numpy_dtype_promotion("standard"):
            updates, state = theirs.update(gradients, state, expected)
        expected = optax.apply_updates(expected, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, expected)


def test_adam_without_bias_correction_is_the_released_codes():
    # transformers' old AdamW with correct_bias=False, which FastBERT's code carries: m / (sqrt(v) + eps).
    settings = PhaseConfig(bias_correction=False, clip_norm=0.0, weight_decay=0.0, warmup=0.0, learning_rate=0.1)
    optimizer = Optimizer(settings, 1000)
    params = {"model": {"kernel": jnp.zeros(3)}}
    states = optimizer.init(params, ["model"])
    m, v, expected = np.zeros(3), np.zeros(3), np.zeros(3)
    for step, gradient in enumerate([np.array([1.0, -2.0, 0.5]), np.array([0.1, 3.0, 0.0])]):
        gradients = {"model": {"kernel": jnp.asarray(gradient, jnp.float32)}}
        params, states = optimizer.update(gradients, states, params, step=jnp.int32(step), rates={"model": 1.0})
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected -= 0.1 * (1 - step / 1000) * m / (np.sqrt(v) + 1e-6)
    np.testing.assert_allclose(params["model"]["kernel"], expected, rtol=1e-5)


def test_the_rate_stays_at_zero_after_its_end():
    rate = schedule(PhaseConfig(learning_rate=3e-4), total_steps=30)
    with jax.numpy_dtype_promotion("standard"):
        assert [float(rate(step)) for step in (30, 31, 50)] == [0.0, 0.0, 0.0] and float(rate(29)) > 0
