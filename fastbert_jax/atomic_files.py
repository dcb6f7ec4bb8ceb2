"""Files that are complete or not there at all, locks on them, and checksums that find a file changed since.

A file or directory is written under the name `.NAME.PROCESS.unfinished` and then renamed, so that neither a kill nor a
full disk leaves half of it under its name. A kill leaves the unfinished one, which `remove_unfinished` deletes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from fastbert_jax.config import require_local
from fastbert_jax.errors import UserError
from fastbert_jax.log import status

CHECKSUMS = "files.json"
"""The checksums of a directory's files, in that directory."""
MAKE_ROOM = "\nMake room or mend the directory, then run the same command again."
"""What to do where `unless_refused` ends a run."""


def user_path(name: str | Path) -> Path:
    """The local path that a name means; `~` is the user's home.

    Raises:
      UserError: there is no such home, or the name is a URL.
    """
    require_local(str(name), str(name))
    try:
        return Path(name).expanduser()
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{name}: expected a path, found a ~ that stands for no home ({error}); write all of it"
        ) from None


@contextlib.contextmanager
def atomic_path(path: Path, *, keeps_link: bool = True) -> Iterator[Path]:
    """The path at which to write a file or directory that becomes `path` when the block succeeds.

    It is then on the disk, so that a power cut cannot empty it. It replaces a file or an empty directory. When the
    block fails, nothing is left.

    Args:
      keeps_link: whether a link stays and what it leads to is replaced; false: the link is.

    Raises:
      OSError: `path` cannot be replaced.
    """
    path, unfinished = _places(path, keeps_link)
    try:
        yield unfinished
        flush(unfinished)
        os.replace(unfinished, path)
        flush(path.parent)
    finally:
        _remove(unfinished)


def _places(path: Path, keeps_link: bool = True) -> tuple[Path, Path]:
    """What is replaced, `path` or the target of that link, and where it is written before."""
    if "\0" in str(path):  # Python calls it a ValueError, unlike every other bad name
        raise OSError("its name has a null character")
    if keeps_link and path.is_symlink():
        path = Path(os.path.realpath(path))
    return path, path.with_name(f".{path.name}.{os.getpid()}.unfinished")


@contextlib.contextmanager
def unless_refused(place: Path | str, action: str, *, remedy: str = "") -> Iterator[None]:
    """Say which action failed, such as "write the answers there", where the file system refuses it in the block.

    Raises:
      UserError: an `OSError`, or a name that the file system cannot encode.
    """
    try:
        yield
    except (OSError, UnicodeError) as error:
        found = (isinstance(error, OSError) and error.strerror) or error
        raise UserError(f"{place}: cannot {action}: {found}{remedy}") from error


def check_place(path: Path) -> None:
    """Find out whether `atomic_file` could write a file now, in a directory that is there or can be made.

    Raises:
      OSError: it could not.
    """
    path, unfinished = _places(path)
    if path.exists() and not path.is_file():
        raise OSError("it is a directory" if path.is_dir() else "it is there, and no regular file")
    try:
        open(unfinished, "wb").close()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        open(unfinished, "wb").close()
    unfinished.unlink()


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write, which becomes `path` as `atomic_path` describes.

    Args:
      mode: `w` for UTF-8 text, `wb` for bytes.

    Raises:
      OSError: the file cannot be written.
    """
    with atomic_path(path) as unfinished:
        with open(unfinished, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `path` as `atomic_path` describes.

    Raises:
      OSError: the directory cannot be made, or there is already one that is not empty.
    """
    with atomic_path(path) as unfinished:
        unfinished.mkdir(parents=True)
        yield unfinished


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with atomic_file(path) as stream:
        stream.write(text)


def write_json(path: Path, values: object) -> None:
    """Write values as an indented JSON file."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_file(path: Path) -> bytes:
    """The content of a file.

    Raises:
      OSError: it cannot be read, or is no regular file: to read a FIFO would never end.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"expected a regular file at {path}, found something else")
    return path.read_bytes()


def is_unfinished(path: Path) -> bool:
    """Whether a killed process left this file or directory unfinished."""
    return path.name.startswith(".") and path.name.endswith(".unfinished")


def remove_unfinished(directory: Path) -> None:
    """Remove what killed processes left unfinished in a directory, which no other process may be writing to."""
    for path in directory.iterdir():
        if is_unfinished(path):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file is on the disk: without it, a power cut can leave an empty file under the new name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_aside(path: Path, problem: str, then: str = "") -> None:
    """Rename what is damaged to NAME.damaged, or NAME.damaged.2 and so on, with a warning: nothing is lost.

    Args:
      problem: what is wrong with it.
      then: the end of the warning, what happens now.

    Raises:
      OSError: it cannot be renamed.
    """
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.damaged.{number}")
    path.rename(aside)
    status(f"warning: {path}: {problem}\nIt is now {aside.name}{then}")


def check_unused(directory: Path, key: str) -> None:
    """Raise `UserError` unless a directory is new or empty; `key` is the setting that names it."""
    if os.path.exists(directory) and not (directory.is_dir() and not any(directory.iterdir())):
        raise UserError(f"{key} {directory}: expected a new or an empty directory, found one in use; name another")


def lock_file(stream: IO[Any], name: Path) -> None:
    """Lock an open file until it is closed. Without effect on a file system that has no locks.

    Args:
      name: what is locked, for the error.

    Raises:
      UserError: another process has locked it.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{name} is locked by another process; wait for it to end, or stop it") from None
    except OSError:
        pass


def write_checksums(directory: Path) -> None:
    """Write the SHA-256 of every file in a directory to its `files.json`."""
    sums = _checksums(directory)
    write_json(directory / CHECKSUMS, {"files": sums, "sha256": _sha256_of_sums(sums)})


def changed_files(
    directory: Path, *, may_change: frozenset[str] = frozenset(), most_bytes: float = math.inf
) -> list[str]:
    """What differs in a directory from when `write_checksums` was called, a sentence for each file.

    Args:
      may_change: files that are not looked at.
      most_bytes: of larger files only the names are compared.
    """
    try:
        listed = json.loads(read_file(directory / CHECKSUMS))
        expected = dict(listed["files"])
        if listed != {"files": expected, "sha256": _sha256_of_sums(expected)}:
            raise ValueError("other values than were written")
        found = {name: digest or expected.get(name) for name, digest in _checksums(directory, most_bytes).items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return [f"{directory / CHECKSUMS}: expected checksums of files, found {error}"]
    return [
        f"{directory / name}: expected the file that was saved, found "
        + ("none" if name not in found else "a new file" if name not in expected else "other bytes")
        for name in sorted({*found, *expected} - may_change)
        if found.get(name) != expected.get(name)
    ]


def _checksums(directory: Path, most_bytes: float = math.inf) -> dict[str, str | None]:
    """The SHA-256 of each file by its name; None of files of more bytes."""
    sums: dict[str, str | None] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != CHECKSUMS:
            name = path.relative_to(directory).as_posix()
            sums[name] = sha256_of(path) if path.stat().st_size <= most_bytes else None
    return sums


def sha256_of(path: Path) -> str:
    """The checksum of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256_of_sums(sums: Mapping[str, str | None]) -> str:
    return hashlib.sha256(json.dumps({"files": sums}, sort_keys=True).encode()).hexdigest()
