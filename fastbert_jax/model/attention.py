"""Attention of the tokens of each text to one another, and the reason for each step that the formula does not have.

Shapes in names: B batch, S sequence, A heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

MASKED_SCORE = -1e30
"""Score of a key that must not be seen: finite, so that a row with no key at all stays free of NaN."""


def attention(
    query_BxAxSxD: Float[jax.Array, "B A S D"],
    key_BxAxSxD: Float[jax.Array, "B A S D"],
    value_BxAxSxD: Float[jax.Array, "B A S D"],
    text_BxS: Int[jax.Array, "B S"],
    *,
    packed: bool,
    drop: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[Float[jax.Array, "B A S D"], Float[jax.Array, "B A S S"]]:
    """`softmax(q k^T / sqrt(D)) v` within each text, `[B, A, S, D]`, and the scores before the mask.

    On an NVIDIA GPU, cuDNN computes texts that have a row each in bfloat16 without dropout, and no scores are kept.

    Args:
      text_BxS: int32; a token sees the tokens with its own number, and nothing sees padding (0), which comes last.
      packed: whether a row may have several texts.
      drop: dropout of the attention weights; none: there is none.

    Returns:
      The context, finite and without meaning at padding, and the scores `[B, A, S, S]`, which nothing computes where
      nothing reads them; both in the dtype of the arguments.
    """

    def scores() -> jax.Array:
        # Of a lower precision, they stay in it: as float32 they would be most of what a layer moves through memory.
        width = query_BxAxSxD.shape[-1]
        return jnp.einsum("baqd,bakd->baqk", query_BxAxSxD * width**-0.5, key_BxAxSxD)

    def in_steps(scores_BxAxSxS: jax.Array) -> jax.Array:
        return _average(scores_BxAxSxS, value_BxAxSxD, text_BxS, drop or (lambda weights: weights))

    def in_one_kernel() -> jax.Array:
        return by_lengths(query_BxAxSxD, key_BxAxSxD, value_BxAxSxD, text_BxS, implementation="cudnn")

    if jax.default_backend() == "gpu" and value_BxAxSxD.dtype == jnp.bfloat16 and not packed and drop is None:
        # Each has scores of its own, which nothing computes where nothing reads them.
        return jax.lax.platform_dependent(cuda=in_one_kernel, default=lambda: in_steps(scores())), scores()
    scores_BxAxSxS = scores()
    return in_steps(scores_BxAxSxS), scores_BxAxSxS


def by_lengths(
    query_BxAxSxD: jax.Array,
    key_BxAxSxD: jax.Array,
    value_BxAxSxD: jax.Array,
    text_BxS: jax.Array,
    *,
    implementation: Literal["cudnn", "xla"],
) -> jax.Array:
    """The context `[B, A, S, D]` by `jax.nn.dot_product_attention`, for one text a row, whose padding gives 0.

    It takes the texts' lengths: with a mask, cuDNN is slow or fails (jax issue 28974).
    """
    # A row without a text, which fills up a batch, has one token for the kernel.
    length_B = jnp.maximum((text_BxS > 0).sum(-1, dtype=jnp.int32), 1)
    query, key, value = (each.swapaxes(1, 2) for each in (query_BxAxSxD, key_BxAxSxD, value_BxAxSxD))
    context_BxSxAxD = jax.nn.dot_product_attention(
        query, key, value, query_seq_lengths=length_B, key_value_seq_lengths=length_B, implementation=implementation
    )
    return jnp.where((text_BxS > 0)[:, :, None, None], context_BxSxAxD, 0).swapaxes(1, 2)


def _average(
    scores_BxAxSxS: jax.Array, value_BxAxSxD: jax.Array, text_BxS: jax.Array, drop: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """The values' average by the softmax of the scores within each text."""

    # A mask that is added, and a softmax whose denominator is taken after the product with the values, which has fewer
    # numbers to divide: on a CPU the two make attention at 128 tokens three times as fast.
    def weigh(scores_BxAxSxS: jax.Array) -> tuple[jax.Array, jax.Array]:
        same_text_BxSxS = text_BxS[:, :, None] == text_BxS[:, None, :]
        masked_BxAxSxS = scores_BxAxSxS.astype(jnp.float32) + jnp.where(same_text_BxSxS, 0.0, MASKED_SCORE)[:, None]
        largest_BxAxSx1 = jax.lax.stop_gradient(masked_BxAxSxS.max(-1, keepdims=True))
        weights_BxAxSxS = jnp.exp(masked_BxAxSxS - largest_BxAxSx1)
        return weights_BxAxSxS.astype(scores_BxAxSxS.dtype), weights_BxAxSxS.sum(-1, keepdims=True)

    if scores_BxAxSxS.dtype != jnp.float32:
        weigh = jax.checkpoint(weigh, prevent_cse=False)  # the backward pass keeps the scores, not float32 weights
    weights_BxAxSxS, total_BxAxSx1 = weigh(scores_BxAxSxS)
    context_BxAxSxD = jnp.einsum(
        "baqk,bakd->baqd", drop(weights_BxAxSxS), value_BxAxSxD, preferred_element_type=jnp.float32
    )
    return (context_BxAxSxD / total_BxAxSx1).astype(value_BxAxSxD.dtype)
