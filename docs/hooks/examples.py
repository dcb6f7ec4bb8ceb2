"""Examples in docstrings as code: what mkdocstrings lets in between reading the sources and showing them."""

from __future__ import annotations

from typing import Any

from griffe import Extension, Object

from docs.hooks.pages import fenced


class Examples(Extension):
    """Fences the examples of whatever has a docstring."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
