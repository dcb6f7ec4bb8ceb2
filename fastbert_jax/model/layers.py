"""Building blocks of every network: linear map, activation, dropout, LayerNorm.

Shapes in names: B batch, S sequence, H hidden.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.config import Activation, BertConfig, LayerNormKind

HALF_WORD = 2**16


class Linear(nn.Dense):
    """A linear map of the last axis, computed as one product of two matrices.

    Were the other axes not made one, XLA's CPU compiler would copy the output's gradient, transposed, for the gradient
    of the kernel: a third of the time of a layer's backward pass goes into products that take 1.4 times as long then.
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """`[..., in]` to `[..., features]`."""
        outputs = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
        return outputs.reshape(*inputs.shape[:-1], self.features)


def activate(activation: Activation, values: jax.Array) -> jax.Array:
    """The activation, elementwise; the dtype of `values` comes out."""
    match activation:
        case Activation.GELU:
            # Not jax.nn.gelu: its erfc takes three times as long on a CPU, for digits that float32 sums lose anyway.
            return _gelu(values) if values.dtype == jnp.float32 else jax.checkpoint(_gelu, prevent_cse=False)(values)
        case Activation.GELU_TANH:
            return jax.nn.gelu(values, approximate=True)
        case Activation.RELU:
            return jax.nn.relu(values)
    raise ValueError(f"expected one of {list(Activation)}, found {activation!r}")


def _gelu(values: jax.Array) -> jax.Array:
    wide = values.astype(jnp.float32)
    return (wide * (0.5 + 0.5 * jax.lax.erf(wide * 2**-0.5))).astype(values.dtype)


class Dropout(nn.Module):
    """Zero each number with a probability of `rate`, and divide the others by 1 - rate.

    Each half of a 32-bit word decides on one number, so the probability is a multiple of 2^-16. On a CPU random words
    are what dropout costs: this takes a quarter of the time of Flax's. The two halves lie side by side along the last
    axis, so the mask is a function of key and shape alone, however the array is sharded.
    """

    rate: float

    @nn.compact
    def __call__(self, inputs: jax.Array, *, deterministic: bool) -> jax.Array:
        """The same shape and dtype; needs a `dropout` rng unless `deterministic` or the rate is 0."""
        kept = HALF_WORD - round(self.rate * HALF_WORD)
        if deterministic or kept == HALF_WORD:
            return inputs
        *others, size = inputs.shape
        words = jax.random.bits(self.make_rng("dropout"), (*others, -(-size // 2)), jnp.uint32)
        low, high = (
            words & jnp.full(words.shape, HALF_WORD - 1, jnp.uint32),
            words >> jnp.full(words.shape, 16, jnp.uint32),
        )
        halves = jnp.concatenate([low, high], axis=-1)[..., :size]
        return jnp.where(halves < jnp.uint32(kept), inputs * (HALF_WORD / kept), 0.0).astype(inputs.dtype)


def layer_norm(config: BertConfig, hidden_BxSxH: jax.Array, name: str) -> jax.Array:
    """The LayerNorm that `config` names, computed in float32; the same dtype comes out.

    Of a lower precision, the backward pass keeps the input alone, as that of GELU does: what is computed in float32
    would take several times the memory.
    """
    norm: nn.Module
    match config.layer_norm:
        case LayerNormKind.STANDARD:
            # The two-pass variance does not cancel.
            norm = nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False, dtype=jnp.float32, name=name)
        case LayerNormKind.UNBIASED:
            norm = UnbiasedLayerNorm(epsilon=config.layer_norm_eps, name=name)
        case _:
            raise ValueError(f"expected one of {list(LayerNormKind)}, found {config.layer_norm!r}")
    if hidden_BxSxH.dtype == jnp.float32:
        return norm(hidden_BxSxH)

    def run(norm: nn.Module, hidden_BxSxH: jax.Array) -> jax.Array:
        return norm(hidden_BxSxH.astype(jnp.float32)).astype(hidden_BxSxH.dtype)

    return nn.remat(run, prevent_cse=False)(norm, hidden_BxSxH)


class UnbiasedLayerNorm(nn.Module):
    """scale * (x - mean) / (deviation + epsilon) + bias, with the deviation of a sample (`LayerNorm` in UER-py).

    BERT's divides the squares by H, not by H - 1, and has its epsilon inside the root: for H = 768 this gives numbers
    smaller by 0.065 %. The parameters are those of `nn.LayerNorm`.
    """

    epsilon: float

    @nn.compact
    def __call__(self, hidden_BxSxH: jax.Array) -> jax.Array:
        """Float32 in and out."""
        size = hidden_BxSxH.shape[-1]
        scale_H = self.param("scale", nn.initializers.ones, (size,))
        bias_H = self.param("bias", nn.initializers.zeros, (size,))
        centred_BxSxH = hidden_BxSxH - hidden_BxSxH.mean(-1, keepdims=True)
        variance_BxSx1 = jnp.square(centred_BxSxH).sum(-1, keepdims=True) / (size - 1)
        # At 0 the root's gradient is infinite.
        deviation_BxSx1 = jnp.sqrt(jnp.maximum(variance_BxSx1, np.finfo(np.float32).tiny))
        return scale_H[None, None] * centred_BxSxH / (deviation_BxSx1 + self.epsilon) + bias_H[None, None]
