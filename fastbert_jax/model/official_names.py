"""The names of tensors in checkpoints of UER-py and of the official FastBERT, and the architecture they tell."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from fastbert_jax.config import BertConfig, CheckpointKind, LayerNormKind
from fastbert_jax.errors import UserError
from fastbert_jax.model.leaves import Leaf, bert_leaves

OFFICIAL_NAMES = {
    "embeddings.word_embeddings": "embedding.word_embedding",
    "embeddings.position_embeddings": "embedding.position_embedding",
    "embeddings.token_type_embeddings": "embedding.segment_embedding",
    "embeddings.LayerNorm": "embedding.layer_norm",
    "encoder.layer.{i}.attention.self.query": "encoder.transformer.{i}.self_attn.linear_layers.0",
    "encoder.layer.{i}.attention.self.key": "encoder.transformer.{i}.self_attn.linear_layers.1",
    "encoder.layer.{i}.attention.self.value": "encoder.transformer.{i}.self_attn.linear_layers.2",
    "encoder.layer.{i}.attention.output.dense": "encoder.transformer.{i}.self_attn.final_linear",
    "encoder.layer.{i}.attention.output.LayerNorm": "encoder.transformer.{i}.layer_norm_1",
    "encoder.layer.{i}.intermediate.dense": "encoder.transformer.{i}.feed_forward.linear_1",
    "encoder.layer.{i}.output.dense": "encoder.transformer.{i}.feed_forward.linear_2",
    "encoder.layer.{i}.output.LayerNorm": "encoder.transformer.{i}.layer_norm_2",
    "exits.{i}.narrow": "classifiers.{i}.output_layer_0",
    "exits.{i}.query": "classifiers.{i}.self_atten.linear_layers.0",
    "exits.{i}.key": "classifiers.{i}.self_atten.linear_layers.1",
    "exits.{i}.value": "classifiers.{i}.self_atten.linear_layers.2",
    "exits.{i}.attention_output": "classifiers.{i}.self_atten.final_linear",
    "exits.{i}.dense": "classifiers.{i}.output_layer_1",
    "exits.{i}.classifier": "classifiers.{i}.output_layer_2",
}
"""The parts of a model by our names in a file -> by the official ones, which count exits from 0."""
PREFIX = {CheckpointKind.PACKAGE: "kernel.", CheckpointKind.SCRIPT: "", CheckpointKind.BACKBONE: ""}
"""What stands before the names of the backbone's tensors."""
LEFT_OUT = re.compile(
    r"(kernel\.)?target\..*"  # heads of pretraining
    r"|(.*\.)?total_(ops|params)"  # counters that thop puts into every module
    r"|classifiers\.\d+\.self_atten\.linear_layers\.1\.bias"  # the key's bias, which drops out of the softmax
)
"""Tensors that no answer depends on."""
SEGMENTS = 3
"""Rows of the segment table: padding, first text, second text."""
EXIT_HEADS = 2
"""Attention heads of an exit: `cla_heads_num` in the official code, which no tensor tells."""
HEAD_SIZE = 64
"""Width of an attention head in all published models."""
EPSILON = 1e-6
"""Of the LayerNorm: the default in UER-py, which nothing changes."""

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of a file's tensors by their names."""


def checkpoint_kind(shapes: Shapes) -> CheckpointKind | None:
    """What wrote a file, by the names in it; None where it is neither FastBERT nor a BERT of UER."""
    word_embedding = "embedding.word_embedding.weight"
    if PREFIX[CheckpointKind.PACKAGE] + word_embedding in shapes:
        return CheckpointKind.PACKAGE
    if word_embedding not in shapes:
        return None
    has_exits = any(name.startswith("classifiers.") for name in shapes)
    return CheckpointKind.SCRIPT if has_exits else CheckpointKind.BACKBONE


def official_config(shapes: Shapes, kind: CheckpointKind, *, num_heads: int) -> BertConfig:
    """The architecture that the shapes in a file tell.

    Args:
      num_heads: of each layer, which no shape tells; 0: by `HEAD_SIZE`.

    Raises:
      UserError: a tensor that tells a size is missing or has another number of axes.
    """

    def sizes(name: str, axes: int) -> tuple[int, ...]:
        shape = shapes.get(name)
        if shape is None or len(shape) != axes:
            found = "none" if shape is None else f"one of shape {list(shape)}"
            raise UserError(f"expected a tensor {name} of {axes} axes, found {found}")
        return shape

    prefix = PREFIX[kind]
    vocab_size, hidden_size = sizes(f"{prefix}embedding.word_embedding.weight", 2)
    layer = re.compile(re.escape(prefix) + r"encoder\.transformer\.(\d+)\.")
    num_layers = len({match[1] for match in map(layer.match, shapes) if match})
    exits: dict[str, Any] = {}
    if kind is not CheckpointKind.BACKBONE:
        exits = {
            "num_classes": sizes("classifiers.0.output_layer_2.weight", 2)[0],
            "exit_size": sizes("classifiers.0.output_layer_0.weight", 2)[0],
            "exit_heads": EXIT_HEADS,
        }
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads or max(hidden_size // HEAD_SIZE, 1),
        feed_forward_size=sizes(f"{prefix}encoder.transformer.0.feed_forward.linear_1.bias", 1)[0],
        max_positions=sizes(f"{prefix}embedding.position_embedding.weight", 2)[0],
        token_types=SEGMENTS,
        layer_norm=LayerNormKind.UNBIASED,
        layer_norm_eps=EPSILON,
        **exits,
    )


def official_leaves(config: BertConfig, kind: CheckpointKind) -> list[Leaf]:
    """`bert_leaves` with the official names of their tensors."""
    return [
        dataclasses.replace(leaf, tensors=tuple(_official(tensor, PREFIX[kind]) for tensor in leaf.tensors))
        for leaf in bert_leaves(config, exits=kind is not CheckpointKind.BACKBONE)
    ]


def _official(tensor: str, prefix: str) -> str:
    *words, parameter = tensor.split(".")
    numbers = [int(word) for word in words if word.isdigit()]
    part = OFFICIAL_NAMES[".".join("{i}" if word.isdigit() else word for word in words)]
    if words[-1] == "LayerNorm":
        parameter = {"weight": "gamma", "bias": "beta"}[parameter]
    if words[0] == "exits":
        return f"{part.format(i=numbers[0] - 1)}.{parameter}"
    return f"{prefix}{part.format(i=numbers[0] if numbers else '')}.{parameter}"
