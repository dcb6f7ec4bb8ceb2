"""The one error a user's mistake raises: what was expected, what was found, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in settings, data or files that the user can mend.

    The scripts print its message without a traceback and end with exit code 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Words for an error about an unknown name: the nearest known one, else all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(map(repr, known))
