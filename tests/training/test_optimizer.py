"""Properties of the optimizer: what decays, when the rate peaks, what clipping bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fastbert_jax.config import BertConfig, PhaseConfig
from fastbert_jax.model.fastbert import init_params
from fastbert_jax.training.optimizer import decay_mask, make_optimizer, schedule

CONFIG = BertConfig(vocab_size=10, hidden_size=8, num_layers=2, num_heads=2, feed_forward_size=8)


def test_decay_shrinks_matrices_and_nothing_else():
    params = {"model": jax.tree.map(jnp.ones_like, init_params(CONFIG, jax.random.key(0)))}
    optimizer = make_optimizer(PhaseConfig(weight_decay=0.1, learning_rate=0.1, warmup=0.0), total_steps=10)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        if path[-1].key in ("bias", "scale"):
            assert (leaf == 1).all(), path
        else:
            np.testing.assert_allclose(leaf, 0.99, rtol=1e-6, err_msg=str(path))


def test_decay_mask_names_every_kernel_and_embedding():
    mask = decay_mask(init_params(CONFIG, jax.random.key(0)))
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
    params = {"kernel": jnp.zeros(4)}
    huge = {"kernel": jnp.full(4, 1e6)}

    def momentum(clip_norm: float) -> float:
        optimizer = make_optimizer(PhaseConfig(clip_norm=clip_norm), total_steps=10)
        _, state = optimizer.update(huge, optimizer.init(params), params)
        return float(optax.tree.norm(optax.tree.get(state, "mu")))

    np.testing.assert_allclose(momentum(1.0), 0.1, rtol=1e-5)
    assert momentum(0.0) > 1e5


def test_rates_multiply_the_step_of_their_path_alone():
    params = {"model": {"backbone": {"kernel": jnp.zeros(3)}, "last_exit": {"kernel": jnp.zeros(3)}}}
    gradients = jax.tree.map(jnp.ones_like, params)
    settings = PhaseConfig(learning_rate=0.1, warmup=0.0, weight_decay=0.0)
    optimizer = make_optimizer(settings, total_steps=10, rates={"model/backbone": 1.0, "model/last_exit": 8.0})
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates["model"]["backbone"]["kernel"], -0.1, rtol=1e-4)
    np.testing.assert_allclose(updates["model"]["last_exit"]["kernel"], -0.8, rtol=1e-4)


def test_adam_without_bias_correction_is_the_released_codes():
    # transformers' old AdamW with correct_bias=False, which FastBERT's code carries: m / (sqrt(v) + eps).
    settings = PhaseConfig(bias_correction=False, clip_norm=0.0, weight_decay=0.0, warmup=0.0, learning_rate=0.1)
    optimizer = make_optimizer(settings, total_steps=1000)
    params = {"model": {"kernel": jnp.zeros(3)}}
    state = optimizer.init(params)
    m, v, expected = np.zeros(3), np.zeros(3), np.zeros(3)
    for step, gradient in enumerate([np.array([1.0, -2.0, 0.5]), np.array([0.1, 3.0, 0.0])]):
        updates, state = optimizer.update({"model": {"kernel": jnp.asarray(gradient, jnp.float32)}}, state, params)
        params = optax.apply_updates(params, updates)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected -= 0.1 * (1 - step / 1000) * m / (np.sqrt(v) + 1e-6)
    np.testing.assert_allclose(params["model"]["kernel"], expected, rtol=1e-5)


def test_the_rate_stays_at_zero_after_its_end():
    rate = schedule(PhaseConfig(learning_rate=3e-4), total_steps=30)
    with jax.numpy_dtype_promotion("standard"):
        assert [float(rate(step)) for step in (30, 31, 50)] == [0.0, 0.0, 0.0] and float(rate(29)) > 0
