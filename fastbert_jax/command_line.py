"""The command line: words to settings, with the nearest name for an unknown one, and how a command ends."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import io
import operator
import os
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro
import yaml

from fastbert_jax import log
from fastbert_jax.cache import keep_compiled_programs
from fastbert_jax.config import QuietCommand, TrainConfig
from fastbert_jax.config_yaml import from_yaml
from fastbert_jax.errors import SCRIPTS, PreemptedError, UserError, closest, program_name
from fastbert_jax.version import VERSION

Settings = TypeVar("Settings")
Run = TypeVar("Run")
TYRO_STYLE = (tyro.conf.EnumChoicesFromValues, tyro.conf.FlagCreatePairsOff)
ALWAYS = ("--help", "--version", "--completion")
"""Options of every command."""
COMPLETION = {"bash": "", "zsh": "autoload -Uz compinit bashcompinit && compinit -u && bashcompinit\n"}
"""What a shell needs before tyro's completion script for bash."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments(QuietCommand, Generic[Run]):
    """Fine-tune a BERT, distil it into its lower exits, and measure what early exit brings.

    Each setting can be given in the YAML file or on the command line, which takes precedence:

        python train.py --config configs/demo.yaml --distil.epochs 3

    The same command again resumes the run, or measures it again when it is complete.
    """

    config: str = ""
    """YAML file of settings; those left out keep the defaults shown here."""
    print_config: bool = False
    """Print all settings as YAML and stop."""
    dry_run: bool = False
    """Print shapes, steps, parameters and FLOPs and stop."""
    verify: bool = False
    """Compare every value and file of the run with its checksum, as the `verify` command does, and stop."""
    json: bool = False
    """Print the last measurement as JSON (the content of comparison.json) instead of the table."""
    settings: Annotated[Run, tyro.conf.arg(name="")]


def chosen_recipe(argv: Sequence[str]) -> str:
    """The recipe that `--recipe` names, else the file of `--config`, else the default one.

    It decides which settings there are, so it is read before them; a file that cannot be read is reported with them.
    """
    chosen = TrainConfig.recipe
    for path in _values_of("--config", argv):
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            chosen = str(values.get("recipe", chosen)) if isinstance(values, dict) else chosen
    return [chosen, *_values_of("--recipe", argv)][-1]


def _values_of(option: str, argv: Sequence[str]) -> Iterator[str]:
    """What the words give an option, `--option value` or `--option=value`, each time it is there."""
    for at, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == option:
            yield value if equals else next(iter(argv[at + 1 :]), "")


def parse_train(argv: Sequence[str], settings: type) -> TrainArguments[Any]:
    """The command line of train.py: defaults, then the file of `--config`, then the other words.

    Args:
      settings: the class of the run's settings.

    Raises:
      UserError, SystemExit: as `read_over_file`.
    """
    return read_over_file(TrainArguments[settings], settings, argv, program=program_name("train"))  # type: ignore[valid-type]


def read_over_file(schema: Callable[..., Settings], run: type, argv: Sequence[str], *, program: str) -> Settings:
    """Settings of a class with the fields `config`, a YAML file, and `settings`, of class `run`, which the file holds.

    Raises:
      UserError: the file cannot be read, a value is out of its range, or an option is unknown.
      SystemExit: as `read_settings`.
    """
    default = schema(settings=run())
    for path in _values_of("--config", argv):
        default = schema(config=path, settings=from_yaml(run, path))
    return read_settings(schema, argv, program=program, default=default)


def read_settings(
    schema: Callable[..., Settings], argv: Sequence[str], *, program: str, default: Settings | None = None
) -> Settings:
    """Settings of one class from the words of a command line.

    Args:
      program: what the user types before the words.
      default: holds the values of the options that are left out; none: the class's own.

    Raises:
      UserError: an unknown option, with the nearest one, or a value out of its range.
      SystemExit: 0 after --help, --version and --completion, 2 after anything else that tyro cannot read.
    """
    _answer_at_once(schema, argv, program=program)
    _refuse_unknown_options(schema, argv, program=program)
    described = f"{_description(schema)}\n\n{_about(program)}"
    given: dict[str, Any] = {} if default is None else {"default": default}
    read = functools.partial(tyro.cli, schema, prog=program, description=described, config=TYRO_STYLE, **given)
    try:
        settings: Settings = read(args=list(argv))
    except UserError as error:
        raise UserError(_with_whole_name(str(error), list(option_names(schema)))) from None
    log.configure(quiet=getattr(settings, "quiet", False), json=getattr(settings, "json", False) in (True, "-"))
    return settings


