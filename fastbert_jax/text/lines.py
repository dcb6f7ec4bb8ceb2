"""Lines of a stream of bytes, of bounded length."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import IO, AnyStr, BinaryIO

from fastbert_jax.errors import UserError

BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 2**28
"""Bytes (of .csv files, characters) of a line: room for any text, and a file that unpacks to one endless line stops."""


def lines_of(stream: BinaryIO, name: str) -> Iterator[str]:
    r"""Lines without their ending (\n or \r\n); bytes that are no UTF-8 become lone surrogates.

    Args:
      name: what the stream is called in errors.

    Raises:
      UserError: a line is longer than `LONGEST_LINE`.
    """
    for number, line in enumerate(bounded(stream, name)):
        if number == 0:
            line = line.removeprefix(BOM)
        if line.endswith(b"\n"):
            line = line[:-1].removesuffix(b"\r")
        yield line.decode("utf-8", "surrogateescape")


def bounded(stream: IO[AnyStr], name: str) -> Iterator[AnyStr]:
    """The lines of a stream with their endings.

    Raises:
      UserError: a line is longer than `LONGEST_LINE`.
    """
    lines = iter(functools.partial(stream.readline, LONGEST_LINE + 1), stream.read(0))
    for number, line in enumerate(lines, start=1):
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"{name}:{number}: expected lines of at most {LONGEST_LINE:,} bytes, found a longer one; cut it into "
                "texts, one a line"
            )
        yield line
