"""State dicts: PyTorch's own files are read, whatever else a pickle asks for is refused, and nothing of it runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from fastbert_jax.errors import UserError
from fastbert_jax.model.state_dicts import read_state_dict
from tests.model.torch_files import dict_pickle, tensor_pickle, write_state_dict, write_zip


def test_both_forms_of_pytorch_hold_the_same(official_directory: Path) -> None:
    package, backbone = (read_state_dict(official_directory / f"{name}.bin") for name in ("package", "backbone"))
    assert len(package) == 105 and len(backbone) == 63
    for name, array in backbone.items():
        np.testing.assert_array_equal(array, package[f"kernel.{name}"], strict=True)
    assert package["kernel.embedding.word_embedding.weight"].std() > 1
    counters = [name for name in read_state_dict(official_directory / "script.bin") if name.endswith("total_ops")]
    assert len(counters) == 39


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("FloatStorage", "<f4"),
        ("DoubleStorage", "<f8"),
        ("HalfStorage", "<f2"),
        ("BFloat16Storage", ml_dtypes.bfloat16),
        ("LongStorage", "<i8"),
        ("ByteStorage", "u1"),
    ],
)
def test_views_of_one_storage_of_any_kind(tmp_path: Path, kind: str, dtype: str) -> None:
    numbers = np.arange(12).astype(dtype)
    views = {
        "whole": tensor_pickle(kind, "5", 12, 0, (3, 4), (4, 1)),
        "turned": tensor_pickle(kind, "5", 12, 0, (4, 3), (1, 4)),
        "row": tensor_pickle(kind, "5", 12, 8, (4,), (1,)),
        "repeated": tensor_pickle(kind, "5", 12, 11, (2, 2), (0, 0)),
        "empty": tensor_pickle(kind, "5", 12, 0, (0, 4), (4, 1)),
        "one": tensor_pickle(kind, "5", 12, 7, (), ()),
    }
    read = read_state_dict(write_zip(tmp_path / "a.bin", dict_pickle(views), {"5": numbers.tobytes()}))
    whole = numbers.reshape(3, 4)
    expected = [whole, whole.T, whole[2], np.full((2, 2), numbers[11]), np.zeros((0, 4), dtype), numbers[7]]
    for found, wanted in zip(read.values(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == numbers.dtype and found.shape == wanted.shape


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("in_zip", [True, False])
def test_a_pickle_that_would_run_a_command_is_refused_unrun(tmp_path: Path, protocol: int, in_zip: bool) -> None:
    mark, path = tmp_path / "mark", tmp_path / "a.bin"
    hostile = pickle.dumps({"embedding": Bomb(mark)}, protocol=protocol)
    pickle.loads(hostile)
    assert mark.exists()  # the bomb is none of straw
    mark.unlink()
    if in_zip:
        write_zip(path, hostile, {})
    else:
        path.write_bytes(hostile)
    with pytest.raises(
        UserError, match=r"a\.bin: expected a pickle .* alone, found one that names posix\.system, which"
    ):
        read_state_dict(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "builtins getattr",
        "torch load",
        "torch._utils _rebuild_tensor",
        "collections Counter",
        "os x.y",
    ],
)
def test_no_other_name_is_known(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.partition(" ")
    path = write_zip(tmp_path / "a.bin", f"c{module}\n{attribute}\n.".encode(), {})
    with pytest.raises(
        UserError, match=rf"names {module}\.{attribute}, which can run code; it was not run; .*state_dict"
    ):
        read_state_dict(path)


@pytest.mark.parametrize(
    "tensor",
    [
        (0, (4, 3), (3, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (-2,), (1,)),
        (10, (1,), (1,)),
        (0, (2, 2), (9, 1)),
        (0, (2, 2), (1,)),
    ],
)
def test_a_tensor_outside_its_numbers_is_refused(tmp_path: Path, tensor: tuple) -> None:
    pickled = dict_pickle({"a": tensor_pickle("FloatStorage", "0", 10, *tensor)})
    path = write_zip(tmp_path / "a.bin", pickled, {"0": bytes(40)})
    with pytest.raises(UserError, match=r"a\.bin: expected a state dict that torch\.save wrote"):
        read_state_dict(path)


def test_numbers_that_are_fewer_than_told_are_refused(tmp_path: Path) -> None:
    entries = {"a": tensor_pickle("FloatStorage", "0", 10, 0, (10,), (1,))}
    path = write_zip(tmp_path / "a.bin", dict_pickle(entries), {"0": bytes(36)})
    with pytest.raises(UserError, match="found a file that cannot be read as one .*36 bytes for .*length=10"):
        read_state_dict(path)
    path = write_zip(tmp_path / "b.bin", dict_pickle(entries), {})
    with pytest.raises(UserError, match="b.bin: .*cannot be read"):
        read_state_dict(path)


def test_a_storage_that_the_pickle_itself_makes_up_is_refused(tmp_path: Path) -> None:
    """An ordered dict with the attributes of a storage would lead outside of what was read."""
    faked = (
        "ccollections\nOrderedDict\n(tR(dS'kind'\nS'FloatStorage'\nsS'key'\nS'0'\nsS'length'\nI999\nsS'bytes'\nI4\nsb"
    )
    tensor = f"ctorch._utils\n_rebuild_tensor_v2\n({faked}I0\n(I999\nt(I1\nttR"
    path = write_zip(tmp_path / "a.bin", dict_pickle({"a": tensor}), {"0": bytes(4)})
    with pytest.raises(UserError, match="a.bin: .*cannot be read as one .*a tensor without a place"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["package.bin", "backbone.bin"])
@pytest.mark.parametrize("kept", [0, 3, 1000, 100_000, -20])
def test_a_file_cut_short_is_named(official_directory: Path, tmp_path: Path, name: str, kept: int) -> None:
    path = tmp_path / name
    path.write_bytes((official_directory / name).read_bytes()[:kept])
    with pytest.raises(UserError, match=rf"{name}: expected a state dict that torch\.save wrote.*cut short: copy or"):
        read_state_dict(path)


def test_a_zip_bomb_is_refused_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", dict_pickle({"a": tensor_pickle("FloatStorage", "0", 10, 0, (10,), (1,))}))
        archive.writestr("archive/data/0", bytes(40))
    with pytest.raises(
        UserError, match=r"a\.bin: .*cannot be read as one .*data\.pkl compressed, as torch\.save never"
    ):
        read_state_dict(path)


def test_a_changed_number_is_found(tmp_path: Path) -> None:
    path = write_state_dict(tmp_path / "a.bin", {"a": np.full(100, 7, np.float32)})
    content = path.read_bytes()
    seven = np.float32(7).tobytes() * 100
    path.write_bytes(content.replace(seven, seven[:-4] + np.float32(8).tobytes()))
    with pytest.raises(UserError, match="a.bin: .*Bad CRC-32"):
        read_state_dict(path)


def nested(depth: int = 60) -> str:
    """A tuple of two equal tuples of two equal tuples: written out, it is longer than any memory."""
    made = "(I1\ntp0\n"
    for level in range(depth):
        made = f"({made}g{level}\ntp{level + 1}\n"
    return made


LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.I1001\n.(dS'little_endian'\nI01\ns."
"""How a file of the form before 1.6 begins."""
TENSOR = "(dS'a'\nctorch._utils\n_rebuild_tensor_v2\n("


@pytest.mark.parametrize(
    "hostile",
    [
        nested() + ".",  # the state dict itself
        "(d" + nested() + "I1\ns.",  # a key
        "(d" + "S'a'\n" + nested() + "s.",  # a value
        TENSOR + nested() + "I0\n(I1\nt(I1\nttRs.",  # a storage
        TENSOR + "(S'storage'\nctorch\nFloatStorage\nS'0'\nI0\nI4\ntQI0\n" + nested() + "(I1\nttRs.",  # a shape
        TENSOR + "(S'storage'\n" + nested() + "S'0'\nI0\nI4\ntQs.",  # a kind of storage
        TENSOR + "(S'storage'\nctorch\nFloatStorage\n" + nested() + "I0\nI4\ntQs.",  # a name of a storage
        nested() + "S'x'\n\x93.",  # the module of a name
        "]p0\ng0\na.",  # a list in itself
        "(" * 100_000 + "t" * 100_000 + ".",
        "L" + "9" * 100_000 + "L\n.",
        "r\xff\xff\xff\x7fN.",  # a place beyond any memory
        "\x8e" + "\xff" * 7 + "\x7f.",  # bytes beyond any memory
        "(lp0\n" + "(g0\ni__builtin__\neval\n" * 9 + ".",
    ],
)
@pytest.mark.parametrize("in_zip", [True, False])
def test_a_pickle_that_would_grow_is_refused_at_once(tmp_path: Path, hostile: str, in_zip: bool) -> None:
    path, pickled = tmp_path / "a.bin", hostile.encode("latin-1")
    if in_zip:
        write_zip(path, pickled, {})
    else:
        path.write_bytes(LEGACY + pickled + b"(lS'0'\na.")
    with pytest.raises(UserError, match=r"a\.bin: expected ") as error:
        read_state_dict(path)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("strides", [(0,), (0, 0), (0, 1)])
def test_a_tensor_that_repeats_its_numbers_beyond_them_is_refused(tmp_path: Path, strides: tuple) -> None:
    shape = (10**12,) if len(strides) == 1 else (10**6, 10**6)
    entries = {"a": tensor_pickle("FloatStorage", "0", 10**6, 0, shape, strides)}
    path = write_zip(tmp_path / "a.bin", dict_pickle(entries), {"0": bytes(4 * 10**6)})
    with pytest.raises(UserError, match=r"a tensor of 1000000000000 numbers from Storage\(.*length=1000000\)"):
        read_state_dict(path)


def test_a_claimed_length_is_not_allocated(tmp_path: Path) -> None:
    """The older form says the length before the numbers, in the pickle and again."""
    path, length = tmp_path / "a.bin", 10**15
    pickled = dict_pickle({"a": tensor_pickle("FloatStorage", "0", length, 0, (1,), (1,))})
    path.write_bytes(LEGACY + pickled + b"(lS'0'\na." + length.to_bytes(8, "little") + bytes(4))
    with pytest.raises(UserError, match=r"a\.bin: .*fewer bytes than Storage\(.*length=1000000000000000\) has"):
        read_state_dict(path)


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.bin"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(UserError, match=rf"a\.bin: expected a file, found a {kind}"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"I5\n.", "expected a state dict, found int; if it holds more"),
        (b"(lI1\na.", "expected a state dict, found list"),
        (dict_pickle({"a": "I5\n"}), "expected names of tensors alone, found 'a': int"),
        (
            dict_pickle({"model": "ccollections\nOrderedDict\n(tR"}),
            "expected names of .*'model': dict; .*save `model",
        ),
    ],
)
def test_what_is_no_state_dict_is_told(tmp_path: Path, pickled: bytes, message: str) -> None:
    with pytest.raises(UserError, match=rf"a\.bin: {message}"):
        read_state_dict(write_zip(tmp_path / "a.bin", pickled, {}))


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a checkpoint, found no file .*none\.bin"):
        read_state_dict(tmp_path / "none.bin")
