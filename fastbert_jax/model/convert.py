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
    Tensor,
    as_list,
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
LEFT_OUT = re.compile(
    r"target\..*"  # heads of pretraining
    r"|(.*\.)?total_(ops|params)"  # counters that thop puts into every module
    r"|classifiers\.\d+\.self_atten\.linear_layers\.1\.bias"  # the key's bias, which drops out of the softmax
)
"""Tensors that no answer depends on."""


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
    kind, tensors = _read(path, config.kind)
    is_backbone = kind is CheckpointKind.BACKBONE
    try:
        model = _architecture({tensor.name: tensor.shape for tensor in tensors}, kind, config.num_heads)
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


def _read(path: Path, wanted: CheckpointKind) -> tuple[CheckpointKind, list[Tensor]]:
    """What wrote a checkpoint, and its tensors by their official names.

    What is before these in the file is left out: `kernel.`, and what all names begin with, such as the `module.` of
    PyTorch's DataParallel.
    """
    arrays = read_state_dict(path)
    whole = next((name for name in arrays if f".{name}".endswith(f".{WORD_EMBEDDING}")), None)
    if whole is None and any(name.endswith(WORD_EMBEDDINGS) for name in arrays):
        raise UserError(
            f"{path}: expected a checkpoint of FastBERT or a BERT of UER, found a BERT of Hugging Face, which needs no "
            f"converting; save it as model.safetensors where PyTorch is installed: {SAVE_AGAIN}; then train it with "
            f"`{program_name('train')} --model.pretrained NEW`"
        )
    if whole is None:
        raise UserError(
            f"{path}: expected a checkpoint of FastBERT or a BERT of UER, which has {WORD_EMBEDDING}, "
            f"found other names: {shown(list(arrays)[:3])}"
        )
    of_backbone = whole.removesuffix(WORD_EMBEDDING)
    of_all = of_backbone.removesuffix(OF_PACKAGE)
    tensors = [
        Tensor(path, stored, name, array.shape, array.dtype.name, array)
        for stored, array in arrays.items()
        for name in [stored.removeprefix(of_backbone).removeprefix(of_all)]
        if not LEFT_OUT.fullmatch(name)
    ]
    found = CheckpointKind.BACKBONE
    if of_backbone != of_all:
        found = CheckpointKind.PACKAGE
    elif any(tensor.name.startswith("classifiers.") for tensor in tensors):
        found = CheckpointKind.SCRIPT
    if wanted not in (CheckpointKind.AUTO, found):
        raise UserError(f"--kind: expected '{found.value}', which {path} is, found '{wanted.value}'; leave it out")
    return found, tensors


def _architecture(shapes: Mapping[str, tuple[int, ...]], kind: CheckpointKind, num_heads: int) -> BertConfig:
    """The architecture that the shapes of a file's tensors belong to.

    Args:
      num_heads: of each layer, which is in no shape; 0: by the width.

    Raises:
      UserError: a tensor with a size in its shape is missing or has another number of axes.
    """

    def sizes(name: str, axes: int) -> tuple[int, ...]:
        shape = shapes.get(name)
        if shape is None or len(shape) != axes:
            found = "none" if shape is None else f"one of shape {list(shape)}"
            raise UserError(f"expected a tensor {name} of {axes} axes, found {found}")
        return shape

    vocab_size, hidden_size = sizes(WORD_EMBEDDING, 2)
    in_layer = (re.match(r"encoder\.transformer\.(\d+)\.", name) for name in shapes)
    exits: dict[str, Any] = {}
    if kind is not CheckpointKind.BACKBONE:
        exits = {
            "num_classes": sizes("classifiers.0.output_layer_2.weight", 2)[0],
            "exit_size": sizes("classifiers.0.output_layer_0.weight", 2)[0],
            "exit_heads": 2,  # `cla_heads_num` in the official code, in the shape of no tensor
        }
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=len({match[1] for match in in_layer if match}),
        num_heads=num_heads or max(hidden_size // 64, 1),  # 64 wide in all published models
        feed_forward_size=sizes("encoder.transformer.0.feed_forward.linear_1.bias", 1)[0],
        max_positions=sizes("embedding.position_embedding.weight", 2)[0],
        token_types=3,  # UER's segments: padding, first text, second text
        layer_norm=LayerNormKind.UNBIASED,
        layer_norm_eps=1e-6,  # the default in UER-py, which nothing changes
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
    tensors: list[Tensor], kind: CheckpointKind, model: BertConfig, path: Path
) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint as a model directory of ours has them, float32."""
    leaves = bert_leaves(model, exits=kind is not CheckpointKind.BACKBONE)
    shapes = {_official_name(name): leaf.shape for leaf in leaves for name in leaf.tensors}
    if problems := differences(tensors, shapes):
        raise UserError(
            f"{path}: expected the tensors of a checkpoint of kind '{kind.value}' with {model.num_layers} layers, "
            f"found {len(problems)} that differ" + as_list(problems)
        )
    numbers = {tensor.name: tensor.read() for tensor in tensors}
    renamed = {name: numbers[_official_name(name)] for leaf in leaves for name in leaf.tensors}
    # UER's segments are 0 for padding, 1 for the first text and 2 for the second; our token types are 0 and 1 for the
    # texts, and no answer depends on that of padding. So its row goes to the end.
    renamed[TOKEN_TYPES] = np.roll(renamed[TOKEN_TYPES], -1, axis=0)
    return renamed


def _official_name(tensor: str) -> str:
    *words, parameter = tensor.split(".")
    numbers = [int(word) for word in words if word.isdigit()]
    part = OFFICIAL_NAMES[".".join("{i}" if word.isdigit() else word for word in words)]
    if words[-1] == "LayerNorm":
        parameter = {"weight": "gamma", "bias": "beta"}[parameter]
    return f"{part.format(i=numbers[0] - (words[0] == 'exits') if numbers else '')}.{parameter}"


if __name__ == "__main__":
    end_with(main)
