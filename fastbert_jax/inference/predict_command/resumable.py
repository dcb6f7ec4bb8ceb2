"""Output files that a stopped process can go on with: NAME.partial, and beside it how far it has come."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastbert_jax.atomic_files import atomic_file, lock_file
from fastbert_jax.errors import UserError
from fastbert_jax.inference.predict_command.answer_files import Form
from fastbert_jax.log import info


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """How far a file has come."""

    rows: int = 0
    """Rows of the input that are answered."""
    bytes: int = 0
    """Bytes of the partial file that hold their answers."""
    unreadable: int = 0
    """Rows that had no answer."""
    cut: int = 0
    """Texts that were longer than the model's longest."""
    checksum: str = ""
    """Of the rows that are answered."""


def partial_path(path: Path) -> Path:
    """Where a file is written until it is whole."""
    return path.with_name(f"{path.name}.partial")


def ledger_path(path: Path) -> Path:
    """Where it is kept how far that has come."""
    return path.with_name(f"{path.name}.partial.json")


def finished(path: Path) -> bool:
    """Whether a file is whole and no later one is begun; what a kill at the very end has left beside it is removed."""
    whole = path.exists() and not partial_path(path).exists()
    if whole:
        with _told(path):
            ledger_path(path).unlink(missing_ok=True)
    return whole


@contextlib.contextmanager
def resumable_file(
    path: Path, form: Form, *, work: Mapping[str, Any], resume: bool, make_directory: bool = False
) -> Iterator[Partial]:
    """A file that takes its name when the block ends well, with nothing left beside it.

    When the block does not, or the process is killed, what was added stays, unless that is nothing.

    Args:
      work: what the answers depend on, as JSON values by name; only the same work is gone on with.
      resume: go on with what a stopped process has left, if it has; else start over.
      make_directory: make the file's directory where there is none.

    Raises:
      UserError: the file cannot be written, another process writes it, or what is left is of other work.
    """
    with _told(path):
        if make_directory:
            path.parent.mkdir(parents=True, exist_ok=True)
        partial = Partial(path, form, work=work, resume=resume)
    try:
        yield partial
        with _told(path):
            partial.finish()
    except BaseException as error:
        with _told(path):
            partial.leave(error)
        raise


class Partial:
    """The part of a file that is written; `done` tells how far it has come."""

    def __init__(self, path: Path, form: Form, *, work: Mapping[str, Any], resume: bool) -> None:
        self.done = Done()
        self._path, self._form, self._work = path, form, work
        with contextlib.ExitStack() as stack:
            self._stream = stack.enter_context(open(partial_path(path), "ab", buffering=0))
            lock_file(self._stream, path)
            left = _read_ledger(path)
            if left and resume:
                self.done = self._checked(left)
                info(f"{path}: {self.done.rows} rows were answered before; going on")
            elif left:
                rows = Done(**left["done"]).rows
                info(f"{partial_path(path)}: started over; --resume goes on after its {rows} rows")
            if not self.done.rows:
                ledger_path(path).unlink(missing_ok=True)
            self._stream.truncate(self.done.bytes)
            self._resources = stack.pop_all()
        self._rows_before = self.done.rows

    def _checked(self, left: Mapping[str, Any]) -> Done:
        """How far the file has come, if it is of the same work."""
        there, now = left["work"], json.loads(json.dumps(self._work))
        differences = [
            f"{key}: there {there.get(key)!r}, now {now.get(key)!r}"
            for key in dict.fromkeys([*there, *now])
            if there.get(key) != now.get(key)
        ]
        if differences:
            raise UserError(
                f"{partial_path(self._path)}: expected the settings it was begun with, found {'; '.join(differences)}; "
                "give the same to go on, or leave out --resume to start over"
            )
        done = Done(**left["done"])
        size = os.fstat(self._stream.fileno()).st_size
        if size < done.bytes:
            raise UserError(
                f"{partial_path(self._path)}: expected {done.bytes} bytes or more, found {size}; the file was changed: "
                "leave out --resume to start over"
            )
        return done

    def add(self, piece: bytes, done: Done) -> None:
        """Add the answers to the next rows; when this returns, they are on the disk and outlive the process.

        Args:
          done: how far the file has come with them; `bytes` is filled in here.

        Raises:
          UserError: they cannot be written.
        """
        done = dataclasses.replace(done, bytes=self.done.bytes + len(piece))
        with _told(self._path):
            rest = memoryview(piece)
            while rest:  # without a buffer, a full disk may take only a part at first
                rest = rest[self._stream.write(rest) :]
            os.fsync(self._stream.fileno())
            ledger = ledger_path(self._path)
            with atomic_file(ledger, meanwhile=ledger.with_name(f"{ledger.name}.new")) as stream:
                json.dump({"done": dataclasses.asdict(done), "work": self._work}, stream, indent=2)
        self.done = done

    def finish(self) -> None:
        """Give the file its name, and leave nothing else."""
        partial = partial_path(self._path)
        if self._form.converts:
            with atomic_file(self._path, "wb", meanwhile=partial.with_name(f"{partial.name}.converted")) as stream:
                self._form.convert(partial, stream)
            partial.unlink()
        else:
            os.replace(partial, self._path)
        ledger_path(self._path).unlink(missing_ok=True)
        self._resources.close()

    def leave(self, error: BaseException) -> None:
        """Keep what is done for another process to go on with, and say so; keep nothing where nothing is done."""
        if not self.done.rows:
            partial_path(self._path).unlink(missing_ok=True)
        elif self.done.rows > self._rows_before or isinstance(error, KeyboardInterrupt):
            kept = f"{self.done.rows} rows are answered in {partial_path(self._path)}"
            info(f"{kept}; the same command with --resume goes on after them")
        self._resources.close()


def _read_ledger(path: Path) -> dict[str, Any] | None:
    ledger = ledger_path(path)
    try:
        left = json.loads(ledger.read_text(encoding="utf-8"))
        Done(**left["done"]), dict(left["work"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{ledger}: expected how far {path} has come, found {error}; delete it to start over") from None
    return left


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """An error of the disk in words."""
    try:
        yield
    except OSError as error:
        found = error.strerror or error
        raise UserError(f"{path}: expected a place to write the answers to, found: {found}") from None
