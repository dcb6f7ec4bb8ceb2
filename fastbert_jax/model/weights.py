"""Model directories, Hugging Face BERTs and our own, to and from the parameter tree.

The table of `names.py` says which tensor of a file is which leaf of the tree.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy

from fastbert_jax.atomic_files import atomic_path, flush
from fastbert_jax.config import BertConfig, ExitKind, LayerNormKind, Precision
from fastbert_jax.errors import UserError
from fastbert_jax.model.fastbert import Params
from fastbert_jax.model.names import Leaf, model_leaves
from fastbert_jax.model.tensor_files import EXITS_FILE, IGNORED, Source, open_tensors, read_json

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
"""`hidden_act` of a Hugging Face config -> `BertConfig.activation`."""
ENCODER_KEYS = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
"""What a Hugging Face config must say for the directory to be a BERT encoder."""


def read_bert_config(
    directory: str | Path,
    *,
    num_classes: int,
    exit_size: int,
    exit_heads: int,
    exit_kind: ExitKind = ExitKind.ATTENTION,
) -> BertConfig:
    """The architecture that a directory's Hugging Face `config.json` describes, with our exits on it.

    Raises:
      UserError: no readable config.json, not a BERT encoder, or a key missing or out of range.
    """
    path = Path(directory) / "config.json"
    values = read_json(path)

    def get(key: str, kind: type, default: Any = None) -> Any:
        value = values.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and kind is float:
            return float(value)
        if type(value) is not kind:
            found = f"found {value!r}" if key in values else "found no such key"
            raise UserError(f"{path}: {key}: expected {kind.__name__}, {found}")
        return value

    layer_norms = [kind.value for kind in LayerNormKind]
    for key, expected in ENCODER_KEYS.items():
        found = values.get(key, None if key == "model_type" else expected)
        if found != expected:
            raise UserError(f"{path}: {key}: expected {expected!r}, found {found!r}; only BERT encoders can be loaded")
    if get("hidden_act", str, "gelu") not in ACTIVATIONS:
        raise UserError(f"{path}: hidden_act: expected one of {list(ACTIVATIONS)}, found {values['hidden_act']!r}")
    if get("layer_norm", str, LayerNormKind.STANDARD.value) not in layer_norms:
        raise UserError(f"{path}: layer_norm: expected one of {layer_norms}, found {values['layer_norm']!r}")
    try:
        return BertConfig(
            vocab_size=get("vocab_size", int),
            hidden_size=get("hidden_size", int),
            num_layers=get("num_hidden_layers", int),
            num_heads=get("num_attention_heads", int),
            feed_forward_size=get("intermediate_size", int),
            max_positions=get("max_position_embeddings", int, 512),
            token_types=get("type_vocab_size", int, 2),
            activation=ACTIVATIONS[get("hidden_act", str, "gelu")],
            layer_norm=LayerNormKind(get("layer_norm", str, LayerNormKind.STANDARD.value)),
            layer_norm_eps=get("layer_norm_eps", float, 1e-12),
            init_std=get("initializer_range", float, 0.02),
            num_classes=num_classes,
            exit_size=exit_size,
            exit_heads=exit_heads,
            exit_kind=exit_kind,
        )
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


NOT_BACKBONE = (*IGNORED, "exits.")
"""Starts of the names that a directory may hold beside the backbone's."""


def is_fastbert(directory: str | Path) -> bool:
    """Whether a model directory was written by `save_model`; False for a plain Hugging Face one.

    Raises:
      UserError: no readable config.json.
    """
    return "fastbert" in read_json(Path(directory) / "config.json")


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


def check_weights(directory: str | Path, config: BertConfig, *, exits: bool) -> None:
    """Look whether `load_backbone`, or with exits `load_params`, will find what it needs, without reading it.

    Args:
      config: as `read_bert_config` gives it, or with fewer layers.

    Raises:
      UserError: no safetensors, an unreadable file, or tensors missing, unknown or misshaped, all in one message.
    """
    ignored = (*(() if exits else NOT_BACKBONE), *_deeper(Path(directory), config))
    with contextlib.ExitStack() as stack:
        open_tensors(Path(directory), model_leaves(config, exits=exits), stack, ignored=ignored)


