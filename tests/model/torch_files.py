"""Files of the forms that `torch.save` writes, made without PyTorch, by pickles put together by hand; and read back."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

KINDS = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<f2": "HalfStorage", "<i8": "LongStorage"}


def tuple_of(numbers: tuple[int, ...]) -> str:
    return "(" + "".join(f"I{number}\n" for number in numbers) + "t"


def tensor_pickle(
    kind: str, key: str, length: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> str:
    """The opcodes that make one tensor, in the form that is text."""
    storage = f"(S'storage'\nctorch\n{kind}\nS'{key}'\nS'cpu'\nI{length}\ntQ"
    made = f"({storage}I{offset}\n{tuple_of(shape)}{tuple_of(strides)}I00\nccollections\nOrderedDict\n(tRt"
    return f"ctorch._utils\n_rebuild_tensor_v2\n{made}R"


def dict_pickle(entries: Mapping[str, str]) -> bytes:
    """A whole pickle of an ordered dict, the opcodes of whose values are given."""
    items = "".join(f"S'{name}'\n{opcodes}s" for name, opcodes in entries.items())
    return f"ccollections\nOrderedDict\n(tR{items}.".encode("ascii")


def write_zip(path: Path, pickled: bytes, storages: Mapping[str, bytes]) -> Path:
    """A file of the form since PyTorch 1.6."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def write_state_dict(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """A file that holds `tensors`, each in a storage of its own."""
    entries, storages = {}, {}
    for number, (name, array) in enumerate(tensors.items()):
        array = np.ascontiguousarray(array)
        strides = tuple(stride // array.itemsize for stride in array.strides)
        entries[name] = tensor_pickle(KINDS[array.dtype.str], str(number), array.size, 0, array.shape, strides)
        storages[str(number)] = array.tobytes()
    return write_zip(path, dict_pickle(entries), storages)
