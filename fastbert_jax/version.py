"""The version of the package, for every room to say."""

from __future__ import annotations

import subprocess
from pathlib import Path

VERSION = "0.1.0"


def commit() -> str:
    """The commit that this package was checked out from, with `-dirty` where files differ from it.

    Empty where it was not: an installed release, or no git.
    """
    checked_out = _git("ls-files", Path(__file__).name)  # and not only installed somewhere inside a repository
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") if checked_out else ""


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
