"""Hooks of the site: the help of the commands in the pages, and a check that no page loads from another host.

A line `<!-- help: infer.py predict -->` becomes the output of `python infer.py predict --help`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

EXAMPLE = re.compile(r"^>>> .*\n(?:(?!\s*$).*\n?)*", re.MULTILINE)
HELP = re.compile(r"^<!-- help: (.+) -->$", re.MULTILINE)
COLUMNS = 80
ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\s(?:src|srcset)=["']?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?![^>]*rel=["']?canonical)[^>]*\shref=["']?(?:https?:)?//[^>]*>"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//[^;]*;|url\(["']?(?:https?:)?//[^)]*\)"""
)
"""What a browser loads from another host without a click."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers by the help of their commands."""
    return HELP.sub(lambda found: f"```text\n{help_of(found[1])}\n```", markdown)


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
