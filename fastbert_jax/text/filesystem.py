"""Where files are: on this machine, or behind any `scheme://` that fsspec knows, such as `gs://` and `s3://`."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fastbert_jax.errors import UserError

Place = Path | str
"""A local path, or the URL of a remote file."""


def place_of(name: str | Path) -> Place:
    """What a name stands for; `~` is the user's home."""
    return str(name) if "://" in str(name) else Path(name).expanduser()


def is_file(place: Place) -> bool:
    """Whether there is a file.

    Raises:
      UserError: its file system cannot be asked.
    """
    if isinstance(place, Path):
        return place.is_file()
    with _told(place) as (system, path):
        return system.isfile(path)


def is_directory(place: Place) -> bool:
    """Whether there is a directory.

    Raises:
      UserError: its file system cannot be asked.
    """
    if isinstance(place, Path):
        return place.is_dir()
    with _told(place) as (system, path):
        return system.isdir(path)


def size_of(place: Place) -> int:
    """The bytes of a file.

    Raises:
      UserError: its file system cannot be asked, or the file is not there.
    """
    if isinstance(place, Path):
        try:
            return place.stat().st_size
        except OSError as error:
            raise UserError(f"{place}: expected a file, found: {error.strerror}; check the path") from None
    with _told(place) as (system, path):
        return int(system.size(path))


def open_bytes(place: Place) -> BinaryIO:
    """The bytes of a file, to read and to seek in.

    Raises:
      OSError: the file cannot be opened.
      UserError: its file system cannot be asked.
    """
    if isinstance(place, Path):
        return open(place, "rb")
    with _told(place) as (system, path):
        return system.open(path, "rb")


@contextlib.contextmanager
def local_copy(place: Place) -> Iterator[Path]:
    """A file as a local one, for readers that take nothing else; the copy of a remote one goes when the block ends."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="fastbert_jax_") as directory:
        copy = Path(directory) / Path(place).name
        with _told(place) as (system, path):
            system.get_file(path, str(copy))
        yield copy


def expand(patterns: tuple[str, ...], *, key: str) -> list[str]:
    """The names of the files that some names and patterns (`*`, `?`, `[...]`, `**`) stand for, each pattern's sorted.

    Args:
      key: what the user calls the patterns, for the errors.

    Raises:
      UserError: a pattern that no file matches, a file that is named twice, or a file system that cannot be asked.
    """
    found = [name for pattern in patterns for name in _expanded(pattern, key)]
    twice = [name for name in dict.fromkeys(found) if found.count(name) > 1] if len(set(found)) < len(found) else []
    if twice:
        raise UserError(f"{key}: expected each file once, found {twice[0]} twice; leave one out")
    return found


def _expanded(pattern: str, key: str) -> list[str]:
    place = place_of(pattern)
    if not glob.has_magic(pattern) or is_file(place):
        return [str(place)]
    if isinstance(place, Path):
        found = [name for name in glob.glob(str(place), recursive=True) if os.path.isfile(name)]
    else:
        with _told(place) as (system, path):
            found = [system.unstrip_protocol(name) for name in system.glob(path) if system.isfile(name)]
    if not found:
        raise UserError(f"{key}: expected files, found none that match {pattern!r}; check the path")
    return sorted(found)


@contextlib.contextmanager
def _told(url: str) -> Iterator[tuple[Any, str]]:
    """fsspec's file system of a URL and the path in it; its errors in words, but for those of opening a file."""
    from fsspec.core import url_to_fs

    try:
        yield url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{url}: expected a scheme:// that fsspec can read here, found: {error}; install what it names"
        ) from None
    except FileNotFoundError:
        raise UserError(f"expected a file, found nothing at {url}; check the path") from None
