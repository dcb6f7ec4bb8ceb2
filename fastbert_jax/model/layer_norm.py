"""The two LayerNorms: BERT's, and that of UER, on which the official FastBERT stands."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastbert_jax.config import BertConfig, LayerNormKind


def layer_norm(config: BertConfig, hidden_BxSxH: jax.Array, name: str) -> jax.Array:
    """The LayerNorm that `config` names, computed in float32; the same dtype comes out."""
    norm: nn.Module
    match config.layer_norm:
        case LayerNormKind.STANDARD:
            # The two-pass variance does not cancel.
            norm = nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False, dtype=jnp.float32, name=name)
        case LayerNormKind.UNBIASED:
            norm = UnbiasedLayerNorm(epsilon=config.layer_norm_eps, name=name)
        case _:
            raise ValueError(f"expected one of {list(LayerNormKind)}, found {config.layer_norm!r}")
    return norm(hidden_BxSxH.astype(jnp.float32)).astype(hidden_BxSxH.dtype)


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
        deviation_BxSx1 = jnp.sqrt(jnp.maximum(variance_BxSx1, jnp.finfo(jnp.float32).tiny))
        return scale_H[None, None] * centred_BxSxH / (deviation_BxSx1 + self.epsilon) + bias_H[None, None]
