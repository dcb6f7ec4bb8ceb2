"""Convert official FastBERTs and BERTs of UER-py to model directories: python -m fastbert_jax.model.convert --help"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from fastbert_jax.atomic_files import atomic_directory, check_unused, user_path
from fastbert_jax.command_line import end_with, read_settings
from fastbert_jax.config import (
    BertConfig,
    CheckpointKind,
    ConvertConfig,
    DataConfig,
    LayerNormKind,
    Precision,
    TextForm,
)
from fastbert_jax.config_yaml import shown
from fastbert_jax.errors import UserError, program_name
from fastbert_jax.log import result
from fastbert_jax.model.config_json import inference_settings
from fastbert_jax.model.leaves import bert_leaves
from fastbert_jax.model.state_dicts import read_state_dict
from fastbert_jax.model.tensor_files import (
    SAVE_AGAIN,
    WORD_EMBEDDINGS,
    Stored,
    as_list,
    check_finite,
    check_is_file,
    differences,
)
from fastbert_jax.model.weights import save_tensors
from fastbert_jax.text.tokenizer import Tokenizer, vocabulary_tokenizer

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
WORD_EMBEDDING = "embedding.word_embedding.weight"
OF_PACKAGE = "kernel."
"""What the package `fastbert` puts before the names of a BERT."""
TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
PREFIX = {CheckpointKind.PACKAGE: OF_PACKAGE, CheckpointKind.SCRIPT: "", CheckpointKind.BACKBONE: ""}
"""The beginning of the names of the backbone's tensors."""
LEFT_OUT = re.compile(
    r"(kernel\.)?target\..*"  # heads of pretraining
    r"|(.*\.)?total_(ops|params)"  # counters that thop puts into every module
    r"|classifiers\.\d+\.self_atten\.linear_layers\.1\.bias"  # the key's bias, which drops out of the softmax
)
"""Tensors that no answer depends on."""
SEGMENTS = 3
"""Rows of the segment table: padding, first text, second text."""
EXIT_HEADS = 2
"""Attention heads of an exit: `cla_heads_num` in the official code, in the shape of no tensor."""
HEAD_SIZE = 64
"""Width of an attention head in all published models."""
EPSILON = 1e-6
"""Of the LayerNorm: the default in UER-py, which nothing changes."""


def main() -> None:
    """Convert, and print what was made."""
    config = read_settings(ConvertConfig, sys.argv[1:], program="python -m fastbert_jax.model.convert")
    result(convert(config))


def convert(config: ConvertConfig) -> str:
    """Make the model directory of `config`; what it is and what to do with it, in words.

    Raises:
      UserError: a checkpoint, a vocabulary or labels that cannot be used or do not belong together, or no place for the
        directory.
    """
    path, output = user_path(config.input), user_path(config.output)
    check_unused(output, "--output")
    if path.suffix == ".safetensors":
        raise UserError(
            f"--input {path}: expected a file that torch.save wrote, found .safetensors; a BERT of Hugging Face needs "
            f"no converting: `{program_name('train')} --model.pretrained {path.parent}`"
        )
    tensors = _without_prefix(read_state_dict(path))
    kind = _kind(list(tensors), config.kind, path)
    is_backbone = kind is CheckpointKind.BACKBONE
    try:
        model = _architecture({name: tensor.shape for name, tensor in tensors.items()}, kind, config.num_heads)
    except UserError as error:
        raise UserError(f"{path}: {error}; it is not a checkpoint of kind '{kind.value}'") from None
    text_form = TextForm.BERT if is_backbone else TextForm.OFFICIAL
    vocabulary = user_path(config.vocab)
    check_is_file(vocabulary)
    tokenizer = vocabulary_tokenizer(vocabulary, text_form=text_form)
    _check(config, kind, model, tokenizer)
    renamed = _with_our_names(tensors, kind, model, path)
    extra = inference_settings(
        labels=config.labels,
        max_length=config.max_length,
        length_buckets=DataConfig(max_length=config.max_length).lengths,
        precision=Precision.FLOAT32,
    )
    try:
        with atomic_directory(output.resolve()) as directory:
            tokenizer.save(directory, max_length=model.max_positions if is_backbone else config.max_length)
            save_tensors(directory, renamed, model, extra=None if is_backbone else extra)
    except (OSError, SafetensorError) as error:
        raise UserError(f"--output {output}: expected a place to write the model to, found: {error}") from error
    size = f"{model.num_layers} layers, {model.hidden_size} wide, {model.num_heads} heads"
    if is_backbone:
        return f"{output}: a backbone of {size}.\nTrain it with `python train.py --model.pretrained {output}`"
    return (
        f"{output}: a FastBERT of {size}, {model.num_classes} classes.\n"
        f"Ask it with `python infer.py predict --model {output} --input texts.txt --output answers.jsonl`"
    )


