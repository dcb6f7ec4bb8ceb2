"""The exit: the small classifier after each layer, the paper's teacher and students alike.

The paper's section 3.1 with the released code's details (`run_fastbert.py`, class BertMiniClassifier): FC H->C, tanh,
2-head self-attention at width C, the first token, FC C->C, tanh, FC C->N. Only the first token's answer is used, so
there is one query per text, and the key and value projections move from every token to that query: with
t = tanh(FC(h)), `q . (t Wk + bk)` is `t . (Wk q)` plus a constant that the softmax drops, and
`sum_i a_i (t_i Wv + bv)` is `(sum_i a_i t_i) Wv + (sum_i a_i) bv`. The same function, at the cost of the first FC.

Kernels start at normal(0, 1 / fan_in), not at BERT's 0.02: five maps of width 128 at 0.02 shrink the signal a thousand
times, and a new last exit then needs hundreds of steps before it learns anything. Measured on Reuters R8, MiniLM, 120
steps of 16 texts at 1e-4: training loss 0.15 against 1.09.

The ablation has `linear` exits: dropout on the first token, then FC H->N, as BERT's own head without its pooler.

Shapes in names: B batch, S sequence, H hidden, K texts per row, C exit width, A exit heads, D head width, N classes.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int

from fastbert_jax.config import BertConfig, ExitKind
from fastbert_jax.model.attention import MASKED_SCORE
from fastbert_jax.model.layers import Dropout, Linear
from fastbert_jax.model.network import Array

KERNEL_INIT = nn.initializers.lecun_normal()


class Projection(nn.Module):
    """The parameters of a linear map whose matrix is used by hand: kernel `[C, A, D]` and bias `[A, D]`."""

    config: BertConfig
    use_bias: bool

    @nn.compact
    def __call__(self) -> tuple[Array, Array | None]:
        size, heads = self.config.exit_size, self.config.exit_heads
        kernel_CxC = self.param("kernel", KERNEL_INIT, (size, size))
        kernel_CxAxD = kernel_CxC.reshape(size, heads, size // heads)
        if not self.use_bias:
            return kernel_CxAxD, None
        return kernel_CxAxD, self.param("bias", nn.initializers.zeros, (size,)).reshape(heads, size // heads)


class Exit(nn.Module):
    """One classifier on the hidden states of one layer."""

    config: BertConfig
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        hidden_BxSxH: Float[Array, "B S H"],
        text_BxS: Int[Array, "B S"],
        cls_BxK: Int[Array, "B K"],
        *,
        deterministic: bool = True,
    ) -> Float32[jax.Array, "B K N"]:
        """Float32 logits `[B, K, N]` of the texts whose first tokens stand at `cls_BxK`.

        A text number that has no token in its row gives finite numbers without meaning.
        """
        config = self.config
        classifier = nn.Dense(config.num_classes, dtype=jnp.float32, kernel_init=KERNEL_INIT, name="classifier")
        if config.exit_kind is ExitKind.LINEAR:
            first_BxKxH = jnp.take_along_axis(hidden_BxSxH, cls_BxK[:, :, None], axis=1)
            first_BxKxH = Dropout(self.dropout)(first_BxKxH, deterministic=deterministic)
            return classifier(first_BxKxH.astype(jnp.float32))
        linear = functools.partial(Linear, config.exit_size, dtype=self.dtype, kernel_init=KERNEL_INIT)
        heads = (config.exit_heads, config.exit_size // config.exit_heads)
        rows, texts = cls_BxK.shape

        narrow_BxSxC = jnp.tanh(linear(name="narrow")(jnp.asarray(hidden_BxSxH)))
        first_BxKxC = jnp.take_along_axis(narrow_BxSxC, cls_BxK[:, :, None], axis=1)
        query_BxKxAxD = linear(name="query")(first_BxKxC).reshape(rows, texts, *heads)
        key_CxAxD, _ = Projection(config, use_bias=False, name="key")()
        value_CxAxD, value_bias_AxD = Projection(config, use_bias=True, name="value")()

        probe_BxKxAxC = jnp.einsum("bkad,cad->bkac", query_BxKxAxD * heads[1] ** -0.5, key_CxAxD.astype(self.dtype))
        scores_BxKxAxS = jnp.einsum("bkac,bsc->bkas", probe_BxKxAxC, narrow_BxSxC, preferred_element_type=jnp.float32)
        own_BxKxS = text_BxS[:, None, :] == 1 + jnp.arange(texts)[None, :, None]
        weights_BxKxAxS = jax.nn.softmax(jnp.where(own_BxKxS[:, :, None], scores_BxKxAxS, MASKED_SCORE))
        weights_BxKxAxS = Dropout(self.dropout)(weights_BxKxAxS.astype(self.dtype), deterministic=deterministic)
        mean_BxKxAxC = jnp.einsum("bkas,bsc->bkac", weights_BxKxAxS, narrow_BxSxC)
        value_BxKxAxD = jnp.einsum("bkac,cad->bkad", mean_BxKxAxC, value_CxAxD.astype(self.dtype))
        # With dropout the weights no longer sum to one, and the bias scales with their sum.
        value_BxKxAxD += weights_BxKxAxS.sum(-1, keepdims=True) * value_bias_AxD.astype(self.dtype)[None, None]

        attended_BxKxC = linear(name="attention_output")(value_BxKxAxD.reshape(first_BxKxC.shape))
        pooled_BxKxC = jnp.tanh(linear(name="dense")(attended_BxKxC))
        return classifier(pooled_BxKxC.astype(jnp.float32))
