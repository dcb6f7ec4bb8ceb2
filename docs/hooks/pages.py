"""Hooks of the site: help and settings of the commands in the pages, and a check that no page loads from another host.

A line `<!-- help: infer.py predict -->` becomes the output of `python infer.py predict --help`, and a line
`<!-- settings: infer.py predict -->` tables of the same settings; for `train.py`, `train.py pkd` names a recipe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import inspect
import io
import os
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

EXAMPLE = re.compile(r"^>>> .*\n(?:(?!\s*$).*\n?)*", re.MULTILINE)
README = "<!-- readme -->"
"""Becomes the README up to its list of pages."""
HELP = re.compile(r"^<!-- help: (.+) -->$", re.MULTILINE)
SETTINGS = re.compile(r"^<!-- settings: (.+) -->$", re.MULTILINE)
COLUMNS = 80
ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\s(?:src|srcset)=["']?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?![^>]*rel=["']?canonical)[^>]*\shref=["']?(?:https?:)?//[^>]*>"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//[^;]*;|url\(["']?(?:https?:)?//[^)]*\)"""
)
"""What a browser loads from another host without a click."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers by the README, by the help of the commands, and by tables of their settings."""
    markdown = markdown.replace(README, readme())
    markdown = SETTINGS.sub(lambda found: settings_of(found[1]), markdown)
    return HELP.sub(lambda found: f"```text\n{help_of(found[1])}\n```", markdown)


def readme() -> str:
    """The README up to its list of pages, with links as a page of the site has them, and none to other files."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split("\n## Documentation\n")[0]
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!docs/|https?:)[^)]+\)", r"\1", text).replace("](docs/", "](")


def on_post_build(config: Any, **_: Any) -> None:
    """Refuse a site that loads something from another host."""
    from mkdocs.exceptions import PluginError

    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css"):
            for request in requests_of(path.read_text(encoding="utf-8")):
                raise PluginError(f"{path}: expected a page that loads nothing from another host, found {request}")


def requests_of(page: str) -> Iterator[str]:
    """What a page or a style sheet loads from another host."""
    return (found[0] for found in ELSEWHERE.finditer(page))


def fenced(docstring: str) -> str:
    """A docstring with its examples (`>>> ` to the next empty line) as code; Markdown reads them as quotations."""
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", f"{docstring}\n").rstrip()


def help_of(command: str) -> str:
    """The output of `python COMMAND --help`, `COMMAND` as in `infer.py predict` or `-m fastbert_jax.text.prepare`."""
    script, _, name = command.partition(" ")
    read = readers()[command if script == "-m" else script]
    words = [*name.split(), "--help"] if script != "-m" else ["--help"]
    plain = mock.patch.dict(os.environ, {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "TERM": "dumb"})
    with plain, contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        read(words)
    return "\n".join(line.rstrip() for line in shown.getvalue().strip().splitlines())


def settings_of(command: str) -> str:
    """The settings of a command as Markdown: a table of its own, then one for each section."""
    from fastbert_jax import recipes
    from fastbert_jax.commands import SETTINGS as COMMANDS

    script, _, name = command.partition(" ")
    kind = recipes.recipe_module(name or "fastbert").Settings if script == "train.py" else COMMANDS[name]
    return "\n\n".join(_tables(kind, ""))


def _tables(kind: type, prefix: str) -> Iterator[str]:
    from fastbert_jax.command_line import field_docs

    rows, sections = [], []
    types, words = typing.get_type_hints(kind), field_docs(kind)
    for field in dataclasses.fields(kind):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if dataclasses.is_dataclass(types[field.name]):
            sections.append((field.name, types[field.name]))
            continue
        option = f"`{prefix}{field.name}`".replace("_", "-")
        meaning = words.get(field.name, "").replace("|", "\\|")
        rows.append(f"| {option} | {_shown(default)} | {meaning}{_choices(types[field.name])} |")
    yield "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])
    for name, section in sections:
        yield f"**`{prefix}{name.replace('_', '-')}`**: {' '.join(inspect.cleandoc(section.__doc__ or '').split())}"
        yield from _tables(section, f"{prefix}{name}.")


def _shown(default: object) -> str:
    if default is dataclasses.MISSING:
        return "needed"
    values = default if isinstance(default, tuple) else (default,)
    words = (str(value.value) if isinstance(value, enum.Enum) else str(value) for value in values)
    return " ".join(f"`{word}`" for word in words if word) or "empty"


def _choices(kind: object) -> str:
    for one in (kind, *typing.get_args(kind)):
        if isinstance(one, type) and issubclass(one, enum.Enum):
            return f" One of {', '.join(f'`{choice.value}`' for choice in one)}."
    return ""


def readers() -> dict[str, Callable[[Sequence[str]], Any]]:
    """What reads the words after each command; none of it needs jax."""
    from fastbert_jax.command_line import read_command, read_settings
    from fastbert_jax.commands import DESCRIPTION, SETTINGS, train_arguments
    from fastbert_jax.config import ConvertConfig, PrepareConfig

    def module(schema: type, program: str) -> Callable[[Sequence[str]], Any]:
        return lambda words: read_settings(schema, words, program=f"python {program}")

    return {
        "train.py": train_arguments,
        "infer.py": lambda words: read_command(SETTINGS, words, program="python infer.py", description=DESCRIPTION),
        "-m fastbert_jax.text.prepare": module(PrepareConfig, "-m fastbert_jax.text.prepare"),
        "-m fastbert_jax.model.convert": module(ConvertConfig, "-m fastbert_jax.model.convert"),
    }
