"""Files and directories that appear whole or not at all, whatever ends the process or fills the disk."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fastbert_jax.errors import UserError


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "w", *, meanwhile: Path | None = None) -> Iterator[IO[Any]]:
    """A file to write that takes its name, and the place of one that has it, when the block ends well.

    It is then on the disk, so that a power cut cannot empty it. When the block does not end well, nothing is left; a
    kill leaves a file that `is_unfinished`.

    Args:
      mode: `w` for UTF-8 text, `wb` for bytes.
      meanwhile: what it is called until then, beside `path`; none: a name that no other process takes.

    Raises:
      OSError: the file cannot be written.
    """
    unfinished = meanwhile or path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with open(unfinished, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A directory to fill that takes its name, and the place of an empty one that has it, when the block ends well.

    When it does not, nothing is left; a kill leaves a directory that `is_unfinished`.

    Raises:
      OSError: the directory cannot be made, or its place is taken.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_unused(directory: Path, key: str) -> None:
    """Raise `UserError` unless a directory is new or empty; `key` is the setting that names it."""
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise UserError(f"{key} {directory}: expected a new or an empty directory, found one in use; name another")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole."""
    with atomic_file(path) as stream:
        stream.write(text)


def write_json(path: Path, values: object) -> None:
    """Write values as an indented JSON file, whole."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def lock_file(stream: IO[Any], name: Path) -> None:
    """Lock an open file until it is closed; on a file system that knows no locks, do nothing.

    Args:
      name: what is locked, in words.

    Raises:
      UserError: another process has locked it.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{name}: expected to be the only one to write it, found another process that does") from None
    except OSError:
        pass


def is_unfinished(path: Path) -> bool:
    """Whether a file or directory is what a killed process left of one."""
    return path.name.startswith(".") and path.name.endswith(".unfinished")
