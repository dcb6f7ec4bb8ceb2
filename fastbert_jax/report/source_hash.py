"""The hash by which a Content-Security-Policy names a script or a style that stands in a page."""

from __future__ import annotations

import base64
import hashlib


def source_hash(source: str) -> str:
    """Of the text between the tags: `sha256-...`."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
