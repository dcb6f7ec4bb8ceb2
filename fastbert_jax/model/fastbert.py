"""FastBERT: the backbone, a student exit after each layer but the last, and the teacher after the last.

Parameters are one plain tree, `{"backbone": {"embeddings", "layers"}, "lower_exits", "last_exit"}`, so that freezing a
part is leaving its subtree out. `layers` is stacked `[L, ...]`, `lower_exits` `[L - 1, ...]`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastbert_jax.config import BertConfig, Precision
from fastbert_jax.model.bert import Backbone, LowerBackbone
from fastbert_jax.model.exits import Exit

Params = dict[str, Any]

PARTS = ("backbone", "lower_exits", "last_exit")
"""The parts of a FastBERT that train or freeze, and take dropout or not, as a whole."""


class Trace(NamedTuple):
    """All that one forward pass shows. What nobody reads, XLA does not compute.

    B batch, S sequence, H hidden, A heads, K texts per row, L layers, N classes.
    """

    hidden_LxBxSxH: jax.Array
    """`[L + 1, B, S, H]`: the embeddings, then every layer's output."""
    scores_LxBxAxSxS: jax.Array
    """Float32 attention scores of every layer, before the mask."""
    lower_logits_LxBxKxN: jax.Array
    """Float32 logits `[L - 1, B, K, N]` of the students."""
    logits_BxKxN: jax.Array
    """Float32 logits of the teacher."""

    @property
    def exit_logits_LxBxKxN(self) -> jax.Array:
        """Logits of all L exits, the teacher's last."""
        return jnp.concatenate([self.lower_logits_LxBxKxN, self.logits_BxKxN[None]])


class FastBert(nn.Module):
    """A BERT whose every layer can answer."""

    config: BertConfig
    dropout: float = 0.0
    """Dropout probability of the parts that a call names."""
    dtype: jnp.dtype = jnp.float32
    """dtype of the arithmetic; parameters, norms' statistics, softmax and logits are float32."""
    remat: bool = False
    """Compute each layer again in the backward pass instead of keeping what is inside it."""
    unroll: int = 1
    """Layers that are compiled one after the other, as one turn of the loop over layers."""

    @nn.compact
    def __call__(
        self,
        token_ids_BxS: jax.Array,
        token_type_BxS: jax.Array,
        position_BxS: jax.Array,
        text_BxS: jax.Array,
        cls_BxK: jax.Array,
        *,
        noisy: frozenset[str] = frozenset(),
    ) -> Trace:
        """Run every layer and every exit.

        Args:
          token_ids_BxS, token_type_BxS, position_BxS: int32, all within their tables.
          text_BxS: int32, 0 for padding, k for the k-th text of the row.
          cls_BxK: int32, where the first token of each text stands.
          noisy: the `PARTS` that take dropout; needs a `dropout` rng.
        """
        if not noisy <= set(PARTS):
            raise ValueError(f"noisy: expected parts of {PARTS}, found {sorted(noisy)}")
        settings = {"config": self.config, "dropout": self.dropout, "dtype": self.dtype}
        hidden_LxBxSxH, scores_LxBxAxSxS = Backbone(**settings, remat=self.remat, unroll=self.unroll, name="backbone")(
            token_ids_BxS, token_type_BxS, position_BxS, text_BxS, deterministic="backbone" not in noisy
        )

        logits_BxKxN = Exit(**settings, name="last_exit")(
            hidden_LxBxSxH[-1], text_BxS, cls_BxK, deterministic="last_exit" not in noisy
        )
        if self.config.num_layers == 1:
            lower_logits_LxBxKxN = jnp.zeros((0, *logits_BxKxN.shape))
        else:
            lower_logits_LxBxKxN = _ask_all(
                Exit(**settings, name="lower_exits"),
                hidden_LxBxSxH[1:-1],
                text_BxS,
                cls_BxK,
                deterministic="lower_exits" not in noisy,
            )
        return Trace(hidden_LxBxSxH, scores_LxBxAxSxS, lower_logits_LxBxKxN, logits_BxKxN)


