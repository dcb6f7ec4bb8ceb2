"""Every parameter of a BERT with exits: its path in the tree, and the tensors of a weight file that it is made of."""

from __future__ import annotations

from collections.abc import Sequence

from fastbert_jax.config import BertConfig, ExitKind
from fastbert_jax.model.network import Leaf, Part

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
