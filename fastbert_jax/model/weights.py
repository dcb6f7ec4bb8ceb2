"""The tensors of model directories, Hugging Face BERTs and our own, to and from the parameter tree.

The table of `leaves.py` says which tensor of a file is which leaf of the tree.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy

from fastbert_jax.config import BertConfig
from fastbert_jax.errors import UserError
from fastbert_jax.model.config_json import (
    ConfigJson,
    ModelSource,
    bert_values,
    exits_values,
    read_config_json,
    read_fastbert_config,
)
from fastbert_jax.model.leaves import Leaf, bert_leaves
from fastbert_jax.model.network import Params
from fastbert_jax.model.tensor_files import EXITS_FILE, IGNORED, Source, open_tensors

NOT_BACKBONE = (*IGNORED, "exits.")
"""Starts of the names that a directory may hold beside the backbone's."""


def check_vocabulary(tokenizer_vocab_size: int, config: BertConfig) -> None:
    """Refuse a tokenizer that can make ids beyond the embedding table: looked up, they would be NaN.

    Raises:
      UserError: the tokenizer's vocabulary is larger than the model's.
    """
    if tokenizer_vocab_size > config.vocab_size:
        raise UserError(
            f"expected a tokenizer of at most {config.vocab_size} tokens, the rows of the model's embedding table, "
            f"found one of {tokenizer_vocab_size}; use the tokenizer files that came with the model"
        )


def check_weights(source: ModelSource, config: BertConfig, *, exits: bool) -> None:
    """Look whether `load_backbone`, or with exits `load_params`, will find what it needs, without reading it.

    Args:
      config: as `read_bert_config` gives it, or with fewer layers or exits.

    Raises:
      UserError: no safetensors, an unreadable file, or tensors missing, unknown or misshaped, all in one message.
    """
    file = read_config_json(source)
    ignored = (*(() if exits else NOT_BACKBONE), *_left_out(file, config))
    with contextlib.ExitStack() as stack:
        open_tensors(file.directory, bert_leaves(config, exits=exits), stack, ignored=ignored)


def _left_out(file: ConfigJson, config: BertConfig) -> tuple[str, ...]:
    """Starts of the names of what a directory holds beyond the layers and the exits of `config`."""
    stored_exits = file.values.get("fastbert", {}).get("exit_layers", range(1, file.values["num_hidden_layers"] + 1))
    return (
        *(f"encoder.layer.{layer}." for layer in range(config.num_layers, file.values["num_hidden_layers"])),
        *(f"exits.{layer}." for layer in stored_exits if layer not in config.exit_layers),
    )


def load_backbone(source: ModelSource, config: BertConfig, *, shardings: Params | None = None) -> Params:
    """The backbone of a Hugging Face BERT directory, or of one of ours; heads are left out.

    Args:
      config: as `read_bert_config` gives it, or with fewer layers: the first ones.
      shardings: of the backbone's leaves; each device then gets its part alone, and nothing else is read.

    Returns:
      `{"embeddings", "layers"}`, float32 leaves, those of `layers` stacked `[L, ...]`; jax arrays with shardings,
      numpy arrays without.

    Raises:
      UserError: what `check_weights` raises.
    """
    wanted = None if shardings is None else {"backbone": shardings}
    file = read_config_json(source)
    ignored = (*NOT_BACKBONE, *_left_out(file, config))
    backbone: Params = _load(file, bert_leaves(config, exits=False), ignored=ignored, shardings=wanted)["backbone"]
    return backbone


def load_model(source: ModelSource) -> tuple[Params, BertConfig, dict[str, Any]]:
    """A model directory of ours: its parameters (float32 numpy), its architecture and what was saved as `extra`.

    Raises:
      UserError: not a directory of `save_model`, or one whose files are damaged or do not belong together.
    """
    file = read_config_json(source)
    config, extra = read_fastbert_config(file)
    return load_params(file, config), config, extra


def load_params(source: ModelSource, config: BertConfig, *, shardings: Params | None = None) -> Params:
    """The parameters of a trained FastBERT, float32, or of its first layers and the exits after them.

    Args:
      config: as `read_fastbert_config` gives it, or with fewer layers or exits.
      shardings: of all leaves; each device then gets its part alone. None: numpy arrays.

    Raises:
      UserError: damaged files, or tensors missing, unknown or misshaped.
    """
    file = read_config_json(source)
    return _load(file, bert_leaves(config, exits=True), ignored=_left_out(file, config), shardings=shardings)


def _load(file: ConfigJson, leaves: list[Leaf], *, ignored: tuple[str, ...], shardings: Params | None = None) -> Params:
    with contextlib.ExitStack() as stack:
        sources = open_tensors(file.directory, leaves, stack, ignored=ignored)
        return read_params(leaves, sources, shardings=shardings)


