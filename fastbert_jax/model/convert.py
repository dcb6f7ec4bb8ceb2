"""Official FastBERTs and BERTs of UER to model directories: python -m fastbert_jax.model.convert --help"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from fastbert_jax.atomic_files import atomic_directory, check_unused
from fastbert_jax.command_line import end_with, read_settings
from fastbert_jax.config import BertConfig, CheckpointKind, ConvertConfig, DataConfig, Precision, TextForm
from fastbert_jax.errors import UserError
from fastbert_jax.log import result
from fastbert_jax.model.config_json import inference_settings
from fastbert_jax.model.network import Params
from fastbert_jax.model.official_names import LEFT_OUT, checkpoint_kind, official_config, official_leaves
from fastbert_jax.model.state_dicts import StateDict, open_state_dict
from fastbert_jax.model.tensor_files import match_tensors
from fastbert_jax.model.weights import read_params, save_backbone, save_model
from fastbert_jax.text.tokenizer import Tokenizer, vocabulary_tokenizer


def main() -> None:
    """Convert, and say what came of it."""
    config = read_settings(ConvertConfig, sys.argv[1:], program="-m fastbert_jax.model.convert")
    result(convert(config))


def convert(config: ConvertConfig) -> str:
    """Make the model directory that `config` asks for; what it is and what to do with it, in words.

    Raises:
      UserError: a checkpoint, a vocabulary or labels that cannot be used or do not belong together, or no place for the
        directory.
    """
    path, output = Path(config.input).expanduser(), Path(config.output).expanduser()
    check_unused(output, "--output")
    with contextlib.ExitStack() as stack:
        tensors = open_state_dict(path, stack)
        kind = _kind(tensors, config.kind, path)
        try:
            model = official_config(tensors.shapes, kind, num_heads=config.num_heads)
        except UserError as error:
            raise UserError(f"{path}: {error}; it is not a checkpoint of kind '{kind.value}'") from None
        is_backbone = kind is CheckpointKind.BACKBONE
        tokenizer = vocabulary_tokenizer(
            Path(config.vocab).expanduser(), text_form=TextForm.BERT if is_backbone else TextForm.OFFICIAL
        )
        _check(config, kind, model, tokenizer)
        params = _read(tensors, kind, model, path)
    try:
        with atomic_directory(output.resolve()) as directory:
            tokenizer.save(directory)
            if is_backbone:
                save_backbone(directory, params["backbone"], model)
            else:
                save_model(directory, params, model, extra=_extra(config))
    except (OSError, SafetensorError) as error:
        raise UserError(f"--output {output}: expected a place to write the model to, found: {error}") from error
    return _words(kind, model, output)


def _kind(tensors: StateDict, wanted: CheckpointKind, path: Path) -> CheckpointKind:
    found = checkpoint_kind(tensors.shapes)
    if found is None:
        names = list(tensors.keys())[:3]
        raise UserError(
            f"{path}: expected a checkpoint of FastBERT or a BERT of UER, which has embedding.word_embedding.weight, "
            f"found other names: {names}"
        )
    if wanted not in (CheckpointKind.AUTO, found):
        raise UserError(f"--kind: expected '{found.value}', which {path} is, found '{wanted.value}'; leave it out")
    return found


def _check(config: ConvertConfig, kind: CheckpointKind, model: BertConfig, tokenizer: Tokenizer) -> None:
    """Whether labels, vocabulary and length are those of the checkpoint."""
    expected = 0 if kind is CheckpointKind.BACKBONE else model.num_classes
    if len(config.labels) != expected:
        raise UserError(
            f"--labels: expected {expected or 'none'}, as the checkpoint (of kind '{kind.value}') has "
            f"{expected or 'no'} classes, found {len(config.labels)}: {list(config.labels)}"
        )
    if tokenizer.vocab_size != model.vocab_size:
        raise UserError(
            f"{config.vocab}: expected a vocabulary of {model.vocab_size} tokens, the rows of the checkpoint's "
            f"embedding table, found one of {tokenizer.vocab_size}; use the one that the model was trained with"
        )
    if kind is not CheckpointKind.BACKBONE and config.max_length > model.max_positions:
        raise UserError(
            f"--max-length: expected at most {model.max_positions}, the checkpoint's positions, "
            f"found {config.max_length}"
        )


def _read(tensors: StateDict, kind: CheckpointKind, model: BertConfig, path: Path) -> Params:
    leaves = official_leaves(model, kind)
    sources, problems = match_tensors([tensors], leaves, lambda name: None if LEFT_OUT.fullmatch(name) else name)
    if problems:
        raise UserError(
            f"{path}: expected the tensors of a checkpoint of kind '{kind.value}' with {model.num_layers} layers, "
            f"found {len(problems)} that differ\n  " + "\n  ".join(problems)
        )
    params = read_params(leaves, sources)
    table = params["backbone"]["embeddings"]["token_type"]
    # UER's segments are 0 for padding, 1 for the first text and 2 for the second; our token types are 0 and 1 for the
    # texts, and what padding has, nothing sees. So its row goes to the end.
    table["embedding"] = np.roll(table["embedding"], -1, axis=0)
    return params


def _extra(config: ConvertConfig) -> dict[str, Any]:
    return inference_settings(
        labels=config.labels,
        max_length=config.max_length,
        length_buckets=DataConfig(max_length=config.max_length).lengths,
        precision=Precision.FLOAT32,
    )


def _words(kind: CheckpointKind, model: BertConfig, output: Path) -> str:
    size = f"{model.num_layers} layers, {model.hidden_size} wide, {model.num_heads} heads"
    if kind is CheckpointKind.BACKBONE:
        return f"{output}: a backbone of {size}.\nTrain it with `python train.py --model.pretrained {output}`"
    return (
        f"{output}: a FastBERT of {size}, {model.num_classes} classes.\n"
        f"Ask it with `python infer.py predict --model {output} --input texts.txt --output answers.jsonl`"
    )


if __name__ == "__main__":
    end_with(main)
