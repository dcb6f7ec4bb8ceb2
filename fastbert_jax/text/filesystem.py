"""Files, local or behind any `scheme://` that fsspec knows (`gs://`, `s3://`), plain or compressed (.gz, .zst)."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastbert_jax.atomic_files import user_path
from fastbert_jax.config import COMPRESSED_ENDINGS
from fastbert_jax.errors import UserError

Place = Path | str
"""A local path, or the URL of a remote file."""
CODECS = dict(zip(COMPRESSED_ENDINGS, ("gzip", "zstd"), strict=True))
"""Arrow's name of the compression by the ending of a file's name."""
LEVELS = {"gzip": 6, "zstd": 3}
"""Compression levels: the defaults of the programs gzip and zstd."""
BUFFER = 2**16


def place_of(name: str | Path) -> Place:
    """The file that a name means; `~` is the user's home. Raises `UserError` for a home that is unknown."""
    return str(name) if "://" in str(name) else user_path(name)


def is_file(place: Place) -> bool:
    """Whether there is a file. Raises `UserError` when its file system cannot be reached."""
    with _file_system(place) as (system, path):
        return bool(system.isfile(path))


def size_of(place: Place) -> int:
    """The bytes of a file. Raises `UserError` when there is no file, or its file system cannot be reached."""
    with _file_system(place) as (system, path):
        if not system.isfile(path):
            if system.isdir(path):
                raise UserError(
                    f"expected a file, found a directory at {place}; name its files, such as '{place}/*.csv'"
                )
            raise UserError(f"expected a file, found nothing at {place}; check the path")
        return int(system.size(path))


def open_bytes(place: Place) -> io.BufferedReader:
    """The bytes of a file before compression, of all its gzip members or zstd frames; of a plain file, as it is.

    Errors of reading are `OSError`; a `reading(place)` block explains them.

    Raises:
      UserError: the file cannot be opened, or its file system cannot be reached.
    """
    with reading(place), _file_system(place) as (system, path):
        stream: Any = open(place, "rb", BUFFER) if isinstance(place, Path) else system.open(path, "rb")
        if codec := codec_of(place):
            import pyarrow as pa

            stream = pa.CompressedInputStream(stream, codec)
        # Other streams cannot bound the length of a line.
        return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream, BUFFER)


@contextlib.contextmanager
def reading(place: Place, kind: str = "", damage: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Turns errors of reading a file into `UserError`: it cannot be read, or is damaged or cut short.

    Args:
      kind: what the file is, with its article; empty: what its ending says of its compression.
      damage: what its reader raises for one that is damaged.
    """
    try:
        yield
    except damage as error:
        reason = getattr(error, "strerror", None)  # of the disk; a decoder gives none
        if reason is None and (kind or codec_of(place)):
            found = f"a damaged one ({str(error).strip()}); copy it again"
            raise UserError(f"{place}: expected {kind or f'a {codec_of(place)}'} file, found {found}") from None
        raise UserError(f"{place}: expected a readable file, found {reason or error}") from None


@contextlib.contextmanager
def local_copy(place: Place) -> Iterator[Path]:
    """A file as a local one, for libraries that need a path; the copy of a remote file is removed after the block."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="fastbert_jax_") as directory:
        copy = Path(directory) / Path(place).name
        with _file_system(place) as (system, path):
            system.get_file(path, str(copy))
        yield copy


def codec_of(path: str | Path) -> str | None:
    """The compression that the ending of a file's name stands for; None for a plain file."""
    return CODECS.get(Path(path).suffix.lower())


def without_compression(path: str | Path) -> Path:
    """A file's name without the ending of its compression: `a.csv` for `a.csv.gz`."""
    path = Path(path)
    return path.with_suffix("") if codec_of(path) else path


def compressed(piece: bytes, codec: str) -> bytes:
    """A piece as one gzip member or zstd frame, always the same bytes; pieces may be joined and cut off."""
    import pyarrow as pa

    return bytes(pa.Codec(codec, compression_level=LEVELS[codec]).compress(piece, asbytes=True))


def expand(patterns: tuple[str, ...], *, key: str) -> list[str]:
    """The files that names and patterns (`*`, `?`, `[...]`, `**`) stand for; those of a pattern are sorted.

    Args:
      key: the option that holds the patterns, for the errors.

    Raises:
      UserError: a pattern that matches no file, a file that is named twice, or a file system that cannot be reached.
    """
    found: list[str] = []
    for pattern in patterns:
        place = place_of(pattern)
        if not glob.has_magic(pattern) or is_file(place):
            matches = [str(place)]
        elif isinstance(place, Path):
            matches = [name for name in glob.glob(str(place), recursive=True) if os.path.isfile(name)]
        else:
            with _file_system(place) as (system, path):
                matches = [system.unstrip_protocol(name) for name in system.glob(path) if system.isfile(name)]
        if not matches:
            raise UserError(f"{key}: expected files, found none that match {pattern!r}; check the path")
        found += sorted(matches)
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        raise UserError(f"{key}: expected each file once, found {twice[0]} twice; leave one out")
    return found


@contextlib.contextmanager
def _file_system(place: Place) -> Iterator[tuple[Any, str]]:
    """fsspec's file system of a file and the path in it; turns its errors into `UserError`."""
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    try:
        yield (LocalFileSystem(), str(place)) if isinstance(place, Path) else url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{place}: expected a scheme:// that fsspec can read here, found: {error}; install the package it names"
        ) from None
    except FileNotFoundError:
        raise UserError(f"expected a file, found nothing at {place}; check the path") from None
    except UserError:
        raise
    except Exception as error:  # each file system has its own, for a network that is down or credentials that are wrong
        if isinstance(place, Path):
            raise
        found = f"{type(error).__name__}: {str(error).strip()}"
        raise UserError(f"{place}: expected a file system that can be reached, found {found}") from error
