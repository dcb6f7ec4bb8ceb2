"""BERT with exits: embeddings, encoder layers, an exit after each, and one forward pass through all of them.

Shapes in names: B batch, S sequence, H hidden, F feed-forward, A heads, D head width, K texts per row, L layers,
N classes. Post-norm, as in Devlin et al. 2019; parameters are float32 whatever the compute dtype.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from fastbert_jax.config import BertConfig, ExitKind, Precision
from fastbert_jax.model.attention import attention
from fastbert_jax.model.exits import Exit
from fastbert_jax.model.layers import Dropout, Linear, activate, layer_norm
from fastbert_jax.model.leaves import bert_leaves
from fastbert_jax.model.network import Array, Leaf, Params, Part, Trace
from fastbert_jax.model.sharding import keep_sharded
from fastbert_jax.text.batches import Batch

PRODUCTS = {precision: "float32" for precision in Precision} | {Precision.TENSORFLOAT32: "tensorfloat32"}
"""JAX's name for products of float32 numbers; by default it rounds them to TF32 on a GPU and to bfloat16 on a TPU."""
HIDDEN_AXES = ("batch", "sequence", "features")
"""The axes of hidden states, for the mesh."""
FLOAT32_PARTS = {"norm", "attention_norm", "output_norm", "classifier"}
"""The modules that compute in float32 whatever the precision."""


