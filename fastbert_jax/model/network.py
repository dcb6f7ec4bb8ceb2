"""The parameter tree of a BERT with exits, its tensors in weight files, and what a forward pass gives.

Shapes in names: B batch, S sequence, H hidden, A heads, K texts per row, L layers, N classes.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.config import BertConfig, ExitKind

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
    """Float32 attention scores of every layer, before the mask."""
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


Name = tuple[str, str, tuple[str, ...]]
"""The path of a leaf, its tensor in a file, and the tensor's axes. `{i}` counts layers from 0, or exits from 1."""


def _linear(path: str, tensor: str, *axes: str) -> tuple[Name, Name]:
    return (f"{path}/kernel", f"{tensor}.weight", axes), (f"{path}/bias", f"{tensor}.bias", axes[:1])


def _norm(path: str, tensor: str) -> tuple[Name, Name]:
    return (f"{path}/scale", f"{tensor}.weight", ("hidden",)), (f"{path}/bias", f"{tensor}.bias", ("hidden",))


EMBEDDINGS: tuple[Name, ...] = (
    ("embeddings/token/embedding", "embeddings.word_embeddings.weight", ("vocabulary", "hidden")),
    ("embeddings/position/embedding", "embeddings.position_embeddings.weight", ("positions", "hidden")),
    ("embeddings/token_type/embedding", "embeddings.token_type_embeddings.weight", ("token_types", "hidden")),
    *_norm("embeddings/norm", "embeddings.LayerNorm"),
)
LAYER: tuple[Name, ...] = (
    *_linear("layers/query", "encoder.layer.{i}.attention.self.query", "heads", "hidden"),
    *_linear("layers/key", "encoder.layer.{i}.attention.self.key", "heads", "hidden"),
    *_linear("layers/value", "encoder.layer.{i}.attention.self.value", "heads", "hidden"),
    *_linear("layers/attention_output", "encoder.layer.{i}.attention.output.dense", "hidden", "heads"),
    *_norm("layers/attention_norm", "encoder.layer.{i}.attention.output.LayerNorm"),
    *_linear("layers/intermediate", "encoder.layer.{i}.intermediate.dense", "feed_forward", "hidden"),
    *_linear("layers/output", "encoder.layer.{i}.output.dense", "hidden", "feed_forward"),
    *_norm("layers/output_norm", "encoder.layer.{i}.output.LayerNorm"),
)
EXIT: dict[ExitKind, tuple[Name, ...]] = {
    ExitKind.ATTENTION: (
        *_linear("narrow", "exits.{i}.narrow", "exit", "hidden"),
        *_linear("query", "exits.{i}.query", "exit", "exit"),
        ("key/kernel", "exits.{i}.key.weight", ("exit", "exit")),  # no bias: it drops out of the softmax
        *_linear("value", "exits.{i}.value", "exit", "exit"),
        *_linear("attention_output", "exits.{i}.attention_output", "exit", "exit"),
        *_linear("dense", "exits.{i}.dense", "exit", "exit"),
        *_linear("classifier", "exits.{i}.classifier", "classes", "exit"),
    ),
    ExitKind.LINEAR: _linear("classifier", "exits.{i}.classifier", "classes", "hidden"),
}


def bert_leaves(config: BertConfig, *, exits: bool) -> list[Leaf]:
    """All leaves of the parameter tree of a BERT, with or without those of the exits."""
    sizes = {
        "vocabulary": config.vocab_size,
        "positions": config.max_positions,
        "token_types": config.token_types,
        "hidden": config.hidden_size,
        "heads": config.hidden_size,
        "feed_forward": config.feed_forward_size,
        "exit": config.exit_size,
        "classes": config.num_classes,
    }
    groups: list[tuple[Part, tuple[Name, ...], Sequence[int], bool]] = [
        (Part.BACKBONE, EMBEDDINGS, [0], False),
        (Part.BACKBONE, LAYER, range(config.num_layers), True),
    ]
    if exits:
        names = EXIT[config.exit_kind]
        groups += [
            (Part.LOWER_EXITS, names, config.lower_exit_layers, True),
            (Part.LAST_EXIT, names, [config.num_layers], False),
        ]
    return [
        Leaf(
            path=f"{part.value}/{path}",
            tensors=tuple(tensor.format(i=i) for i in numbers),
            stacked=stacked,
            axes=axes,
            shape=tuple(sizes[axis] for axis in axes),
        )
        for part, names, numbers, stacked in groups
        for path, tensor, axes in names
        if numbers  # a model without lower exits has no such leaves
    ]
