"""Examples in docstrings (`>>> `) as code, which Markdown would take for quotations."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^(?:>>> .*\n)(?:(?!\s*$).*\n?)*", re.MULTILINE)


class Examples(Extension):
    """Fences every example, up to the next empty line."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of whatever has one."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The text with its examples between fences."""
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text + "\n").rstrip()
