"""The exceptions that end a command early: a user's mistake, a request to stop, and the loss of another process."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

SCRIPTS = ("train", "infer")
"""The two programs: `train.py` and `infer.py` in a clone, `fastbert-train` and `fastbert-infer` where installed."""


class UserError(Exception):
    """A mistake in settings, data or files that the user can correct; the message says how.

    The scripts print its message without a traceback and end with exit code 2.
    """


class PreemptedError(BaseException):
    """The process was asked to stop by SIGTERM, and its work is saved: the same command continues it.

    The scripts print its message and end with exit code 42, by which launchers know to start them again. As it comes
    from a signal, it is no `Exception`, like KeyboardInterrupt after Ctrl-C: `except Exception` does not catch it.
    """


class LostProcessError(Exception):
    """Another process of the run has ended or cannot be reached any more.

    The scripts print its message without a traceback and end with exit code 1, after which launchers start them again.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the most similar known one, else all of them."""
    known = list(known)
    like = difflib.get_close_matches(name, known)
    if like:  # of equally similar ones, the one with the same letters
        return f"did you mean {max(like, key=lambda other: sorted(other) == sorted(name))!r}?"
    return "known: " + ", ".join(map(repr, known))


def program_name(script: str) -> str:
    """What a user types to start one of `SCRIPTS`: `python infer.py` in a clone, else `fastbert-infer`."""
    started = Path(sys.argv[0]).name
    in_clone = (Path(__file__).parent.parent / f"{script}.py").is_file() and not started.startswith("fastbert-")
    return f"python {script}.py" if in_clone or started in ("train.py", "infer.py") else f"fastbert-{script}"


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