def _deeper(directory: Path, config: BertConfig) -> tuple[str, ...]:
    """Starts of the names of what a directory holds beyond the layers of `config`."""
    layers = range(config.num_layers, read_json(directory / "config.json")["num_hidden_layers"])
    return tuple(start for layer in layers for start in (f"encoder.layer.{layer}.", f"exits.{layer + 1}."))


def load_backbone(directory: str | Path, config: BertConfig, *, shardings: Params | None = None) -> Params:
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
    leaves = model_leaves(config, exits=False)
    wanted = None if shardings is None else {"backbone": shardings}
    ignored = (*NOT_BACKBONE, *_deeper(Path(directory), config))
    return _load(Path(directory), leaves, ignored=ignored, shardings=wanted)["backbone"]


def load_model(directory: str | Path) -> tuple[Params, BertConfig, dict[str, Any]]:
    """A model directory of ours: its parameters (float32 numpy), its architecture and what was saved as `extra`.

    Raises:
      UserError: not a directory of `save_model`, or one whose files are damaged or do not belong together.
    """
    config, extra = read_fastbert_config(directory)
    return load_params(directory, config), config, extra


def load_params(directory: str | Path, config: BertConfig, *, shardings: Params | None = None) -> Params:
    """The parameters of a trained FastBERT, float32, or of its first layers and the exits after them.

    Args:
      config: as `read_fastbert_config` gives it, or with fewer layers; the exit after the last of them is the teacher.
      shardings: of all leaves; each device then gets its part alone. None: numpy arrays.

    Raises:
      UserError: damaged files, or tensors missing, unknown or misshaped.
    """
    directory = Path(directory)
    ignored = _deeper(directory, config)
    return _load(directory, model_leaves(config, exits=True), ignored=ignored, shardings=shardings)


def read_fastbert_config(directory: str | Path) -> tuple[BertConfig, dict[str, Any]]:
    """The architecture of a model directory of ours, and what was saved as `extra`.

    Raises:
      UserError: not a directory of `save_model`.
    """
    path = Path(directory) / "config.json"
    section = read_json(path).get("fastbert")
    if not isinstance(section, dict) or not isinstance(section.get("extra"), dict):
        raise UserError(
            f"{path}: expected the 'fastbert' section of a trained model, found none; train one with train.py"
        )
    sizes: dict[str, Any] = {key: section.get(key) for key in ("num_classes", "exit_size", "exit_heads")}
    if not all(type(size) is int and size > 0 for size in sizes.values()):
        raise UserError(f"{path}: fastbert: expected whole numbers of 1 or more, found {sizes}")
    kinds = [kind.value for kind in ExitKind]
    kind = section.get("exit_kind", ExitKind.ATTENTION.value)
    if kind not in kinds:
        raise UserError(f"{path}: fastbert.exit_kind: expected one of {kinds}, found {kind!r}")
    return read_bert_config(directory, **sizes, exit_kind=ExitKind(kind)), section["extra"]


def _load(directory: Path, leaves: list[Leaf], *, ignored: tuple[str, ...], shardings: Params | None = None) -> Params:
    with contextlib.ExitStack() as stack:
        sources = open_tensors(directory, leaves, stack, ignored=ignored)
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
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def _read(leaf: Leaf, sources: Mapping[str, Source], index: tuple[slice, ...]) -> np.ndarray:
    """The part of a leaf at `index`, which is in the tree's axes, as float32; no more than it is read."""
    names, place = (leaf.tensors[index[0]], index[1:]) if leaf.stacked else (leaf.tensors, index)
    place = place[::-1] if leaf.transposed else place
    parts = [sources[name].file.get_slice(sources[name].name)[place].astype(np.float32) for name in names]
    if leaf.transposed:
        parts = [part.T for part in parts]
    return np.stack(parts) if leaf.stacked else np.ascontiguousarray(parts[0])


