"""The tensors of model directories, Hugging Face BERTs and our own, to and from the parameter tree.

The table of `network.py` says which tensor of a file is which leaf of the tree.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy

from fastbert_jax.atomic_files import atomic_path, flush
from fastbert_jax.config import BertConfig
from fastbert_jax.errors import UserError
from fastbert_jax.model.config_json import (
    ConfigJson,
    ModelSource,
    bert_values,
    exits_values,
    read_bert_config,
    read_fastbert_config,
)
from fastbert_jax.model.network import Leaf, Params, Part
from fastbert_jax.model.networks import make_network
from fastbert_jax.model.tensor_files import EXITS_FILE, Tensor, find_tensors


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


def check_token_types(token_types: np.ndarray, config: BertConfig) -> None:
    """Refuse pairs of a model without a token type for the second text: looked up, it would be NaN.

    Raises:
      UserError: a token type beyond the model's.
    """
    if token_types.max(initial=0) >= config.token_types:
        raise UserError(
            f"expected single texts, as the model has {config.token_types} token type (type_vocab_size), found pairs; "
            "join the two texts into one"
        )


def find_weights(source: ModelSource, config: BertConfig, *, exits: bool) -> tuple[list[Leaf], dict[str, Tensor]]:
    """What `load_params` reads, without reading it: the leaves, and the tensors in the files by their names.

    Raises:
      UserError: no safetensors, an unreadable file, or tensors missing, unknown or misshaped, all in one message.
    """
    file = ConfigJson.read(source)
    leaves = [leaf for leaf in make_network(config).leaves if exits or leaf.path.startswith(Part.BACKBONE.value)]
    expected = {name: leaf.shape for leaf in leaves for name in leaf.tensors}
    return leaves, find_tensors(file.path.parent, expected, ignored=_left_out(file, config, exits=exits))


def _left_out(file: ConfigJson, config: BertConfig, *, exits: bool) -> tuple[str, ...]:
    """Starts of the names of what a directory holds beyond the layers and the exits of `config`."""
    whole = read_fastbert_config(file)[0] if exits else read_bert_config(file)
    return (
        *(f"encoder.layer.{layer}." for layer in range(config.num_layers, whole.num_layers)),
        *(f"exits.{layer}." for layer in whole.exit_layers if exits and layer not in config.exit_layers),
        *(() if exits else ("exits.",)),
    )


def load_model(source: ModelSource) -> tuple[Params, BertConfig, dict[str, Any]]:
    """A model directory of ours: its parameters (float32 numpy), its architecture and what was saved as `extra`.

    Raises:
      UserError: not a directory of `save_model`, or one whose files are damaged or do not belong together.
    """
    file = ConfigJson.read(source)
    config, extra = read_fastbert_config(file)
    return load_params(file, config), config, extra


def load_params(
    source: ModelSource, config: BertConfig, *, exits: bool = True, shardings: Params | None = None
) -> Params:
    """The parameters of a trained FastBERT, or the backbone of any BERT directory.

    Args:
      config: as `read_fastbert_config` or `read_bert_config` gives it, or with fewer layers or exits: the first layers.
      exits: whether the exits are read too; without them the result is `{"backbone": ...}`.
      shardings: of all leaves; each device then gets its part alone, and nothing else is read.

    Returns:
      The tree that `Bert` describes, float32; jax arrays with shardings, numpy arrays without.

    Raises:
      UserError: what `find_weights` raises, or a tensor with NaN or an infinite number.
    """
    leaves, tensors = find_weights(source, config, exits=exits)
    flat_shardings = None if shardings is None else flax.traverse_util.flatten_dict(shardings, sep="/")
    arrays: dict[str, Any] = {}
    for leaf in leaves:
        read = functools.partial(_read, leaf, tensors)
        if flat_shardings is None:
            arrays[leaf.path] = read((slice(None),) * len(leaf.tree_shape))
        else:
            arrays[leaf.path] = jax.make_array_from_callback(leaf.tree_shape, flat_shardings[leaf.path], read)
    params: Params = flax.traverse_util.unflatten_dict(arrays, sep="/")
    return params


def _read(leaf: Leaf, tensors: Mapping[str, Tensor], index: tuple[slice, ...]) -> np.ndarray:
    """The part of a leaf at `index`, which is in the tree's axes, as float32; no more than it is read."""
    names, place = (leaf.tensors[index[0]], index[1:]) if leaf.stacked else (leaf.tensors, index)
    place = place[::-1] if leaf.transposed else place
    parts = [tensors[name].read(place) for name in names]
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
    """Write a model's parameters with `save_tensors`.

    Args:
      params: float32 leaves, numpy or jax, in the shapes that `config` gives.
      extra, exits_apart: as `save_tensors` takes them.

    Raises:
      ValueError: a leaf that is missing, unknown, misshaped or not float32.
    """
    arrays = {path: np.asarray(array) for path, array in flax.traverse_util.flatten_dict(params, sep="/").items()}
    leaves = make_network(config).leaves
    if arrays.keys() != {leaf.path for leaf in leaves}:
        odd = sorted(arrays.keys() ^ {leaf.path for leaf in leaves})
        raise ValueError(f"expected the parameters of {config}, found these missing or unknown: {odd}")
    tensors = {}
    for leaf in leaves:
        array = arrays[leaf.path]
        if array.shape != leaf.tree_shape or array.dtype != np.float32:
            raise ValueError(f"{leaf.path}: expected float32 {leaf.tree_shape}, found {array.dtype} {array.shape}")
        for name, part in zip(leaf.tensors, array if leaf.stacked else [array], strict=True):
            tensors[name] = part.T if leaf.transposed else part
    save_tensors(directory, tensors, config, extra=extra, exits_apart=exits_apart)