class StudentsTrace(NamedTuple):
    """What a forward pass shows that ends below the last layer."""

    lower_logits_LxBxKxN: jax.Array
    """Float32 logits `[L - 1, B, K, N]` of the students."""


class StudentsAlone(nn.Module):
    """The students of a `FastBert` of two layers or more, on its parameters: the last layer and the teacher do not run.

    The students' answers and their dropout are those of `FastBert`.
    """

    config: BertConfig
    dropout: float = 0.0
    """Dropout probability of the students, where a call names them."""
    dtype: jnp.dtype = jnp.float32
    unroll: int = 1

    @nn.compact
    def __call__(
        self,
        token_ids_BxS: jax.Array,
        token_type_BxS: jax.Array,
        position_BxS: jax.Array,
        text_BxS: jax.Array,
        cls_BxK: jax.Array,
        *,
        noisy: frozenset[str] = frozenset(),
    ) -> StudentsTrace:
        """Run all layers but the last, and every student; the arguments are those of `FastBert`.

        Args:
          noisy: nothing, or the students.
        """
        if not noisy <= {"lower_exits"}:
            raise ValueError(f"noisy: expected none but the students, found {sorted(noisy)}")
        below = LowerBackbone(
            self.config, depth=self.config.num_layers - 1, dtype=self.dtype, unroll=self.unroll, name="backbone"
        )
        hidden_LxBxSxH = below(token_ids_BxS, token_type_BxS, position_BxS, text_BxS)
        students = Exit(self.config, dropout=self.dropout, dtype=self.dtype, name="lower_exits")
        return StudentsTrace(
            _ask_all(students, hidden_LxBxSxH[1:], text_BxS, cls_BxK, deterministic="lower_exits" not in noisy)
        )


def _ask_all(
    students: Exit, hidden_LxBxSxH: jax.Array, text_BxS: jax.Array, cls_BxK: jax.Array, *, deterministic: bool
) -> jax.Array:
    """The answers `[L - 1, B, K, N]` of the stacked students, each to the hidden states of its own layer."""

    def answer(student: Exit, hidden_BxSxH: jax.Array) -> jax.Array:
        return student(hidden_BxSxH, text_BxS, cls_BxK, deterministic=deterministic)

    answer_all = nn.vmap(answer, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True})
    return answer_all(students, hidden_LxBxSxH)


def compute_dtype(precision: Precision) -> jnp.dtype:
    """The jax dtype of a `Precision`."""
    return jnp.dtype(precision.value)


def init_params(config: BertConfig, key: jax.Array) -> Params:
    """Random float32 parameters: normal(0, 0.02), zero biases and unit norms as BERT's; exits as in `exits.py`.

    Inside a `jax.jit` with `out_shardings` every device makes its own part, and what is not asked for is not made.
    """
    ids_1x4 = jnp.zeros((1, 4), jnp.int32)
    cls_1x1 = jnp.zeros((1, 1), jnp.int32)

    def init(key: jax.Array) -> Params:
        return FastBert(config).init(key, ids_1x4, ids_1x4, ids_1x4, ids_1x4, cls_1x1)["params"]

    return jax.jit(init)(key)


def layer_params(params: Params, layer: int) -> Params:
    """The tree of one encoder layer, `layer` counting from 0, unstacked."""
    return jax.tree.map(lambda leaf: leaf[layer], params["backbone"]["layers"])


def exit_params(params: Params, layer: int) -> Params:
    """The tree of the exit after one layer, `layer` counting from 0: a student's, or the teacher's after the last."""
    num_layers = jax.tree.leaves(params["backbone"]["layers"])[0].shape[0]
    if layer == num_layers - 1:
        return params["last_exit"]
    return jax.tree.map(lambda leaf: leaf[layer], params["lower_exits"])
