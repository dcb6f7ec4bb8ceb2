"""An extension of mkdocstrings that shows the examples in docstrings as code."""

from __future__ import annotations

from typing import Any

from griffe import Extension, Object

from docs.hooks.pages import fenced


class Examples(Extension):
    """Fences the examples in every docstring."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