def save_tensors(
    directory: str | Path,
    tensors: Mapping[str, np.ndarray],
    config: BertConfig,
    *,
    extra: Mapping[str, Any] | None,
    exits_apart: bool = False,
) -> None:
    """Write `model.safetensors`, then `config.json`; a file is replaced whole or not at all.

    The backbone has Hugging Face's names and keys, so transformers loads it from here; the exits are `exits.LAYER`, for
    the layers that have one. docs/model_format.md has the whole format.

    Args:
      tensors: float32, all that `config` describes, by their names in `network.py`.
      extra: JSON values to find again with the model, such as its labels; None: a backbone without exits.
      exits_apart: put the exits into `fastbert_exits.safetensors`, and name the backbone's tensors as `BertModel` does:
        transformers then warns of the pooler alone, which none of our models has.
    """
    directory, values = Path(directory), bert_values(config)
    if extra is not None:
        values["fastbert"] = exits_values(config, extra)
    prefix = "" if exits_apart or extra is None else "bert."
    contents: dict[str, dict[str, np.ndarray]] = {"model.safetensors": {}}
    for name, tensor in tensors.items():
        is_exit = name.startswith("exits.")
        file = contents.setdefault(EXITS_FILE if is_exit and exits_apart else "model.safetensors", {})
        # safetensors writes the memory as it lies, so a transposed view must be copied.
        file[name if is_exit else prefix + name] = np.ascontiguousarray(tensor)
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as unfinished:  # which gives the last file its name first, and config.json the last
        config_file = unfinished.enter_context(atomic_path(directory / "config.json", keeps_link=False))
        config_file.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        flush(config_file)
        for name, part in contents.items():
            path = unfinished.enter_context(atomic_path(directory / name, keeps_link=False))
            try:
                safetensors.numpy.save_file(part, path, metadata={"format": "pt"})
            except safetensors.SafetensorError as error:  # a full disk, for example
                raise OSError(str(error)) from error
            # safetensors lets nobody else read its files, whatever the umask.
            shutil.copymode(config_file, path)
            flush(path)  # all of them before any is renamed, as this may fail
