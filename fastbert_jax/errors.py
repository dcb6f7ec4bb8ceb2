"""How a command ends early: by a user's mistake (expected, found, what to do), or asked to stop."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """A mistake in settings, data or files that the user can mend.

    The scripts print its message without a traceback and end with exit code 2.
    """


class PreemptedError(BaseException):
    """The process was asked to stop (SIGTERM), and all that it did is saved: the same command goes on.

    The scripts print its message and end with exit code 42, which launchers can take as "start me again". It comes out
    of a signal, as KeyboardInterrupt does, so no `except Exception` may take it for its own.
    """


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like an unknown one, first of all one of the same letters; None where none is."""
    like = difflib.get_close_matches(name, list(known))
    return max(like, key=lambda other: sorted(other) == sorted(name), default=None)


def nearest(name: str, known: Iterable[str]) -> str:
    """Words for an error about an unknown name: the nearest known one, else all of them."""
    known = list(known)
    close = closest(name, known)
    return f"did you mean {close!r}?" if close else "known: " + ", ".join(map(repr, known))


@contextlib.contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Wrap the import of a package that only an extra of pyproject.toml installs; `purpose` names what needs it.

    Raises:
      UserError: a package is not installed; with the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"{purpose}: the Python package {error.name} is not installed; "
            f'install it with `pip install "fastbert-jax[{extra}]"`'
        ) from None
