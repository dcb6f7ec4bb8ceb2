"""Weight files: which there are in a model directory, and whether their tensors are those of the model.

Only safetensors are read: a pickle can run code. (`state_dicts.py` reads those of official models, for `convert.py`.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from fastbert_jax.config_yaml import shown
from fastbert_jax.errors import UserError
from fastbert_jax.log import say_once

IGNORED = ("pooler.", "cls.", "classifier.", "qa_outputs.", "embeddings.position_ids", "embeddings.token_type_ids")
"""Starts of the names in a Hugging Face file that are not the encoder's: heads of other tasks, and buffers."""
FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""dtypes that can become float32: by safetensors' name, numpy's."""
WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
EXITS_FILE = "fastbert_exits.safetensors"
"""Holds the exits where `model.safetensors` is to hold nothing but what transformers knows."""
ENCODER = ("embeddings", "encoder.")
"""Starts of the names of all that the encoder computes with."""
MOST_JSON = 2**24
"""Bytes of a JSON file; one of a model has some thousands."""
MOST_PROBLEMS = 30
"""Of the tensors that differ, how many an error lists."""
LFS_POINTER = b"version https://git-lfs"
"""The beginning of the file that git leaves in place of a large one."""
SAVE_AGAIN = "python -c \"from transformers import AutoModel; AutoModel.from_pretrained('OLD').save_pretrained('NEW')\""
FROM_OTHERS = (
    "which {0} wrote; take model.safetensors where the model comes from, or convert it where transformers 4 is "
    'installed with PyTorch and {1}, and copy the tokenizer files too: python -c "from transformers import {2}; '
    "{2}.from_pretrained({3}=True).save_pretrained('NEW')\""
)
OLD_CHECKPOINT = "'OLD/bert_model.ckpt.index', config='OLD/config.json', from_tf"
OTHER_WEIGHTS = {
    "pytorch_model*.bin": "which can run code when it is read; if you trust it, convert it where PyTorch is installed, "
    f"and copy the tokenizer files too: {SAVE_AGAIN}",
    "*.safetensors": "which has another name; if it holds the whole model, rename it (an adapter does not: merge it "
    "into its model first, with `merge_and_unload()` of peft)",
    "*.h5": FROM_OTHERS.format("TensorFlow", "TensorFlow", "AutoModel", "'OLD', from_tf"),
    "*.msgpack": FROM_OTHERS.format("Flax", "Flax", "AutoModel", "'OLD', from_flax"),
    "*.ckpt.index": FROM_OTHERS.format("TensorFlow 1", "TensorFlow", "BertForPreTraining", OLD_CHECKPOINT),
    "openvino* *.onnx *.gguf *.tflite *.ot *.mlmodel": "which another program runs, and which cannot be turned back; "
    "take model.safetensors where the model comes from",
    "*.bin *.pt *.pth *.ckpt *.pkl *.joblib": "which can run code when it is read; if you trust it, load the model "
    "with the program that wrote it, and save its BERT with `model.save_pretrained('NEW')` of transformers (a .bin of "
    "FastBERT or UER: python -m fastbert_jax.model.convert)",
}
"""Weight files that are never read, the most useful first, and what to do."""
NO_WEIGHTS = {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scheduler.bin", "rng_state.pth"}
"""What training leaves beside the weights."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model directory.

    Raises:
      UserError: no such file, or no JSON object in it.
    """
    check_is_file(path)
    try:
        with open(path, "rb") as stream:
            content = stream.read(MOST_JSON + 1)
        if len(content) > MOST_JSON:
            raise ValueError(f"more than {MOST_JSON} bytes")
        values = json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"expected a model directory with a {path.name}, found no file {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected a JSON object, found a file that cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def check_is_file(path: Path) -> None:
    """Refuse what cannot be read to an end: a pipe waits for its writer, a device has no end.

    Raises:
      UserError: a directory, a pipe, a socket or a device. Where there is nothing, opening it says so.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        found = "a directory" if os.path.isdir(path) else "a pipe or a device"
        raise UserError(f"{path}: expected a file, found {found}")


