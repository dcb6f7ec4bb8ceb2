"""The command line: words to settings, and how a command ends."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import operator
import os
import re
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from fastbert_jax import log, stopping
from fastbert_jax.atomic_files import user_path
from fastbert_jax.config import QuietCommand, TrainConfig, require_local
from fastbert_jax.config_yaml import check_values, from_yaml, read_yaml
from fastbert_jax.errors import SCRIPTS, LostProcessError, PreemptedError, UserError, program_name
from fastbert_jax.version import VERSION

Settings = TypeVar("Settings")
TYRO_STYLE = (tyro.conf.EnumChoicesFromValues, tyro.conf.FlagCreatePairsOff)
BASH_IN_ZSH = "autoload -Uz compinit bashcompinit && compinit -u && bashcompinit"
"""What zsh needs before tyro's completion script for bash."""
CACHE = "FASTBERT_JAX_CACHE"
"""The environment variable that names the cache."""
SHORTEST_COMPILE = 0.2
"""Seconds; a program that compiles faster is not kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments(QuietCommand):
    """Fine-tune a BERT, distil it into its lower exits, and measure what early exit brings.

    Example, with your own file; the columns are found by their names and contents:

        python train.py --run runs/mine --data.train mine.csv

    What matters most:

        --data.train FILE         labelled texts: .csv, .tsv, .jsonl or .parquet
        --data.test FILE          texts to measure the model on, else a part of train
        --data.text-column NAME   column of the texts, where it is not found
        --data.label-column NAME  column of the labels, where it is not found
        --model.pretrained NAME   the BERT to start from; the default knows English

    The same command again resumes the run, or measures it again when it is complete. Each setting can also be given in
    a YAML file, over which the command line takes precedence:

        python train.py --config configs/demo.yaml --distil.epochs 3
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
    settings: Annotated[TrainConfig, tyro.conf.arg(name="")]


def chosen_recipe(argv: Sequence[str]) -> str:
    """The recipe that `--recipe` names, else the file of `--config`, else the default one.

    It decides which settings there are, so it is read before them; a file that cannot be read is reported with them.
    """
    chosen = _value_of("--recipe", argv)
    if chosen is None and (path := _value_of("--config", argv)):
        with contextlib.suppress(UserError, AttributeError):
            chosen = read_yaml(path).get("recipe")
    return TrainConfig.recipe if chosen is None else str(chosen)


def _value_of(option: str, argv: Sequence[str]) -> str | None:
    """What the words give an option at last, as `--option value` or `--option=value`; None: it is not there."""
    found = None
    for at, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == option:
            found = value if equals else next(iter(argv[at + 1 :]), "")
    return found


def read_over_file(schema: Callable[..., Settings], run: type, argv: Sequence[str], *, program: str) -> Settings:
    """Settings of a class with the fields `config`, a YAML file, and `settings`, of class `run`, which the file holds.

    Raises:
      UserError: the file cannot be read, or a value is out of its range.
      SystemExit: as `read_settings`.
    """
    path = _value_of("--config", argv)
    require_local("config", path or "")
    describe_fields(run)
    default = schema(settings=run()) if path is None else schema(config=path, settings=from_yaml(run, path))
    return read_settings(schema, argv, program=program, default=default)


def read_settings(
    schema: Callable[..., Settings], argv: Sequence[str], *, program: str, default: Settings | None = None
) -> Settings:
    """Settings of one class from the words of a command line.

    Args:
      program: what the user types before the words.
      default: holds the values of the options that are left out; none: the class's own.

    Raises:
      UserError: a value out of its range.
      SystemExit: 0 after --help, --version and --completion, 2 after words that tyro cannot read, which it explains.
    """
    describe_fields(schema)
    settings: Settings = _read(schema, argv, program=program, description=_description(schema), default=default)
    return settings


def read_command(commands: Mapping[str, type], argv: Sequence[str], *, program: str, description: str) -> Any:
    """The settings of the command that the first word names.

    Raises:
      UserError, SystemExit: as `read_settings`.
    """
    if argv and argv[0] in commands:
        return read_settings(commands[argv[0]], argv[1:], program=f"{program} {argv[0]}")
    described = (
        Annotated[kind, tyro.conf.subcommand(name, description=_description(kind).partition("\n\n")[0])]
        for name, kind in commands.items()
    )
    return _read(functools.reduce(operator.or_, described), argv, program=program, description=description)


