"""Weight files: which there are in a model directory, and whether their tensors are those of the model.

Only safetensors are read: a pickle can run code. (`state_dicts.py` reads those of official models, for `convert.py`.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors

from fastbert_jax.errors import UserError

IGNORED = ("pooler.", "cls.", "classifier.", "qa_outputs.", "embeddings.position_ids", "embeddings.token_type_ids")
"""Starts of the names in a Hugging Face file that are not the encoder's: heads of other tasks, and buffers."""
FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""dtypes that can become float32: by safetensors' name, numpy's."""
EXITS_FILE = "fastbert_exits.safetensors"
"""Holds the exits where `model.safetensors` is to hold nothing but what transformers knows."""
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.joblib", "*.h5", "*.msgpack")
"""Weight files that are never read."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model directory.

    Raises:
      UserError: no such file, or no JSON object in it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"expected a model directory with a {path.name}, found no file {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a JSON object, found a file that cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def find_tensors(
    directory: Path, expected: Mapping[str, tuple[int, ...]], *, ignored: tuple[str, ...]
) -> dict[str, Any]:
    """Every tensor in a directory's weight files, by its expected name: slices that are read when indexed.

    Args:
      expected: the shapes of the tensors by their names.
      ignored: starts of names that may be there and are left out.

    Raises:
      UserError: no safetensors, an unreadable file, or tensors missing, unknown or misshaped, all in one message.
    """
    slices: dict[str, Any] = {}
    found: list[Stored] = []
    for path in _weight_files(directory):
        file = _open(path)
        for stored in file.keys():
            name = _plain_name(stored)
            if not name.startswith(ignored):
                slices[name] = tensor = file.get_slice(stored)
                dtype = tensor.get_dtype()
                found.append(Stored(stored, name, tuple(tensor.get_shape()), FLOATS.get(dtype, dtype)))
    if problems := differences(found, expected):
        raise UserError(
            f"{directory}: expected the tensors that its config.json describes, found {len(problems)} that differ; "
            "use the config.json and the weights of one model\n  " + "\n  ".join(problems)
        )
    return slices


class Stored(NamedTuple):
    """A tensor of a file."""

    stored: str
    """Its name there."""
    name: str
    """The expected name that it stands for."""
    shape: tuple[int, ...]
    dtype: str
    """As numpy names it, if it is a float."""


def differences(tensors: Iterable[Stored], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Which expected tensors are missing, and which of those found are unknown, misshaped or there twice."""
    known: dict[str, str] = {}
    problems = []
    for stored, name, shape, dtype in tensors:
        if name not in expected:
            problems.append(f"extra: {stored} {list(shape)}")
        elif name in known:
            problems.append(f"twice: {known[name]} and {stored}")
        elif shape != expected[name]:
            problems.append(f"shape: {stored}: expected {list(expected[name])}, found {list(shape)}")
        elif dtype not in FLOATS.values():
            problems.append(f"dtype: {stored}: expected one of {list(FLOATS.values())}, found {dtype}")
        known.setdefault(name, stored)
    return problems + [f"missing: {name} {list(shape)}" for name, shape in expected.items() if name not in known]


def _open(path: Path) -> Any:
    try:
        return safetensors.safe_open(path, framework="np")
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: expected a safetensors file, found one that cannot be read ({error}); "
            "it may be cut short: copy or download it again"
        ) from None


def _plain_name(stored: str) -> str:
    """A stored name without the prefix of a model with a head, and with the present names of a norm's parameters."""
    name = stored.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _weight_files(directory: Path) -> list[Path]:
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    exits = [directory / EXITS_FILE] if (directory / EXITS_FILE).exists() else []
    if single.exists():
        return [single, *exits]
    if index.exists():
        return [*_shards(index), *exits]
    pickles = sorted(path.name for pattern in OTHER_WEIGHTS for path in directory.glob(pattern))
    if pickles:
        raise UserError(
            f"{directory}: expected model.safetensors, found only {', '.join(pickles)}, which can run code when it is "
            "read; if you trust it, convert it where PyTorch is installed, and copy the tokenizer files too: "
            "python -c \"from transformers import AutoModel; AutoModel.from_pretrained('OLD').save_pretrained('NEW')\""
        )
    raise UserError(f"{directory}: expected the weights in model.safetensors, found no such file")


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: expected a 'weight_map' of tensors and files, found {weight_map!r}")
    for name in weight_map.values():
        # The index is not ours: no path in it may lead out of the directory.
        if not isinstance(name, str) or not name.endswith(".safetensors") or set(name) & set("/\\:\0"):
            raise UserError(f"{index}: expected the name of a .safetensors file beside it, found {name!r}")
    return [index.parent / name for name in sorted(set(weight_map.values()))]