def _without_prefix(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors without what all names begin with, such as the `module.` of PyTorch's DataParallel."""
    whole = next((name for name in tensors if name == WORD_EMBEDDING or name.endswith(f".{WORD_EMBEDDING}")), "")
    prefix = whole.removesuffix(WORD_EMBEDDING).removesuffix(OF_PACKAGE)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _kind(names: list[str], wanted: CheckpointKind, path: Path) -> CheckpointKind:
    """What wrote a file, by the names of its tensors."""
    if PREFIX[CheckpointKind.PACKAGE] + WORD_EMBEDDING in names:
        found = CheckpointKind.PACKAGE
    elif WORD_EMBEDDING in names:
        has_exits = any(name.startswith("classifiers.") for name in names)
        found = CheckpointKind.SCRIPT if has_exits else CheckpointKind.BACKBONE
    elif any(name.endswith(WORD_EMBEDDINGS) for name in names):
        raise UserError(
            f"{path}: expected a checkpoint of FastBERT or a BERT of UER, found a BERT of Hugging Face, which needs no "
            f"converting; save it as model.safetensors where PyTorch is installed: {SAVE_AGAIN}; then train it with "
            f"`{program_name('train')} --model.pretrained NEW`"
        )
    else:
        raise UserError(
            f"{path}: expected a checkpoint of FastBERT or a BERT of UER, which has {WORD_EMBEDDING}, "
            f"found other names: {shown(names[:3])}"
        )
    if wanted not in (CheckpointKind.AUTO, found):
        raise UserError(f"--kind: expected '{found.value}', which {path} is, found '{wanted.value}'; leave it out")
    return found


def _architecture(shapes: Mapping[str, tuple[int, ...]], kind: CheckpointKind, num_heads: int) -> BertConfig:
    """The architecture that the shapes of a file's tensors belong to.

    Args:
      num_heads: of each layer, which is in no shape; 0: by `HEAD_SIZE`.

    Raises:
      UserError: a tensor with a size in its shape is missing or has another number of axes.
    """

    def sizes(name: str, axes: int) -> tuple[int, ...]:
        shape = shapes.get(name)
        if shape is None or len(shape) != axes:
            found = "none" if shape is None else f"one of shape {list(shape)}"
            raise UserError(f"expected a tensor {name} of {axes} axes, found {found}")
        return shape

    prefix = PREFIX[kind]
    vocab_size, hidden_size = sizes(prefix + WORD_EMBEDDING, 2)
    layer = re.compile(re.escape(prefix) + r"encoder\.transformer\.(\d+)\.")
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
        num_layers=len({match[1] for match in map(layer.match, shapes) if match}),
        num_heads=num_heads or max(hidden_size // HEAD_SIZE, 1),
        feed_forward_size=sizes(f"{prefix}encoder.transformer.0.feed_forward.linear_1.bias", 1)[0],
        max_positions=sizes(f"{prefix}embedding.position_embedding.weight", 2)[0],
        token_types=SEGMENTS,
        layer_norm=LayerNormKind.UNBIASED,
        layer_norm_eps=EPSILON,
        **exits,
    )


def _check(config: ConvertConfig, kind: CheckpointKind, model: BertConfig, tokenizer: Tokenizer) -> None:
    """Check that labels, vocabulary and length are those of the checkpoint."""
    classes = 0 if kind is CheckpointKind.BACKBONE else model.num_classes
    if len(config.labels) != classes:
        raise UserError(
            f"--labels: expected {classes or 'none'}, as the checkpoint (of kind '{kind.value}') has "
            f"{classes or 'no'} classes, found {len(config.labels)}: {list(config.labels)}"
        )
    if tokenizer.vocab_size != model.vocab_size:
        raise UserError(
            f"{config.vocab}: expected a vocabulary of {model.vocab_size} tokens, the rows of the checkpoint's "
            f"embedding table, found one of {tokenizer.vocab_size}; use the one that the model was trained with"
        )
    if classes and config.max_length > model.max_positions:
        raise UserError(
            f"--max-length: expected at most {model.max_positions}, the checkpoint's positions, "
            f"found {config.max_length}"
        )


def _with_our_names(
    tensors: Mapping[str, np.ndarray], kind: CheckpointKind, model: BertConfig, path: Path
) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint as a model directory of ours has them, float32."""
    leaves = bert_leaves(model, exits=kind is not CheckpointKind.BACKBONE)
    shapes = {name: leaf.shape for leaf in leaves for name in leaf.tensors}
    official = {name: _official_name(name, PREFIX[kind]) for name in shapes}
    stored = [
        Stored(name, name, tensor.shape, tensor.dtype.name)
        for name, tensor in tensors.items()
        if not LEFT_OUT.fullmatch(name)
    ]
    if problems := differences(stored, {official[name]: shape for name, shape in shapes.items()}):
        raise UserError(
            f"{path}: expected the tensors of a checkpoint of kind '{kind.value}' with {model.num_layers} layers, "
            f"found {len(problems)} that differ" + as_list(problems)
        )
    with np.errstate(over="ignore"):  # a large float64 becomes infinite
        renamed = {name: tensors[official[name]].astype(np.float32) for name in shapes}
    for name, tensor in renamed.items():
        check_finite(tensor, f"{path}: {official[name]}")
    # UER's segments are 0 for padding, 1 for the first text and 2 for the second; our token types are 0 and 1 for the
    # texts, and no answer depends on that of padding. So its row goes to the end.
    renamed[TOKEN_TYPES] = np.roll(renamed[TOKEN_TYPES], -1, axis=0)
    return renamed


def _official_name(tensor: str, prefix: str) -> str:
    *words, parameter = tensor.split(".")
    numbers = [int(word) for word in words if word.isdigit()]
    part = OFFICIAL_NAMES[".".join("{i}" if word.isdigit() else word for word in words)]
    if words[-1] == "LayerNorm":
        parameter = {"weight": "gamma", "bias": "beta"}[parameter]
    if words[0] == "exits":
        return f"{part.format(i=numbers[0] - 1)}.{parameter}"
    return f"{prefix}{part.format(i=numbers[0] if numbers else '')}.{parameter}"


if __name__ == "__main__":
    end_with(main)