def _read(schema: Any, argv: Sequence[str], *, program: str, description: str, default: Any = None) -> Any:
    completed = {program_name(script): f"fastbert-{script}" for script in SCRIPTS}.get(program)
    description += f"\n\nThe version of fastbert_jax: {program} --version"
    if completed:
        description += f"\n\nCompletion by the tab key, in bash or zsh:\n    source <({completed} --completion bash)"
    description = _wrapped(description)
    match list(argv):
        case ["--version", *_]:
            print(f"fastbert_jax {VERSION}")
            raise SystemExit(0)
        case ["--completion", "bash" | "zsh" as shell] if completed:
            if shell == "zsh":
                print(BASH_IN_ZSH)
            program, argv = completed, ["--tyro-print-completion", "bash"]
    given = {} if default is None else {"default": default}
    settings = tyro.cli(schema, prog=program, description=description, args=list(argv), config=TYRO_STYLE, **given)
    check_values(settings)
    log.configure(quiet=getattr(settings, "quiet", False), json=getattr(settings, "json", False) in (True, "-"))
    return settings


def describe_fields(schema: Any) -> None:
    """Give tyro the text below each field of settings as one paragraph: by itself it keeps the line breaks."""
    docs = field_docs(schema)
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        if field.name in docs:
            field.metadata = types.MappingProxyType({"help": docs[field.name]})
        if dataclasses.is_dataclass(hints[field.name]):
            describe_fields(hints[field.name])


def field_docs(schema: type) -> dict[str, str]:
    """The text below each field of a class of settings, those that it inherits included, each as one paragraph."""
    return functools.reduce(operator.or_, map(_own_docs, reversed(schema.__mro__)))


@functools.cache
def _own_docs(schema: type) -> dict[str, str]:
    if not dataclasses.is_dataclass(schema):
        return {}
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(schema))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in itertools.pairwise(tree.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }


def _wrapped(text: str) -> str:
    """Text with its paragraphs wrapped to the terminal, and indented lines as they are, directly below a paragraph.

    The lines that follow a paragraph's first are indented too: tyro would join others again.
    """
    lines: list[str] = []
    for line in re.sub(r"\n\n(?= )", "\n", text).split("\n"):
        follows = bool(lines) and not any(not one or one[0].isspace() for one in (line, lines[-1]))
        lines[-1:] = [f"{lines[-1]} {line}"] if follows else [*lines[-1:], line]
    wrap = functools.partial(
        textwrap.fill,
        width=shutil.get_terminal_size().columns,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(line if line[:1].isspace() else wrap(line) for line in lines)


def _description(schema: Any) -> str:
    """The docstring of a class of settings, with examples that begin as the user starts the scripts."""
    text = inspect.cleandoc(schema.__doc__ or "")
    for script in SCRIPTS:
        text = text.replace(f"python {script}.py", program_name(script))
    return text


def end_with(main: Callable[[], None]) -> None:
    """Run a command's main function and end the process with its exit code.

    A user's mistake ends with its message and code 2, the loss of another process with 1, a run that SIGTERM stopped
    and that is saved with 42, Ctrl-C with 130, and a closed standard output (`| head`) with 141, all without a
    traceback. Programs that jax compiles are kept for the next time.
    """
    stopping.begin_command()
    try:
        keep_compiled_programs()
        main()
        stopping.look()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except LostProcessError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.stdout.flush()
        os._exit(1)  # to disconnect, jax would wait for the process that is lost
    except PreemptedError as error:
        print(error, file=sys.stderr)
        sys.exit(42)
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        drop_standard_output()
        sys.exit(141)
    finally:
        stopping.end_command()


def drop_standard_output() -> None:
    """Let what is still buffered for a closed standard output go nowhere, so that Python ends without an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def cache_directory() -> Path:
    """The directory of what can be made again, data sets from packages and compiled programs: `FASTBERT_JAX_CACHE`, or
    one in the user's home.

    Raises:
      UserError: there is no home, or the variable names no local path.
    """
    place = os.environ.get(CACHE) or "~/.cache/fastbert_jax"
    require_local(CACHE, place)
    return user_path(place)


def keep_compiled_programs() -> None:
    """Have jax, which must not be imported yet, keep its compiled programs for the next process.

    jax's own `JAX_COMPILATION_CACHE_DIR` wins. Nothing is kept where nothing can be written. Computers of different
    processors can share the directory: the keys of jax's cache hold the features of the processor.

    Raises:
      UserError: `FASTBERT_JAX_CACHE` names no local path.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        directory = cache_directory() / "compiled"
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    except UserError:  # no home, or what the user has set
        if os.environ.get(CACHE):
            raise
        return
    if os.access(directory, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(SHORTEST_COMPILE))
