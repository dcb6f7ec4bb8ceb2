"""From the words of a command line to settings, with the nearest name for a word that is not known."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from fastbert_jax import log
from fastbert_jax.command_line.completion import PRINT_COMPLETION, completion_script
from fastbert_jax.command_line.names import refuse_unknown_command, refuse_unknown_options
from fastbert_jax.version import VERSION

Settings = TypeVar("Settings")
TYRO_STYLE = (tyro.conf.EnumChoicesFromValues, tyro.conf.FlagCreatePairsOff)


def about(program: str) -> str:
    """What every script can do beside its work, for its help."""
    return (
        f"`python {program} --version` says which fastbert_jax this is. Completion by the tab key, in bash or zsh: "
        f"source <(python {program} {PRINT_COMPLETION} bash)"
    )


def read_settings(
    schema: type[Settings],
    argv: Sequence[str],
    *,
    program: str,
    default: Settings | None = None,
    description: str | None = None,
) -> Settings:
    """Settings of one class from the words of a command line.

    Args:
      program: what the words follow after `python`: `train.py`, or `-m` and a module.
      default: where settings come from that the words do not give; none: the class's own.

    Raises:
      UserError: an option that is not known, with the nearest one, or a value out of its range.
      SystemExit: 0 after --help, --version and --completion, 2 after anything else that tyro cannot read.
    """
    _answer_at_once(schema, argv, program=program)
    shown = f"python {program}" if program.startswith("-m ") else program
    read = functools.partial(tyro.cli, schema, prog=shown, description=description, config=TYRO_STYLE)
    if default is not None:
        read = functools.partial(read, default=default)
    settings = _read(read, argv, lambda: refuse_unknown_options(schema, argv, program=program))
    _speak_as(settings)
    return settings


def read_command(commands: Mapping[str, type], argv: Sequence[str], *, program: str, description: str) -> Any:
    """The settings of the command that the first word names.

    Raises:
      UserError, SystemExit: as `read_settings`; also a command that is not known, with the nearest one.
    """
    schema = functools.reduce(
        operator.or_, (Annotated[kind, tyro.conf.subcommand(name)] for name, kind in commands.items())
    )
    _answer_at_once(schema, argv, program=program)

    def refuse() -> None:
        refuse_unknown_command(commands, argv, program=program)
        refuse_unknown_options(commands[argv[0]], argv[1:], program=f"{program} {argv[0]}")

    described = f"{description}\n\n{about(program)}"
    read = functools.partial(tyro.cli, schema, prog=program, description=described, config=TYRO_STYLE)
    settings = _read(read, argv, refuse)
    _speak_as(settings)
    return settings


def _read(read: Any, argv: Sequence[str], refuse: Any) -> Any:
    """What tyro makes of the words; what it cannot read, `refuse` may explain better, else its own message is shown."""
    try:
        return read(args=list(argv), console_outputs=False)
    except SystemExit as end:
        if end.code:
            refuse()
    return read(args=list(argv))  # ends again, with its message or its help


def _answer_at_once(schema: Any, argv: Sequence[str], *, program: str) -> None:
    """Do what needs no settings, and end."""
    match list(argv):
        case ["--version", *_]:
            print(f"fastbert_jax {VERSION}")
            raise SystemExit(0)
        case [option, *shells] if option == PRINT_COMPLETION and program.endswith(".py"):
            print(completion_script(schema, shells, program=program, style=TYRO_STYLE))
            raise SystemExit(0)


def _speak_as(settings: Any) -> None:
    log.configure(
        quiet=getattr(settings, "quiet", False),
        json=getattr(settings, "json", False) in (True, "-"),
    )
