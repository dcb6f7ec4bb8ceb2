"""State dicts that `torch.save` wrote, read without PyTorch and without running their code.

Such a file holds numbers, and a pickle of the tensors' names, shapes and places among them. A pickle is a program that
can call every function it names. Here a small machine takes only the steps that a state dict needs. It can name an
ordered dict, the function that makes a tensor, and the kinds of numbers; each is replaced by something that only
records its arguments. Both of PyTorch's forms are read: the zip archive, and the one before version 1.6
(torch/serialization.py, `_load` and `_legacy_load`).
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

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
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
"""Steps of a pickle that put one value on its stack."""
LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES".split()
)
"""Steps that put the number or the text on the stack that follows them in the file."""
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


class _Machine:
    """Runs a pickle with replacements for the few functions and classes that it can name."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: IO[bytes]) -> Any:
        """What the pickle at a place of a file makes; the file is then at what follows it.

        Raises:
          UserError: it names something else.
          Exception: of nearly any kind, where it is damaged.
        """
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in CONSTANTS:
                self._stack.append(CONSTANTS[opcode.name])
            elif opcode.name in LITERALS:
                self._stack.append(argument)
            elif not self._made(opcode.name) and not self._looked_up(opcode.name, argument):
                raise ValueError(f"the step {opcode.name}, which a state dict does not need")
        return self._stack.pop()

    def _made(self, step: str) -> bool:
        """Take a step that makes or fills a tuple, a list or a dict; False: it is another one."""
        stack = self._stack
        match step:
            case "MARK":
                self._marks.append(len(stack))
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[step])
            case "TUPLE" | "LIST":
                stack.append({"TUPLE": tuple, "LIST": list}[step](self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._last(int(step[-1]))))
            case "DICT":
                stack.append(_dict_of(self._since_mark()))
            case "APPEND" | "APPENDS":
                items = self._last(1) if step == "APPEND" else self._since_mark()
                list.extend(stack[-1], items)
            case "SETITEM" | "SETITEMS":
                items = self._last(2) if step == "SETITEM" else self._since_mark()
                dict.update(stack[-1], _dict_of(items))
            case _:
                return False
        return True

    def _looked_up(self, step: str, argument: Any) -> bool:
        """Take a step that remembers, names or calls something; False: it is another one."""
        stack = self._stack
        match step:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "BUILD":  # sets attributes, such as the version of a state dict
                stack.pop()
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                module, _, name = argument.partition(" ")
                stack.append(_replacement(module, name))
            case "STACK_GLOBAL":
                stack.append(_replacement(*self._last(2)))
            case "REDUCE":
                stack.append(self._called(*self._last(2)))
            case "BINPERSID":
                stack.append(self._storage(*self._last(1)))
            case _:
                return False
        return True

    def _last(self, count: int) -> list[Any]:
        """Take `count` values from the stack."""
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _since_mark(self) -> list[Any]:
        """Take the values above the last mark from the stack."""
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _called(self, function: Any, arguments: Any) -> Any:
        """An empty ordered dict, or the place of a tensor."""
        if function is dict and arguments == ():
            return {}
        if function is not Place:
            raise ValueError("a call of something else than a tensor's function")
        return Place(*arguments[:4])  # the rest is for gradients

    def _storage(self, pid: Any) -> Storage:
        """The storage of the pickle's `("storage", kind, key, device, length)`."""
        what, kind, key, _, length, *view = pid
        if type(kind) is not str or type(key) is not str or type(length) is not int:
            raise ValueError("a storage without a kind, a name or a length")
        if what != "storage" or kind not in DTYPES or any(view):
            raise ValueError(f"a storage of {shown(kind)}")
        return self.storages.setdefault(key, Storage(kind, key, length))


def _replacement(module: Any, name: Any) -> Any:
    """What stands for something that a pickle names.

    Raises:
      UserError: a state dict does not need it.
      ValueError: the name is none.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a name that is no text")
    if (module, name) == ("collections", "OrderedDict"):
        return dict
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
        return Place
    if module == "torch" and name in DTYPES:
        return name
    raise UserError(
        f"expected a pickle that names tensors alone, found one that names {module[:100]}.{name[:100]}, which can run "
        f"code; it was not run; {ADVICE}"
    )


def _dict_of(values: list[Any]) -> dict[Any, Any]:
    """A dict of keys and values, which take turns.

    Raises:
      ValueError: a key of a type that a state dict does not have.
    """
    for key in values[::2]:
        if type(key) not in KEYS:
            raise ValueError(f"a dict with a key of type {type(key).__name__}")
    return dict(zip(values[::2], values[1::2], strict=True))


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
    machine = _Machine()
    state = machine.run(io.BytesIO(archive.read(f"{root}data.pkl")))
    return state, {key: archive.read(f"{root}data/{key}") for key in machine.storages}


def _read_legacy(stream: IO[bytes]) -> tuple[Any, dict[str, bytes]]:
    """The same for the form before 1.6: five pickles, then every storage, its length before it."""
    magic, _, system = (_Machine().run(stream) for _ in range(3))
    if magic != LEGACY_MAGIC or not system["little_endian"]:
        raise ValueError("neither a zip archive nor PyTorch's older form")
    machine = _Machine()
    state = machine.run(stream)
    contents = {}
    for key in _Machine().run(stream):
        if type(key) is not str:
            raise ValueError("a storage without a name")
        storage = machine.storages[key]
        if int.from_bytes(stream.read(8), "little") != storage.length:
            raise ValueError(f"another length than that of {storage}")
        size = storage.length * DTYPES[storage.kind].itemsize
        if size > os.fstat(stream.fileno()).st_size:
            raise ValueError(f"fewer bytes than {storage} has")
        contents[storage.key] = stream.read(size)
    return state, contents
