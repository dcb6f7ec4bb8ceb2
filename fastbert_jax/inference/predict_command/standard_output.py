"""Answers to standard output, for people and for pipes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO

from fastbert_jax.errors import UserError
from fastbert_jax.inference.predict_command.resumable import Done


class StandardOutput:
    """What a file's `Partial` is, for standard output, which nobody can go on with."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.done = Done()
        self._stream = stream

    def add(self, piece: bytes, done: Done) -> None:
        """Write the answers to the next rows."""
        self._stream.write(piece)
        self._stream.flush()
        self.done = done


@contextlib.contextmanager
def standard_output() -> Iterator[StandardOutput]:
    """Standard output for the block, which ends early and in silence when a reader such as `head` has enough.

    Raises:
      UserError: it leads to a file that cannot be written.
    """
    try:
        with open(sys.stdout.fileno(), "wb", closefd=False) as stream:
            yield StandardOutput(stream)
    except BrokenPipeError:  # what is still in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise UserError(f"stdout: expected a place to write the answers to, found: {error.strerror}") from None
