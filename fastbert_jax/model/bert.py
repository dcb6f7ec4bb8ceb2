"""The BERT backbone: embeddings, one encoder layer, and the stack of layers.

Shapes in names: B batch, S sequence, H hidden, F feed-forward, A heads, D head width, L layers. Post-norm, as in
Devlin et al. 2019; parameters are float32 whatever the compute dtype.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastbert_jax.config import BertConfig
from fastbert_jax.model.dropout import Dropout
from fastbert_jax.model.layer_norm import layer_norm
from fastbert_jax.model.sharding import keep_sharded

HIDDEN_AXES = ("batch", "sequence", "features")
"""The axes of hidden states, for the mesh."""
MASKED_SCORE = -1e30
"""Score of a key that must not be seen: finite, so that a row with no key at all stays free of NaN."""


def activation(name: str, values: jax.Array) -> jax.Array:
    """The activation that `BertConfig.activation` names."""
    match name:
        case "gelu":
            # Not jax.nn.gelu, whose erfc takes three times as long on a CPU for digits that float32 sums lose anyway.
            wide = values.astype(jnp.float32)
            return (wide * (0.5 + 0.5 * jax.lax.erf(wide * 2**-0.5))).astype(values.dtype)
        case "gelu_tanh":
            return jax.nn.gelu(values, approximate=True)
        case "relu":
            return jax.nn.relu(values)
    raise ValueError(f"expected an activation of 'gelu', 'gelu_tanh', 'relu', found {name!r}")


class Linear(nn.Dense):
    """A linear map of the last axis, computed as one product of two matrices.

    Were the other axes not made one, XLA's CPU compiler would copy the output's gradient, transposed, for the gradient
    of the kernel: a third of the time of a layer's backward pass goes into products that take 1.4 times as long then.
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """`[..., in]` to `[..., features]`."""
        outputs = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
        return outputs.reshape(*inputs.shape[:-1], self.features)


def dense(config: BertConfig, features: int, dtype: jnp.dtype, name: str) -> Linear:
    """A linear map with BERT's initialisation."""
    return Linear(features, dtype=dtype, kernel_init=nn.initializers.normal(config.init_std), name=name)


class Embeddings(nn.Module):
    """Token + position + token type embeddings, normalised."""

    config: BertConfig
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        token_ids_BxS: jax.Array,
        token_type_BxS: jax.Array,
        position_BxS: jax.Array,
        *,
        deterministic: bool = True,
    ) -> jax.Array:
        """Int32 ids to `[B, S, H]`. An id out of range gives NaN, so ids are checked where they are made."""
        table = functools.partial(
            nn.Embed,
            features=self.config.hidden_size,
            dtype=self.dtype,
            embedding_init=nn.initializers.normal(self.config.init_std),
        )
        hidden_BxSxH = (
            table(self.config.vocab_size, name="token")(token_ids_BxS)
            + table(self.config.max_positions, name="position")(position_BxS)
            + table(self.config.token_types, name="token_type")(token_type_BxS)
        )
        # Looked up in pieces of the width, then sent to where its rows are.
        hidden_BxSxH = keep_sharded(keep_sharded(hidden_BxSxH, ("rows", "sequence", "hidden")), HIDDEN_AXES)
        hidden_BxSxH = layer_norm(self.config, hidden_BxSxH, "norm")
        return Dropout(self.dropout)(hidden_BxSxH, deterministic=deterministic)