def read_params(leaves: list[Leaf], sources: Mapping[str, Source], *, shardings: Params | None = None) -> Params:
    """The parameter tree of tensors that were found; see `load_backbone`."""
    flat_shardings = None if shardings is None else flax.traverse_util.flatten_dict(shardings, sep="/")
    arrays: dict[str, Any] = {}
    for leaf in leaves:
        read = functools.partial(_read, leaf, sources)
        if flat_shardings is None:
            arrays[leaf.path] = read((slice(None),) * len(leaf.tree_shape))
        else:
            sharding = flat_shardings[leaf.path]
            arrays[leaf.path] = jax.make_array_from_callback(leaf.tree_shape, sharding, read)
    params: Params = flax.traverse_util.unflatten_dict(arrays, sep="/")
    return params


def _read(leaf: Leaf, sources: Mapping[str, Source], index: tuple[slice, ...]) -> np.ndarray:
    """The part of a leaf at `index`, which is in the tree's axes, as float32; no more than it is read."""
    names, place = (leaf.tensors[index[0]], index[1:]) if leaf.stacked else (leaf.tensors, index)
    place = place[::-1] if leaf.transposed else place
    parts = [sources[name].file.get_slice(sources[name].name)[place].astype(np.float32) for name in names]
    if leaf.transposed:
        parts = [part.T for part in parts]
    return np.stack(parts) if leaf.stacked else np.ascontiguousarray(parts[0])


def save_model(
    directory: str | Path,
    params: Params,
    config: BertConfig,
    *,
    extra: Mapping[str, Any],
    exits_apart: bool = False,
) -> None:
    """Write `model.safetensors`, then `config.json`; a file is replaced whole or not at all.

    The backbone has Hugging Face's names and keys, so transformers loads it from here; the exits are `exits.LAYER`, for
    the layers that have one. docs/model_format.md has the whole format.

    Args:
      params: float32 leaves, numpy or jax, in the shapes that `config` gives.
      extra: JSON values to find again with the model, such as its labels.
      exits_apart: put the exits into `fastbert_exits.safetensors`, and name the backbone's tensors as `BertModel` does:
        transformers then warns of the pooler alone, which none of our models has.

    Raises:
      ValueError: a leaf that is missing, unknown, misshaped or not float32.
    """
    backbone, exits = _to_tensors(params, config, exits=True)
    if exits_apart:
        contents = {"model.safetensors": backbone, EXITS_FILE: exits}
    else:
        contents = {"model.safetensors": {f"bert.{name}": tensor for name, tensor in backbone.items()} | exits}
    _save(Path(directory), contents, bert_values(config) | {"fastbert": exits_values(config, extra)})


def save_backbone(directory: str | Path, backbone: Params, config: BertConfig) -> None:
    """Write a backbone as `save_model` does, without exits: a Hugging Face directory, but for the tokenizer.

    Raises:
      ValueError: what `save_model` raises.
    """
    tensors, _ = _to_tensors({"backbone": backbone}, config, exits=False)
    _save(Path(directory), {"model.safetensors": tensors}, bert_values(config))


def _save(directory: Path, contents: dict[str, dict[str, np.ndarray]], config_values: dict[str, Any]) -> None:
    values = json.dumps(config_values, indent=2, allow_nan=False) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = {name: directory / f"{name}.tmp" for name in (*contents, "config.json")}
    try:
        unfinished["config.json"].write_text(values, encoding="utf-8")
        for name, part in contents.items():
            safetensors.numpy.save_file(part, unfinished[name], metadata={"format": "pt"})
            # safetensors lets nobody else read its files, whatever the umask.
            shutil.copymode(unfinished["config.json"], unfinished[name])
        for path in unfinished.values():
            _flush(path)
        for name, path in unfinished.items():
            os.replace(path, directory / name)
        _flush(directory)
    finally:
        for path in unfinished.values():
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the disk hold what was written: without it, a power cut can leave an empty file under the new name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_tensors(
    params: Params, config: BertConfig, *, exits: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The tensors of the backbone and those of the exits, by their names in a file."""
    arrays = {path: np.asarray(array) for path, array in flax.traverse_util.flatten_dict(params, sep="/").items()}
    leaves = bert_leaves(config, exits=exits)
    if arrays.keys() != {leaf.path for leaf in leaves}:
        odd = sorted(arrays.keys() ^ {leaf.path for leaf in leaves})
        raise ValueError(f"expected the parameters of {config}, found these missing or unknown: {odd}")
    parts: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
    for leaf in leaves:
        array = arrays[leaf.path]
        if array.shape != leaf.tree_shape or array.dtype != np.float32:
            raise ValueError(f"{leaf.path}: expected float32 {leaf.tree_shape}, found {array.dtype} {array.shape}")
        for name, part in zip(leaf.tensors, array if leaf.stacked else [array], strict=True):
            # safetensors writes the memory as it lies, so a transposed view must be copied.
            parts[name.startswith("exits.")][name] = np.ascontiguousarray(part.T if leaf.transposed else part)
    return parts