class Tensor(NamedTuple):
    """A tensor in a file, which is read when it is asked for."""

    path: Path
    stored: str
    """Its name there."""
    name: str
    """The expected name that it stands for."""
    shape: tuple[int, ...]
    dtype: str
    """As numpy names it, if it is a float."""
    numbers: Any
    """An array, or what gives the parts of one."""

    def read(self, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The part at `index`, and no more, as float32.

        Raises:
          UserError: a number with which every answer would be NaN.
        """
        with np.errstate(over="ignore"):  # a large float64 becomes infinite
            numbers: np.ndarray = self.numbers[index].astype(np.float32)
        if not np.isfinite(numbers).all():
            bad = numbers.size - int(np.isfinite(numbers).sum())
            raise UserError(
                f"{self.path}: {shown_name(self.stored)}: expected finite float32 numbers, found {bad} of "
                f"{numbers.size} that are NaN or infinite; training that diverged leaves such weights: take an earlier "
                "checkpoint, or copy the file again"
            )
        return numbers


def find_tensors(
    directory: Path, expected: Mapping[str, tuple[int, ...]], *, ignored: tuple[str, ...]
) -> dict[str, Tensor]:
    """Every expected tensor in a directory's weight files, by its expected name.

    A prefix of all names is left out. What is beside the encoder, such as another head, is left out with a note.

    Args:
      expected: the shapes of the tensors by their names.
      ignored: starts of names that may be there and are left out.

    Raises:
      UserError: no safetensors, an unreadable file, several models, or tensors missing, unknown or misshaped, all in
        one message.
    """
    in_files = [
        (path, stored, file.get_slice(stored))
        for path, file in ((path, _open(path)) for path in _weight_files(directory))
        for stored in file.keys()
    ]
    prefix = _prefix(directory, [stored for _, stored, _ in in_files])
    of_encoder = tuple(prefix + start for start in ENCODER)
    other_encoder = tuple(f".{name}" for name in expected if name.startswith(ENCODER))
    found: list[Tensor] = []
    beside: list[str] = []
    for path, stored, part in in_files:
        present = stored.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        name = present.removeprefix(prefix)
        if name.startswith((*IGNORED, *ignored)):
            continue
        changes_answers = present.startswith(of_encoder) or present.endswith(other_encoder) or name.startswith("exits.")
        if name in expected or changes_answers:
            dtype = part.get_dtype()
            found.append(Tensor(path, stored, name, tuple(part.get_shape()), FLOATS.get(dtype, dtype), part))
        else:
            beside.append(shown_name(stored))
    left_out = f"{len(beside)} tensors beside the encoder: {', '.join(sorted(beside)[:5])}"
    if problems := differences(found, expected):
        raise UserError(
            f"{directory}: expected the tensors that its config.json describes, found {len(problems)} that differ; "
            f"use the config.json and the weights of one model{as_list(problems)}"
            + (f"\n  not used: {left_out}" if beside else "")
        )
    if beside:
        say_once(f"{directory}: not used: {left_out}")
    return {tensor.name: tensor for tensor in found}


def _prefix(directory: Path, stored: Iterable[str]) -> str:
    """What the names of the encoder's tensors begin with in a file, such as `bert.`, by that of the word embeddings.

    Raises:
      UserError: two models, each with its embeddings.
    """
    models = {name.removesuffix(WORD_EMBEDDINGS) for name in stored if f".{name}".endswith(f".{WORD_EMBEDDINGS}")}
    if len(models) > 1:
        raise UserError(
            f"{directory}: expected the tensors of one BERT, found those of several, whose names begin with "
            f"{', '.join(map(shown, sorted(models)[:5]))}; save the one that you want alone"
        )
    return "".join(models)


def differences(tensors: Iterable[Tensor], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Which expected tensors are missing, and which of those found are unknown, misshaped or there twice."""
    known: dict[str, str] = {}
    problems = []
    for _, stored, name, shape, dtype, _ in tensors:
        if name not in expected:
            problems.append(f"extra: {shown_name(stored)} {list(shape)}")
        elif name in known:
            problems.append(f"twice: {known[name]} and {stored}")
        elif shape != expected[name]:
            problems.append(f"shape: {stored}: expected {list(expected[name])}, found {list(shape)}")
        elif dtype not in FLOATS.values():
            problems.append(f"dtype: {stored}: expected one of {list(FLOATS.values())}, found {dtype}")
        known.setdefault(name, stored)
    return [f"missing: {name} {list(shape)}" for name, shape in expected.items() if name not in known] + problems


def as_list(problems: list[str]) -> str:
    """Problems below a message, one a line; of very many the first."""
    more = len(problems) - MOST_PROBLEMS
    return "".join(f"\n  {line}" for line in problems[:MOST_PROBLEMS]) + (f"\n  and {more} more" if more > 0 else "")


def shown_name(name: str) -> str:
    """The name of a tensor in an error, which may be of any length and hold any character."""
    return name if name.isprintable() and len(name) < 100 else shown(name)


def _open(path: Path) -> Any:
    check_is_file(path)
    try:
        with open(path, "rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                raise UserError(
                    f"{path}: expected a safetensors file, found a pointer of git LFS; `git lfs pull` fetches it"
                )
        return safetensors.safe_open(path, framework="np")
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: expected a safetensors file, found one that cannot be read ({error}); "
            "it may be cut short: copy or download it again"
        ) from None


def _weight_files(directory: Path) -> list[Path]:
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    exits = [directory / EXITS_FILE] if (directory / EXITS_FILE).exists() else []
    if os.path.lexists(single):  # a link to nothing is named where it is opened
        return [single, *exits]
    if index.exists():
        return [*_shards(index), *exits]
    for patterns, advice in OTHER_WEIGHTS.items():
        found = {path.name for pattern in patterns.split() for path in directory.glob(pattern)}
        if names := sorted(found - NO_WEIGHTS - {EXITS_FILE}):
            raise UserError(f"{directory}: expected model.safetensors, found only {', '.join(names[:5])}, {advice}")
    raise UserError(f"{directory}: expected the weights in model.safetensors, found no such file")


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: expected a 'weight_map' of tensors and files, found {shown(weight_map)}")
    for name in weight_map.values():
        # The index is not ours: no path in it may lead out of the directory.
        if not isinstance(name, str) or not name.endswith(".safetensors") or set(name) & set("/\\:\0"):
            raise UserError(f"{index}: expected the name of a .safetensors file beside it, found {shown(name)}")
    return [index.parent / name for name in sorted(set(weight_map.values()))]
