"""What commands say beside their result."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

JsonFile = Annotated[
    str,
    PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[FILE]",
        instance_from_str=lambda words: words[0] if words else "-",
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
    ),
]
"""A file, or `-` for standard output, which the option's name alone means too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuietCommand:
    """A command that can keep quiet."""

    quiet: bool = False
    """Give the result and errors alone: no progress, no notes, no next step."""
