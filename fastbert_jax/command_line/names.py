"""Which options and commands there are, and the nearest one to a word that is none of them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence

import tyro

from fastbert_jax.errors import UserError, closest

EVERYWHERE = ("--help", "--version")


def option_names(schema: type, prefix: str = "--") -> Iterator[str]:
    """The options of a dataclass of settings as they are typed, those of the dataclasses in it included."""
    hints = typing.get_type_hints(schema, include_extras=True)
    for field in dataclasses.fields(schema):
        kind, *extras = _parts(hints[field.name])
        name = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(kind):
            flat = any(getattr(extra, "name", None) == "" for extra in extras)
            yield from option_names(typing.cast(type, kind), prefix if flat else f"{name}.")
        elif tyro.conf.Positional not in extras:
            yield name


def _parts(hint: typing.Any) -> tuple[typing.Any, ...]:
    """A type, and what `Annotated` says about it."""
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)


def refuse_unknown_options(schema: type, argv: Sequence[str], *, program: str) -> None:
    """Raise `UserError` for the first option that a class of settings has not."""
    known = [*option_names(schema), *EVERYWHERE]
    for word in argv:
        if word == "--":
            return
        name = word.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name not in known:
            near = closest(name, known)
            remedy = f"did you mean {near!r}?" if near else f"`python {program} --help` lists them"
            raise UserError(f"expected an option of `{program}`, found {word!r}; {remedy}")


def refuse_unknown_command(commands: Mapping[str, type], argv: Sequence[str], *, program: str) -> None:
    """Raise `UserError` unless the first word is a command."""
    known = ", ".join(commands)
    if not argv:
        raise UserError(f"expected a command after `{program}`, one of {known}; `python {program} --help` tells more")
    if argv[0] not in commands:
        near = closest(argv[0], commands)
        remedy = f"; did you mean {near!r}?" if near else ""
        raise UserError(f"expected a command of `{program}`, one of {known}, found {argv[0]!r}{remedy}")
