"""State dicts that `torch.save` wrote, read without PyTorch and without running their code.

Such a file holds numbers, and a pickle of the tensors' names, shapes and places among them. A pickle is a program that
can call every function it names. Here it can take only the steps that a state dict needs. It can name an ordered dict,
the function that makes a tensor, and the kinds of numbers; each is replaced by something that only records its
arguments. Both of PyTorch's forms are read: the zip archive, and the one before version 1.6 (torch/serialization.py,
`_load` and `_legacy_load`).
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import ml_dtypes
import numpy as np

from fastbert_jax.config_yaml import shown
from fastbert_jax.errors import UserError
from fastbert_jax.model.tensor_files import check_is_file

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
STEPS = (
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS "
    "PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID"
).split()
"""The steps of a pickle that a state dict needs, as the module `pickle` names them."""
KEYS = (str, int, float, bool, bytes, type(None))
"""Types of a dict's keys. Not tuples: the hash of tuples that share parts can take exponential time."""
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
    check_is_file(path)
    with _errors_in(path), open(path, "rb") as stream:
        is_zip = stream.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        stream.seek(0)
        state, contents = _read_zip(stream) if is_zip else _read_legacy(stream)
        if not isinstance(state, dict):
            raise UserError(f"expected a state dict, found {type(state).__name__}; {ADVICE}")
        tensors = {}
        for name, place in state.items():
            if not isinstance(name, str) or not isinstance(place, Place):
                found = f"{shown(name)}: {type(place).__name__}"
                raise UserError(f"expected names of tensors alone, found {found}; {ADVICE}")
            tensors[name] = _tensor(place, contents)
        return tensors


def _tensor(place: Place, contents: Mapping[str, bytes]) -> np.ndarray:
    """The tensor at a place, from the bytes of the storages.

    Raises:
      ValueError: the tensor is not inside its storage or has more numbers than it, or the storage has another size than
        the pickle says.
    """
    storage, offset, shape, strides = place
    numbers = [offset, *shape, *strides]
    if type(storage) is not Storage or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a tensor without a place in a storage")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.length:
        raise ValueError(f"a tensor that ends at {last + 1} of {storage}")
    if math.prod(shape) > storage.length:  # as when one number stands for all, which would be written out
        raise ValueError(f"a tensor of {math.prod(shape)} numbers from {storage}")
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
            f"({type(error).__name__}: {str(error)[:300]}); it may be cut short: copy or download it again"
        ) from None


def _with_keys_checked(step: bytes, keys: slice) -> Callable[[Any], None]:
    """A step that fills a dict, behind a look at the types of the keys, which are at `keys` on the stack."""

    def take(unpickler: Any) -> None:
        for key in unpickler.stack[keys]:
            if type(key) not in KEYS:
                raise ValueError(f"a dict with a key of type {type(key).__name__}")
        pickle._Unpickler.dispatch[step[0]](unpickler)

    return take


class _Unpickler(pickle._Unpickler):
    """Runs a pickle with replacements for the few functions and classes that it can name.

    This is the unpickler in Python of the standard library: that in C takes every step, and some of them fill the
    memory or compute the hash of any tuple.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{getattr(pickle, step)[0]: pickle._Unpickler.dispatch[getattr(pickle, step)[0]] for step in STEPS},
        pickle.BUILD[0]: lambda unpickler: unpickler.stack.pop(),  # attributes, such as the version of a state dict
        pickle.SETITEM[0]: _with_keys_checked(pickle.SETITEM, slice(-2, -1)),
        pickle.SETITEMS[0]: _with_keys_checked(pickle.SETITEMS, slice(None, None, 2)),
        pickle.DICT[0]: _with_keys_checked(pickle.DICT, slice(None, None, 2)),
    }

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for something that a pickle names.

        Raises:
          UserError: a state dict does not need it.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return lambda: {}  # `dict` would take arguments
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: Place(*arguments[:4])  # the rest is for gradients
        if module == "torch" and name in DTYPES:
            return name
        raise UserError(
            f"expected a pickle that names tensors alone, found one that names {module[:100]}.{name[:100]}, which can "
            f"run code; it was not run; {ADVICE}"
        )

    def persistent_load(self, pid: Any) -> Storage:
        """The storage of the pickle's `("storage", kind, key, device, length)`."""
        what, kind, key, _, length, *view = pid
        if type(kind) is not str or type(key) is not str or type(length) is not int:
            raise ValueError("a storage without a kind, a name or a length")
        if what != "storage" or kind not in DTYPES or any(view):
            raise ValueError(f"a storage of {shown(kind)}")
        return self.storages.setdefault(key, Storage(kind, key, length))


def _read_zip(stream: IO[bytes]) -> tuple[Any, dict[str, bytes]]:
    """The unpickled state dict, and the bytes of every storage in it."""
    archive = zipfile.ZipFile(stream)
    packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    if packed:  # a few bytes could unpack to more than fits into memory
        raise ValueError(f"{packed[0]} compressed, as torch.save never does")
    (root,) = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    claimed, size = sum(entry.file_size for entry in archive.infolist()), os.fstat(stream.fileno()).st_size
    if claimed > size:  # parts of the file that are read again and again
        raise ValueError(f"{claimed} bytes in a file of {size}")
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
        if type(key) is not str:
            raise ValueError("a storage without a name")
        storage = unpickler.storages[key]
        if int.from_bytes(stream.read(8), "little") != storage.length:
            raise ValueError(f"another length than that of {storage}")
        size = storage.length * DTYPES[storage.kind].itemsize
        if size > os.fstat(stream.fileno()).st_size:
            raise ValueError(f"fewer bytes than {storage} has")
        contents[storage.key] = stream.read(size)
    return state, contents