class Embeddings(nn.Module):
    """Token + position + token type embeddings, normalised."""

    config: BertConfig
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, token_ids_BxS: Array, token_type_BxS: Array, position_BxS: Array, *, deterministic: bool = True
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
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, hidden_BxSxH: jax.Array, text_BxS: Array, *, packed: bool = False, deterministic: bool = True
    ) -> tuple[jax.Array, jax.Array]:
        """The layer's output `[B, S, H]` and its attention scores before the mask, `[B, A, S, S]`.

        A token sees the tokens with its own number in `text_BxS`; nothing sees padding (0). A row has one text unless
        it is `packed`.
        """
        config = self.config
        linear = functools.partial(Linear, dtype=self.dtype, kernel_init=nn.initializers.normal(config.init_std))
        drop = functools.partial(Dropout(self.dropout), deterministic=deterministic)  # type: ignore[misc]
        heads = (config.num_heads, config.hidden_size // config.num_heads)
        rows, length, _ = hidden_BxSxH.shape

        def project(name: str) -> jax.Array:
            # Heads before tokens: as plain matrix products these run 2.5 times faster on a CPU.
            projected_BxSxH = linear(config.hidden_size, name=name)(hidden_BxSxH)
            return projected_BxSxH.reshape(rows, length, *heads).swapaxes(1, 2)

        context_BxAxSxD, scores_BxAxSxS = attention(
            *(project("query"), project("key"), project("value"), jnp.asarray(text_BxS)),
            packed=packed,
            drop=None if deterministic or not self.dropout else drop,
        )
        attended_BxSxH = linear(config.hidden_size, name="attention_output")(
            context_BxAxSxD.swapaxes(1, 2).reshape(hidden_BxSxH.shape)
        )
        hidden_BxSxH = layer_norm(config, hidden_BxSxH + drop(attended_BxSxH), "attention_norm")

        inner_BxSxF = activate(config.activation, linear(config.feed_forward_size, name="intermediate")(hidden_BxSxH))
        output_BxSxH = linear(config.hidden_size, name="output")(inner_BxSxF)
        return layer_norm(config, hidden_BxSxH + drop(output_BxSxH), "output_norm"), scores_BxAxSxS


@dataclasses.dataclass(frozen=True)
class Bert:
    """A BERT with exits, as a `Layered` network.

    Parameters are one plain tree, `{"backbone": {"embeddings", "layers"}, "lower_exits", "last_exit"}`, so that
    freezing a part is leaving its subtree out. `layers` is stacked `[L, ...]`, `lower_exits` over the layers below the
    last that have an exit; there is no such key where none has.
    """

    config: BertConfig
    dropout: float = 0.0
    """Dropout probability of the parts that a call names."""
    precision: Precision = Precision.FLOAT32
    """Of the arithmetic; parameters that train, norms' statistics, softmax and logits are float32."""
    remat: bool = False
    """Compute each layer again in the backward pass instead of keeping what is inside it."""
    unroll: int = 1
    """Layers that are compiled one after the other, as one turn of the loop over layers."""

    @property
    def num_layers(self) -> int:
        """L."""
        return self.config.num_layers

    @property
    def num_classes(self) -> int:
        """N."""
        return self.config.num_classes

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.config.hidden_size

    @property
    def dtype(self) -> Any:
        """Of the arithmetic and the hidden states."""
        return jnp.dtype(jnp.bfloat16 if self.precision is Precision.BFLOAT16 else jnp.float32)

    @property
    def exits(self) -> tuple[bool, ...]:
        """For each layer, whether it has an exit."""
        return tuple(layer in self.config.exit_layers for layer in range(1, self.num_layers + 1))

    @property
    def leaves(self) -> list[Leaf]:
        """Every parameter."""
        return bert_leaves(self.config, exits=True)

    @property
    def indivisible(self) -> dict[str, tuple[int, str]]:
        """An attention head is computed on one device."""
        return {"heads": (self.config.num_heads, "heads")}

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: jax.Array) -> Params:
        """Random float32 parameters: normal(0, `init_std`), zero biases and unit norms; exits as in `exits.py`.

        Inside a `jax.jit` with `out_shardings` every device makes its own part, and unused parts are not made.
        """
        embeddings_key, layers_key, lower_key, last_key = jax.random.split(key, 4)
        ids_1x1 = jnp.zeros((1, 1), jnp.int32)
        hidden_1x1xH = jnp.zeros((1, 1, self.config.hidden_size), self.dtype)

        def layer(key: jax.Array) -> Params:
            return EncoderLayer(self.config, dtype=self.dtype).init(key, hidden_1x1xH, ids_1x1)["params"]

        def exit_(key: jax.Array) -> Params:
            return Exit(self.config, dtype=self.dtype).init(key, hidden_1x1xH, ids_1x1, ids_1x1)["params"]

        def stacked(init: Any, key: jax.Array, count: int) -> Params:
            return jax.vmap(init)(jax.random.split(key, count))

        embeddings = Embeddings(self.config, dtype=self.dtype).init(embeddings_key, ids_1x1, ids_1x1, ids_1x1)["params"]
        params: Params = {"backbone": {"embeddings": embeddings, "layers": stacked(layer, layers_key, self.num_layers)}}
        if lower := len(self.config.lower_exit_layers):
            params["lower_exits"] = stacked(exit_, lower_key, lower)
        return params | {"last_exit": exit_(last_key)}

    def in_use(self, params: Params) -> Params:
        """The parameters, each in the dtype that a call takes it in: nothing is cast again at every call."""

        def cast(path: Any, leaf: Array) -> Array:
            names = {entry.key for entry in path}
            return leaf if names & FLOAT32_PARTS else leaf.astype(self.dtype)

        return jax.tree_util.tree_map_with_path(cast, params)

    def embed(self, params: Params, batch: Batch, key: jax.Array | None = None) -> Float[jax.Array, "B S H"]:
        """The embeddings `[B, S, H]`; `params` is the whole tree, and a `key` turns dropout on."""
        return Embeddings(self.config, self.dropout, self.dtype).apply(
            {"params": params["backbone"]["embeddings"]},
            *(batch.token_ids_BxS, batch.token_type_BxS, batch.position_BxS),
            **_dropout(key),
        )

    def layer(
        self,
        layer: Params,
        hidden_BxSxH: Float[Array, "B S H"],
        text_BxS: Int[Array, "B S"],
        key: jax.Array | None = None,
        *,
        packed: bool,
    ) -> tuple[Float[jax.Array, "B S H"], Float[jax.Array, "B A S S"]]:
        """The output `[B, S, H]` of one layer and its attention scores `[B, A, S, S]`.

        Args:
          packed: whether a row may have several texts.
        """
        module = EncoderLayer(self.config, self.dropout, self.dtype)
        with jax.default_matmul_precision(PRODUCTS[self.precision]):
            return module.apply({"params": layer}, hidden_BxSxH, text_BxS, packed=packed, **_dropout(key))

    def exit(
        self,
        exit_: Params,
        hidden_BxSxH: Float[Array, "B S H"],
        text_BxS: Int[Array, "B S"],
        cls_BxK: Int[Array, "B K"],
        key: jax.Array | None = None,
    ) -> Float32[jax.Array, "B K N"]:
        """Float32 logits `[B, K, N]` of one exit on the output of its layer."""
        module = Exit(self.config, self.dropout, self.dtype)
        with jax.default_matmul_precision(PRODUCTS[self.precision]):
            return module.apply({"params": exit_}, hidden_BxSxH, text_BxS, cls_BxK, **_dropout(key))

    def stacked_layers(self, params: Params) -> Params:
        """The parameters of all layers, `[L, ...]`."""
        return params["backbone"]["layers"]

    def exit_of(self, params: Params, layer: int) -> Params:
        """The parameters of the exit after a layer, from 0; of the last exit where the layer has none."""
        if layer + 1 not in self.config.lower_exit_layers:
            return params["last_exit"]
        place = self.config.lower_exit_layers.index(layer + 1)
        return jax.tree.map(lambda leaf: leaf[place], params["lower_exits"])

    def trace(
        self,
        params: Params,
        batch: Batch,
        key: jax.Array | None = None,
        dropout_in: frozenset[Part] = frozenset(),
        *,
        depth: int = 0,
    ) -> Trace:
        """One forward pass: one scan over the layers, one vmap over the lower exits.

        Args:
          key: of the dropout in the parts `dropout_in`.
          depth: run only the first `depth` layers and the lower exits after them; 0: all layers and all exits.
        """
        keys = dict.fromkeys(Part) if key is None else dict(zip(Part, jax.random.split(key, len(Part)), strict=True))
        keys = {part: part_key if part in dropout_in else None for part, part_key in keys.items()}
        depth = depth or self.num_layers
        embedded_BxSxH, last_BxSxH, (hidden_LxBxSxH, scores_LxBxAxSxS) = self._run_layers(
            params, batch, keys[Part.BACKBONE], depth
        )
        text_BxS, cls_BxK = jnp.asarray(batch.text_BxS), jnp.asarray(batch.cls_BxK)

        def lower_exit(exit_: Params, hidden_BxSxH: jax.Array, key: jax.Array | None) -> jax.Array:
            return self.exit(exit_, hidden_BxSxH, text_BxS, cls_BxK, key)

        lower = np.array([layer for layer in self.config.lower_exit_layers if layer <= depth], int)
        lower_logits_LxBxKxN = jnp.zeros((0, *cls_BxK.shape, self.num_classes))
        if lower.size:
            # A slice where it can be one: a gather is a loop of copies on a TPU.
            picked = slice(lower.size) if lower[-1] == lower.size else lower - 1
            lower_logits_LxBxKxN = jax.vmap(lower_exit)(
                params["lower_exits"], hidden_LxBxSxH[picked], _split(keys[Part.LOWER_EXITS], len(lower))
            )
        logits_BxKxN = None
        if depth == self.num_layers:
            logits_BxKxN = self.exit(params["last_exit"], last_BxSxH, text_BxS, cls_BxK, keys[Part.LAST_EXIT])
        hidden_LxBxSxH = jnp.concatenate([embedded_BxSxH[None], hidden_LxBxSxH])
        first_LxBxKxH = jnp.take_along_axis(hidden_LxBxSxH, cls_BxK[None, :, :, None], axis=2)
        return Trace(hidden_LxBxSxH, first_LxBxKxH, scores_LxBxAxSxS, lower_logits_LxBxKxN, logits_BxKxN)

    def hidden_states(self, params: Params, batch: Batch) -> Float[jax.Array, "states B S H"]:
        """The embeddings, then every layer's output, `[L + 1, B, S, H]`; needs the backbone's parameters alone."""
        embedded_BxSxH, _, (hidden_LxBxSxH, _) = self._run_layers(params, batch, None, self.num_layers)
        return jnp.concatenate([embedded_BxSxH[None], hidden_LxBxSxH])

    def last_hidden_state(self, params: Params, batch: Batch) -> Float[jax.Array, "B S H"]:
        """The output of the last layer; no exit runs."""
        return self._run_layers(params, batch, None, self.num_layers)[1]

    def _run_layers(
        self, params: Params, batch: Batch, key: jax.Array | None, depth: int
    ) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
        """The embeddings, the last output, and the outputs and scores of the first `depth` layers, stacked."""
        embed_key, layers_key = (None, None) if key is None else jax.random.split(key)
        layers, keys_L = self.stacked_layers(params), _split(layers_key, self.num_layers)
        text_BxS, packed = jnp.asarray(batch.text_BxS), batch.cls_BxK.shape[1] > 1

        def run(hidden_BxSxH: jax.Array, at: tuple[Params, jax.Array | None]) -> tuple[jax.Array, tuple[Any, Any]]:
            hidden_BxSxH, scores_BxAxSxS = self.layer(at[0], hidden_BxSxH, text_BxS, at[1], packed=packed)
            hidden_BxSxH = keep_sharded(hidden_BxSxH, HIDDEN_AXES)
            return hidden_BxSxH, (hidden_BxSxH, scores_BxAxSxS)

        if self.remat:
            run = jax.checkpoint(run, prevent_cse=False)
        embedded_BxSxH = self.embed(params, batch, embed_key)
        if depth == self.num_layers:
            last_BxSxH, outputs = jax.lax.scan(run, embedded_BxSxH, (layers, keys_L), unroll=self.unroll)
        else:
            # A scan over a slice of the stack would have XLA copy the slice; here each turn reads its layer in place.
            def run_at(hidden_BxSxH: jax.Array, index: jax.Array) -> tuple[jax.Array, tuple[Any, Any]]:
                def take(leaf: Any) -> Any:
                    return jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False)

                return run(hidden_BxSxH, jax.tree.map(take, (layers, keys_L)))

            last_BxSxH, outputs = jax.lax.scan(run_at, embedded_BxSxH, jnp.arange(depth), unroll=self.unroll)
        return embedded_BxSxH, last_BxSxH, outputs

    def paper_layer_flops(self, length: int) -> int:
        """The linear maps of one encoder layer: 2S(4H^2 + 2HF). Attention's own products are left out."""
        hidden, inner, length = self.config.hidden_size, self.config.feed_forward_size, int(length)
        return 2 * length * (4 * hidden**2 + 2 * hidden * inner)

    def paper_exit_flops(self, length: int) -> int:
        """The linear maps of one exit with attention at every token: 2(SHC + 4SC^2 + C^2), C being the exit's width.

        The numbers of the released code (thop, `nn.Linear` only) to the last digit; the last map, C -> N, is left out.
        The paper has no linear exit; it is its one map: 2HN.
        """
        if self.config.exit_kind is ExitKind.LINEAR:
            return 2 * self.config.hidden_size * self.config.num_classes
        hidden, width, length = self.config.hidden_size, self.config.exit_size, int(length)
        return 2 * (length * hidden * width + 4 * length * width**2 + width**2)

    def layer_flops(self, length: int) -> int:
        """One encoder layer with both products of its attention: 4S^2 H more than the paper counts."""
        return self.paper_layer_flops(length) + 4 * int(length) ** 2 * self.config.hidden_size

    def exit_flops(self, length: int, *, texts: int = 1) -> tuple[int, int]:
        """One exit on a row of so many texts: its first map, of all S tokens, and what follows for each text.

        2SHC, then 2(2ASC + 5C^2 + CN) a text: each of A heads scores and averages S tokens at width C; query, key,
        value, output and dense maps run on one token. A linear exit is its first map alone, 2HN a text.
        """
        hidden, width, length = self.config.hidden_size, self.config.exit_size, int(length)
        if self.config.exit_kind is ExitKind.LINEAR:
            return texts * self.paper_exit_flops(length), 0
        attention_flops = 2 * self.config.exit_heads * length * width
        return 2 * length * hidden * width, texts * 2 * (
            attention_flops + 5 * width**2 + width * self.config.num_classes
        )


def _split(key: jax.Array | None, count: int) -> jax.Array | None:
    return None if key is None else jax.random.split(key, count)


def _dropout(key: jax.Array | None) -> dict[str, Any]:
    """What a module's `apply` takes to use dropout with this key, or none."""
    return {"deterministic": True} if key is None else {"deterministic": False, "rngs": {"dropout": key}}