def inference_settings(
    *, labels: Sequence[str], max_length: int, length_buckets: Sequence[int], precision: Precision
) -> dict[str, Any]:
    """What inference needs beside weights and tokenizer, as `save_model` takes it for `extra`."""
    return {
        "labels": list(labels),
        "max_length": max_length,
        "length_buckets": list(length_buckets),
        "precision": precision.value,
    }


def save_model(
    directory: str | Path,
    params: Params,
    config: BertConfig,
    *,
    extra: Mapping[str, Any],
    exits_apart: bool = False,
) -> None:
    """Write `model.safetensors`, then `config.json`; a file is replaced whole or not at all.

    The backbone has Hugging Face's names and keys, so transformers loads it from here; the exits are
    `exits.1` to `exits.L`, the teacher last. All is told in docs/model_format.md.

    Args:
      params: float32 leaves, numpy or jax, in the shapes that `config` gives.
      extra: JSON values to find again with the model, such as its labels.
      exits_apart: put the exits into `fastbert_exits.safetensors`, and name the backbone's tensors as `BertModel` does:
        transformers then finds nothing to warn of but the pooler, which none of our models has.

    Raises:
      ValueError: a leaf that is missing, unknown, misshaped or not float32.
    """
    backbone, exits = _to_tensors(params, config, exits=True)
    if exits_apart:
        contents = {"model.safetensors": backbone, EXITS_FILE: exits}
    else:
        contents = {"model.safetensors": {f"bert.{name}": tensor for name, tensor in backbone.items()} | exits}
    section = {
        "num_classes": config.num_classes,
        "exit_kind": config.exit_kind.value,
        "exit_size": config.exit_size,
        "exit_heads": config.exit_heads,
        "extra": dict(extra),
    }
    _save(Path(directory), contents, _config_values(config) | {"fastbert": section})


def save_backbone(directory: str | Path, backbone: Params, config: BertConfig) -> None:
    """Write a backbone as `save_model` does, without exits: a Hugging Face directory, but for the tokenizer.

    Raises:
      ValueError: what `save_model` raises.
    """
    tensors, _ = _to_tensors({"backbone": backbone}, config, exits=False)
    _save(Path(directory), {"model.safetensors": tensors}, _config_values(config))


def _save(directory: Path, contents: dict[str, dict[str, np.ndarray]], config_values: dict[str, Any]) -> None:
    values = json.dumps(config_values, indent=2, allow_nan=False) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as unfinished:  # which gives the last file its name first, and config.json the last
        config_file = unfinished.enter_context(atomic_path(directory / "config.json"))
        config_file.write_text(values, encoding="utf-8")
        flush(config_file)
        for name, part in contents.items():
            file = unfinished.enter_context(atomic_path(directory / name))
            safetensors.numpy.save_file(part, file, metadata={"format": "pt"})
            # safetensors lets nobody else read its files, whatever the umask.
            shutil.copymode(config_file, file)
            flush(file)  # all of them before any is renamed, as this may fail


def _to_tensors(
    params: Params, config: BertConfig, *, exits: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The tensors of the backbone and those of the exits, by their names in a file."""
    arrays = {path: np.asarray(array) for path, array in _flatten(params)}
    leaves = model_leaves(config, exits=exits)
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


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def _config_values(config: BertConfig) -> dict[str, Any]:
    activation = "gelu_pytorch_tanh" if config.activation == "gelu_tanh" else config.activation
    return {
        "architectures": ["BertModel"],
        **ENCODER_KEYS,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.feed_forward_size,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.token_types,
        "hidden_act": activation,
        "layer_norm": config.layer_norm.value,
        "layer_norm_eps": config.layer_norm_eps,
        "initializer_range": config.init_std,
    }
