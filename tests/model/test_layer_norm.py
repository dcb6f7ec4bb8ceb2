"""The LayerNorms: UER's formula, and that neither is the other; what they and GELU keep for the backward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastbert_jax.config import Activation, BertConfig, LayerNormKind
from fastbert_jax.errors import UserError
from fastbert_jax.model.layers import activate, layer_norm

SIZES = {"vocab_size": 2, "num_layers": 1, "num_heads": 1, "feed_forward_size": 1}


class OneNorm(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, hidden_BxSxH: jax.Array) -> jax.Array:
        return layer_norm(self.config, hidden_BxSxH, "norm")


def normalise(kind: LayerNormKind, hidden_BxSxH: np.ndarray, eps: float = 0.1) -> jax.Array:
    size = hidden_BxSxH.shape[-1]
    config = BertConfig(**SIZES, hidden_size=size, layer_norm=kind, layer_norm_eps=eps)
    params = {"norm": {"scale": np.linspace(1, 2, size, dtype=np.float32), "bias": np.full(size, 3, np.float32)}}
    return OneNorm(config).apply({"params": params}, hidden_BxSxH)


def test_unbiased_is_the_formula_of_uer() -> None:
    hidden_BxSxH = np.random.default_rng(0).normal(5, 0.5, (2, 3, 8)).astype(np.float32)
    wide = hidden_BxSxH.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = np.linspace(1, 2, 8) * centred / (wide.std(-1, ddof=1, keepdims=True) + 0.1) + 3
    found = normalise(LayerNormKind.UNBIASED, hidden_BxSxH)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(normalise(LayerNormKind.STANDARD, hidden_BxSxH) - expected).max() > 0.1


@pytest.mark.parametrize("kind", LayerNormKind)
def test_statistics_are_float32_whatever_comes_in(kind: LayerNormKind) -> None:
    hidden_BxSxH = np.random.default_rng(0).normal(100, 1, (1, 2, 64)).astype(jnp.bfloat16)
    found = normalise(kind, hidden_BxSxH)
    assert found.dtype == jnp.bfloat16
    exact = normalise(kind, hidden_BxSxH.astype(np.float32))
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("kind", LayerNormKind)
def test_equal_numbers_have_finite_gradients(kind: LayerNormKind) -> None:
    same_BxSxH = np.full((1, 1, 8), 2, np.float32)
    np.testing.assert_array_equal(normalise(kind, same_BxSxH, eps=1e-6), np.full((1, 1, 8), 3, np.float32))
    gradient = jax.grad(lambda hidden: normalise(kind, hidden, eps=1e-6)[0, 0, 0])(same_BxSxH)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "function",
    [functools.partial(activate, Activation.GELU), *(functools.partial(normalise, kind) for kind in LayerNormKind)],
)
def test_of_bfloat16_the_backward_pass_keeps_the_input_alone(function: Callable[[jax.Array], jax.Array]) -> None:
    hidden_BxSxH = jnp.asarray(np.random.default_rng(0).normal(1, 1, (2, 3, 64)), jnp.bfloat16)
    found, backward = jax.vjp(function, hidden_BxSxH)
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.size == hidden_BxSxH.size]
    assert [leaf.dtype for leaf in kept] == [jnp.bfloat16]
    # The gradient is that of float32, rounded.
    _, exact = jax.vjp(function, hidden_BxSxH.astype(jnp.float32))
    cotangent = jnp.ones_like(found) * found
    (gradient,), (expected,) = backward(cotangent), exact(cotangent.astype(jnp.float32))
    np.testing.assert_array_equal(gradient, expected.astype(jnp.bfloat16))


def test_a_sample_has_two_numbers() -> None:
    with pytest.raises(UserError, match="hidden_size: expected 2 or more for an unbiased layer_norm, found 1"):
        BertConfig(**SIZES, hidden_size=1, layer_norm=LayerNormKind.UNBIASED)
