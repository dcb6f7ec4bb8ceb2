"""The leaves of the parameter tree: shape, axes, and which tensors of a weight file each of them is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fastbert_jax.config import BertConfig, ExitKind


@dataclasses.dataclass(frozen=True)
class Name:
    """One leaf of the tree: its path, its tensor in a file, and its shape there by the letters of `bert_leaves`.

    `{i}` in `tensor` counts the layers from 0, or the exits from 1; such leaves are stacked in the tree. A tensor
    named `weight` of a linear map is [out, in] in a file and [in, out] in the tree.
    """

    path: str
    tensor: str
    shape: str


def _linear(path: str, tensor: str, shape: str) -> tuple[Name, Name]:
    return Name(f"{path}/kernel", f"{tensor}.weight", shape), Name(f"{path}/bias", f"{tensor}.bias", shape[0])


def _norm(path: str, tensor: str) -> tuple[Name, Name]:
    return Name(f"{path}/scale", f"{tensor}.weight", "H"), Name(f"{path}/bias", f"{tensor}.bias", "H")


EMBEDDING_NAMES = (
    Name("embeddings/token/embedding", "embeddings.word_embeddings.weight", "VH"),
    Name("embeddings/position/embedding", "embeddings.position_embeddings.weight", "PH"),
    Name("embeddings/token_type/embedding", "embeddings.token_type_embeddings.weight", "TH"),
    *_norm("embeddings/norm", "embeddings.LayerNorm"),
)
LAYER_NAMES = (
    *_linear("layers/query", "encoder.layer.{i}.attention.self.query", "AH"),
    *_linear("layers/key", "encoder.layer.{i}.attention.self.key", "AH"),
    *_linear("layers/value", "encoder.layer.{i}.attention.self.value", "AH"),
    *_linear("layers/attention_output", "encoder.layer.{i}.attention.output.dense", "HA"),
    *_norm("layers/attention_norm", "encoder.layer.{i}.attention.output.LayerNorm"),
    *_linear("layers/intermediate", "encoder.layer.{i}.intermediate.dense", "FH"),
    *_linear("layers/output", "encoder.layer.{i}.output.dense", "HF"),
    *_norm("layers/output_norm", "encoder.layer.{i}.output.LayerNorm"),
)
EXIT_NAMES = {
    ExitKind.ATTENTION: (
        *_linear("narrow", "exits.{i}.narrow", "CH"),
        *_linear("query", "exits.{i}.query", "CC"),
        Name("key/kernel", "exits.{i}.key.weight", "CC"),  # no bias: it drops out of the softmax
        *_linear("value", "exits.{i}.value", "CC"),
        *_linear("attention_output", "exits.{i}.attention_output", "CC"),
        *_linear("dense", "exits.{i}.dense", "CC"),
        *_linear("classifier", "exits.{i}.classifier", "NC"),
    ),
    ExitKind.LINEAR: (*_linear("classifier", "exits.{i}.classifier", "NH"),),
}


AXES = {
    "V": "vocabulary",
    "P": "positions",
    "T": "token_types",
    "H": "hidden",
    "A": "heads",
    "F": "feed_forward",
    "C": "exit",
    "N": "classes",
}
"""The letters of a shape in words. `heads` are all heads side by side: as wide as `hidden`, but another axis."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf of a given model: the tensors of a file that it is made of, and the shape of each of them there."""

    path: str
    tensors: tuple[str, ...]
    stacked: bool
    axes: tuple[str, ...]
    """What each axis of such a tensor is, by the words of `AXES`."""
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


def bert_leaves(config: BertConfig, *, exits: bool) -> list[Leaf]:
    """All leaves of the parameter tree of a BERT, with or without those of the exits."""
    sizes = {
        "V": config.vocab_size,
        "P": config.max_positions,
        "T": config.token_types,
        "H": config.hidden_size,
        "A": config.hidden_size,
        "F": config.feed_forward_size,
        "C": config.exit_size,
        "N": config.num_classes,
    }
    groups: list[tuple[str, tuple[Name, ...], Sequence[int], bool]] = [
        ("backbone", EMBEDDING_NAMES, [0], False),
        ("backbone", LAYER_NAMES, range(config.num_layers), True),
    ]
    if exits:
        names = EXIT_NAMES[config.exit_kind]
        groups += [
            ("lower_exits", names, config.lower_exit_layers, True),
            ("last_exit", names, [config.num_layers], False),
        ]
    return [
        Leaf(
            path=f"{part}/{name.path}",
            tensors=tuple(name.tensor.format(i=i) for i in numbers),
            stacked=stacked,
            axes=tuple(AXES[letter] for letter in name.shape),
            shape=tuple(sizes[letter] for letter in name.shape),
        )
        for part, names, numbers, stacked in groups
        for name in names
        if numbers  # a model without lower exits has no such leaves
    ]
