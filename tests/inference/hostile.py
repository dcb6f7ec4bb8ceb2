"""Model directories of strangers: each is the tiny model with one to three changes that a seed picks."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[Path, random.Random], None]
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 10**7, 10**12, 2**63, 10**40, 0.5, 1e7, 1e308, math.nan, math.inf, "", "0", "bert",
    "\ud800", "\x00", "x" * 5000, [], [[]], [0], [-1, 1], [None], ["a", "a"], [1, "a"], list(range(5000)), {},
    {"a": {}}, {"": []}, [[[[[[[[]]]]]]]],
)  # fmt: skip
TEXTS = (
    b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe{\x00}\x00", b"\x80\x81", b"\xef\xbb\xbf{}", b'{"a": 1', b"[" * 50_000,
    b'{"":' * 50_000, b"\x00" * 100, b"NaN", b'"text"', b"1" * 10_000, b'{"model_type": "bert"}',
)  # fmt: skip


def set_somewhere(values: Any, value: Any, generator: random.Random) -> None:
    """Replace, remove or add a value at a random place of nested dicts and lists."""
    while True:
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        if not keys:
            return
        key = generator.choice(keys)
        if isinstance(values[key], dict | list) and values[key] and generator.random() < 0.8:
            values = values[key]
            continue
        match generator.randrange(8):
            case 0:
                del values[key]
            case 1 if isinstance(values, dict):
                values[str(generator.choice(ODD))] = value
            case _:
                values[key] = value
        return


def change_json(name: str) -> Change:
    """Change a few values of a JSON file."""

    def change(model: Path, generator: random.Random) -> None:
        try:
            values = json.loads((model / name).read_text())
        except (OSError, ValueError, RecursionError):
            return
        for _ in range(generator.randint(1, 3)):
            if isinstance(values, dict | list):
                set_somewhere(values, generator.choice(ODD), generator)
        (model / name).write_text(json.dumps(values))

    return change


def change_section(model: Path, generator: random.Random) -> None:
    """Change a value of the section `fastbert` or of its `extra`."""
    values = json.loads((model / "config.json").read_text())
    section = values["fastbert"] if generator.random() < 0.4 else values["fastbert"]["extra"]
    section[generator.choice(list(section))] = generator.choice(ODD)
    (model / "config.json").write_text(json.dumps(values))


def change_header(model: Path, generator: random.Random) -> None:
    """Change the names, shapes, types or places of tensors, with numbers that are as they were."""
    content = (model / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    for _ in range(generator.randint(1, 3)):
        name = generator.choice(list(header))
        match generator.randrange(6):
            case 0:
                header[generator.choice(["", "bert.", "module.", "x" * 5000, "\x1b[31m", "exits.9."]) + name] = (
                    header.pop(name)
                )
            case 1 if name != "__metadata__":
                header[name]["dtype"] = generator.choice(["F16", "BF16", "F64", "I8", "BOOL", "F8_E4M3", "", 7])
            case 2:
                del header[name]
            case 3:
                header[generator.choice(["linear.weight", "encoder.x", "embeddings.y", "crf.t"])] = header[name]
            case _:
                set_somewhere(header[name], generator.choice(ODD), generator)
    made = json.dumps(header).encode()
    length = generator.choice([len(made)] * 4 + [0, 2**62, len(made) - 1, len(made) + 9])
    (model / "model.safetensors").write_bytes(struct.pack("<Q", length) + made + content[8 + size :])


def change_numbers(model: Path, generator: random.Random) -> None:
    """Put other bytes among the numbers."""
    path = model / "model.safetensors"
    content = bytearray(path.read_bytes())
    for _ in range(generator.randint(1, 50)):
        content[generator.randrange(len(content) // 2, len(content))] = generator.choice((0xFF, 0x7F, 0, 0x80))
    path.write_bytes(content)


def change_bytes(model: Path, generator: random.Random) -> None:
    """Put random bytes into a file, or cut it."""
    path = any_file(model, generator)
    content = bytearray(path.read_bytes())
    if generator.random() < 0.4:
        del content[generator.randrange(len(content) + 1) :]
    for _ in range(generator.randint(1, 8) if content else 0):
        content[generator.randrange(len(content))] = generator.randrange(256)
    path.write_bytes(content)


def replace_text(model: Path, generator: random.Random) -> None:
    """Put something else in the place of a file."""
    any_file(model, generator).write_bytes(generator.choice(TEXTS))


def replace_kind(model: Path, generator: random.Random) -> None:
    """Put something that is no file in the place of one, or beside them."""
    beside = ["vocab.txt", "added_tokens.json", "special_tokens_map.json", "model.safetensors.index.json"]
    path = model / generator.choice([*sorted(os.listdir(model)), *beside])
    if path.is_dir() and not path.is_symlink():
        return
    path.unlink(missing_ok=True)
    match generator.randrange(7):
        case 0 | 1:
            os.mkfifo(path)
        case 2:
            path.mkdir()
        case 3:
            path.symlink_to(path.name)
        case 4:
            path.symlink_to("/dev/zero")
        case 5:
            path.symlink_to("nothing")
        case 6:
            path.write_bytes(generator.choice(TEXTS))


def change_index(model: Path, generator: random.Random) -> None:
    """Put an index of several files in the place of the one."""
    (model / "model.safetensors").rename(model / "part-1.safetensors")
    files = [
        "part-1.safetensors",
        "part-2.safetensors",
        "../x.safetensors",
        "part-1.bin",
        None,
        1,
        ["part-1.safetensors"],
    ]
    weight_map = generator.choice(
        [{"a": generator.choice(files), "b": generator.choice(files)}, {}, [], None, "a", ODD[-1]]
    )
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def any_file(model: Path, generator: random.Random) -> Path:
    return generator.choice([path for path in sorted(model.iterdir()) if path.is_file() and not path.is_symlink()])


CHANGES: tuple[Change, ...] = (
    change_json("config.json"),
    change_json("tokenizer.json"),
    change_json("tokenizer_config.json"),
    change_section,
    change_section,
    change_header,
    change_numbers,
    change_bytes,
    replace_text,
    replace_kind,
    change_index,
)


def hostile_model(good: Path, directory: Path, seed: int) -> list[str]:
    """Make the directory of a seed from a good one; what was changed, in words."""
    generator = random.Random(seed)
    shutil.copytree(good, directory)
    done = []
    for change in generator.choices(CHANGES, k=generator.choice((1, 1, 1, 2, 3))):
        try:
            change(directory, generator)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, struct.error):
            continue  # an earlier change has left nothing to change
        done.append(getattr(change, "__qualname__", "").split(".")[0])
    return done
