"""The lines of a text file: its encoding, its line ends, and what no text file begins with."""

from __future__ import annotations

import codecs
import contextlib
import functools
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from fastbert_jax.config import AUTO_ENCODING, COMPRESSED_ENDINGS
from fastbert_jax.errors import UserError
from fastbert_jax.log import say_once
from fastbert_jax.text.filesystem import Place, reading

Item = TypeVar("Item")

HEAD_ROWS = 1000
"""Rows at the beginning that may be looked at before reading."""
HEAD_CHARACTERS = 2**22
"""The head ends with the row that reaches so many characters."""
LONGEST_LINE = 2**28
"""Characters of a line: room for any text, but a small file may not unpack to an endless one."""
SNIFFED = 2**16
"""Bytes that are looked at to find encoding and line ends."""
ENCODING_FLAGS = "--encoding latin-1 (train: --data.encoding latin-1)"
"""How another encoding is named; Latin-1 is an example."""
UNPACK = f"unpack it, or let its name end in {' or '.join(COMPRESSED_ENDINGS)} where it is gzip or zstd"
FOREIGN = {
    rb"version https://git-lfs": "a Git LFS pointer in place of the file; fetch the file: git lfs pull",
    rb"PK(\x03\x04|\x05\x06)": "a zip archive or an Excel file; unpack it, or save the sheet as CSV",
    rb"\xd0\xcf\x11\xe0": "an old Excel or Word file; save the sheet as CSV",
    rb"\x1f\x8b|\x28\xb5\x2f\xfd|BZh\d1AY|\xfd7zXZ|7z\xbc\xaf|.{257}ustar": f"compressed bytes or an archive; {UNPACK}",
    rb"%PDF-\d": "a PDF; save its text",
    rb"PAR1[\x00-\x1f]": "a Parquet file; let its name end in .parquet",
    rb"SQLite format 3\x00": "an SQLite database; export its table as CSV",
    rb"ARROW1\x00|\x89HDF|\x93NUMPY|\x80[\x02-\x05]": "a file of another program; save its table as CSV",
}
"""How files that hold no text begin, what they are, and what to do."""
MARKUP = re.compile(rb"\s*<(!doctype|html|\?xml)\b", re.IGNORECASE)


def whole_lines(stream: BinaryIO, name: Place, *, newline: str, encoding: str, markup: bool = True) -> Iterator[str]:
    """Lines with their endings; a byte that is not of the encoding becomes a lone surrogate.

    Args:
      name: the stream in errors.
      newline: the only character that ends a line, unless the file has lone carriage returns instead; empty: any of
        Python's line endings.
      encoding: `auto`: UTF-8, or what the file's byte order mark says.
      markup: whether a first line of HTML is a line like any other.

    Raises:
      UserError: a line is longer than `LONGEST_LINE`, the stream cannot be read, or it is no text of this encoding.
    """
    stream = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
    with reading(name):
        first = stream.peek(SNIFFED)[:SNIFFED]
    if problem := foreign(first, markup=markup):
        raise UserError(f"{name}: expected UTF-8, found {problem}")
    codec = _codec(first, name, encoding)
    sample = first.decode(codec, "ignore").rstrip("\r")
    if "\r" in sample and "\n" not in sample:
        newline = ""
    text = io.TextIOWrapper(stream, encoding=codec, errors="surrogateescape", newline=newline)
    try:
        with reading(name):
            for number, line in enumerate(iter(functools.partial(text.readline, LONGEST_LINE + 1), ""), start=1):
                if len(line) > LONGEST_LINE:
                    raise UserError(
                        f"{name}:{number}: expected lines of at most {LONGEST_LINE:,} characters, found a longer one; "
                        "cut it into texts, one a line"
                    )
                yield line
    except UnicodeError as error:
        raise UserError(
            f"{name}: expected {codec}, found other bytes ({error}); name the file's encoding, such as {ENCODING_FLAGS}"
        ) from None
    finally:
        with contextlib.suppress(ValueError, UnicodeError):  # the stream is closed already, or cannot be decoded
            text.detach()  # else it is closed with the wrapper


def foreign(first: bytes, *, markup: bool = False) -> str:
    """What a file is that begins with these bytes, and what to do; empty where it may be text.

    Args:
      markup: whether HTML is text.
    """
    for pattern, words in FOREIGN.items():
        if re.match(pattern, first, re.DOTALL):
            return words
    if not markup and MARKUP.match(first):
        return "a web page (HTML or XML); download the file itself"
    return ""


def _codec(first: bytes, name: Place, encoding: str) -> str:
    """Python's name of the encoding of a stream that begins with `first`."""
    marked = json.detect_encoding(first)
    if marked in ("utf-8-sig", "utf-16", "utf-32"):  # by a byte order mark
        return marked
    if encoding != AUTO_ENCODING:
        return _named_codec(first, name, encoding)
    often_zero = [first[place::4].count(0) >= max(2, len(first) / 10) for place in range(4)]  # as of ASCII characters
    found = json.detect_encoding(bytes(not zero for zero in often_zero))
    if found != "utf-8":
        raise UserError(
            f"{name}: expected UTF-8, found {found[:6].upper()} without a byte order mark; name it: --encoding {found} "
            f"(train: --data.encoding {found})"
        )
    return "utf-8-sig"


def _named_codec(first: bytes, name: Place, encoding: str) -> str:
    try:
        codec = io.TextIOWrapper(io.BytesIO(), encoding=encoding).encoding
    except (LookupError, ValueError):
        raise UserError(
            "--encoding (train: --data.encoding): expected one that Python knows, such as latin-1 or utf-16, "
            f"found {encoding!r}"
        ) from None
    with contextlib.suppress(UnicodeDecodeError):
        codecs.getincrementaldecoder("utf-8")().decode(first)
        if not first.isascii() and "utf" not in codec.lower():
            say_once(f"{name}: read as {encoding}, as --encoding says, but its bytes look like UTF-8")
    return codec


def numbered(lines: Iterator[str], name: Place) -> Iterator[tuple[str, str]]:
    r"""The place of each line, and the line without its ending (\n, \r\n or, in a file without \n, \r)."""
    ends, told = set(), False
    for number, line in enumerate(lines, start=1):
        where = f"{name}:{number}"
        text = line.removesuffix("\n").rstrip("\r") if line.endswith(("\n", "\r")) else line
        ends.add(line[-1])
        if "\r" in text and not told:
            told = True
            say_once(
                f"{where}: the line holds a carriage return (\\r) inside; each such line is read as one row. If it is "
                "the end of a line, save the file again with one kind of them"
            )
        yield where, text
    if ends >= {"\r", "\n"}:
        say_once(f"{name}: some lines end in a carriage return (\\r), others in a line feed; each of them ends a row")


def head_of(items: Iterator[Item], size: Callable[[Item], int]) -> tuple[list[Item], Iterator[Item]]:
    """The first items of a stream, and all of them, the first ones again."""
    head: list[Item] = []
    room = HEAD_CHARACTERS
    for item in itertools.islice(items, HEAD_ROWS):
        head.append(item)
        room -= size(item)
        if room <= 0:
            break
    return head, itertools.chain(head, items)