class EncoderLayer(nn.Module):
    """One BERT layer: self-attention within each text of a row, then the feed-forward part."""

    config: BertConfig
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, hidden_BxSxH: jax.Array, text_BxS: jax.Array, *, deterministic: bool = True
    ) -> tuple[jax.Array, jax.Array]:
        """The layer's output `[B, S, H]` and its attention scores before the mask, float32 `[B, A, S, S]`.

        A token sees the tokens with its own number in `text_BxS`; padding (0) sees padding, and nothing sees it.
        """
        config = self.config
        linear = functools.partial(dense, config, dtype=self.dtype)
        drop = functools.partial(Dropout(self.dropout), deterministic=deterministic)  # type: ignore[misc]
        heads = (config.num_heads, config.hidden_size // config.num_heads)
        rows, length, _ = hidden_BxSxH.shape

        def project(name: str) -> jax.Array:
            # Heads before tokens: as plain matrix products these run 2.5 times faster on a CPU.
            return linear(config.hidden_size, name=name)(hidden_BxSxH).reshape(rows, length, *heads).swapaxes(1, 2)

        query_BxAxSxD, key_BxAxSxD, value_BxAxSxD = project("query"), project("key"), project("value")
        scores_BxAxSxS = jnp.einsum(
            "baqd,bakd->baqk", query_BxAxSxD * heads[1] ** -0.5, key_BxAxSxD, preferred_element_type=jnp.float32
        )
        # The softmax, its denominator taken after the product with the values, which has fewer numbers to divide; and a
        # mask that is added: on a CPU the two make attention at 128 tokens three times as fast.
        same_text_BxSxS = text_BxS[:, :, None] == text_BxS[:, None, :]
        masked_BxAxSxS = scores_BxAxSxS + jnp.where(same_text_BxSxS, 0.0, MASKED_SCORE)[:, None]
        largest_BxAxSx1 = jax.lax.stop_gradient(masked_BxAxSxS.max(-1, keepdims=True))
        weights_BxAxSxS = jnp.exp(masked_BxAxSxS - largest_BxAxSx1)
        total_BxAxSx1 = weights_BxAxSxS.sum(-1, keepdims=True)
        context_BxAxSxD = jnp.einsum(
            "baqk,bakd->baqd",
            drop(weights_BxAxSxS.astype(self.dtype)),
            value_BxAxSxD,
            preferred_element_type=jnp.float32,
        )
        context_BxAxSxD = (context_BxAxSxD / total_BxAxSx1).astype(self.dtype)
        attended_BxSxH = linear(config.hidden_size, name="attention_output")(
            context_BxAxSxD.swapaxes(1, 2).reshape(hidden_BxSxH.shape)
        )
        hidden_BxSxH = layer_norm(config, hidden_BxSxH + drop(attended_BxSxH), "attention_norm")

        inner_BxSxF = activation(config.activation, linear(config.feed_forward_size, name="intermediate")(hidden_BxSxH))
        output_BxSxH = linear(config.hidden_size, name="output")(inner_BxSxF)
        return layer_norm(config, hidden_BxSxH + drop(output_BxSxH), "output_norm"), scores_BxAxSxS


class Backbone(nn.Module):
    """Embeddings and all layers; the layers' parameters are stacked `[L, ...]` and scanned over."""

    config: BertConfig
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    unroll: int = 1

    @nn.compact
    def __call__(
        self,
        token_ids_BxS: jax.Array,
        token_type_BxS: jax.Array,
        position_BxS: jax.Array,
        text_BxS: jax.Array,
        *,
        deterministic: bool = True,
    ) -> tuple[jax.Array, jax.Array]:
        """Hidden states `[L + 1, B, S, H]`, the embeddings first, and attention scores `[L, B, A, S, S]`."""
        settings = {"config": self.config, "dropout": self.dropout, "dtype": self.dtype}
        embedded_BxSxH = Embeddings(**settings, name="embeddings")(
            token_ids_BxS, token_type_BxS, position_BxS, deterministic=deterministic
        )

        def run_layer(layer: EncoderLayer, hidden_BxSxH: jax.Array, _: None) -> tuple[jax.Array, tuple]:
            hidden_BxSxH, scores_BxAxSxS = layer(hidden_BxSxH, text_BxS, deterministic=deterministic)
            hidden_BxSxH = keep_sharded(hidden_BxSxH, HIDDEN_AXES)
            return hidden_BxSxH, (hidden_BxSxH, scores_BxAxSxS)

        run_layers = nn.scan(
            nn.remat(run_layer, prevent_cse=False) if self.remat else run_layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.config.num_layers,
            unroll=self.unroll,
        )
        _, (hidden_LxBxSxH, scores_LxBxAxSxS) = run_layers(
            EncoderLayer(**settings, name="layers"), embedded_BxSxH, None
        )
        return jnp.concatenate([embedded_BxSxH[None], hidden_LxBxSxH]), scores_LxBxAxSxS


class LowerBackbone(nn.Module):
    """Embeddings and the first `depth` layers of a `Backbone`, on all of its parameters, without dropout.

    A loop over a slice of the stacked layers would have XLA copy the slice at every call; here each turn of the loop
    reads its layer where it is.
    """

    config: BertConfig
    depth: int
    dtype: jnp.dtype = jnp.float32
    unroll: int = 1

    @nn.compact
    def __call__(
        self, token_ids_BxS: jax.Array, token_type_BxS: jax.Array, position_BxS: jax.Array, text_BxS: jax.Array
    ) -> jax.Array:
        """Hidden states `[depth + 1, B, S, H]`, the embeddings first."""
        embedded_BxSxH = Embeddings(self.config, dtype=self.dtype, name="embeddings")(
            token_ids_BxS, token_type_BxS, position_BxS
        )
        layer = EncoderLayer(self.config, dtype=self.dtype, parent=None)
        stacked = self.get_variable("params", "layers")

        def run_layer(hidden_BxSxH: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
            params = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), stacked)
            hidden_BxSxH, _ = layer.apply({"params": params}, hidden_BxSxH, text_BxS)
            hidden_BxSxH = keep_sharded(hidden_BxSxH, HIDDEN_AXES)
            return hidden_BxSxH, hidden_BxSxH

        _, hidden_LxBxSxH = jax.lax.scan(run_layer, embedded_BxSxH, jnp.arange(self.depth), unroll=self.unroll)
        return jnp.concatenate([embedded_BxSxH[None], hidden_LxBxSxH])
