"""Texts, and labelled texts: what a text is, what makes a row unreadable, and when two texts are the same."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fastbert_jax.config_yaml import shown
from fastbert_jax.errors import UserError

Text = str | tuple[str, str]
"""One text, or a pair of texts."""
MOST_CHARACTERS = 1_000_000
"""Characters of a text, or of each of a pair, that are tokenised; the rest is cut, as it is beyond any model's length.
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A text with its label, if it has one."""

    text: Text
    label: str | None
    where: str
    """The place it came from, such as `train.tsv:17`."""
    kept: tuple[Any, ...] = ()
    """The values of the columns that the reader was asked to keep."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that holds no example, and what is wrong with it."""

    where: str
    problem: str
    kept: tuple[Any, ...] = ()
    """As those of an `Example`, where they can be read."""


def same_text(text: Text) -> Text:
    """A key that texts share when they differ in blanks and case only."""
    if isinstance(text, tuple):
        return " ".join(text[0].split()).casefold(), " ".join(text[1].split()).casefold()
    return " ".join(text.split()).casefold()


Item = TypeVar("Item", Text, Example | Unreadable)


def is_too_long(text: Text) -> bool:
    """Whether a text, or one of a pair, has more than `MOST_CHARACTERS`."""
    return any(len(part) > MOST_CHARACTERS for part in ((text,) if isinstance(text, str) else text))


def is_blank(text: Text) -> bool:
    """Whether a text, or both of a pair, are blanks or nothing."""
    return not (text.strip() if isinstance(text, str) else any(part.strip() for part in text))


def share(count: int, total: int) -> str:
    """A count with its part of the whole: `12 of 200 (6.0 %)`."""
    return f"{count} of {total} ({100 * count / total:.1f} %)"


def label_name(value: Any) -> str | None:
    """The name of a label: a string without outer blanks, a number or boolean as JSON writes it; None for all else."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return None if not math.isfinite(value) else str(int(value)) if value.is_integer() else str(value)
        case str():
            return value.strip() or None
    return None


def is_fraction(label: str) -> bool:
    """Whether the name of a label is a number with a fraction."""
    return re.fullmatch(r"[-+]?\d*[.,]\d*[1-9]\d*", label) is not None


def text_problem(text: object) -> str | None:
    """Why `text` is not a `Text`, such as `expected a text, found none (null)`; None when it is one.

    Readers decode with `surrogateescape`, so a byte that is not UTF-8 appears here as a lone surrogate.
    """
    if isinstance(text, tuple):
        if len(text) != 2:
            return f"expected a text or a pair of texts, found {len(text)} of them"
        return _string_problem(text[0]) or _string_problem(text[1])
    return _string_problem(text)


def chunks(items: Iterable[Item], *, rows: int, characters: int) -> Iterator[list[Item]]:
    """Texts or rows in pieces: a piece ends with the item that reaches so many rows, or so many characters in all."""
    chunk: list[Item] = []
    size = 0
    for item in items:
        chunk.append(item)
        text = item.text if isinstance(item, Example) else "" if isinstance(item, Unreadable) else item
        size += len(text) if isinstance(text, str) else sum(map(len, text))
        if len(chunk) >= rows or size >= characters:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def checked_texts(texts: Iterable[Text]) -> list[Text]:
    """The texts as a list; the only check of texts that a caller passes, as rows of files are checked when read.

    Raises:
      UserError: not a list, a single string or pair, an item that is neither a string nor a pair (tuple) of strings, or
        one that is not valid Unicode.
    """
    is_pair = isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(text, str) for text in texts)
    # These iterate over something else than texts in their order: keys, names of columns, bytes.
    is_table = isinstance(texts, Mapping) or getattr(texts, "ndim", 1) != 1
    is_other = is_table or isinstance(texts, str | set | frozenset | bytes | bytearray | memoryview)
    if is_pair or is_other or not isinstance(texts, Iterable):
        raise UserError(
            f"texts: expected a list of texts, found the {type(texts).__name__} {shown(texts)}; write [text] or "
            "[(text, pair)], pass one column of a table, list(table['text']), or a list of them in their order"
        )
    texts = list(texts)
    for position, text in enumerate(texts):
        if problem := text_problem(text):
            raise UserError(f"texts[{position}]: {problem}; a text is a string or a pair (tuple) of strings")
    return texts


def _string_problem(text: object) -> str | None:
    if text is None:
        return "expected a text, found none (null)"
    if not isinstance(text, str):
        return f"expected a text, found the {type(text).__name__} {str(text)[:40]!r}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"expected UTF-8, found the byte 0x{code - 0xDC00:02x} at character {error.start + 1} of the text"
        return (
            f"expected Unicode, found half a surrogate pair (U+{code:04X}) at character {error.start + 1} of the text"
        )
    return None
