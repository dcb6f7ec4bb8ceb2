"""Checksums of the files of a directory, kept in it as `files.json`: what has changed, is gone or is new has a name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fastbert_jax.atomic_files import write_json

FILES = "files.json"


def write_checksums(directory: Path) -> None:
    """Keep the SHA-256 of every file of a directory in it."""
    write_json(directory / FILES, signed({"files": file_checksums(directory)}))


def file_checksums(directory: Path) -> dict[str, str]:
    """SHA-256 of every file in a directory, by its path there, without `files.json` itself."""
    sums = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != FILES:
            with open(path, "rb") as stream:
                sums[path.relative_to(directory).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums


def wrong_files(directory: Path, *, may_come: frozenset[str] = frozenset()) -> list[str]:
    """What has happened to the files of a directory since `write_checksums`, in sentences that name them.

    Args:
      may_come: files that may be there or not.
    """
    try:
        listed = json.loads((directory / FILES).read_text(encoding="utf-8"))
        if listed != signed({"files": listed["files"]}):
            raise ValueError("something else than was written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{directory / FILES}: expected checksums of files, found {error}"]
    expected, found = listed["files"], file_checksums(directory)
    return [
        f"{directory / name}: expected the file that was saved, found "
        + ("none" if name not in found else "a file more" if name not in expected else "other bytes")
        for name in sorted({*found, *expected} - may_come)
        if found.get(name) != expected.get(name)
    ]


def signed(about: dict[str, Any]) -> dict[str, Any]:
    """The same with a checksum over all of it."""
    return about | {"sha256": hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()}
