"""What training and inference ask of a network, whatever its architecture.

Training asks a `Network`: its leaves, its initial parameters, and one forward pass as a `Trace`. The engines of early
exit ask a `Layered` network, which they run layer by layer. Both run the same functions.

Shapes in names: B batch, S sequence, H hidden, A heads, K texts per row, L layers, N classes.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.text.batches import Batch

Array = jax.Array | np.ndarray
Params = dict[str, Any]
"""A tree of arrays. Leaves of a part that repeats, such as layers, are stacked along a first axis."""


class Part(enum.Enum):
    """A part of the parameters that trains, freezes and takes dropout as a whole; its value is its key in the tree."""

    BACKBONE = "backbone"
    LOWER_EXITS = "lower_exits"
    LAST_EXIT = "last_exit"


class Trace(NamedTuple):
    """Outputs of one forward pass; XLA removes what is not used."""

    hidden_LxBxSxH: jax.Array
    """`[L + 1, B, S, H]`: the embeddings, then every layer's output; of a pass to `depth`, `[depth + 1, B, S, H]`."""
    first_LxBxKxH: jax.Array
    """The same at the first token ([CLS]) of each text alone."""
    scores_LxBxAxSxS: jax.Array
    """Attention scores of every layer, before the mask, in the dtype of the arithmetic."""
    lower_logits_LxBxKxN: jax.Array
    """Float32 logits of the lower exits, `[L - 1, B, K, N]` where every layer has one."""
    logits_BxKxN: jax.Array | None
    """Float32 logits of the last exit; None where the pass ended below it."""

    @property
    def exit_logits_LxBxKxN(self) -> jax.Array:
        """Logits of all exits, the last one last."""
        if self.logits_BxKxN is None:
            raise ValueError("expected a forward pass through all layers, found one that ended below the last exit")
        return jnp.concatenate([self.lower_logits_LxBxKxN, self.logits_BxKxN[None]])


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf of the tree: the tensors of a file that it is made of, and the shape of each of them there.

    A tensor named `weight` of a linear map is [out, in] in a file and [in, out] in the tree.
    """

    path: str
    tensors: tuple[str, ...]
    stacked: bool
    """Whether the tensors are those of several layers, stacked in the tree."""
    axes: tuple[str, ...]
    """What each axis of such a tensor is. `heads` are all heads side by side: as wide as `hidden`, but another axis."""
    shape: tuple[int, ...]

    @property
    def transposed(self) -> bool:
        """Whether the tree has the axes the other way round."""
        return self.path.endswith("/kernel")

    @property
    def tree_axes(self) -> tuple[str, ...]:
        """The axes of the leaf as the tree has it."""
        axes = self.axes[::-1] if self.transposed else self.axes
        return ("layers", *axes) if self.stacked else axes

    @property
    def tree_shape(self) -> tuple[int, ...]:
        """The shape of the leaf as the tree has it."""
        shape = self.shape[::-1] if self.transposed else self.shape
        return (len(self.tensors), *shape) if self.stacked else shape


class Network(Protocol):
    """What training asks. Parameters are float32 whatever the dtype of the arithmetic."""

    @property
    def leaves(self) -> Sequence[Leaf]:
        """Every parameter: its path, its axes, its shape and its names in a file."""

    @property
    def indivisible(self) -> Mapping[str, tuple[int, str]]:
        """By axis of a leaf, how many units it is made of that no device can share, and what they are called."""

    def init(self, key: jax.Array) -> Params:
        """Random parameters."""

    def trace(
        self,
        params: Params,
        batch: Batch,
        key: jax.Array | None = None,
        dropout_in: frozenset[Part] = frozenset(),
    ) -> Trace:
        """One forward pass; dropout acts in the parts `dropout_in`, which need a key."""


class Layered(Network, Protocol):
    """What the engines ask: a network of layers of one shape, with exits."""

    @property
    def num_layers(self) -> int: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def dtype(self) -> Any:
        """Of the hidden states."""

    @property
    def exits(self) -> tuple[bool, ...]:
        """For each layer, whether it has an exit; the last one has."""

    def hidden_states(self, params: Params, batch: Batch) -> jax.Array:
        """The embeddings, then every layer's output, `[L + 1, B, S, H]`; needs the backbone's parameters alone."""

    def last_hidden_state(self, params: Params, batch: Batch) -> jax.Array:
        """The output of the last layer, `[B, S, H]`; no exit runs."""

    def in_use(self, params: Params) -> Params:
        """The parameters, each in the dtype that a call takes it in."""

    def embed(self, params: Params, batch: Batch) -> jax.Array:
        """The embeddings `[B, S, H]`; `params` is the whole tree."""

    def layer(
        self, layer: Params, hidden_BxSxH: jax.Array, text_BxS: Array, *, packed: bool
    ) -> tuple[jax.Array, jax.Array]:
        """The output of one layer `[B, S, H]`, and its attention scores; a row has one text unless it is `packed`."""

    def exit(self, exit_: Params, hidden_BxSxH: jax.Array, text_BxS: Array, cls_BxK: Array) -> jax.Array:
        """Float32 logits `[B, K, N]` of one exit."""

    def stacked_layers(self, params: Params) -> Params:
        """The parameters of all layers, `[L, ...]`."""

    def exit_of(self, params: Params, layer: int) -> Params:
        """The parameters of the exit after a layer, from 0; of the last exit where the layer has none."""

    def layer_flops(self, length: int) -> int:
        """FLOPs of one layer on one text of `length` tokens, padding included; a multiply-add is two."""

    def exit_flops(self, length: int, *, texts: int = 1) -> tuple[int, int]:
        """FLOPs of one exit on a row of so many texts: of its first map, and of what follows for the texts."""

    def paper_layer_flops(self, length: int) -> int:
        """FLOPs of one layer as the FastBERT paper counts them."""

    def paper_exit_flops(self, length: int) -> int:
        """FLOPs of one exit as the FastBERT paper counts them."""