def read_command(commands: Mapping[str, type], argv: Sequence[str], *, program: str, description: str) -> Any:
    """The settings of the command that the first word names.

    Raises:
      UserError, SystemExit: as `read_settings`; also an unknown command, with the nearest one.
    """
    described = (
        Annotated[kind, tyro.conf.subcommand(name, description=_description(kind))] for name, kind in commands.items()
    )
    schema: Any = functools.reduce(operator.or_, described)
    _answer_at_once(schema, argv, program=program)
    if argv[:1] in (["--help"], ["-h"]):
        description = f"{description}\n\n{_about(program)}"
        tyro.cli(schema, prog=program, description=description, args=["--help"], config=TYRO_STYLE)
    known = ", ".join(commands)
    if not argv:
        raise UserError(f"expected a command after `{program}`, one of {known}; `{program} --help` describes them")
    if argv[0] not in commands:
        raise UserError(
            f"expected a command of `{program}`, one of {known}, found {argv[0]!r}{_suggestion(argv[0], commands)}"
        )
    return read_settings(commands[argv[0]], argv[1:], program=f"{program} {argv[0]}")


def _description(schema: Any) -> str:
    """The docstring of a class of settings, with examples that begin as the user starts the scripts."""
    text = inspect.cleandoc((typing.get_origin(schema) or schema).__doc__ or "")
    for script in SCRIPTS:
        text = text.replace(f"python {script}.py", program_name(script))
    return text


def option_names(schema: Any, prefix: str = "--") -> Iterator[str]:
    """The options of a dataclass of settings as they are typed, those of the dataclasses in it included."""
    generic = typing.get_origin(schema) or schema
    given = dict(zip(getattr(generic, "__parameters__", ()), typing.get_args(schema), strict=False))
    hints = typing.get_type_hints(generic, include_extras=True)
    for field in dataclasses.fields(generic):
        hint = hints[field.name]
        kind, *extras = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
        kind = given.get(kind, kind)
        name = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(kind):
            is_flat = any(getattr(extra, "name", None) == "" for extra in extras)
            yield from option_names(kind, prefix if is_flat else f"{name}.")
        elif tyro.conf.Positional not in extras:
            yield name


def _refuse_unknown_options(schema: Any, argv: Sequence[str], *, program: str) -> None:
    known = [*option_names(schema), *ALWAYS]
    for word in argv:
        if word == "--":
            return
        name = word.partition("=")[0].replace("_", "-")
        if name.startswith("--") and not any(map(str.isspace, name)) and name not in known:
            remedy = _suggestion(name, known) or f"; `{program} --help` lists them"
            raise UserError(f"expected an option of `{program}`, found {word!r}{remedy}")


def _with_whole_name(message: str, known: Sequence[str]) -> str:
    """A message about an option, `--speeds: ...`, with the name that a command gives it, `--evaluate.speeds: ...`."""
    name = message.partition(":")[0]
    whole = [option for option in known if option.endswith(f".{name.removeprefix('--')}")]
    return message if name in known or len(whole) != 1 else whole[0] + message.removeprefix(name)


def _suggestion(name: str, known: Iterator[str] | Sequence[str] | Mapping[str, Any]) -> str:
    near = closest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def _about(program: str) -> str:
    """What each program can do beside its work, for its help."""
    words = f"`{program} --version` prints the version of fastbert_jax."
    if script := _console_script(program):
        words += f" Completion by the tab key, in bash or zsh: source <({script} --completion bash)"
    return words


def _answer_at_once(schema: Any, argv: Sequence[str], *, program: str) -> None:
    """Do what needs no settings, and end."""
    match list(argv):
        case ["--version", *_]:
            print(f"fastbert_jax {VERSION}")
            raise SystemExit(0)
        case ["--completion", *shells] if script := _console_script(program):
            print(completion_of(schema, (*shells, "")[0], program=script))
            raise SystemExit(0)


def _console_script(program: str) -> str | None:
    """The installed command that does what `program` does, if there is one."""
    return next((f"fastbert-{script}" for script in SCRIPTS if program == program_name(script)), None)


def completion_of(schema: Any, shell: str, *, program: str) -> str:
    """What a shell sources to complete the words after `program`; zsh takes bash's, by its own `bashcompinit`.

    Raises:
      UserError: no shell, or an unknown one.
    """
    if shell not in COMPLETION:
        suggestion = _suggestion(shell, COMPLETION)
        raise UserError(f"--completion: expected one of {', '.join(COMPLETION)}, found {shell!r}{suggestion}")
    with contextlib.redirect_stdout(io.StringIO()) as script, contextlib.suppress(SystemExit):
        tyro.cli(schema, prog=program, args=["--tyro-print-completion", "bash"], config=TYRO_STYLE)
    return COMPLETION[shell] + script.getvalue()


def end_with(main: Callable[[], None]) -> None:
    """Run a command's main function and end the process with its exit code.

    A user's mistake ends with its message and code 2, a run that was asked to stop and is saved with 42, Ctrl-C with
    130, and a closed standard output (`| head`) with 141, all without a traceback. Programs that jax compiles are kept
    for the next time.
    """
    keep_compiled_programs()
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except PreemptedError as error:
        print(error, file=sys.stderr)
        sys.exit(42)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        drop_standard_output()
        sys.exit(141)


def drop_standard_output() -> None:
    """Let what is still buffered for a closed standard output go nowhere, so that Python ends without an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
