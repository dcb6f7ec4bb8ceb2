"""The version of the package and the commit of its source."""

from __future__ import annotations

import subprocess
from pathlib import Path

VERSION = "0.1.0"


def commit() -> str:
    """The commit that this package was checked out from, with `-dirty` if files differ from it.

    Empty for an installed release, or without git.
    """
    checked_out = _git("ls-files", Path(__file__).name)  # empty for a package installed inside another repository
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") if checked_out else ""


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
