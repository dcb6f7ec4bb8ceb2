"""State dicts that `torch.save` wrote, read without PyTorch and without running their code.

Such a file holds numbers, and a pickle of the tensors' names, shapes and places among them. A pickle is a program that
can call every function it names. Here it can name an ordered dict, the function that makes a tensor, and the kinds of
numbers; each is replaced by something that only records its arguments. Both of PyTorch's forms are read: the zip
archive, and the one before version 1.6 (torch/serialization.py, `_load` and `_legacy_load`).
"""

from __future__ import annotations

import collections
import contextlib
import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from fastbert_jax.errors import UserError

DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
"""PyTorch's kinds of storage."""
ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle in a file of the form before 1.6."""
ADVICE = "if it holds more than a model's weights, save `model.state_dict()` of it where PyTorch is installed"


class Storage(NamedTuple):
    """A sequence of numbers in the file."""

    kind: str
    key: str
    length: int


class Place(NamedTuple):
    """Which numbers of a storage are a tensor, as the pickle says; nothing in it is checked yet."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors in a file by their names, read-only.

    Raises:
      UserError: no such file, one that is damaged or no state dict, or one whose pickle names what a state dict does
        not need.
    """
    with _errors_in(path), open(path, "rb") as stream:
        is_zip = stream.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        stream.seek(0)
        state, contents = _read_zip(stream) if is_zip else _read_legacy(stream)
        if not isinstance(state, dict):
            raise UserError(f"expected a state dict, found {type(state).__name__}; {ADVICE}")
        tensors = {}
        for name, place in dict.items(state):
            if not isinstance(name, str) or not isinstance(place, Place):
                raise UserError(f"expected names of tensors alone, found {name!r}: {type(place).__name__}; {ADVICE}")
            tensors[name] = _tensor(place, contents)
        return tensors


def _tensor(place: Place, contents: Mapping[str, bytes]) -> np.ndarray:
    """The tensor at a place, from the bytes of the storages.

    Raises:
      ValueError: the tensor is not inside its storage, or the storage has another size than the pickle says.
    """
    storage, offset, shape, strides = place
    numbers = [offset, *shape, *strides]
    if type(storage) is not Storage or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"a tensor at {place}")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.length:
        raise ValueError(f"a tensor that ends at {last + 1} of {storage}")
    content, dtype = contents[storage.key], DTYPES[storage.kind]
    if len(content) != storage.length * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes for {storage}")
    steps = [stride * dtype.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(np.frombuffer(content, dtype)[offset:], shape, steps, writeable=False)


@contextlib.contextmanager
def _errors_in(path: Path) -> Iterator[None]:
    """Turn every error into a `UserError` that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"expected a checkpoint, found no file {path}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(
            f"{path}: expected a state dict that torch.save wrote, found a file that cannot be read as one "
            f"({type(error).__name__}: {error}); it may be cut short: copy or download it again"
        ) from None


class _Unpickler(pickle.Unpickler):
    """Runs a pickle with replacements for the few functions and classes that it can name."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The replacement for a name."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # The other arguments are for gradients. A new one each time, as a pickle can set attributes of its objects.
            return lambda storage, offset, shape, strides, *_: Place(storage, offset, shape, strides)
        if module == "torch" and name in DTYPES:
            return name
        raise UserError(
            f"expected a pickle that names tensors alone, found one that names {module}.{name}, which can run code; "
            f"it was not run; {ADVICE}"
        )

    def persistent_load(self, pid: Any) -> Storage:
        """The storage of the pickle's `("storage", kind, key, device, length)`."""
        what, kind, key, _, length, *view = pid
        if what != "storage" or kind not in DTYPES or type(key) is not str or type(length) is not int or any(view):
            raise ValueError(f"a storage {pid!r}")
        return self.storages.setdefault(key, Storage(kind, key, length))


def _read_zip(stream: IO[bytes]) -> tuple[Any, dict[str, bytes]]:
    """The unpickled state dict, and the bytes of every storage in it."""
    archive = zipfile.ZipFile(stream)
    packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    if packed:  # a few bytes could unpack to more than fits into memory
        raise ValueError(f"{packed[0]} compressed, as torch.save never does")
    (root,) = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("numbers with the most significant byte first")
    unpickler = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")))
    state = unpickler.load()
    return state, {key: archive.read(f"{root}data/{key}") for key in unpickler.storages}


def _read_legacy(stream: IO[bytes]) -> tuple[Any, dict[str, bytes]]:
    """The same for the form before 1.6: five pickles, then every storage, its length before it."""
    magic, _, system = (_Unpickler(stream).load() for _ in range(3))
    if magic != LEGACY_MAGIC or not system["little_endian"]:
        raise ValueError("neither a zip archive nor PyTorch's older form")
    unpickler = _Unpickler(stream)
    state = unpickler.load()
    contents = {}
    for key in _Unpickler(stream).load():
        storage = unpickler.storages[key]
        if int.from_bytes(stream.read(8), "little") != storage.length:
            raise ValueError(f"another length than that of {storage}")
        contents[key] = stream.read(storage.length * DTYPES[storage.kind].itemsize)
    return state, contents
